"""Visual anagrams (Geng et al. 2024): one picture that shows another prompt in each view.

eps = mean over k of invert_k(cfg(apply_k(x), prompt_k))
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Self

from diffsweep.core.keys import AUTO, Auto, given
from diffsweep.core.loop import together
from diffsweep.core.problems import one_of, require
from diffsweep.core.streams import MAIN
from diffsweep.core.types import Level, Program, Stage, View
from diffsweep.guidance.multiview import Multiview, mean
from diffsweep.guidance.synchronised import Synchronised
from diffsweep.technique.job import Job, Outcome, Plain
from diffsweep.technique.prompts import filled
from diffsweep.view.identity import Identity

if TYPE_CHECKING:
    from torch import Tensor

MODEL, DECODED = "model", "decoded"


@dataclass(frozen=True)
class Anagram(Plain):
    """prompts: one a view; auto, of all or of one, is the cell's prompt for the first and shipped ones for the others.

    views: two or more; auto is the identity and the `view` group's. Built from names such as `flip`, or mappings
    such as `{name: rotate, angle: 90}`. space: `model`, where the views are of what the model samples; decoded, where
    it samples latents and the views are of their pictures (see `guidance.synchronised`): a decoder's call and two of an
    encoder's a view and step; auto, decoded for latents, model for pixels.
    """

    uses: ClassVar[frozenset[str]] = frozenset({"prompt", "scheduler", "guidance", "view"})
    stores: ClassVar[frozenset[str]] = frozenset({"views"})
    prompts: Auto | tuple[Auto | str, ...] = field(default=AUTO, metadata={"decides": False})  # `prompts_for` does
    views: Auto | tuple[View, ...] = AUTO
    space: Auto | str = field(default=AUTO, metadata={"later": MODEL})

    def __post_init__(self) -> None:
        n, prompts = self.number, given(self.prompts) or ()
        require(
            one_of("space", self.space, (AUTO, MODEL, DECODED)),
            f"views: {n} given, an anagram needs two or more" if n < 2 else None,
            f"prompts: {len(prompts)} given for {n} views" if len(prompts) > n else None,
        )

    @property
    def number(self) -> int:
        return 2 if self.views == AUTO else len(self.views)

    def prompts_for(self, prompt: str) -> tuple[str, ...]:
        return filled(self.prompts, prompt, self.number)

    def visited(self, levels: tuple[Level, ...], stage: Stage) -> tuple[Level, ...]:
        exact = self.space == DECODED and stage.factor == 1
        require("space=decoded: of models with latents; this one has pixels, which views are of" if exact else None)
        return levels

    def settled(self, levels: tuple[Level, ...], stage: Stage) -> Self:
        return replace(self, space=given(self.space) or (DECODED if stage.factor > 1 else MODEL))

    def looks(self, view: View) -> tuple[View, ...]:
        return (Identity(), view) if self.views == AUTO else self.views

    def seen(self, job: Job) -> tuple[View, ...]:
        if self.views != AUTO:
            return self.views
        assert job.view is not None
        return self.looks(job.view)

    def guided(self, job: Job) -> Multiview | Synchronised:
        seen = zip(self.seen(job), self.prompts_for(job.prompt), strict=True)
        if not self._synchronises(job):
            return Multiview(tuple((view, job.about(prompt, view.apply)) for view, prompt in seen), mean)
        return Synchronised(tuple((view, job.about(prompt)) for view, prompt in seen), job.decoded, job.encoded)

    def _synchronises(self, job: Job) -> bool:
        return self.space == DECODED and job.stage.factor > 1

    def begin(self, job: Job) -> Tensor:
        if not self._synchronises(job):
            return super().begin(job)
        noise = job.streams.normal(MAIN, (self.number, *job.stage.shape))
        return job.scheduler.start(job.levels[0], job.stage) * noise

    def denoised(self, x: Tensor, job: Job) -> Program[Outcome]:
        guidance = self.guided(job)
        if isinstance(guidance, Multiview):
            return (yield from super().denoised(x, job))
        x = yield from job.denoise(x, guidance)
        pictures = yield from together(*map(job.decoded, x))
        return self.shown(guidance.joined(pictures), job)

    def shown(self, image: Tensor, job: Job) -> Outcome:
        views = {f"view_{k}": view.apply(image) for k, view in enumerate(self.seen(job))}
        return Outcome(image, views, {"prompts": list(self.prompts_for(job.prompt))})
