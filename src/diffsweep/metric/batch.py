"""What a metric is given, what it answers, and what it says about itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

ROWS, PIXELS = 16, 16 * 256 * 256  # pictures and pixels a call of a network, at most

# The regions of a mask m in [0, 1] (stored as 0 to 255; 1 = regenerate). They share no pixel.
REGIONS = {
    "inside": "m = 1: regenerated",
    "outside": "m = 0: known",
    "edge": "0 < m < 1: the soft edge between",
}


@dataclass(frozen=True, eq=False)
class Batch:
    """Stored pictures of one size, uint8: images, references (clean inputs) and lows (low bands alone) B H W 3, masks
    B H W, views B K H W 3; of each picture its prompt, all its prompts where views or bands have their own, and a name
    of its input. None where not asked for. device: where a network judges."""

    images: np.ndarray
    references: np.ndarray | None = None
    masks: np.ndarray | None = None
    prompts: tuple[str, ...] | None = None
    all_prompts: tuple[tuple[str, ...], ...] | None = None
    views: np.ndarray | None = None
    lows: np.ndarray | None = None
    inputs: tuple[str, ...] | None = None
    device: str = "cpu"
    kept: dict[str, Any] = field(default_factory=dict)  # what one metric has computed for the next

    def region(self, name: str | None) -> np.ndarray:
        """bool B H W: the pixels of a region; all of them for None."""
        if name is None:
            return np.ones(self.images.shape[:3], dtype=bool)
        assert self.masks is not None
        outside, inside = self.masks == 0, self.masks == 255
        return {"inside": inside, "outside": outside, "edge": ~(inside | outside)}[name]


@dataclass(frozen=True)
class Score:
    """One number; None with `exact` (equal to the reference, where no finite number says so) or a reason."""

    value: float | None
    exact: bool = False
    reason: str | None = None

    def __post_init__(self) -> None:
        if self.value is not None and not math.isfinite(self.value):
            object.__setattr__(self, "reason", f"the metric gave {self.value}")
            object.__setattr__(self, "value", None)

    def entry(self, definition: dict[str, Any] | None = None) -> dict[str, Any]:
        """What is stored of it."""
        entry: dict[str, Any] = {"value": self.value} | ({"definition": definition} if definition else {})
        return entry | ({"exact": True} if self.exact else {}) | ({"reason": self.reason} if self.reason else {})


Direction = Literal["higher", "lower"]


class Described(Protocol):
    """needs: which of `scoring.FILES` and prompt a cell must have; definition: everything that two numbers must agree
    in to be compared, the direction and the package's version among it; missing: what stands in the way of measuring,
    and what mends it. BadInput where a network's weights are not what they should be."""

    @property
    def name(self) -> str: ...
    @property
    def needs(self) -> frozenset[str]: ...
    @property
    def direction(self) -> Direction: ...
    def definition(self) -> dict[str, Any]: ...


class Metric(Described, Protocol):
    """A number for each picture."""

    def __call__(self, batch: Batch) -> list[Score]: ...


class SetMetric(Described, Protocol):
    """One number for all pictures of a setting."""

    def together(self, batch: Batch) -> Score: ...


def in_calls(call: Callable[..., Tensor], *stacks: np.ndarray) -> Tensor:
    """What `call` makes of B H W 3, in calls of one shape, the last padded: a row's bits owe nothing to its neighbours,
    nor to their number. Fewer rows a call where pictures are large."""
    import torch

    number, height, width = stacks[0].shape[:3]
    at_once, answers = max(1, min(ROWS, PIXELS // (height * width))), []
    for start in range(0, number, at_once):
        rows = np.arange(start, start + at_once).clip(max=number - 1)
        answers.append(call(*(stack[rows] for stack in stacks))[: number - start])
    return torch.cat(answers)


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
