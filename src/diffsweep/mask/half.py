"""One half of the picture: the half named is regenerated."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffsweep.core.problems import one_of
from diffsweep.mask.soft import Shape, grid


@dataclass(frozen=True)
class Half(Shape):
    half: str = "right"

    def problems(self) -> list[str | None]:
        return [one_of("half", self.half, ("left", "right", "top", "bottom"))]

    def shape(self, height: int, width: int) -> np.ndarray:
        y, x = grid(height, width)
        return {"left": x < 0.5, "right": x > 0.5, "top": y < 0.5, "bottom": y > 0.5}[self.half]
