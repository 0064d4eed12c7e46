"""The forward process: the input with the noise of timestep t, DDPM (4). The model is not asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from diffsweep.core.types import Level, Program, Stage
from diffsweep.technique.job import Job, Outcome, Plain


@dataclass(frozen=True)
class ForwardNoise(Plain):
    """t: the noise level, a timestep of the model's training."""

    uses: ClassVar[frozenset[str]] = frozenset({"input"})
    t: int = 500

    def visited(self, levels: tuple[Level, ...], stage: Stage) -> tuple[Level, ...]:
        stage.process.level(self.t)
        return ()

    def program(self, job: Job) -> Program[Outcome]:
        return Outcome((yield from job.decoded(job.noised(job.level(self.t)))))
