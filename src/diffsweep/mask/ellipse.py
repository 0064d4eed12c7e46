"""An ellipse: centre and radii as shares of the picture's side."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffsweep.core.problems import within
from diffsweep.mask.soft import Soft, grid


@dataclass(frozen=True)
class Ellipse(Soft):
    x: float = 0.5
    y: float = 0.5
    rx: float = 0.3
    ry: float = 0.3

    def problems(self) -> list[str | None]:
        return [
            *(within(key, getattr(self, key), 0, 1) for key in ("x", "y")),
            *(within(key, getattr(self, key), 1e-3) for key in ("rx", "ry")),
        ]

    def region(self, size: int) -> np.ndarray:
        y, x = grid(size)
        return ((x - self.x) / self.rx) ** 2 + ((y - self.y) / self.ry) ** 2 <= 1
