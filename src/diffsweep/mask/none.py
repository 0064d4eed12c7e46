"""No mask: nothing is known, everything is regenerated."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffsweep.mask.mask import Mask


@dataclass(frozen=True)
class NoMask(Mask):
    def values(self, size: int) -> np.ndarray:
        return np.full((size, size), 255, np.uint8)
