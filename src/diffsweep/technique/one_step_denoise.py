"""One question at t: the clean picture that the model estimates from the noised input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from diffsweep.core.types import Level, Program, Stage
from diffsweep.technique.job import FromInput, Job, Outcome
from diffsweep.technique.start import Noised


@dataclass(frozen=True)
class OneStepDenoise(Noised, FromInput):
    """From the level that `Noised` says."""

    uses: ClassVar[frozenset[str]] = frozenset({"prompt", "guidance", "input"})
    restores: ClassVar[bool] = True

    def visited(self, levels: tuple[Level, ...], stage: Stage) -> tuple[Level, ...]:
        return (self.level(stage),)

    def program(self, job: Job) -> Program[Outcome]:
        (level,) = job.levels
        noisy = self.begin(job)
        estimate = yield from self.guided(job).estimate(noisy, level)
        clean = yield from job.decoded(estimate.clean(noisy, level))
        return Outcome(clean, {"noisy": (yield from job.decoded(noisy))})
