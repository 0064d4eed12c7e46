"""What every input gives: pixels of the size asked for, and a caption where it knows one. Needs no torch."""

from __future__ import annotations

from typing import Protocol

import numpy as np


class Picture(Protocol):
    """An input may also have `notes(size)`, what a user should know of how it was read, and `proportions()`, width and
    height before the centre square is cropped."""

    def pixels(self, size: int) -> np.ndarray:
        """uint8, size x size x 3."""
        ...

    def caption(self) -> str | None: ...
