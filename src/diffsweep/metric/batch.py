"""A metric's input (`Batch`), its answer (`Score`), and its definition."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from diffsweep.store.pictures import HARD_MASK, INPUT, LOW, MASK, VIEW

if TYPE_CHECKING:
    from torch import Tensor

ROWS, PIXELS = 16, 16 * 256 * 256  # pictures and pixels a call of a network, at most

GAVE = "the metric gave "  # how a reason begins where a metric answered with no finite number
DIRECTIONS = ("higher", "lower")
# what a cell stores of what a metric may need; of views there are several
FILES = {"reference": f"{INPUT}.png", "mask": f"{MASK}.png", "hard_mask": f"{HARD_MASK}.png"}
FILES |= {"low": f"{LOW}.png", "views": f"{VIEW}0.png"}
# all that a metric may need, and what each is called
NEEDS = {"reference": "a clean input", "mask": "a mask", "hard_mask": "a mask", "prompt": "a prompt", "low": "bands"}
NEEDS |= {"views": "views"}

# The regions of a mask m in [0, 1] (stored as 0 to 255; 1 = regenerate). They share no pixel, and change with softness.
REGIONS = {
    "inside": "m = 1: regenerated",
    "outside": "m = 0: known",
    "edge": "0 < m < 1: the soft edge between",
}
# Those of the hard mask, before its edge is softened: the same at every softness.
HARD = {
    "masked": "m = 1 before softening: the same region at every softness",
    "unmasked": "m = 0 before softening: the same region at every softness",
}


@dataclass(frozen=True, eq=False)
class Batch:
    """Stored pictures of one size, uint8: images, references (clean inputs) and lows (low bands alone) B H W 3, masks
    and hard_masks (before softening) B H W, views B K H W 3; of each picture its prompt, all its prompts where
    views or bands have their own, and a name of its input. None where not asked for. device: where a network judges."""

    images: np.ndarray
    references: np.ndarray | None = None
    masks: np.ndarray | None = None
    prompts: tuple[str, ...] | None = None
    all_prompts: tuple[tuple[str, ...], ...] | None = None
    views: np.ndarray | None = None
    lows: np.ndarray | None = None
    inputs: tuple[str, ...] | None = None
    hard_masks: np.ndarray | None = None
    device: str = "cpu"
    kept: dict[str, Any] = field(default_factory=dict)  # what one metric has computed for the next

    def region(self, name: str | None) -> np.ndarray:
        """bool B H W: the pixels of a region, one of `REGIONS` or `HARD`; all of them for None."""
        if name is None:
            return np.ones(self.images.shape[:3], dtype=bool)
        if name in HARD:
            assert self.hard_masks is not None
            return (self.hard_masks >= 128) == (name == "masked")
        assert self.masks is not None
        outside, inside = self.masks == 0, self.masks == 255
        return {"inside": inside, "outside": outside, "edge": ~(inside | outside)}[name]


@dataclass(frozen=True)
class Score:
    """One number, of any library's type; None with `exact` (equal to the reference, where no finite number says so) or
    a reason. note: a caveat on a set's number. TypeError where the value is no number."""

    value: float | None
    exact: bool = False
    reason: str | None = None
    note: str | None = None

    def __post_init__(self) -> None:
        if self.value is None:
            return
        value = _as_float(self.value)
        if not math.isfinite(value):
            object.__setattr__(self, "reason", f"{GAVE}{value}")
        object.__setattr__(self, "value", value if math.isfinite(value) else None)

    @classmethod
    def of(cls, given: Any) -> Score:
        """A metric's answer as a score; it may be a bare number."""
        if isinstance(given, Score):
            return given
        return cls(given, reason=f"{GAVE}None" if given is None else None)

    def entry(self, definition: dict[str, Any] | None = None) -> dict[str, Any]:
        """The score as it is stored."""
        entry: dict[str, Any] = {"value": self.value} | ({"definition": definition} if definition else {})
        texts = {key: str(text) for key, text in (("reason", self.reason), ("note", self.note)) if text}
        return entry | ({"exact": True} if self.exact else {}) | texts


def _as_float(value: Any) -> float:
    """A number of Python's, numpy's or torch's; true and false are 1 and 0."""
    plain = value.item() if hasattr(value, "item") else value
    if not isinstance(plain, int | float):
        raise TypeError(f"a metric must give numbers, not {plain!r:.80}")
    return float(plain)


Direction = Literal["higher", "lower"]


class Described(Protocol):
    """needs: which of `NEEDS` a cell must have; definition: everything that two numbers must agree in to be compared,
    the direction and the package's version among it, and as `bounds` the least and the greatest number there can be
    (null: there is none); missing: what is missing for measuring, and how to get it. BadInput where a network's weights
    are damaged."""

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
    """What `call` makes of B H W 3, in calls of one shape, the last padded: a row's bits do not depend on its
    neighbours, nor on their number. Fewer rows a call where pictures are large."""
    import torch

    number, height, width = stacks[0].shape[:3]
    at_once, answers = max(1, min(ROWS, PIXELS // (height * width))), []
    for start in range(0, number, at_once):
        rows = np.arange(start, start + at_once).clip(max=number - 1)
        answers.append(call(*(stack[rows] for stack in stacks))[: number - start])
    return torch.cat(answers)


def needs(region: str | None) -> frozenset[str]:
    """What a comparison with the reference needs, over the whole picture or over a region of the mask."""
    own = set() if region is None else {"hard_mask"} if region in HARD else {"mask"}
    return frozenset({"reference"} | own)


def named(name: str, region: str | None) -> str:
    return name if region is None else f"{name}_{region}"


def described(region: str | None) -> str:
    """A region, in a definition's words."""
    return "the whole picture" if region is None else f"{region} ({(REGIONS | HARD)[region]})"


def empty(region: str) -> Score:
    return Score(None, reason=f"no pixel has {(REGIONS | HARD)[region].partition(':')[0]}")
