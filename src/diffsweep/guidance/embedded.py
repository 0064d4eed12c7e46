"""Embedded guidance (Meng et al. 2023): the network has learned what guidance would do, and is told its scale.

FLUX.1 dev and its kin. One question a step; the same as classifier-free guidance at scale 1 with `embedded`.
"""

from __future__ import annotations

from dataclasses import dataclass

from diffsweep.core.keys import AUTO, Auto
from diffsweep.core.problems import require, within
from diffsweep.core.types import EMBEDDED, Stage
from diffsweep.guidance.classifier_free import TAKES_NONE, ClassifierFree
from diffsweep.guidance.none import Unguided
from diffsweep.guidance.rule import Rule


@dataclass(frozen=True)
class Embedded(Unguided):
    """scale: as the network is told it; auto is what the checkpoint is made for."""

    scale: Auto | float = AUTO

    def __post_init__(self) -> None:
        require(within("scale", self.scale, 0))

    def on(self, stage: Stage) -> Rule:
        require(None if EMBEDDED in stage.steers else f"guidance=embedded: {TAKES_NONE}: choose another guidance")
        return ClassifierFree(1.0, "", stage.scale if self.scale == AUTO else self.scale)
