"""What every mask provides: values of a given size, its region, and notes. Needs no torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

import numpy as np

HALF = 128  # from which on a value belongs to a hard mask's region


class Mask(ABC):
    """The defaults: a mask for any picture, without an edge of its own, read from no file."""

    @abstractmethod
    def values(self, size: int) -> np.ndarray:
        """uint8, size x size: 255 = regenerate, 0 = known."""

    def hard(self, size: int) -> np.ndarray:
        """The mask before its edge is feathered: bool, size x size, True = regenerate."""
        return self.values(size) >= HALF

    def enlarged(self, factor: float) -> Self:
        """The same mask for a picture `factor` times as large."""
        return self

    def fits(self, width: int, height: int) -> None:  # noqa: B027  (any does, unless a mask says otherwise)
        """BadInput unless it can be a mask of a picture of these proportions, before it is cropped."""

    def notes(self, size: int) -> tuple[str, ...]:
        """Notes on how it was read."""
        return ()

    def stamp(self) -> object:
        """A value that changes with the file; values are cached by it."""
        return None
