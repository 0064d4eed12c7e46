"""The forward process: the input with the noise of timestep t, DDPM (4). The model is not asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from diffsweep.core.types import Level, Program, Stage
from diffsweep.technique.job import Job, Outcome, Plain
from diffsweep.technique.start import Noised


@dataclass(frozen=True)
class ForwardNoise(Noised, Plain):
    """At the level that `Noised` says."""

    uses: ClassVar[frozenset[str]] = frozenset({"input"})

    def visited(self, levels: tuple[Level, ...], stage: Stage) -> tuple[Level, ...]:
        self.level(stage)
        return ()

    def program(self, job: Job) -> Program[Outcome]:
        return Outcome((yield from job.decoded(job.noised(self.level(job.stage)))))
