"""One half of the picture: the half named is regenerated."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffsweep.core.problems import one_of
from diffsweep.mask.soft import Soft, grid


@dataclass(frozen=True)
class Half(Soft):
    half: str = "right"

    def problems(self) -> list[str | None]:
        return [one_of("half", self.half, ("left", "right", "top", "bottom"))]

    def region(self, size: int) -> np.ndarray:
        y, x = grid(size)
        return {"left": x < 0.5, "right": x > 0.5, "top": y < 0.5, "bottom": y > 0.5}[self.half]
