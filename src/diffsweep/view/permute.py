"""The picture cut into patches x patches squares, shuffled by a seed of the view's own."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar

from diffsweep.core.problems import BadInput, require, within
from diffsweep.core.types import Estimate
from diffsweep.view.spatial import both, inverse, permuted

if TYPE_CHECKING:
    from torch import Tensor


@lru_cache
def shuffled(side: int, patches: int, seed: int) -> list[int]:
    """Source pixel of each pixel."""
    if side % patches:
        raise BadInput(f"patches={patches}: must divide the picture's side of {side} pixels")
    size = side // patches
    order = list(range(patches * patches))
    random.Random(seed).shuffle(order)
    source = []
    for y in range(side):
        for x in range(side):
            row, col = divmod(order[(y // size) * patches + x // size], patches)
            source.append((row * size + y % size) * side + col * size + x % size)
    return source


@dataclass(frozen=True)
class Permute:
    square: ClassVar[bool] = True
    patches: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        require(within("patches", self.patches, 1))

    def fits(self, side: int) -> None:
        shuffled(side, self.patches, self.seed)

    def apply(self, x: Tensor) -> Tensor:
        return permuted(x, shuffled(x.shape[-1], self.patches, self.seed))

    def invert(self, estimate: Estimate) -> Estimate:
        back = inverse(shuffled(estimate.output.shape[-1], self.patches, self.seed))
        return both(lambda x: permuted(x, back), estimate)
