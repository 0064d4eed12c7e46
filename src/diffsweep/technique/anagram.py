"""Visual anagrams (Geng et al. 2024): one picture that shows another prompt in each view.

eps = mean over k of invert_k(cfg(apply_k(x), prompt_k))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from diffsweep.core.problems import require
from diffsweep.core.types import Program, View
from diffsweep.guidance.multiview import Multiview, mean
from diffsweep.technique.job import Job, Outcome, Plain
from diffsweep.technique.prompts import filled
from diffsweep.view.identity import Identity


@dataclass(frozen=True)
class Anagram(Plain):
    """prompts: one a view; open places are filled with the cell's prompt and shipped ones.

    views: two or more; None is the identity and the `view` group's. Built from names such as `flip`, or mappings
    such as `{name: rotate, angle: 90}`.
    """

    uses: ClassVar[frozenset[str]] = frozenset({"prompt", "scheduler", "guidance", "view"})
    prompts: tuple[str | None, ...] | None = None
    views: tuple[View, ...] | None = None

    def __post_init__(self) -> None:
        n = self.number
        require(
            f"views: {n} given, an anagram needs two or more" if n < 2 else None,
            f"prompts: {len(self.prompts)} given for {n} views" if self.prompts and len(self.prompts) > n else None,
        )

    @property
    def number(self) -> int:
        return 2 if self.views is None else len(self.views)

    def asked(self, prompt: str) -> tuple[str, ...]:
        return filled(self.prompts, prompt, self.number)

    def program(self, job: Job) -> Program[Outcome]:
        if self.views is None:
            assert job.view is not None
            views: tuple[View, ...] = (Identity(), job.view)
        else:
            views = self.views
        prompts = self.asked(job.prompt)
        guidance = Multiview(tuple((v, job.guidance.about(p)) for v, p in zip(views, prompts, strict=True)), mean)
        image = yield from job.denoise(job.noise(), job.timesteps, guidance)
        return Outcome(image, {f"view_{k}": v.apply(image) for k, v in enumerate(views)}, {"prompts": list(prompts)})
