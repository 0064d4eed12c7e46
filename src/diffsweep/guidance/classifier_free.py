"""Classifier-free guidance (Ho and Salimans 2022, (6), in Imagen's convention): eps = eps_u + w (eps_c - eps_u).

Any kind of output serves in place of eps: all are linear in it. w = 1 is unguided and asks one question only; w = 0 is
unconditional. The variance is the conditional branch's, as in DeepFloyd IF. (diffusers runs the conditional branch
alone for every w <= 1.) A network that takes a guidance scale itself (FLUX.1 dev) is told it in both branches; its w is
then diffusers' `true_cfg_scale`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from diffsweep.core.keys import AUTO, Auto
from diffsweep.core.problems import require, within
from diffsweep.core.types import AGAINST, CLASSIFIER_FREE, EMBEDDED, Estimate, Level, Stage
from diffsweep.guidance.rule import Rule

if TYPE_CHECKING:
    from torch import Tensor

TAKES_NONE = "this checkpoint's network takes no guidance scale"


@dataclass(frozen=True)
class ClassifierFree:
    """scale: w, at least 0; auto is what the checkpoint is made for, 1 where that is another guidance or none.
    negative_prompt: what the unconditional branch is asked about; None is what the checkpoint itself takes for no
    prompt. embedded: the scale that the network is told; None is the checkpoint's, if its network takes one. rescale:
    how much of the conditional branch's own standard deviation the result gets back, 0 to 1 (Lin et al. 2023, (15) and
    (16)). interval: the noise over signal, from and to (None: up to noise alone, which a flow begins at), within which
    there is guidance at all; None is everywhere (Kynkaanniemi et al. 2024). against: that negative prompts are encoded
    as such. keeps: as of `Stage`."""

    scale: Auto | float = AUTO
    negative_prompt: str | None = None
    embedded: float | None = field(default=None, metadata={"later": True})
    rescale: float = field(default=0.0, metadata={"later": True})
    interval: tuple[float | None, ...] | None = field(default=None, metadata={"later": True})
    against: bool = field(default=False, metadata={"bound": True})
    keeps: tuple[int, int, int] | None = field(default=None, metadata={"bound": True})

    def __post_init__(self) -> None:
        require(
            within("scale", self.scale, 0),
            within("embedded", self.embedded, 0),
            within("rescale", self.rescale, 0, 1),
            self._wrong_interval(),
        )

    def _wrong_interval(self) -> str | None:
        match self.interval:
            case None:
                return None
            case (float() | int() as low, high) if low >= 0 and (high is None or low <= high):
                return None
        needed = "two numbers are needed, the lower first, of noise over signal; null in the second's place is no bound"
        return f"interval={list(self.interval)}: {needed}"

    def on(self, stage: Stage) -> ClassifierFree:
        told, own = EMBEDDED in stage.steers, CLASSIFIER_FREE in stage.steers
        scale = (stage.scale if own and not told else 1.0) if self.scale == AUTO else self.scale
        asked = [f"scale={self.scale:g}"] if self.scale not in (AUTO, 1) else []
        asked += [f"negative_prompt={self.negative_prompt}"] if self.negative_prompt else []
        require(
            *(None if own else f"{key}: this checkpoint is made to run unguided: leave it out" for key in asked),
            None if told or self.embedded is None else f"embedded={self.embedded:g}: {TAKES_NONE}: leave it out",
        )
        negative = stage.unconditional if self.negative_prompt is None else self.negative_prompt
        embedded = stage.scale if told and self.embedded is None else self.embedded
        return replace(
            self, scale=scale, negative_prompt=negative, embedded=embedded, against=stage.against, keeps=stage.keeps
        )

    def at(self, level: Level) -> ClassifierFree:
        """The rule at a level: unguided outside of the interval."""
        low, high = self.interval or (None, None)
        if (low is None or low <= level.ratio) and (high is None or level.ratio <= high):
            return self
        return ClassifierFree(1.0, "", self.embedded)

    @property
    def told(self) -> Mapping[str, float]:
        return {} if self.embedded is None else {EMBEDDED: self.embedded}

    def branches(self, prompt: str) -> tuple[str | None, ...]:
        if self.scale == 1:
            return (prompt,)
        negative = AGAINST + (self.negative_prompt or "") if self.against else self.negative_prompt
        return (negative,) if self.scale == 0 else (negative, prompt)

    def combined(self, answers: Sequence[Estimate]) -> Estimate:
        if len(answers) == 1:
            return answers[0]
        assert self.scale != AUTO, "settled by `on`"
        unconditional, conditional = answers
        output = unconditional.output + self.scale * (conditional.output - unconditional.output)
        if self.keeps:
            output = output * (_lengths(conditional.output, self.keeps) / _lengths(output, self.keeps))
        if self.rescale:
            output = output * (1 + self.rescale * (conditional.output.std() / output.std() - 1))
        return Estimate(output, conditional.variance, conditional.kind, conditional.pulled)

    def settled(self, prompts: Sequence[str]) -> Rule:
        """Scale 1 where nothing is pushed apart: there, and where all prompts are the negative one, encoded alike."""
        if self.scale != 1 and (self.against or any(prompt != self.negative_prompt for prompt in prompts)):
            return self if self.scale or not self.rescale else replace(self, rescale=0.0)
        return ClassifierFree(1.0, "", self.embedded)


def _lengths(output: Tensor, sizes: tuple[int, int, int]) -> Tensor:
    """The length of the block that each value of an answer (C H W) lies in. sizes: of a block, as `Stage.keeps`."""
    channels, height, width = (own or whole for own, whole in zip(sizes, output.shape, strict=True))
    blocks = output.unflatten(2, (-1, width)).unflatten(1, (-1, height)).unflatten(0, (-1, channels))
    return blocks.square().sum((1, 3, 5), keepdim=True).sqrt().expand_as(blocks).reshape(output.shape)
