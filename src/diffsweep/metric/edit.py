"""What an edit or an inpainting does to the known region, and to the line where it meets the new one.

drift, drift_unmasked   where m = 0; where the hard mask, before softening, is 0
seam, seam_masked       along the contour m = 1/2; along the hard mask's

The second of each keeps its place along softness. Numbers are levels of 255.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from diffsweep.metric.batch import Batch, Direction, Score, described, empty, named, needs


@dataclass(frozen=True)
class Drift:
    """How far the known region moved: the mean absolute difference."""

    direction: ClassVar[Direction] = "lower"
    region: Literal["outside", "unmasked"] = "outside"

    @property
    def name(self) -> str:
        return named("drift", None if self.region == "outside" else self.region)

    @property
    def needs(self) -> frozenset[str]:
        return needs(self.region)

    def definition(self) -> dict[str, Any]:
        return {
            "metric": "mean absolute difference from the clean input, in levels of 255",
            "direction": self.direction,
            "bounds": [0, 255],
            "pictures": "as stored: 8 bit, RGB",
            "region": described(self.region),
        }

    def __call__(self, batch: Batch) -> list[Score]:
        assert batch.references is not None
        differences = np.abs(batch.images.astype(np.int16) - batch.references)
        return [
            Score(round(float(difference[known].mean()), 6)) if known.any() else empty(self.region)
            for difference, known in zip(differences, batch.region(self.region), strict=True)
        ]


@dataclass(frozen=True)
class Seam:
    """How visible the line is: how far the step across it departs from the steps beside it, along the same row or
    column. A smooth ramp has none; what the clean input has there is what its own content makes."""

    direction: ClassVar[Direction] = "lower"
    region: Literal["masked"] | None = None

    @property
    def name(self) -> str:
        return named("seam", self.region)

    @property
    def needs(self) -> frozenset[str]:
        return needs(self.region or "inside") - {"reference"}

    def definition(self) -> dict[str, Any]:
        before = ", before softening: the same at every softness" if self.region else ""
        return {
            "metric": "gradient jump across the mask's contour, in levels of 255",
            "direction": self.direction,
            "bounds": [0, 510],
            "pictures": "as stored: 8 bit, RGB",
            "contour": f"between neighbours, one of m >= 1/2 and one below{before}",
            "jump": "|(b - a) - ((a - a') + (b' - b)) / 2| for a', a, b, b' in a row or column, the contour between a "
            "and b; averaged over contour and channels",
        }

    def __call__(self, batch: Batch) -> list[Score]:
        masks = batch.hard_masks if self.region else batch.masks
        assert masks is not None
        scores = []
        for image, mask in zip(batch.images.astype(float), masks >= 128, strict=True):
            jumps = _jumps(image, mask)
            none = Score(None, reason="the mask has no contour within the picture")
            scores.append(Score(round(float(jumps.mean()), 6)) if jumps.size else none)
        return scores


def _jumps(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The jump at each place where the mask changes along a row or a column: N 3."""
    found = []
    for x, m in ((image, mask), (image.swapaxes(0, 1), mask.T)):
        steps = np.diff(x, axis=1)
        jumps = np.abs(steps[:, 1:-1] - (steps[:, :-2] + steps[:, 2:]) / 2)
        found.append(jumps[m[:, 1:-2] != m[:, 2:-1]])
    return np.concatenate(found)


METRICS = (Drift(), Drift("unmasked"), Seam(), Seam("masked"))
