"""A picture from noise and a prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from diffsweep.core.types import Program
from diffsweep.technique.job import Job, Outcome, Plain


@dataclass(frozen=True)
class TextToImage(Plain):
    uses: ClassVar[frozenset[str]] = frozenset({"prompt", "scheduler", "guidance"})

    def program(self, job: Job) -> Program[Outcome]:
        return Outcome((yield from job.denoise(job.noise(), job.timesteps)))
