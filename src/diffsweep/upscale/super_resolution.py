"""Super-resolution in pixels, DeepFloyd IF's stage II (Ho et al. 2021, cascaded diffusion).

The low-resolution picture is enlarged (bilinear, corners aligned), noised to `noise_level` of a schedule of its own,
and shown to the network beside the picture in the making; the level is told as a class label. The trajectory starts
from noise, with the cell's seed, and draws in the order of diffusers' IFSuperResolutionPipeline.

What the technique does at the first stage holds here too: an anagram's views look at both pictures, a hybrid's bands
part the noise at the same spatial frequencies, and inpainting keeps what is known.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from diffsweep.core.problems import BadInput, require, within
from diffsweep.core.types import Estimate, Given, Guidance, Program, Query, Scheduler, Stage
from diffsweep.guidance.classifier_free import ClassifierFree
from diffsweep.model.deepfloyd import DeepFloyd
from diffsweep.scheduler.ddpm import Ddpm
from diffsweep.technique.job import Job, Outcome, Technique

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class SuperResolution:
    """path: the checkpoint's folder; dtype: float32, or bfloat16 for the UNet alone. noise_level: the timestep to which
    the low-resolution picture is noised (0 least). guidance, scheduler: the stage's own."""

    path: str = "tiny_upscale"
    dtype: str = "float32"
    noise_level: int = 100
    guidance: Guidance = field(default_factory=lambda: ClassifierFree(scale=1.0))
    scheduler: Scheduler = field(default_factory=lambda: Ddpm(steps=20))

    def __post_init__(self) -> None:
        require(within("noise_level", self.noise_level, 0))

    @property
    def model(self) -> DeepFloyd:
        return DeepFloyd(self.path, self.dtype, enlarges=True)

    @property
    def name(self) -> str:
        """What the engine calls the stage."""
        return f"{self.path} in {self.dtype}"

    def larger(self, low: Stage) -> Stage:
        """The stage that enlarges pictures of `low`; BadInput where it does not."""
        stage = self.model.stage()
        side, last = stage.shape[-1], len(self.model.noising()) - 1
        require(
            within("noise_level", self.noise_level, 0, last),
            f"path={self.path}: gives {side} x {side}, and the model's pictures have that size or more already"
            if side <= low.shape[-1]
            else None,
        )
        try:
            self.scheduler.timesteps(stage)
        except BadInput as error:
            raise BadInput(f"scheduler.{message}" for message in error.messages) from None
        return stage

    def program(self, technique: Technique, job: Job) -> Program[Outcome]:
        from torch.nn.functional import interpolate

        assert job.low is not None
        x = job.noise()
        large = interpolate(job.low[None], job.stage.shape[-2:], mode="bilinear", align_corners=True)[0]
        given = self.model.noising().noised(large, job.noise(), self.noise_level)
        guidance = Conditioned(technique.guided(job), given, self.noise_level, self.name)
        image = yield from job.denoise(x, job.timesteps, guidance, technique.pinned(job, job.timesteps))
        return technique.shown(image, job)


@dataclass(frozen=True, eq=False)
class Conditioned:
    """A guidance whose questions also show the noised low-resolution picture; views look at both alike."""

    guidance: Guidance
    given: Tensor
    noise_level: int
    stage: str

    @property
    def prompts(self) -> tuple[str, ...]:
        return self.guidance.prompts

    def both(self, x: Tensor) -> Tensor:
        import torch

        return torch.cat([x, self.given])

    def queries(self, x: Tensor, t: int) -> list[Query]:
        return [self._conditioned(query) for query in self.guidance.queries(self.both(x), t)]

    def _conditioned(self, query: Query) -> Query:
        image, given = query.image.chunk(2)
        return replace(query, image=image, stage=self.stage, given=Given(given, self.noise_level))

    def merge(self, x: Tensor, t: int, answers: list[Estimate]) -> Estimate:
        return self.guidance.merge(self.both(x), t, answers)
