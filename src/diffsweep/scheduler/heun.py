"""Heun's second-order sampler (Karras et al. 2022, algorithm 1), with churn.

A step of Euler's from t to s, a second question at s, and the step again along the mean of both slopes. In EDM's
variables y = x / alpha and r = sigma / alpha, the slope dy/dr is (y - clean) / r. Two questions a step; the last step,
and one from pure noise, where r is infinite, ask once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Self

from diffsweep.core.problems import require, within
from diffsweep.core.types import Level, Process, Stage, Weights
from diffsweep.scheduler.euler import Euler


@dataclass(frozen=True)
class Heun(Euler):
    """churn: how much noise is added and removed again over all steps (S_churn), where sigma / alpha lies from
    churn_min to churn_max (S_tmin, S_tmax; null for no bound)."""

    churn: float = 0.0
    churn_min: float = 0.0
    churn_max: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            within("churn", self.churn, 0),
            within("churn_min", self.churn_min, 0),
            within("churn_max", self.churn_max, self.churn_min),
        )

    def settled(self) -> Self:
        """Without churn, where it would lie says nothing."""
        return self if self.churn else replace(self, churn_min=Heun.churn_min, churn_max=Heun.churn_max)

    def start(self, level: Level, stage: Stage) -> float:
        return 1.0

    def raised(self, level: Level, steps: int, process: Process) -> Level:
        most = math.inf if self.churn_max is None else self.churn_max
        if not self.churn or math.isinf(level.ratio) or not self.churn_min <= level.ratio <= most:
            return level
        higher = process.nearest(level.ratio * (1 + min(self.churn / steps, math.sqrt(2) - 1)))
        return higher if higher.ratio > level.ratio else level

    def corrected(self, t: Level, s: Level) -> Weights | None:
        if s.is_end or not t.alpha or not s.sigma:
            return None
        half = (s.ratio - t.ratio) / 2  # of the step in r: y' = y + half (slope at t + slope at s)
        clean, again = half * (1 / s.ratio - 2 / t.ratio), -half / s.ratio
        return Weights(s.sigma / t.sigma, s.alpha * clean, s.alpha * again)
