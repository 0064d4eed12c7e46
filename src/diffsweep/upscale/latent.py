"""Super-resolution in latents, the third stage of DeepFloyd IF: the Stable Diffusion x4 upscaler (Rombach et al. 2022).

The picture to enlarge is noised to `noise_level` and shown to the network, at its own size, beside latents of that
size, which the checkpoint's autoencoder decodes to a picture four times as large. Draws are in the order of diffusers'
StableDiffusionUpscalePipeline: first the picture's noise, then the latents.

A technique's first prompt guides it; views, bands and masks act on pixels and have done their work below.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from diffsweep.core.problems import one_of, require, within
from diffsweep.core.streams import MAIN
from diffsweep.core.types import Program, Scheduler, Stage
from diffsweep.guidance.classifier_free import ClassifierFree
from diffsweep.guidance.rule import Rule
from diffsweep.model.latent import ClipText, LatentUpscaler
from diffsweep.scheduler.ddim import Ddim
from diffsweep.technique.job import Job, Outcome, Technique
from diffsweep.upscale.none import NoUpscale
from diffsweep.upscale.super_resolution import reachable, shown_beside


@dataclass(frozen=True)
class Latent:
    """path: a folder, or a repository of the hub. variant: which of several weights. dtype: float32, or bfloat16 for
    the UNet alone. compile: by torch.compile. text: CLIP's encoder. noise_level: the timestep to which the picture is
    noised (0 least). guidance, scheduler: the stage's own.
    """

    path: str = field(default="stabilityai/stable-diffusion-x4-upscaler", metadata={"decides": False})
    variant: str | None = field(default=None, metadata={"decides": False})
    dtype: str = "float32"
    compile: bool = False
    text: ClipText = field(default_factory=ClipText)
    noise_level: int = 20
    guidance: Rule = field(default_factory=lambda: ClassifierFree(scale=9.0))
    scheduler: Scheduler = field(default_factory=lambda: Ddim(steps=75))
    low: tuple[int, int] = field(default=(0, 0), metadata={"bound": True})  # height and width of the picture to enlarge

    then = NoUpscale()

    def __post_init__(self) -> None:
        require(within("noise_level", self.noise_level, 0), one_of("dtype", self.dtype, ("float32", "bfloat16")))

    @property
    def model(self) -> LatentUpscaler:
        return LatentUpscaler(self.path, self.variant, self.dtype, self.compile, self.text, self.low)

    @property
    def name(self) -> str:
        return repr(self.model)

    def on(self, model: Any, low: Stage) -> Latent:
        return replace(self, low=low.size)

    def larger(self, low: Stage) -> Stage:
        stage = self.model.stage()
        require(within("noise_level", self.noise_level, 0, self.model.most_noise()))
        reachable(self.scheduler, stage)
        return stage

    def prompts_for(self, prompts: tuple[str, ...]) -> tuple[str, ...]:
        return prompts[:1]

    def program(self, technique: Technique, job: Job) -> Program[Outcome]:
        assert job.low is not None
        (prompt,) = self.prompts_for(technique.prompts_for(job.prompt))
        noise = job.streams.normal(MAIN, job.low.shape)
        job = shown_beside(job, self, job.low, noise)
        x = yield from job.denoise(job.noise(), job.about(prompt))
        return Outcome((yield from job.decoded(x)), facts={"prompts": [prompt]})
