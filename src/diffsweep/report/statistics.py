"""Estimates of one setting, their intervals, and tests of differences.

A setting's values lie in a matrix of inputs x seeds. Every statistic (mean, median, quantile, best of k) is taken over
an input's seeds, then averaged over the inputs, so that each input counts alike.

The mean's 95 % interval is a bootstrap over both factors (the pigeonhole bootstrap, Owen 2007: inputs and seeds are
drawn apart, a cell counts as often as its input, times its seed); a factor of one level is held fixed, and so are
inputs where there are fewer than `FEW_INPUTS` of them: the interval is then for these inputs. A bootstrap is too narrow
for few levels and too wide where two factors cross, so its percentiles are stretched about the mean (as Hesterberg 2015
expands them): to the variance that the analysis of variance estimates, V = V_input + V_seed - V_rest, at least the
larger of the first two; and by Student's t, with Satterthwaite's degrees of freedom, over the normal's quantile. No
interval where nothing varies, nor of fewer than `FEWEST` repeats (degrees of freedom + 1): two say next to nothing.
Where a metric has bounds, its interval is cut at them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Codes = NDArray[np.int64]

DRAWS = 2000
FEW_INPUTS = 5
FEWEST = 3
TESTS = {"wilcoxon": "Wilcoxon signed-rank test", "sign": "sign test"}


@dataclass(frozen=True)
class Stat:
    """One setting's mean over `n` finite values, of so many seeds and inputs.

    `std` is the sample standard deviation of all values (n - 1), NaN for n < 2; `low` and `high` the mean's 95 %
    interval, NaN where there is none; `exact` counts pictures equal to their reference, whose value is not finite;
    `values` are the finite ones, a tuple for each input. A metric of a whole set of pictures has a mean and no values.
    """

    mean: float
    std: float
    n: int
    exact: int = 0
    low: float = math.nan
    high: float = math.nan
    seeds: int = 0
    inputs: int = 0
    values: tuple[tuple[float, ...], ...] = ()

    @property
    def median(self) -> float:
        return self.quantile(0.5)

    def quantile(self, share: float) -> float:
        """Of an input's seeds, linear between neighbours, averaged over inputs; NaN without any."""
        return float(np.mean([np.quantile(group, share) for group in self.values])) if self.values else math.nan

    def best_of(self, k: int, direction: str) -> float:
        """The expected best of k of an input's seeds, an unbiased estimate, averaged over inputs; NaN where an input
        has fewer."""
        if not self.values or k < 1 or min(map(len, self.values)) < k:
            return math.nan
        return float(np.mean([best_of(group, k, direction) for group in self.values]))


def best_of(values: Sequence[float], k: int, direction: str) -> float:
    """The mean, over all choices of k values, of the best of them (pass@k of Chen et al. 2021, for a maximum)."""
    n, best_last = len(values), sorted(values, reverse=direction == "lower")
    return sum(math.comb(i, k - 1) / math.comb(n, k) * value for i, value in enumerate(best_last))


def averaged(values: Floats, inputs: Codes) -> Floats:
    """The mean of each column of `values` (cells x columns), each input counting alike."""
    return _means(values, np.unique(inputs, return_inverse=True)[1]).mean(axis=0)


Bounds = Sequence[float | None]  # the least and the greatest number that a metric can give; None: there is none


def intervals(
    values: Floats, inputs: Codes, seeds: Codes, fewest: int = FEWEST, bounds: Bounds = (None, None)
) -> tuple[Floats, Floats]:
    """Low and high ends of `averaged`, for each column of `values` (cells x columns, finite). inputs and seeds: each
    cell's level; fewest: the repeats that an interval takes; bounds: where it is cut."""
    from scipy.special import stdtrit

    inputs, seeds = (np.unique(levels, return_inverse=True)[1] for levels in (inputs, seeds))
    factors, fixed = _resampled(inputs, seeds)
    low, high = np.full((2, values.shape[1]), math.nan)
    if not factors:
        return low, high
    mean = averaged(values, inputs)
    shares = 1 / (np.bincount(inputs)[inputs] * (inputs.max() + 1))  # of each cell in the mean
    deviations = values - (_means(values, inputs)[inputs] if fixed else mean)
    variance, freedom = _variance(deviations, factors, shares)
    weights = np.prod([_draws(int(levels.max()) + 1)[:, levels] for levels in factors], axis=0) * shares
    weights = weights[weights.any(axis=1)]
    weights /= weights.sum(axis=1, keepdims=True)
    varies = np.flatnonzero((np.ptp(deviations, axis=0) > 0) & (freedom + 1 > fewest - 1e-6))
    for some in np.array_split(varies, math.ceil(len(varies) / 2000)) if len(varies) else []:  # memory
        drawn = deviations[:, some].T.astype(np.float32) @ weights.T
        wider = np.sqrt(variance[some]) / drawn.std(axis=1) * stdtrit(freedom[some], 0.975) / stdtrit(np.inf, 0.975)
        low[some], high[some] = mean[some] + wider * np.quantile(drawn, (0.025, 0.975), axis=1)
    least, greatest = (end if end is not None else sign * math.inf for end, sign in zip(bounds, (-1, 1), strict=True))
    return np.maximum(low, np.minimum(least, mean)), np.minimum(high, np.maximum(greatest, mean))


