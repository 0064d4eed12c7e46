"""No guidance: the model is asked once, about the prompt. The same as classifier-free guidance at scale 1; a network
that takes a guidance scale itself is told the checkpoint's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from diffsweep.core.types import Estimate, Stage
from diffsweep.guidance.classifier_free import ClassifierFree
from diffsweep.guidance.rule import Rule


@dataclass(frozen=True)
class Unguided:
    def on(self, stage: Stage) -> Rule:
        return ClassifierFree(1.0, "").on(stage)

    @property
    def told(self) -> Mapping[str, float]:
        return {}

    def branches(self, prompt: str) -> tuple[str, ...]:
        return (prompt,)

    def combined(self, answers: Sequence[Estimate]) -> Estimate:
        (answer,) = answers
        return answer

    def settled(self, prompts: Sequence[str]) -> Rule:
        return ClassifierFree(1.0, "")
