"""A jigsaw puzzle of 4 x 4 interlocking pieces, put together another way (Geng et al. 2024, section 4.3).

The cut looks the same after a quarter turn, so the four pieces of an orbit (corners, left edges, right edges, inner
pieces) have one shape: any of them fits the others' places when it is turned along. The seed chooses which way the
knobs point and where each piece goes.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar

from diffsweep.core.problems import BadInput
from diffsweep.core.types import Estimate
from diffsweep.view.spatial import both, inverse, permuted

if TYPE_CHECKING:
    from torch import Tensor

Point = tuple[float, float]
KNOB = 0.22  # radius, in piece widths


def turn(point: Point, quarters: int) -> Point:
    """A point (y, x), measured from the picture's centre, after quarter turns."""
    for _ in range(quarters % 4):
        point = (point[1], -point[0])
    return point


def corner_of(point: Point) -> tuple[int, Point]:
    """How often the point was turned out of the top left quarter, and where it came from there."""
    for quarters in range(4):
        home = turn(point, -quarters)
        if home[0] < 0 and home[1] <= 0:
            return quarters, home
    return 0, point


@lru_cache
def assembled(side: int, seed: int) -> list[int]:
    """Source pixel of each pixel in the puzzle put together anew."""
    if side % 4:
        raise BadInput(f"view=jigsaw: needs a side divisible by 4, the picture has {side} pixels")
    rng = random.Random(seed)
    # one border of each orbit, between the centres of two pieces, in piece widths from the middle
    borders = [
        ((-1.5, -1.5), (-1.5, -0.5)),
        ((-1.5, -1.5), (-0.5, -1.5)),
        ((-1.5, -0.5), (-0.5, -0.5)),
        ((-0.5, -1.5), (-0.5, -0.5)),
        ((-1.5, -0.5), (-1.5, 0.5)),
        ((-0.5, -0.5), (-0.5, 0.5)),
    ]
    knobs: list[tuple[Point, Point]] = []  # a knob's centre and the piece that owns it
    for border in borders:
        owner, other = border if rng.random() < 0.5 else border[::-1]
        centre = (0.4 * owner[0] + 0.6 * other[0], 0.4 * owner[1] + 0.6 * other[1])
        knobs += [(turn(centre, k), turn(owner, k)) for k in range(4)]
    places = {(y, x): rng.sample(range(4), 4) for y in (-1.5, -0.5) for x in (-1.5, -0.5)}

    width, middle = side / 4, (side - 1) / 2
    target = []
    for row in range(side):
        for col in range(side):
            point = ((row - middle) / width, (col - middle) / width)
            piece = (math.floor(point[0]) + 0.5, math.floor(point[1]) + 0.5)
            for centre, owner in knobs:
                if math.dist(point, centre) < KNOB:
                    piece = owner
            quarters, orbit = corner_of(piece)
            y, x = turn(point, places[orbit][quarters] - quarters)
            target.append(round(y * width + middle) * side + round(x * width + middle))
    return inverse(target)


@dataclass(frozen=True)
class Jigsaw:
    square: ClassVar[bool] = True
    seed: int = 0

    def fits(self, side: int) -> None:
        assembled(side, self.seed)

    def apply(self, x: Tensor) -> Tensor:
        return permuted(x, assembled(x.shape[-1], self.seed))

    def invert(self, estimate: Estimate) -> Estimate:
        back = inverse(assembled(estimate.output.shape[-1], self.seed))
        return both(lambda x: permuted(x, back), estimate)
