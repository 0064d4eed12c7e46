"""Ancestral sampling with DDPM's posterior (DDPM (6), (7)), over any falling timesteps.

The variance is iDDPM's interpolation between the posterior's and beta in the log domain (iDDPM (15)) where the model
learns it, else the posterior's. The last step, to CLEAN, adds no noise. (diffusers' DDPM adds noise in a last step
that starts above timestep 0.)
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
class Ddpm(Spaced):
    def draws(self, s: int) -> bool:
        return s != CLEAN

    def step(
        self, x: Tensor, estimate: Estimate, t: int, s: int, noise: Tensor | None, memory: object, stage: Stage
    ) -> tuple[Tensor, object]:
        a_t, a_s = stage.schedule.a(t), stage.schedule.a(s)
        beta = 1 - a_t / a_s
        clean = self.thresholded(stage.schedule.clean(x, estimate.noise, t), stage)
        x_next = (math.sqrt(a_s) * beta / (1 - a_t)) * clean + (math.sqrt(a_t / a_s) * (1 - a_s) / (1 - a_t)) * x
        if noise is None:
            return x_next, None
        low = math.log(max((1 - a_s) / (1 - a_t) * beta, 1e-20))
        if estimate.variance is None:
            return x_next + math.exp(low / 2) * noise, None
        share = (estimate.variance + 1) / 2
        return x_next + (0.5 * (share * math.log(beta) + (1 - share) * low)).exp() * noise, None
