"""Inpainting by replacement: after every step, what is known is put back at the step's noise level.

blend=each_step is the writeup's (RePaint (8) without resampling), blend=change_map is differential diffusion's (see
`constraint.keep`). known=clean joins the known region without noise, as DeepFloyd IF's own inpainting does, also into
the start. jump and resamples are RePaint's (Lugmayr et al. 2022): every `jump` steps, noise carries the picture back up
by as many, until each stretch was sampled `resamples` times, so that the new region can fit itself to the known one.
All of them are approximations: replacement does not sample the true conditional distribution.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Self

from diffsweep.constraint.keep import keep
from diffsweep.core.problems import one_of, require, within
from diffsweep.core.types import Constraint, Level, Stage
from diffsweep.technique.job import Job, Plain
from diffsweep.technique.start import index_of, jumping

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Inpaint(Plain):
    """start: noise, or the noised input from `strength` on (the share of steps run; 1 is all of them). jump: steps from
    one return to the next; resamples: how often each stretch is sampled (1 never returns)."""

    uses: ClassVar[frozenset[str]] = frozenset({"prompt", "scheduler", "guidance", "input", "mask"})
    blend: str = "each_step"
    known: str = "renoised"
    start: str = "noise"
    strength: float = 1.0
    jump: int = 10
    resamples: int = 1

    def __post_init__(self) -> None:
        require(
            one_of("blend", self.blend, ("each_step", "change_map")),
            one_of("known", self.known, ("renoised", "clean")),
            one_of("start", self.start, ("noise", "input")),
            within("strength", self.strength, 0, 1),
            within("jump", self.jump, 1),
            within("resamples", self.resamples, 1, 1000),
            "strength below 1 needs start=input" if self.strength < 1 and self.start == "noise" else None,
        )

    def settled(self, levels: tuple[Level, ...], stage: Stage) -> Self:
        n = len(levels)
        start = index_of(self.strength, n, stage)
        returns = self.resamples > 1 and self.jump < n - start
        jump, resamples = (self.jump, self.resamples) if returns else (Inpaint.jump, 1)
        return replace(self, strength=round((n - start) / n, 6), jump=jump, resamples=resamples)

    def visited(self, levels: tuple[Level, ...], stage: Stage) -> tuple[Level, ...]:
        return jumping(levels[index_of(self.strength, len(levels), stage) :], self.jump, self.resamples)

    def begin(self, job: Job) -> Tensor:
        assert job.image is not None and job.mask is not None
        x = super().begin(job) if self.start == "noise" else job.noised(job.levels[0])
        return job.mask * x + (1 - job.mask) * job.image if self.known == "clean" else x

    def pinned(self, job: Job) -> Constraint:
        assert job.image is not None and job.mask is not None
        return keep(self.blend, job.image, job.mask, job.levels, job.streams, self.known == "renoised")
