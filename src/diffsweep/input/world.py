"""A held-out picture of the embedded world, by its id: subject/style/number, as in `dog/photo/0`.

A picture that is not square is the middle of the square of its longer side.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from diffsweep.core.problems import BadInput
from diffsweep.input.picture import Picture
from diffsweep.world import named


@dataclass(frozen=True)
class World(Picture):
    id: str = "dog/photo/0"

    def __post_init__(self) -> None:
        try:
            named(self.id)
        except ValueError as error:
            raise BadInput(f"id={self.id}: {error}") from None

    def pixels(self, size: int) -> np.ndarray:
        return named(self.id, size).pixels

    def caption(self) -> str | None:
        return _caption(self.id)


@lru_cache(maxsize=4096)
def _caption(id: str) -> str:
    """Each cell asks for it, and it is drawn with the picture."""
    return named(id).caption
