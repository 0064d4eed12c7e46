"""The picture as it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from diffsweep.core.types import Estimate

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Identity:
    def apply(self, x: Tensor) -> Tensor:
        return x

    def invert(self, estimate: Estimate) -> Estimate:
        return estimate
