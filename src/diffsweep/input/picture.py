"""What every input provides: pixels of a given size, a caption, and notes. Needs no torch."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np


class Picture(ABC):
    """The defaults: a square that knows no caption and is read from no file."""

    @abstractmethod
    def pixels(self, size: int) -> np.ndarray:
        """uint8, size x size x 3."""

    def caption(self) -> str | None:
        """The prompt that `auto` stands for."""
        return None

    def proportions(self) -> tuple[int, int]:
        """Width and height before the centre square is cropped."""
        return 1, 1

    def notes(self, size: int) -> tuple[str, ...]:
        """Notes on how it was read."""
        return ()

    def stamp(self) -> object:
        """A value that changes with the file; pixels are cached by it."""
        return None
