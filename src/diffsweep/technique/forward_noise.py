"""The forward process: the input with the noise of timestep t, DDPM (4). The model is not asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from diffsweep.core.types import Program
from diffsweep.technique.job import Job, Outcome, Plain
from diffsweep.technique.start import check_t


@dataclass(frozen=True)
class ForwardNoise(Plain):
    """t: the noise level, a timestep of the model's training schedule."""

    uses: ClassVar[frozenset[str]] = frozenset({"input"})
    t: int = 500

    def __post_init__(self) -> None:
        check_t(self.t)

    def visited(self, timesteps: tuple[int, ...]) -> tuple[int, ...]:
        return ()

    def program(self, job: Job) -> Program[Outcome]:
        yield from ()
        return Outcome(job.noised(self.t))
