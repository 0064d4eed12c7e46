"""Where a trajectory begins, and where it turns back."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

from diffsweep.core.problems import BadInput, require
from diffsweep.core.text import counted, printed
from diffsweep.core.types import Level, Stage


def index_of(strength: float, n: int, stage: Stage) -> int:
    """The start index that leaves the share `strength` of n steps, rounded as the pipeline of the stage's checkpoint
    does in diffusers."""
    kept = n - int(n - min(n * strength, n)) if stage.partial_steps else min(int(n * strength), n)
    advice = "" if stage.partial_steps else f"; at least {least(n)} is needed"
    require(f"strength={printed(strength)}: leaves no step of {n}{advice}" if kept == 0 else None)
    return n - kept


def least(n: int) -> float:
    """The least strength that leaves one of n steps, in as few digits as say it: rounded up, for int(n strength)."""
    digits = 10 ** math.ceil(math.log10(n) + 2)
    return math.ceil(digits / n) / digits


def check_index(start_index: int, n: int) -> None:
    if not 0 <= start_index < n:
        raise BadInput(
            f"start_index={start_index}: must be between 0 and {n - 1}, the trajectory has {counted('step', n)}"
        )


@dataclass(frozen=True)
class Noised:
    """t: the noise level, a timestep of the model's training (of a flow, any number up to 1000). noise_sigma: the level
    by its noise over signal instead, which means the same for every model: the nearest that this one has."""

    t: int | float = 500
    noise_sigma: float | None = field(default=None, metadata={"later": True})

    def __post_init__(self) -> None:
        low = self.noise_sigma is not None and self.noise_sigma <= 0
        require(f"noise_sigma={printed(self.noise_sigma)}: must be above 0" if low else None)

    def level(self, stage: Stage) -> Level:
        if self.noise_sigma is None:
            return stage.process.level(self.t)
        return stage.process.nearest(self.noise_sigma)

    def settled(self, levels: tuple[Level, ...], stage: Stage) -> Any:
        return self if self.noise_sigma is None else replace(self, t=self.level(stage).t, noise_sigma=None)


def below(start: Level, levels: tuple[Level, ...]) -> tuple[Level, ...]:
    """A trajectory from a level itself through the visited levels below it."""
    return (start, *(level for level in levels if level.t < start.t))


def jumping(levels: tuple[Level, ...], jump: int, resamples: int) -> tuple[Level, ...]:
    """RePaint's trajectory (Lugmayr et al. 2022, section 4.2; `get_schedule_jump` in its code): at every `jump`-th
    level, from the last one on, it goes back up by `jump` levels, so that each stretch is sampled `resamples` times."""
    n, left = len(levels), {}
    for place in range(0, n - jump, jump):  # counted from the last level
        left[place] = resamples - 1
    walk, place = [levels[0]], n - 1
    while True:
        if left.get(place, 0) > 0:
            left[place] -= 1
            place += jump
        elif place == 0:
            return tuple(walk)
        else:
            place -= 1
        walk.append(levels[n - 1 - place])
