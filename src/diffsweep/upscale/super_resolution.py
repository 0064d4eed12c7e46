"""Super-resolution in pixels, DeepFloyd IF's stage II (Ho et al. 2021, cascaded diffusion).

The low-resolution picture is enlarged (bilinear, corners aligned), noised to `noise_level` of a schedule of its own,
and shown to the network beside x; the network gets the noise level as a class label. The trajectory starts
from noise, with the cell's seed, and draws in the order of diffusers' IFSuperResolutionPipeline.

What the technique does at the first stage holds here too: an anagram's views look at both pictures, a hybrid's bands
part the noise at the same spatial frequencies, and inpainting keeps what is known.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from diffsweep.core.problems import BadInput, one_of, require, within
from diffsweep.core.types import Program, Scheduler, Stage
from diffsweep.guidance.classifier_free import ClassifierFree
from diffsweep.guidance.rule import Rule
from diffsweep.model.deepfloyd import DeepFloyd
from diffsweep.model.t5 import T5
from diffsweep.scheduler.ddpm import Ddpm
from diffsweep.technique.job import Job, Outcome, Technique
from diffsweep.upscale import Enlargement, Upscale
from diffsweep.upscale.none import NoUpscale

if TYPE_CHECKING:
    from torch import Tensor

FIRST = "model"


@dataclass(frozen=True)
class SuperResolution:
    """path, variant, dtype, compile, text, safety_checker, watermark: as of the model; text.path may be `model`, for
    the first stage's text encoder. noise_level: the timestep to which the low-resolution picture is noised (0 least).
    guidance, scheduler: the stage's own. then: what enlarges this one's picture.
    """

    path: str = field(default="tiny_upscale", metadata={"decides": False})  # the weights' fingerprint does
    variant: str | None = field(default=None, metadata={"decides": False})
    dtype: str = "float32"
    compile: bool = False
    text: T5 = field(default_factory=T5)
    safety_checker: bool = False
    watermark: bool = False
    noise_level: int = 100
    guidance: Rule = field(default_factory=lambda: ClassifierFree(scale=1.0))
    scheduler: Scheduler = field(default_factory=lambda: Ddpm(steps=20))
    then: Upscale = field(default_factory=NoUpscale)

    def __post_init__(self) -> None:
        require(within("noise_level", self.noise_level, 0), one_of("dtype", self.dtype, ("float32", "bfloat16")))

    @property
    def model(self) -> DeepFloyd:
        own = ("path", "variant", "dtype", "compile", "text", "safety_checker", "watermark")
        return DeepFloyd(**{key: getattr(self, key) for key in own}, enlarges=True)

    @property
    def name(self) -> str:
        return repr(self.model)

    def on(self, model: Any, low: Stage) -> SuperResolution:
        if self.text.path != FIRST:
            return self
        if not isinstance(model, DeepFloyd):
            raise BadInput(f"text.path={FIRST}: the model has no T5; name a checkpoint that has")
        first = model.text_source
        return replace(self, text=replace(model.text, path=first.path, variant=first.variant))

    def larger(self, low: Stage) -> Stage:
        stage = self.model.stage()
        (height, width), (h, w) = stage.size, low.size
        require(
            within("noise_level", self.noise_level, 0, self.model.noising().T - 1),
            f"path={self.path}: gives {width} x {height}, and the picture has that size or more already"
            if height <= h and width <= w
            else f"path={self.path}: gives {width} x {height}, and the picture, {w} x {h}, has other proportions"
            if height * w != width * h
            else None,
        )
        reachable(self.scheduler, stage)
        return stage

    def prompts_for(self, prompts: tuple[str, ...]) -> tuple[str, ...]:
        return prompts

    def program(self, technique: Technique, job: Job) -> Program[Outcome]:
        from torch.nn.functional import interpolate

        assert job.low is not None
        x = job.noise()
        large = interpolate(job.low[None], job.stage.shape[-2:], mode="bilinear", align_corners=True)[0]
        job = shown_beside(replace(job, first=x), self, large, job.noise())
        return (yield from technique.denoised(x, job))


def reachable(scheduler: Any, stage: Stage) -> None:
    """BadInput where the scheduler's keys do not fit the stage."""
    try:
        scheduler.levels(stage)
    except BadInput as error:
        raise BadInput(f"scheduler.{message}" for message in error.messages) from None


def shown_beside(job: Job, upscale: Enlargement, low: Tensor, noise: Tensor) -> Job:
    """The job, whose stage sees the low-resolution picture beside x, noised to its `noise_level`."""
    level = upscale.model.noising().level(upscale.noise_level)
    beside = {"low": level.noised(low, noise), "noise_level": level.t}
    return replace(job, beside=beside)
