"""Inpainting by replacement: after every step, what is known is put back at the step's noise level.

blend=each_step is the writeup's (RePaint (8) without resampling), blend=change_map is differential diffusion's (see
`constraint.keep`). known=clean joins the known region without noise, as DeepFloyd IF's own inpainting does, also into
the start. All of them are approximations: replacement does not sample the true conditional distribution.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

from diffsweep.constraint.keep import keep
from diffsweep.core.problems import one_of, require, within
from diffsweep.core.types import Constraint, Program
from diffsweep.technique.job import Job, Outcome, Plain
from diffsweep.technique.start import index_of


@dataclass(frozen=True)
class Inpaint(Plain):
    """start: noise, or the noised input from `strength` on (the share of steps run; 1 is all of them)."""

    uses: ClassVar[frozenset[str]] = frozenset({"prompt", "scheduler", "guidance", "input", "mask"})
    blend: str = "each_step"
    known: str = "renoised"
    start: str = "noise"
    strength: float = 1.0

    def __post_init__(self) -> None:
        require(
            one_of("blend", self.blend, ("each_step", "change_map")),
            one_of("known", self.known, ("renoised", "clean")),
            one_of("start", self.start, ("noise", "input")),
            within("strength", self.strength, 0, 1),
            "strength below 1 needs start=input" if self.strength < 1 and self.start == "noise" else None,
        )

    def settled(self, timesteps: tuple[int, ...]) -> Self:
        return replace(self, strength=round(len(self.visited(timesteps)) / len(timesteps), 6))

    def visited(self, timesteps: tuple[int, ...]) -> tuple[int, ...]:
        return timesteps[index_of(self.strength, len(timesteps)) :]

    def pinned(self, job: Job, timesteps: tuple[int, ...]) -> Constraint:
        assert job.image is not None and job.mask is not None
        renoise = self.known == "renoised"
        return keep(self.blend, job.image, job.mask, timesteps, job.stage, job.streams, renoise)

    def program(self, job: Job) -> Program[Outcome]:
        assert job.image is not None and job.mask is not None
        timesteps = self.visited(job.timesteps)
        x = job.noise() if self.start == "noise" else job.noised(timesteps[0])
        if self.known == "clean":
            x = job.mask * x + (1 - job.mask) * job.image
        return Outcome((yield from job.denoise(x, timesteps, constraint=self.pinned(job, timesteps))))
