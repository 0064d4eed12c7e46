"""Structural similarity (Wang et al. 2004), whole or as the mean of its map over a region of the mask.

The map's window reaches 5 pixels around each pixel. Of a region only those pixels count whose window lies in it: else
the rim of what is known would also be judged by what was regenerated beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from diffsweep.metric.batch import HARD, REGIONS, Batch, Score, described, empty, in_calls, named, needs

if TYPE_CHECKING:
    from torch import Tensor

SIGMA, K1, K2 = 1.5, 0.01, 0.03
REACH = 5  # pixels on each side: int(3.5 sigma + 0.5)


@dataclass(frozen=True)
class Ssim:
    """region: None (the whole picture), or one of `REGIONS` or `HARD`."""

    direction: ClassVar[Literal["higher"]] = "higher"
    region: str | None = None

    @property
    def name(self) -> str:
        return named("ssim", self.region)

    @property
    def needs(self) -> frozenset[str]:
        return needs(self.region)

    def definition(self) -> dict[str, Any]:
        return {
            "metric": "SSIM against the clean input",
            "direction": self.direction,
            "bounds": [-1, 1],
            "data_range": 255,
            "pictures": "as stored: 8 bit, RGB",
            "region": described(self.region),
            "pooling": "each picture for itself: the map averaged over the channels and the pixels whose window lies "
            "in the region",
            "window": f"Gaussian, sigma {SIGMA}, {2 * REACH + 1} x {2 * REACH + 1} pixels, borders reflected",
            "k1": K1,
            "k2": K2,
            "package": f"torchmetrics {version('torchmetrics')}",
        }

    def __call__(self, batch: Batch) -> list[Score]:
        if min(batch.images.shape[1:3]) <= REACH:
            return [Score(None, reason=f"sides of more than {REACH} pixels are needed")] * len(batch.images)
        maps, regions = _maps(batch), batch.region(self.region)
        return [self._mean(similarity, region) for similarity, region in zip(maps, regions, strict=True)]

    def _mean(self, similarity: np.ndarray, region: np.ndarray) -> Score:
        """Over the pixels whose window lies in the region; at the picture's border it is reflected into the picture."""
        from scipy.ndimage import minimum_filter

        side = 2 * REACH + 1
        within = minimum_filter(region, side, mode="constant", cval=True)
        if within.any():
            return Score(round(float(similarity[within].mean()), 6))
        narrow = Score(None, reason=f"no window of {side} x {side} pixels lies {self.region} alone")
        return narrow if region.any() else empty(str(self.region))


def _maps(batch: Batch) -> np.ndarray:
    """The similarity at each pixel and channel, B H W 3; kept for the regions that ask next."""
    if "ssim" not in batch.kept:
        batch.kept["ssim"] = _computed(batch)
    return batch.kept["ssim"]


def _computed(batch: Batch) -> np.ndarray:
    import torch
    from torchmetrics.functional.image import structural_similarity_index_measure

    def call(*stacks: np.ndarray) -> Tensor:
        x, y = (torch.from_numpy(p).permute(0, 3, 1, 2).float() for p in stacks)  # in double, twenty times the time
        return structural_similarity_index_measure(
            x, y, sigma=SIGMA, data_range=255.0, k1=K1, k2=K2, reduction="none", return_full_image=True
        )[1]

    assert batch.references is not None
    return in_calls(call, batch.images, batch.references).permute(0, 2, 3, 1).double().numpy()


METRICS = (Ssim(), *(Ssim(region) for region in (*HARD, *REGIONS)))
