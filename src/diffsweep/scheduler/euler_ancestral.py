"""Euler's method to a lower level than the next one, and fresh noise up to it (k-diffusion's `sample_euler_ancestral`).

Between two levels, its step is DDIM's at eta 1: the variance of the fresh noise is the posterior's. The start and the
end are Euler's.
"""

from __future__ import annotations

from dataclasses import dataclass

from diffsweep.core.types import Level, Weights
from diffsweep.scheduler.ddim import Ddim
from diffsweep.scheduler.euler import Euler

POSTERIOR = Ddim(eta=1.0)


@dataclass(frozen=True)
class EulerAncestral(Euler):
    def weights(self, t: Level, s: Level, before: Level | None) -> Weights:
        return POSTERIOR.weights(t, s, before)
