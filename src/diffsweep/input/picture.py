"""What every input provides: pixels of a given size, a caption, and notes. Needs no torch.

A user's own gives a square, `pixels(size)`; of any other picture it then shows the middle of a square as large as the
longer side.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np


class Seen(NamedTuple):
    """What an input shows: uint8, height x width x 3, and notes on how it was read."""

    pixels: np.ndarray
    notes: tuple[str, ...] = ()


class Picture(ABC):
    """The defaults: a square that knows no caption and is read from no file."""

    @abstractmethod
    def pixels(self, size: int) -> np.ndarray:
        """uint8, size x size x 3."""

    def sized(self, height: int, width: int) -> Seen:
        """It as a picture of any proportions."""
        side = max(height, width)
        pixels, notes = self.pixels(side), self.notes(side)
        if height == width:
            return Seen(pixels, notes)
        top, left = (side - height) // 2, (side - width) // 2
        return Seen(pixels[top : top + height, left : left + width], notes)

    def caption(self) -> str | None:
        """The prompt that `auto` stands for."""
        return None

    def proportions(self) -> tuple[int, int]:
        """Width and height before its centre is cropped."""
        return 1, 1

    def notes(self, size: int) -> tuple[str, ...]:
        """Notes on how it was read."""
        return ()

    def stamp(self) -> object:
        """A value that changes with the file; pixels are cached by it."""
        return None
