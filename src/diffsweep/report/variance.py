"""Where the variance of a metric comes from: settings, inputs, seeds, or their interplay and noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from diffsweep.core.text import counted
from diffsweep.report.selection import levels, split_axes, units

if TYPE_CHECKING:
    from diffsweep.report.selection import Codes


@dataclass(frozen=True)
class Split:
    """Shares of a metric's variance, which sum to 1. `clipped` names components estimated below 0 and taken as 0.

    `repeat` is what the input's share is called: that of other axes where these count as inputs."""

    metric: str
    setting: float
    input: float
    seed: float
    rest: float
    n: int
    clipped: tuple[str, ...] = ()
    repeat: str = "input"

    @property
    def sentence(self) -> str:
        """`psnr varies by setting 64 %, seed 23 %, the rest 13 % (36 cells)`."""
        shares = {"setting": self.setting, self.repeat: self.input, "seed": self.seed, "the rest": self.rest}
        listed = ", ".join(f"{name} {share:.0%}".replace("%", " %") for name, share in shares.items() if share)
        below = f"; {' and '.join(self.clipped)} estimated below 0, taken as 0" if self.clipped else ""
        return f"{self.metric} varies by {listed} ({counted('cell', self.n)}{below})"


def variance_split(frame: pd.DataFrame, metric: str, over: Sequence[str] = ()) -> Split | None:
    """How much of a metric's variance is the setting's, the input's, the seed's, and the rest (their interplay, noise).

    Variance components of the crossed design by the method of moments (Henderson's method 1, the analysis of variance
    where no cell is missing). None where the design cannot tell them apart, as with one seed and one input.
    """
    axes, inputs = split_axes(frame, over)
    cells = frame[frame[metric].notna()]
    x = cells[metric].to_numpy(dtype=float)
    repeat = units(inputs)[0]
    codes = {"setting": levels(cells, axes), repeat: levels(cells, inputs), "seed": levels(cells, ["seed"])}
    codes = {name: code for name, code in codes.items() if len(np.unique(code)) > 1}
    if len(x) < 2 or np.ptp(x) == 0:
        return None
    x = x - x.mean()
    whole = np.zeros(len(x), dtype=int)
    each = np.arange(len(x))
    rows, sums = [], []
    for code in (whole, *codes.values(), each):  # E of a sum of squares, linear in mean² and the components
        sizes = np.bincount(code)
        sums.append((np.bincount(code, x) ** 2 / np.maximum(sizes, 1)).sum())
        rows.append([len(x), *(_shared(code, other) for other in codes.values()), len(np.unique(code))])
    if np.linalg.matrix_rank(rows) < len(rows):
        return None
    _, *components = np.linalg.solve(np.array(rows, dtype=float), sums)
    found = dict(zip([*codes, "rest"], components, strict=True))
    kept = {name: max(float(component), 0.0) for name, component in found.items()}
    setting, of_repeat, seed, rest = (
        kept.get(name, 0.0) / sum(kept.values()) for name in ("setting", repeat, "seed", "rest")
    )
    clipped = tuple(name for name, component in found.items() if component < 0)
    return Split(metric, setting, of_repeat, seed, rest, n=len(x), clipped=clipped, repeat=repeat)


def _shared(first: Codes, second: Codes) -> float:
    """The sum over levels of both of n_both² / n_first."""
    pairs, counts = np.unique(np.stack([first, second]), axis=1, return_counts=True)
    return float((counts**2 / np.bincount(first)[pairs[0]]).sum())
