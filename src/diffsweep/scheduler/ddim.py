"""DDIM (12), with eta: 0 is the deterministic rule, 1 has DDPM's posterior variance.

At eta 0 this is Euler's step of a flow: x_s = (sigma_s / sigma_t) x_t + (alpha_s - alpha_t sigma_s / sigma_t) clean.
After thresholding, the noise is computed anew from the clean estimate (diffusers' `use_clipped_model_output`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from diffsweep.core.problems import require, within
from diffsweep.core.types import Level, Weights
from diffsweep.scheduler.ddpm import added
from diffsweep.scheduler.spacing import Spaced


@dataclass(frozen=True)
class Ddim(Spaced):
    ends_with_noise: ClassVar[bool] = True
    eta: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(within("eta", self.eta, 0, 1))

    def weights(self, t: Level, s: Level, before: Level | None) -> Weights:
        drawn = self.eta * s.sigma / t.sigma * math.sqrt(added(t, s))  # DDIM (16)
        kept = math.sqrt(max(s.sigma**2 - drawn**2, 0.0)) / t.sigma
        return Weights(kept, s.alpha - t.alpha * kept, noise=drawn)
