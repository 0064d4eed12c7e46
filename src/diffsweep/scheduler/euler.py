"""Euler's method in the noise over signal (Karras et al. 2022, algorithm 2 without churn), one model call a step.

Where the noise over signal is r and y = x / alpha, the slope is (y - clean) / r. On a flow this is its own step. It is
DDIM's step at eta 0; the start and the end are k-diffusion's, as diffusers' EulerDiscreteScheduler has them.
"""

from __future__ import annotations

from dataclasses import dataclass

from diffsweep.core.types import Level, Stage, Weights
from diffsweep.scheduler.spacing import Spaced

WHOLE = ("linspace", "trailing")  # spacings that k-diffusion begins with noise of the level's own strength


@dataclass(frozen=True)
class Euler(Spaced):
    def start(self, level: Level, stage: Stage) -> float:
        return level.sigma if self.spaced_on(stage) in WHOLE else 1.0

    def weights(self, t: Level, s: Level, before: Level | None) -> Weights:
        kept = s.sigma / t.sigma
        return Weights(kept, s.alpha - t.alpha * kept)
