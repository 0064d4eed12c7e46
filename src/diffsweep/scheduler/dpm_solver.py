"""DPM-Solver++(2M): second order in the clean estimate, one model call a step (Lu et al. 2022, algorithm 2).

With lambda = log(alpha / sigma), h the step in lambda and h_0 the step before it, the estimate is extrapolated by
half the ratio h / h_0. First order are the first step, the last, one after levels rise, and one from or after pure
noise, where lambda is infinite.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from diffsweep.core.types import Level, Weights
from diffsweep.scheduler.spacing import Spaced


def _lambda(level: Level) -> float:
    return -math.log(level.ratio)


@dataclass(frozen=True)
class DpmSolver(Spaced):
    def weights(self, t: Level, s: Level, before: Level | None) -> Weights:
        if s.is_end:
            return Weights(0.0, 1.0)
        kept = s.sigma / t.sigma
        target = s.alpha - t.alpha * kept  # alpha_s (1 - exp(-h))
        if before is None or not before.alpha:
            return Weights(kept, target)
        more = (_lambda(s) - _lambda(t)) / (2 * (_lambda(t) - _lambda(before)))
        return Weights(kept, target * (1 + more), -target * more)