def _resampled(inputs: Codes, seeds: Codes) -> tuple[list[Codes], bool]:
    """The factors to draw from, and whether several inputs are held fixed."""
    n_inputs, n_seeds = int(inputs.max()) + 1, int(seeds.max()) + 1
    if n_inputs == 1 or (n_inputs < FEW_INPUTS and n_seeds > 1):
        return [seeds] if n_seeds > 1 else [], n_inputs > 1
    if n_seeds in (1, len(seeds)):  # one seed, or a seed of its own for every cell
        return [inputs], False
    return ([seeds] if n_inputs == len(inputs) else [inputs, seeds]), False


def _variance(deviations: Floats, factors: Sequence[Codes], shares: Floats) -> tuple[Floats, Floats]:
    """Of the mean of each column, to which each cell has its share, with its degrees of freedom (Satterthwaite)."""
    cells, columns = deviations.shape
    parts, freedoms = [], []
    for levels in factors:
        number = 1 / (np.bincount(levels, shares) ** 2).sum()  # of levels; fewer count where their shares differ
        sums = _means(deviations * shares[:, None], levels) * np.bincount(levels)[:, None]
        parts.append((sums**2).sum(axis=0) * number / (number - 1))
        freedoms.append(number - 1)
    if len(factors) == 1:
        return parts[0], np.full(columns, float(freedoms[0]))
    rest = deviations - sum(_means(deviations, levels)[levels] for levels in factors)
    freedoms.append(max(cells - sum(freedoms) - 1, 1))
    parts.append(((rest * shares[:, None]) ** 2).sum(axis=0) * cells / freedoms[-1])
    first, second, third = parts
    variance = np.maximum(np.maximum(first, second), first + second - third)
    with np.errstate(invalid="ignore"):  # 0 / 0 where nothing varies
        both = variance**2 / sum(part**2 / freedom for part, freedom in zip(parts, freedoms, strict=True))
    return variance, np.where(variance == first, freedoms[0], np.where(variance == second, freedoms[1], both))


def _means(values: Floats, levels: Codes) -> Floats:
    """The mean of each level: levels x columns."""
    counts = np.bincount(levels)
    starts = np.cumsum(counts) - counts
    means: Floats = np.add.reduceat(values[np.argsort(levels, kind="stable")], starts, axis=0) / counts[:, None]
    return means


@cache
def _draws(levels: int) -> NDArray[np.float32]:
    """How often each level is drawn: DRAWS x levels, the same at every call."""
    random, counts = np.random.default_rng(levels), np.empty((DRAWS, levels), np.float32)
    for row in counts:
        row[:] = np.bincount(random.integers(levels, size=levels), minlength=levels)
    return counts


def p_value(differences: Floats, test: str) -> float:
    """Two-sided, of no difference: Wilcoxon's signed ranks or the sign test, zeros left out; 1 where all are zero."""
    from scipy.stats import binomtest, wilcoxon

    other = differences[differences != 0]
    if not len(other):
        return 1.0
    if test == "sign":
        return float(binomtest(int((other > 0).sum()), len(other)).pvalue)
    return float(wilcoxon(other).pvalue)


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment; NaN stays NaN and counts for nothing."""
    order = sorted((i for i, p in enumerate(ps) if not math.isnan(p)), key=lambda i: ps[i])
    adjusted, floor = [math.nan] * len(ps), 0.0
    for rank, i in enumerate(order):
        floor = max(floor, min(1.0, (len(order) - rank) * ps[i]))
        adjusted[i] = floor
    return adjusted
