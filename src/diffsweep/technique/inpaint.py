"""Inpainting by replacement: after every step, what is known is put back at the step's noise level.

blend=each_step is the writeup's (RePaint (8) without resampling), blend=change_map is differential diffusion's (see
`constraint.keep`). known=clean joins the known region without noise, as DeepFloyd IF's own inpainting does, also into
the start; known=held noises it by the start's noise all along, as Stable Diffusion's pipelines in diffusers do. jump
and resamples are RePaint's (Lugmayr et al. 2022): every `jump` steps, noise carries the picture back up by as many,
until each stretch was sampled `resamples` times, so that the new region can fit itself to the known one.
All of them are approximations: replacement does not sample the true conditional distribution.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Self

from diffsweep.constraint.keep import keep
from diffsweep.core.problems import one_of, require, within
from diffsweep.core.types import Constraint, Level, Program, Stage
from diffsweep.technique.job import Job, Outcome, Plain
from diffsweep.technique.start import index_of, jumping

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Inpaint(Plain):
    """start: noise, or the noised input from `strength` on (the share of steps run; 1 is all of them). jump: steps from
    one return to the next; resamples: how often each stretch is sampled (1 never returns). Of models with
    latents (one in pixels holds the known pixels exactly, by the mask itself): paste: put the known pixels back after
    decoding; downsample: what a latent's mask is of its pixels': `nearest`, the first one's, as diffusers' pipelines
    take it, so that the mask lies up to a latent further right and down; `area`, their mean."""

    uses: ClassVar[frozenset[str]] = frozenset({"prompt", "scheduler", "guidance", "input", "mask"})
    blend: str = "each_step"
    known: str = "renoised"
    start: str = "noise"
    strength: float = 1.0
    jump: int = 10
    resamples: int = 1
    paste: bool = field(default=False, metadata={"later": True})
    downsample: str = field(default="nearest", metadata={"later": True})

    def __post_init__(self) -> None:
        require(
            one_of("blend", self.blend, ("each_step", "change_map")),
            one_of("known", self.known, ("renoised", "clean", "held")),
            one_of("start", self.start, ("noise", "input")),
            one_of("downsample", self.downsample, ("nearest", "area")),
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
        settled = replace(self, strength=round((n - start) / n, 6), jump=jump, resamples=resamples)
        return settled if stage.factor > 1 else replace(settled, paste=Inpaint.paste, downsample=Inpaint.downsample)

    def notes(self, stage: Stage) -> tuple[str, ...]:
        if stage.factor == 1 or self.paste:
            return ()
        return ("what is kept passes through the autoencoder, too; technique.paste=true keeps its own pixels",)

    def visited(self, levels: tuple[Level, ...], stage: Stage) -> tuple[Level, ...]:
        return jumping(levels[index_of(self.strength, len(levels), stage) :], self.jump, self.resamples)

    def begin(self, job: Job) -> Tensor:
        assert job.image is not None and job.mask is not None
        assert job.first is not None
        if self.start == "noise":
            x = job.scheduler.start(job.levels[0], job.stage) * job.first
        else:
            x = job.levels[0].noised(job.image, job.first)
        return job.mask * x + (1 - job.mask) * job.image if self.known == "clean" else x

    def pinned(self, job: Job) -> Constraint:
        assert job.image is not None and job.mask is not None
        held = job.first if self.known == "held" else None
        return keep(self.blend, job.image, job.mask, job.levels, job.streams, self.known != "clean", held)

    def shown(self, image: Tensor, job: Job) -> Outcome:
        if not self.paste or job.stage.factor == 1:
            return Outcome(image)
        assert job.picture is not None and job.region is not None
        return Outcome(job.region * image.clamp(-1, 1) + (1 - job.region) * job.picture)

    def program(self, job: Job) -> Program[Outcome]:
        return (yield from super().program(replace(job, first=job.noise(), mask=self._mask(job))))

    def _mask(self, job: Job) -> Tensor | None:
        """The stage's, 1 h w."""
        if self.downsample == "nearest" or job.region is None:
            return job.mask
        import torch

        return torch.nn.functional.avg_pool2d(job.region, job.stage.factor)
