"""A mask from a file of the picture's own size: white = regenerate, black = known, grey in between.

With softness 0 its grey values are the mask; with more, its bright half is the region whose edge is feathered.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffsweep.core.problems import BadInput
from diffsweep.input.picture import read
from diffsweep.mask.soft import Soft


@dataclass(frozen=True)
class File(Soft):
    path: str = ""

    def grey(self, size: int) -> np.ndarray:
        image = read("path", self.path).convert("L")
        if image.size != (size, size):
            w, h = image.size
            raise BadInput(f"path={self.path}: the mask is {w} x {h} pixels, the picture {size} x {size}")
        return np.asarray(image)

    def region(self, size: int) -> np.ndarray:
        return self.grey(size) >= 128

    def values(self, size: int) -> np.ndarray:
        return self.grey(size) if self.softness == 0 else super().values(size)
