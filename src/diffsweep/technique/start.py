"""Where a trajectory begins, and where it turns back."""

from __future__ import annotations

import math

from diffsweep.core.problems import BadInput, require
from diffsweep.core.text import counted
from diffsweep.core.types import Level, Stage


def index_of(strength: float, n: int, stage: Stage) -> int:
    """The start index that leaves the share `strength` of n steps, rounded as the pipeline of the stage's checkpoint
    does in diffusers."""
    kept = n - int(n - min(n * strength, n)) if stage.partial_steps else min(int(n * strength), n)
    advice = "" if stage.partial_steps else f"; at least {least(n)} is needed"
    require(f"strength={strength}: leaves no step of {n}{advice}" if kept == 0 else None)
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


def below(t: int, levels: tuple[Level, ...], stage: Stage) -> tuple[Level, ...]:
    """A trajectory from t itself through the visited levels below it."""
    return (stage.process.level(t), *(level for level in levels if level.t < t))


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
