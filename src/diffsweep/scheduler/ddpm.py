"""Ancestral sampling with DDPM's posterior (DDPM (6), (7)), over any falling levels.

In alpha and sigma (Kingma et al. 2021, appendix A): with sigma_ts^2 = sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2,

    x_s = (alpha_t / alpha_s) (sigma_s / sigma_t)^2 x_t + alpha_s (sigma_ts / sigma_t)^2 clean + noise.

The variance is iDDPM's interpolation between the posterior's and beta = sigma_ts^2 in the log domain (iDDPM (15))
where the model learns it, else the one that its checkpoint names (`fixed_small`: the posterior's; `fixed_large`: beta).
The last step adds no noise. (diffusers' DDPM adds noise in a last step that starts above timestep 0.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from diffsweep.core.types import Level, Weights
from diffsweep.scheduler.spacing import Spaced


def added(t: Level, s: Level) -> float:
    """The variance of q(x_t | x_s): beta."""
    return max(t.sigma**2 - (t.alpha / s.alpha) ** 2 * s.sigma**2, 0.0)


@dataclass(frozen=True)
class Ddpm(Spaced):
    def weights(self, t: Level, s: Level, before: Level | None) -> Weights:
        beta, share = added(t, s), (s.sigma / t.sigma) ** 2
        x, clean = t.alpha / s.alpha * share, s.alpha * beta / t.sigma**2
        if s.is_end:
            return Weights(x, clean)
        low = math.log(max(share * beta, 1e-20))
        return Weights(x, clean, noise=math.exp(low / 2), between=(low, math.log(max(beta, 1e-20))))
