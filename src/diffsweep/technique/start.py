"""Where a trajectory that starts from a noised input begins."""

from __future__ import annotations

import math

from diffsweep.core.problems import BadInput, require, within
from diffsweep.core.text import counted


def check_t(t: int) -> None:
    require(within("t", t, 0, 999))


def index_of(strength: float, n: int) -> int:
    """The start index that skips all but int(n strength) of n timesteps, as diffusers' pipelines do."""
    kept = min(int(n * strength), n)
    require(f"strength={strength}: leaves no step of {n}; at least {least(n)} is needed" if kept == 0 else None)
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


def below(t: int, timesteps: tuple[int, ...]) -> tuple[int, ...]:
    """A trajectory from t itself through the visited timesteps below it."""
    return (t, *(s for s in timesteps if s < t))
