"""Masks: 1 = regenerate, 0 = known, and a feathered band between. Needs no torch.

A mask is a hard region; softness turns its edge into a band of so many pixels, by the distance to the edge.
side: where the band lies, inward (inside the region), outward (outside it) or centred. profile: how m rises across
it, linear, cosine, or gaussian (the normal distribution over two standard deviations to each side, cut off there).
invert: regenerate what the shape leaves out. Values are rounded to 8 bits, so that a stored mask is the mask.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from diffsweep.core.problems import one_of, require, within
from diffsweep.mask.mask import HALF, Mask, Seen, pressed

SHIFT = {"inward": 0.0, "centred": 0.5, "outward": 1.0}
PROFILES = ("linear", "cosine", "gaussian")


@dataclass(frozen=True)
class Soft(Mask):
    """softness: width of the band in pixels of the picture; 0 is a hard mask."""

    softness: float = 0.0
    profile: str = "linear"
    side: str = "centred"
    invert: bool = False

    def __post_init__(self) -> None:
        require(
            within("softness", self.softness, 0),
            one_of("profile", self.profile, PROFILES),
            one_of("side", self.side, SHIFT),
            *self.problems(),
        )

    @property
    def feather(self) -> float:
        """The band's width."""
        return self.softness

    def problems(self) -> list[str | None]:
        """What is wrong with the shape's own keys."""
        return []

    @abstractmethod
    def region(self, size: int) -> np.ndarray:
        """The shape, not inverted: bool, size x size."""

    def shape(self, height: int, width: int) -> np.ndarray:
        """The same in a picture that is not square: bool, height x width."""
        return pressed(np.uint8(255) * self.region(max(height, width)), height, width) >= HALF

    def hard(self, size: int) -> np.ndarray:
        return self.region(size) ^ self.invert

    def values(self, size: int) -> np.ndarray:
        return self.softened(self.hard(size))

    def sized(self, height: int, width: int) -> Seen:
        """The shape pressed into the picture, and then its edge feathered, by the same width along both sides."""
        if height == width:
            return super().sized(height, width)
        hard = self.shape(height, width) ^ self.invert
        return Seen(self.softened(hard), hard, self.notes(max(height, width)))

    def softened(self, region: np.ndarray) -> np.ndarray:
        """The values of a hard mask, its edge feathered."""
        if not self.feather or region.all() or not region.any():
            return region.astype(np.uint8) * 255
        distance = np.clip(signed_distance(region), -self.feather, self.feather)  # else a tiny width overflows
        u = np.clip(SHIFT[self.side] + distance / self.feather, 0, 1)
        return np.rint(255 * rise(u, self.profile)).astype(np.uint8)

    def enlarged(self, factor: float) -> Self:
        return replace(self, softness=self.feather * factor) if self.feather else self


def signed_distance(region: np.ndarray) -> np.ndarray:
    """Pixels from the region's edge, which runs between pixels: positive inside."""
    from scipy.ndimage import distance_transform_edt

    inside, outside = distance_transform_edt(region), distance_transform_edt(~region)
    return np.where(region, inside - 0.5, 0.5 - outside)


def rise(u: np.ndarray, profile: str) -> np.ndarray:
    """From 0 at u = 0 to 1 at u = 1."""
    if profile == "linear":
        return u
    if profile == "cosine":
        return (1 - np.cos(np.pi * u)) / 2
    from scipy.special import ndtr

    return (ndtr(4 * u - 2) - ndtr(-2)) / (ndtr(2) - ndtr(-2))


class Shape(Soft):
    """One that is drawn into a picture of any proportions."""

    @abstractmethod
    def shape(self, height: int, width: int) -> np.ndarray:
        """The shape, not inverted: bool, height x width."""

    def region(self, size: int) -> np.ndarray:
        return self.shape(size, size)


def grid(height: int, width: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """y and x of the pixels' centres, as shares of the height and the width; without a width, of a square."""
    width = height if width is None else width
    y, x = np.mgrid[:height, :width]
    return (y + 0.5) / height, (x + 0.5) / width
