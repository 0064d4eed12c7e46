"""The picture upside down (axis=vertical) or mirrored (axis=horizontal)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from diffsweep.core.problems import one_of, require
from diffsweep.core.types import Estimate
from diffsweep.view.spatial import both

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Flip:
    axis: str = "vertical"

    def __post_init__(self) -> None:
        require(one_of("axis", self.axis, ("vertical", "horizontal")))

    def apply(self, x: Tensor) -> Tensor:
        return x.flip(-2 if self.axis == "vertical" else -1)

    def invert(self, estimate: Estimate) -> Estimate:
        return both(self.apply, estimate)
