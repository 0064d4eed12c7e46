"""The classical baseline: the noised input, blurred. The model is not asked.

With `sigma=auto`, the sigma of least squared error against the clean input is searched, which no real restoration
could do: a bound on what blurring can reach. The record says which sigma it was.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Self

from diffsweep.core.keys import AUTO, Auto, given
from diffsweep.core.problems import require, within
from diffsweep.core.types import Level, Program, Stage
from diffsweep.guidance.band import blur
from diffsweep.technique.job import Job, Outcome, Plain
from diffsweep.technique.start import Noised

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class GaussianDenoise(Noised, Plain):
    """Of the level that `Noised` says. sigma: pixels; auto searches. kernel: odd width in pixels; auto is 4 sigma to
    each side. Where the model has latents, these are blurred, by as much as the pixels would be.

    rescale: undo the signal's attenuation alpha before blurring (the writeup blurs the noisy picture as it is).
    """

    uses: ClassVar[frozenset[str]] = frozenset({"input"})
    sigma: Auto | float = AUTO
    kernel: Auto | int = AUTO
    rescale: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            within("sigma", self.sigma, 0.01),
            within("kernel", self.kernel, 1),
            f"kernel={self.kernel}: must be odd" if self.kernel != AUTO and self.kernel % 2 == 0 else None,
        )

    def visited(self, levels: tuple[Level, ...], stage: Stage) -> tuple[Level, ...]:
        level = self.level(stage)
        lost = self.rescale and not level.alpha
        require(f"rescale=true: nothing of the input is left at t={level.t}" if lost else None)
        return ()

    def settled(self, levels: tuple[Level, ...], stage: Stage) -> Self:
        own = super().settled(levels, stage)
        return own if self.sigma == AUTO else replace(own, kernel=self._width(self.sigma))

    def _width(self, sigma: float) -> int:
        return given(self.kernel) or 2 * max(1, round(4 * sigma)) + 1

    def blurred(self, x: Tensor, sigma: float, factor: int) -> Tensor:
        """sigma: pixels, of which `factor` are one of x's."""
        return blur(x, sigma / factor, 2 * round((self._width(sigma) - 1) / 2 / factor) + 1)

    def best(self, x: Tensor, clean: Tensor, factor: int) -> float:
        """The sigma of least squared error: a geometric grid over 0.1 pixels to half the longer side, then a finer
        one."""

        def error(sigma: float) -> float:
            blurred = self.blurred(x, sigma, factor)
            return float(((blurred.clamp(-1, 1) if factor == 1 else blurred) - clean).square().mean())

        low, high = 0.1 * factor, max(x.shape[-2:]) * factor / 2
        for _ in range(2):
            ratio = (high / low) ** (1 / 24)
            sigma = min((low * ratio**i for i in range(25)), key=error)
            low, high = sigma / ratio, sigma * ratio
        return sigma

    def program(self, job: Job) -> Program[Outcome]:
        assert job.image is not None
        level = self.level(job.stage)
        noisy = job.noised(level)
        x = noisy / level.alpha if self.rescale else noisy
        sigma, chosen, factor = self.sigma, "given", job.stage.factor
        if sigma == AUTO:
            sigma, chosen = self.best(x, job.image, factor), "best against the reference"
        facts = {"sigma": round(sigma, 4), "sigma_chosen": chosen}
        restored = yield from job.decoded(self.blurred(x, sigma, factor))
        return Outcome(restored, {"noisy": (yield from job.decoded(noisy))}, facts)
