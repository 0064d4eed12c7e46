"""The picture turned counter-clockwise by a multiple of 90 degrees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from diffsweep.core.problems import require
from diffsweep.core.types import Estimate
from diffsweep.view.spatial import both

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Rotate:
    angle: int = 180

    def __post_init__(self) -> None:
        require(None if self.angle in (90, 180, 270) else f"angle={self.angle}: must be 90, 180 or 270")

    @property
    def square(self) -> bool:
        """Whether it shows squares alone."""
        return self.angle != 180

    def apply(self, x: Tensor) -> Tensor:
        return x.rot90(self.angle // 90, (-2, -1))

    def invert(self, estimate: Estimate) -> Estimate:
        return both(lambda x: x.rot90(-self.angle // 90, (-2, -1)), estimate)
