"""The noised input, denoised step by step: from t itself, then the visited timesteps below it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from diffsweep.core.types import Program
from diffsweep.technique.job import Job, Outcome, Plain
from diffsweep.technique.start import below, check_t


@dataclass(frozen=True)
class IterativeDenoise(Plain):
    """t: the noise level, any timestep of the model's training schedule."""

    uses: ClassVar[frozenset[str]] = frozenset({"prompt", "scheduler", "guidance", "input"})
    restores: ClassVar[bool] = True
    t: int = 500

    def __post_init__(self) -> None:
        check_t(self.t)

    def visited(self, timesteps: tuple[int, ...]) -> tuple[int, ...]:
        return below(self.t, timesteps)

    def program(self, job: Job) -> Program[Outcome]:
        noisy = job.noised(self.t)
        return Outcome((yield from job.denoise(noisy, self.visited(job.timesteps))), {"noisy": noisy})
