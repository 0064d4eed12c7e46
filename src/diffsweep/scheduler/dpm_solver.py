"""DPM-Solver++(2M): second order in the clean estimate, one model call a step (Lu et al. 2022, algorithm 2).

With lambda = log(alpha / sigma), h the step in lambda and h_0 the step before it, the estimate is extrapolated by
half the ratio h / h_0. The first step, the last (to CLEAN) and one after timesteps rise are first order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from diffsweep.core.types import CLEAN, Estimate, Stage
from diffsweep.scheduler.spacing import Spaced

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class DpmSolver(Spaced):
    def draws(self, s: int) -> bool:
        return False

    def step(
        self, x: Tensor, estimate: Estimate, t: int, s: int, noise: Tensor | None, memory: object, stage: Stage
    ) -> tuple[Tensor, object]:
        clean = self.thresholded(stage.schedule.clean(x, estimate.noise, t), stage)
        if s == CLEAN:
            return clean, None
        a_t, a_s = stage.schedule.a(t), stage.schedule.a(s)
        lambda_t, lambda_s = (0.5 * math.log(a / (1 - a)) for a in (a_t, a_s))
        h = lambda_s - lambda_t
        target = clean
        if isinstance(memory, tuple):
            before, h_0 = memory
            target = clean + (h / (2 * h_0)) * (clean - before)
        x_next = math.sqrt((1 - a_s) / (1 - a_t)) * x - math.sqrt(a_s) * math.expm1(-h) * target
        return x_next, (clean, h)
