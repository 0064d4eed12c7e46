"""A band of spatial frequencies, for hybrids (Factorized Diffusion, Geng et al. 2024): the output alone is filtered.

A band is the difference of two Gaussian blurs; no blur on the fine side keeps all detail, none on the coarse side
keeps everything down to the mean. The bands of a list of sigmas add up to the whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from diffsweep.core.types import Estimate

if TYPE_CHECKING:
    from torch import Tensor


def blur(x: Tensor, sigma: float, kernel: int) -> Tensor:
    """Gaussian blur (... H W), reflected at the border. sigma in pixels; kernel: odd width in pixels, cut to fit along
    each side."""
    from torchvision.transforms.functional import gaussian_blur

    height, width = x.shape[-2:]
    widths = [min(kernel, 2 * side - 1) for side in (width, height)]
    return gaussian_blur(x.reshape(-1, 1, height, width), widths, [sigma] * 2).reshape(x.shape)


@dataclass(frozen=True)
class Band:
    """What `fine` (a blur's sigma in pixels, None for no blur) keeps and `coarse` does not."""

    fine: float | None
    coarse: float | None
    kernel: int

    def apply(self, x: Tensor) -> Tensor:
        return x

    def filter(self, x: Tensor) -> Tensor:
        fine = x if self.fine is None else blur(x, self.fine, self.kernel)
        return fine if self.coarse is None else fine - blur(x, self.coarse, self.kernel)

    def invert(self, estimate: Estimate) -> Estimate:
        return replace(estimate, output=self.filter(estimate.output))


def bands(sigmas: Sequence[float], kernel: int) -> tuple[Band, ...]:
    """From low to high frequencies: one more band than sigmas, which fall."""
    edges = [None, *sigmas, None]
    return tuple(Band(fine, coarse, kernel) for coarse, fine in pairwise(edges))
