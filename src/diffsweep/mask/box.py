"""A rectangle, its edges as shares of the picture's width and height."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffsweep.core.problems import within
from diffsweep.core.text import printed
from diffsweep.mask.soft import Shape, grid


@dataclass(frozen=True)
class Box(Shape):
    x0: float = 0.25
    y0: float = 0.25
    x1: float = 0.75
    y1: float = 0.75

    def problems(self) -> list[str | None]:
        return [
            *(within(key, getattr(self, key), 0, 1) for key in ("x0", "y0", "x1", "y1")),
            f"x0={printed(self.x0)}, x1={printed(self.x1)}: x0 must not exceed x1" if self.x0 > self.x1 else None,
            f"y0={printed(self.y0)}, y1={printed(self.y1)}: y0 must not exceed y1" if self.y0 > self.y1 else None,
        ]

    def shape(self, height: int, width: int) -> np.ndarray:
        y, x = grid(height, width)
        return (self.x0 <= x) & (x <= self.x1) & (self.y0 <= y) & (y <= self.y1)
