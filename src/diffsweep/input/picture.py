"""What every input gives: pixels of the size asked for, and what is known of them. Needs no torch."""

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
        """What a user should know of how it was read."""
        return ()

    def stamp(self) -> object:
        """What changes when the file does that it is read from; pixels are kept for each."""
        return None
