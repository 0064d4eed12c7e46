"""What a metric is given, what it answers, and what it says about itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

# The regions of a mask m in [0, 1] (stored as 0 to 255; 1 = regenerate). They share no pixel.
REGIONS = {
    "inside": "m = 1: regenerated",
    "outside": "m = 0: known",
    "edge": "0 < m < 1: the soft edge between",
}


@dataclass(frozen=True, eq=False)
class Batch:
    """Stored pictures of one size, uint8: images and references B H W 3, masks B H W; the prompt of each picture. None
    where not asked for."""

    images: np.ndarray
    references: np.ndarray | None = None
    masks: np.ndarray | None = None
    prompts: tuple[str, ...] | None = None

    def region(self, name: str | None) -> np.ndarray:
        """bool B H W: the pixels of a region; all of them for None."""
        if name is None:
            return np.ones(self.images.shape[:3], dtype=bool)
        assert self.masks is not None
        outside, inside = self.masks == 0, self.masks == 255
        return {"inside": inside, "outside": outside, "edge": ~(inside | outside)}[name]


@dataclass(frozen=True)
class Score:
    """One picture's number; None with `exact` (equal to the reference, where no finite number says so) or a reason."""

    value: float | None
    exact: bool = False
    reason: str | None = None

    def entry(self, definition: dict[str, Any]) -> dict[str, Any]:
        """What a record holds of it."""
        entry: dict[str, Any] = {"value": self.value, "definition": definition}
        return entry | ({"exact": True} if self.exact else {}) | ({"reason": self.reason} if self.reason else {})


class Metric(Protocol):
    """needs: which of reference, mask and prompt a cell must have; definition: everything that two numbers must agree
    in to be compared, the direction and the package's version among it."""

    @property
    def name(self) -> str: ...
    @property
    def needs(self) -> frozenset[str]: ...
    @property
    def direction(self) -> Literal["higher", "lower"]: ...
    def definition(self) -> dict[str, Any]: ...
    def __call__(self, batch: Batch) -> list[Score]: ...


def needs(region: str | None) -> frozenset[str]:
    """What a comparison with the reference needs, over the whole picture or over a region of the mask."""
    return frozenset({"reference"} if region is None else {"reference", "mask"})


def named(name: str, region: str | None) -> str:
    return name if region is None else f"{name}_{region}"


def described(region: str | None) -> str:
    """A region as a definition tells it."""
    return "the whole picture" if region is None else f"{region} ({REGIONS[region]})"


def empty(region: str) -> Score:
    return Score(None, reason=f"no pixel has {REGIONS[region].partition(':')[0]}")
