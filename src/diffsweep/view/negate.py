"""The photographic negative: light and dark change places. The output changes sign, its variance does not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from diffsweep.core.types import Estimate

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Negate:
    def apply(self, x: Tensor) -> Tensor:
        return -x

    def invert(self, estimate: Estimate) -> Estimate:
        return replace(estimate, output=-estimate.output)
