"""No guidance: the model is asked once, about the prompt."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self

from diffsweep.core.types import Estimate, Query

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Unguided:
    prompt: str = field(default="", metadata={"bound": True})

    def about(self, prompt: str) -> Self:
        return replace(self, prompt=prompt)

    @property
    def prompts(self) -> tuple[str, ...]:
        return (self.prompt,)

    def queries(self, x: Tensor, t: int) -> list[Query]:
        return [Query(x, t, self.prompt)]

    def merge(self, x: Tensor, t: int, answers: list[Estimate]) -> Estimate:
        (answer,) = answers
        return answer
