"""Hybrids (Geng et al. 2024, Factorized Diffusion): one prompt for the low frequencies, others for the higher ones.

eps = sum over k of band_k(cfg(x, prompt_k))
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

from diffsweep.core.keys import AUTO, Auto, given
from diffsweep.core.problems import require, within
from diffsweep.guidance.band import bands, blur
from diffsweep.guidance.multiview import Multiview, total
from diffsweep.technique.job import Job, Outcome, Plain
from diffsweep.technique.prompts import filled

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Hybrid(Plain):
    """prompts: from low to high frequencies; auto, of all or of one, is the cell's prompt for the lowest and shipped
    ones for the others. sigma: the blur, in pixels, that parts them: one number for two bands, a falling list for more.
    kernel: the blur's odd width in pixels.
    """

    uses: ClassVar[frozenset[str]] = frozenset({"prompt", "scheduler", "guidance"})
    stores: ClassVar[frozenset[str]] = frozenset({"low"})
    prompts: Auto | tuple[Auto | str, ...] = field(default=AUTO, metadata={"decides": False})  # `prompts_for` does
    sigma: float | tuple[float, ...] = 2.0
    kernel: int = 33

    def __post_init__(self) -> None:
        n, prompts = len(self.sigmas) + 1, given(self.prompts) or ()
        require(
            *(within("sigma", sigma, 0.01) for sigma in self.sigmas),
            "sigma: at least one is needed" if n < 2 else None,
            f"sigma={list(self.sigmas)}: must fall, from the lowest band up"
            if any(a <= b for a, b in pairwise(self.sigmas))
            else None,
            within("kernel", self.kernel, 1),
            f"kernel={self.kernel}: must be odd" if self.kernel % 2 == 0 else None,
            f"prompts: {len(prompts)} given for {n} bands" if len(prompts) > n else None,
        )

    @property
    def sigmas(self) -> tuple[float, ...]:
        return self.sigma if isinstance(self.sigma, tuple) else (self.sigma,)

    def prompts_for(self, prompt: str) -> tuple[str, ...]:
        return filled(self.prompts, prompt, len(self.sigmas) + 1)

    def scaled(self, scale: float) -> tuple[tuple[float, ...], int]:
        """sigmas and kernel in pixels, or latents, so many times as fine as the first stage's pixels."""
        return tuple(sigma * scale for sigma in self.sigmas), 2 * round((self.kernel - 1) / 2 * scale) + 1

    def guided(self, job: Job) -> Multiview:
        parts = zip(bands(*self.scaled(job.scale / job.stage.factor)), self.prompts_for(job.prompt), strict=True)
        return Multiview(tuple((band, job.about(prompt)) for band, prompt in parts), total)

    def shown(self, image: Tensor, job: Job) -> Outcome:
        sigmas, kernel = self.scaled(job.scale)
        return Outcome(image, {"low": blur(image, sigmas[0], kernel)}, {"prompts": list(self.prompts_for(job.prompt))})
