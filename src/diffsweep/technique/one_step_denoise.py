"""One question at t: the noised input and its estimated noise imply a clean picture, DDPM (4) solved for x_0."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from diffsweep.core.types import Program
from diffsweep.technique.job import Job, Outcome, Plain
from diffsweep.technique.start import check_t


@dataclass(frozen=True)
class OneStepDenoise(Plain):
    """t: the noise level, a timestep of the model's training schedule."""

    uses: ClassVar[frozenset[str]] = frozenset({"prompt", "guidance", "input"})
    restores: ClassVar[bool] = True
    t: int = 500

    def __post_init__(self) -> None:
        check_t(self.t)

    def visited(self, timesteps: tuple[int, ...]) -> tuple[int, ...]:
        return (self.t,)

    def program(self, job: Job) -> Program[Outcome]:
        noisy = job.noised(self.t)
        guidance = self.guided(job)
        estimate = guidance.merge(noisy, self.t, (yield guidance.queries(noisy, self.t)))
        return Outcome(job.stage.schedule.clean(noisy, estimate.noise, self.t), {"noisy": noisy})
