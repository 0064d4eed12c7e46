"""An ellipse: centre and radii as shares of the picture's width and height."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffsweep.core.problems import within
from diffsweep.mask.soft import Shape, grid


@dataclass(frozen=True)
class Ellipse(Shape):
    x: float = 0.5
    y: float = 0.5
    rx: float = 0.3
    ry: float = 0.3

    def problems(self) -> list[str | None]:
        return [
            *(within(key, getattr(self, key), 0, 1) for key in ("x", "y")),
            *(within(key, getattr(self, key), 1e-3) for key in ("rx", "ry")),
        ]

    def shape(self, height: int, width: int) -> np.ndarray:
        y, x = grid(height, width)
        return ((x - self.x) / self.rx) ** 2 + ((y - self.y) / self.ry) ** 2 <= 1
