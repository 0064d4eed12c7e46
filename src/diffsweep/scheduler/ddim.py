"""DDIM (12), with eta: 0 is the deterministic rule, 1 has DDPM's posterior variance.

After thresholding, the noise is computed anew from the clean estimate (diffusers' `use_clipped_model_output`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from diffsweep.core.problems import require, within
from diffsweep.core.types import CLEAN, Estimate, Stage
from diffsweep.scheduler.spacing import Spaced

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Ddim(Spaced):
    eta: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(within("eta", self.eta, 0, 1))

    def draws(self, s: int) -> bool:
        return self.eta > 0 and s != CLEAN

    def step(
        self, x: Tensor, estimate: Estimate, t: int, s: int, noise: Tensor | None, memory: object, stage: Stage
    ) -> tuple[Tensor, object]:
        a_t, a_s = stage.schedule.a(t), stage.schedule.a(s)
        clean = self.thresholded(stage.schedule.clean(x, estimate.noise, t), stage)
        eps = (x - math.sqrt(a_t) * clean) / math.sqrt(1 - a_t)
        sigma = self.eta * math.sqrt((1 - a_s) / (1 - a_t) * (1 - a_t / a_s))  # DDIM (16)
        x_next = math.sqrt(a_s) * clean + math.sqrt(max(1 - a_s - sigma**2, 0.0)) * eps
        return (x_next if noise is None else x_next + sigma * noise), None
