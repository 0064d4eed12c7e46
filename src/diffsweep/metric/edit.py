"""What an edit or an inpainting does to the known region, and to the line where it meets the new one.

Regions are those of `batch.REGIONS`; numbers are levels of 255.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from diffsweep.metric.batch import Batch, Direction, Score, described, empty


@dataclass(frozen=True)
class Drift:
    """How far the known region moved: the mean absolute difference."""

    name: ClassVar[str] = "drift"
    direction: ClassVar[Direction] = "lower"
    needs: ClassVar[frozenset[str]] = frozenset({"reference", "mask"})

    def definition(self) -> dict[str, Any]:
        return {
            "metric": "mean absolute difference from the clean input, in levels of 255",
            "direction": self.direction,
            "pictures": "as stored: 8 bit, RGB",
            "region": described("outside"),
        }

    def __call__(self, batch: Batch) -> list[Score]:
        assert batch.references is not None
        differences = np.abs(batch.images.astype(np.int16) - batch.references)
        return [
            Score(round(float(difference[known].mean()), 6)) if known.any() else empty("outside")
            for difference, known in zip(differences, batch.region("outside"), strict=True)
        ]


@dataclass(frozen=True)
class Seam:
    """How visible the line is: how far the step across it departs from the steps beside it, along the same row or
    column. A smooth ramp has none; what the clean input has there is what its own content makes."""

    name: ClassVar[str] = "seam"
    direction: ClassVar[Direction] = "lower"
    needs: ClassVar[frozenset[str]] = frozenset({"mask"})

    def definition(self) -> dict[str, Any]:
        return {
            "metric": "gradient jump across the mask's contour, in levels of 255",
            "direction": self.direction,
            "pictures": "as stored: 8 bit, RGB",
            "contour": "between neighbours, one of m >= 1/2 and one below",
            "jump": "|(b - a) - ((a - a') + (b' - b)) / 2| for a', a, b, b' in a row or column, the contour between a "
            "and b; averaged over contour and channels",
        }

    def __call__(self, batch: Batch) -> list[Score]:
        assert batch.masks is not None
        scores = []
        for image, mask in zip(batch.images.astype(float), batch.masks >= 128, strict=True):
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


METRICS = (Drift(), Seam())
