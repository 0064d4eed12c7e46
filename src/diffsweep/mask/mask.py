"""What every mask provides: values of a given size, its region, and notes. Needs no torch.

A user's own gives a square, `values(size)`; any other picture then has that of its longer side, pressed into it, so
that shares of the sides keep their meaning.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple, Self

import numpy as np
from PIL import Image

HALF = 128  # from which on a value belongs to a hard mask's region


class Seen(NamedTuple):
    """A mask of one size, height x width. values: uint8, 255 = regenerate, 0 = known; hard: bool, before its edge is
    feathered, True = regenerate; notes on how it was read."""

    values: np.ndarray
    hard: np.ndarray
    notes: tuple[str, ...] = ()


class Mask(ABC):
    """The defaults: a mask for any picture, without an edge of its own, read from no file."""

    @abstractmethod
    def values(self, size: int) -> np.ndarray:
        """uint8, size x size: 255 = regenerate, 0 = known."""

    def hard(self, size: int) -> np.ndarray:
        """The mask before its edge is feathered: bool, size x size, True = regenerate."""
        return self.values(size) >= HALF

    def sized(self, height: int, width: int) -> Seen:
        """It as a mask of a picture of any proportions."""
        side = max(height, width)
        values = pressed(self.values(side), height, width)
        hard = pressed(np.uint8(255) * self.hard(side), height, width) >= HALF
        return Seen(values, hard, self.notes(side))

    def enlarged(self, factor: float) -> Self:
        """The same mask for a picture `factor` times as large."""
        return self

    def fits(self, width: int, height: int) -> None:  # noqa: B027  (any does, unless a mask says otherwise)
        """BadInput unless it can be a mask of a picture of these proportions, before it is cropped."""

    def fits_cropped(self, width: int, height: int, cropped: tuple[int, int]) -> None:
        """BadInput unless it can be a mask of a picture of these proportions, which is cropped to others."""
        self.fits(width, height)

    def notes(self, size: int) -> tuple[str, ...]:
        """Notes on how it was read."""
        return ()

    def stamp(self) -> object:
        """A value that changes with the file; values are cached by it."""
        return None


def pressed(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """A square, uint8, reduced to height x width by means over areas; of 0 and 255 alone, no other values are made."""
    if height == width:
        return values
    reduced = np.asarray(Image.fromarray(values).resize((width, height), Image.Resampling.BOX))
    two = not ((values > 0) & (values < 255)).any()
    return np.where(reduced >= HALF, 255, 0).astype(np.uint8) if two else reduced
