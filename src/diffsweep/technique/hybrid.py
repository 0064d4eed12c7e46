"""Hybrids (Geng et al. 2024, Factorized Diffusion): one prompt for the low frequencies, others for the higher ones.

eps = sum over k of band_k(cfg(x, prompt_k))
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar, Self

from diffsweep.core.keys import AUTO, Auto, given
from diffsweep.core.problems import require, within
from diffsweep.core.text import printed
from diffsweep.core.types import Level, Stage
from diffsweep.guidance.band import bands, blur
from diffsweep.guidance.multiview import Multiview, total
from diffsweep.technique.job import Job, Outcome, Plain
from diffsweep.technique.prompts import filled

if TYPE_CHECKING:
    from torch import Tensor

SIGMA, SIZE = 2.0, 33  # of the paper's blur, at 64 x 64 pixels
PART, REACH = 16, 8  # of a picture's side; in sigmas


@dataclass(frozen=True)
class Hybrid(Plain):
    """prompts: from low to high frequencies; auto, of all or of one, is the cell's prompt for the lowest and shipped
    ones for the others. sigma: the blur, in pixels, that parts them: one number for two bands, a falling list for more;
    auto, the paper's 2, of models with latents a sixteenth of the shorter side. kernel: the blur's odd width in pixels;
    auto, the paper's 33, of models with latents 8 sigma to each side.
    """

    uses: ClassVar[frozenset[str]] = frozenset({"prompt", "scheduler", "guidance"})
    stores: ClassVar[frozenset[str]] = frozenset({"low"})
    prompts: Auto | tuple[Auto | str, ...] = field(default=AUTO, metadata={"decides": False})  # `prompts_for` does
    sigma: Auto | float | tuple[float, ...] = AUTO
    kernel: Auto | int = AUTO

    def __post_init__(self) -> None:
        n, prompts = len(self.sigmas) + 1, given(self.prompts) or ()
        require(
            *(within("sigma", sigma, 0.01) for sigma in self.sigmas),
            "sigma: at least one is needed" if n < 2 else None,
            f"sigma={printed(self.sigmas)}: must fall, from the lowest band up"
            if any(a <= b for a, b in pairwise(self.sigmas))
            else None,
            within("kernel", self.kernel, 1),
            f"kernel={self.kernel}: must be odd" if (given(self.kernel) or SIZE) % 2 == 0 else None,
            f"prompts: {len(prompts)} given for {n} bands" if len(prompts) > n else None,
        )

    @property
    def sigmas(self) -> tuple[float, ...]:
        return self.sigma if isinstance(self.sigma, tuple) else (given(self.sigma) or SIGMA,)

    def settled(self, levels: tuple[Level, ...], stage: Stage) -> Self:
        latents = stage.factor > 1
        own = min(stage.size) / PART if latents else SIGMA
        sized = replace(self, sigma=own) if self.sigma == AUTO else self
        kernel = given(self.kernel) or (2 * round(REACH * max(sized.sigmas)) + 1 if latents else SIZE)
        return replace(sized, kernel=kernel)

    def prompts_for(self, prompt: str) -> tuple[str, ...]:
        return filled(self.prompts, prompt, len(self.sigmas) + 1)

    def scaled(self, scale: float) -> tuple[tuple[float, ...], int]:
        """sigmas and kernel in pixels, or latents, so many times as fine as the first stage's pixels."""
        kernel = given(self.kernel) or SIZE
        return tuple(sigma * scale for sigma in self.sigmas), 2 * round((kernel - 1) / 2 * scale) + 1

    def guided(self, job: Job) -> Multiview:
        parts = zip(bands(*self.scaled(job.scale / job.stage.factor)), self.prompts_for(job.prompt), strict=True)
        return Multiview(tuple((band, job.about(prompt)) for band, prompt in parts), total)

    def shown(self, image: Tensor, job: Job) -> Outcome:
        sigmas, kernel = self.scaled(job.scale)
        return Outcome(image, {"low": blur(image, sigmas[0], kernel)}, {"prompts": list(self.prompts_for(job.prompt))})
