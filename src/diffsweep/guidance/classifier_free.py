"""Classifier-free guidance (Ho and Salimans 2022, (6), in Imagen's convention): eps = eps_u + w (eps_c - eps_u).

w = 1 is unguided and asks one question only; w = 0 is unconditional. The variance is the conditional branch's, as in
DeepFloyd IF. (diffusers runs the conditional branch alone for every w <= 1.)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self

from diffsweep.core.problems import require, within
from diffsweep.core.types import Estimate, Query

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ClassifierFree:
    """scale: w, at least 0. negative_prompt: what the unconditional branch is told."""

    scale: float = 4.0
    negative_prompt: str = ""
    prompt: str = field(default="", metadata={"bound": True})

    def __post_init__(self) -> None:
        require(within("scale", self.scale, 0))

    def about(self, prompt: str) -> Self:
        return replace(self, prompt=prompt)

    def settled(self, prompts: Iterable[str]) -> Self:
        """Unguided where nothing is pushed apart: at scale 1, and where all prompts are the negative one."""
        if self.scale != 1 and any(prompt != self.negative_prompt for prompt in prompts):
            return self
        return replace(self, scale=1.0, negative_prompt="")

    @property
    def prompts(self) -> tuple[str, ...]:
        """The prompts asked about, one row each."""
        if self.scale == 1:
            return (self.prompt,)
        return (self.negative_prompt,) if self.scale == 0 else (self.negative_prompt, self.prompt)

    def queries(self, x: Tensor, t: int) -> list[Query]:
        return [Query(x, t, prompt) for prompt in self.prompts]

    def merge(self, x: Tensor, t: int, answers: list[Estimate]) -> Estimate:
        if len(answers) == 1:
            return answers[0]
        unconditional, conditional = answers
        noise = unconditional.noise + self.scale * (conditional.noise - unconditional.noise)
        return Estimate(noise, conditional.variance)
