"""Classifier-free guidance (Ho and Salimans 2022, (6), in Imagen's convention): eps = eps_u + w (eps_c - eps_u).

Any kind of output serves in place of eps: all are linear in it. w = 1 is unguided and asks one question only; w = 0 is
unconditional. The variance is the conditional branch's, as in DeepFloyd IF. (diffusers runs the conditional branch
alone for every w <= 1.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from diffsweep.core.keys import AUTO, Auto
from diffsweep.core.problems import BadInput, require, within
from diffsweep.core.types import AGAINST, Estimate, Stage
from diffsweep.guidance.rule import Rule


@dataclass(frozen=True)
class ClassifierFree:
    """scale: w, at least 0; auto is what the checkpoint is made for. negative_prompt: what the unconditional branch is
    asked about; None is what the checkpoint itself takes for no prompt. against: that is encoded as a negative one."""

    scale: Auto | float = AUTO
    negative_prompt: str | None = None
    against: bool = field(default=False, metadata={"bound": True})

    def __post_init__(self) -> None:
        require(within("scale", self.scale, 0))

    def on(self, stage: Stage) -> ClassifierFree:
        asked = [f"scale={self.scale}"] if self.scale not in (AUTO, 1) else []
        asked += [f"negative_prompt={self.negative_prompt}"] if self.negative_prompt else []
        if asked and stage.assumed == "":
            raise BadInput(f"{' '.join(asked)}: this checkpoint is told of no prompt, nothing guides it; leave it out")
        scale = stage.scale if self.scale == AUTO else self.scale
        negative = stage.unconditional if self.negative_prompt is None else self.negative_prompt
        return ClassifierFree(scale, negative, stage.against)

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
        return Estimate(output, conditional.variance, conditional.kind, conditional.pulled)

    def settled(self, prompts: Sequence[str]) -> Rule:
        """Scale 1 where nothing is pushed apart: there, and where all prompts are the negative one, encoded alike."""
        if self.scale != 1 and (self.against or any(prompt != self.negative_prompt for prompt in prompts)):
            return self
        return ClassifierFree(1.0, "")
