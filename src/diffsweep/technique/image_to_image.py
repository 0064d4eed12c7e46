"""SDEdit (Meng et al. 2022, algorithm 1): noise the input part of the way, then denoise it towards the prompt."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

from diffsweep.core.keys import AUTO, Auto
from diffsweep.core.problems import require, within
from diffsweep.core.types import Level, Stage
from diffsweep.technique.job import FromInput
from diffsweep.technique.start import check_index, index_of

DEFAULT_STRENGTH = 0.7


@dataclass(frozen=True)
class ImageToImage(FromInput):
    """Where to start, one of: start_index, counted from the noisiest level; strength, the share of steps run.

    strength means n strength of n steps, rounded as the checkpoint's pipeline does in diffusers, mostly down; with both
    keys auto it is 0.7.
    """

    uses: ClassVar[frozenset[str]] = frozenset({"prompt", "scheduler", "guidance", "input"})
    start_index: Auto | int = AUTO
    strength: Auto | float = AUTO

    def __post_init__(self) -> None:
        require(
            within("start_index", self.start_index, 0),
            within("strength", self.strength, 0, 1),
            "start_index and strength say the same thing twice: give one of them"
            if AUTO not in (self.start_index, self.strength)
            else None,
        )

    def settled(self, levels: tuple[Level, ...], stage: Stage) -> Self:
        return replace(self, start_index=self.index(len(levels), stage), strength=AUTO)

    def index(self, n: int, stage: Stage) -> int:
        if self.start_index != AUTO:
            check_index(self.start_index, n)
            return self.start_index
        strength = DEFAULT_STRENGTH if self.strength == AUTO else self.strength
        return index_of(strength, n, stage)

    def visited(self, levels: tuple[Level, ...], stage: Stage) -> tuple[Level, ...]:
        return levels[self.index(len(levels), stage) :]
