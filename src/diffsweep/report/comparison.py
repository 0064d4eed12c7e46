"""Settings against each other, fairly: paired differences.

Two values of an axis are compared over pairs that share seed, input and every other axis: the mean difference with the
interval of `statistics.intervals`, and a signed-rank or sign test over independent units (the inputs, each averaged
over its seeds; the seeds where inputs are held fixed), its p adjusted over all comparisons of a call (Holm 1979).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from diffsweep.core.problems import BadInput, did_you_mean, one_of
from diffsweep.core.text import counted
from diffsweep.report.selection import bounds, levels, measured, plain, split_axes, units
from diffsweep.report.statistics import FEW_INPUTS, FEWEST, TESTS, averaged, holm, intervals, p_value
from diffsweep.report.text import briefs, decimals, evaluations, fixed, no_axis, short, shown

if TYPE_CHECKING:
    from diffsweep.report.selection import Codes
    from diffsweep.report.statistics import Bounds, Floats


MOST = 200  # comparisons of an overview, some 10 ms each


@dataclass(frozen=True)
class Comparison:
    """One metric at `value` of an axis less the same at `baseline`, over the n units (seed, input) that both have.

    A unit is averaged over the other axes. `p` is over `units` independent ones, `adjusted` Holm's over the whole call,
    `repeats` names one and several of what counts beside the seeds (`input`, `inputs`), nothing where nothing does;
    `dropped` counts pairs of which one half has no value (failed, exact, not sampled), `nfe` is the model
    evaluations a picture took on either side, `places` the decimals that suit the numbers.
    """

    metric: str
    direction: str
    axis: str
    value: Any
    baseline: Any
    difference: float
    low: float
    high: float
    p: float
    adjusted: float
    n: int
    seeds: int
    inputs: int
    units: str
    repeats: tuple[str, ...]
    dropped: int
    nfe: tuple[float, float]
    places: int = 3

    @property
    def independent(self) -> int:
        """How many units the test takes as independent."""
        return self.seeds if self.units == "seeds" else self.inputs

    @property
    def flags(self) -> tuple[str, ...]:
        """What a reader must know before believing it."""
        found = []
        if self.n and not math.isclose(*self.nfe):
            own, other = map(evaluations, self.nfe)
            if own == other:  # they differ by less than a table shows
                own, other = (f"{nfe:g}" for nfe in self.nfe)
            found.append(f"model evaluations differ: {own} against {other}")
        if self.dropped:
            found.append(f"{counted('pair', self.dropped)} dropped")
        return tuple(found)

    @property
    def estimate(self) -> str:
        """`+0.021 [0.012, 0.030]`."""
        if not self.n:
            return "no common pairs"
        ends = "" if math.isnan(self.low) else f" [{fixed(self.low, self.places)}, {fixed(self.high, self.places)}]"
        return f"{self.difference:+z.{self.places}f}{ends}"

    @property
    def sentence(self) -> str:
        """`guidance.scale 7 against 3: clip_score mean +0.021 [0.012, 0.030], n = 64, p = 0.002`, the adjusted p."""
        value, baseline = (short(text, 60) for text in briefs((self.value, self.baseline)))
        text = f"{self.axis} {value} against {baseline}: {self.metric} {'mean ' if self.n else ''}{self.estimate}"
        text += f", n = {self.n}" + ("" if math.isnan(self.adjusted) else f", {p_text(self.adjusted)}")
        return "; ".join([text, *self.flags])


def p_text(p: float) -> str:
    """`p = 0.031` or `p < 0.001`."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}" if p < 0.1 else f"p = {p:.2f}"


def overview(frame: pd.DataFrame) -> list[Comparison]:
    """Along every axis that `compare` takes, on as many of the metrics that vary as time allows."""
    each = sum(n - 1 for axis in split_axes(frame)[0] if 2 <= (n := frame[axis].nunique(dropna=False)) <= 10)
    metrics = [name for name in measured(frame) if frame[name].nunique() > 1][: max(1, MOST // max(1, each))]
    return compare(frame, metrics) if metrics and each else []


def compare(
    frame: pd.DataFrame,
    metrics: Sequence[str] | None = None,
    axis: str | None = None,
    baseline: str | None = None,
    test: str = "wilcoxon",
    over: Sequence[str] = (),
    fewest: int = FEWEST,
) -> list[Comparison]:
    """Each value of an axis against the baseline (its first value unless named), on every metric.

    frame: a sweep's cells (`frame.results`). axis: by default every axis of 2 to 10 values that makes a setting. over:
    axes whose values count as inputs. fewest: the repeats that an interval takes. BadInput for a name, a value or a
    test that is not there.
    """
    if together := [name for name in metrics or () if name in frame.attrs.get("sets", ())]:
        raise BadInput(f"metric={name}: a number of a whole setting, which has no pairs" for name in together)
    wanted = [name for name in measured(frame, metrics) if frame[name].nunique() > (metrics is None)]
    settings, inputs = split_axes(frame, over)
    if problem := one_of("test", test, TESTS):
        raise BadInput(problem)
    if axis is not None and axis not in (*settings, *inputs):
        raise BadInput(no_axis("axis", axis, [*settings, *inputs]))
    if baseline is not None and axis is None:
        raise BadInput(f"baseline={baseline}: of which axis? axis=NAME says so; there are {', '.join(settings)}")
    chosen = [axis] if axis else [name for name in settings if 2 <= frame[name].nunique(dropna=False) <= 10]
    found = []
    for name in chosen:
        values = list(frame[name].drop_duplicates())
        labels = [shown(plain(value)) for value in values]
        asked = None if baseline is None else shown(baseline)
        if asked in (texts := briefs(map(plain, values))) and asked not in labels:  # as tables show it
            asked = labels[texts.index(asked)]
        if asked is not None and asked not in labels:
            raise BadInput(f"baseline={baseline}: {name} has {', '.join(labels)}{did_you_mean(asked, labels)}")
        first = 0 if asked is None else labels.index(asked)
        beside = [other for other in inputs if other != name]
        rest = [other for other in frame.attrs["axes"] if other not in (name, "seed")]
        cells = _Cells(
            levels(frame, [name]),
            levels(frame, [*rest, "seed"]),
            levels(frame, beside),
            levels(frame, ["seed"]),
        )
        nfe = cells.laid_out(frame["nfe"].astype("Float64"))
        for metric in wanted:
            numbers = cells.laid_out(frame[metric])
            definition = frame.attrs["metrics"][metric]
            low, high = bounds(frame, metric)
            reach = None if low is None or high is None else high - low  # as far as two numbers can be apart
            limits = (fewest, (None if reach is None else -reach, reach))
            for side in range(len(values)):
                if side != first:
                    pair = [plain(values[i]) for i in (side, first)]
                    sides = numbers[[side, first]], nfe[[side, first]]
                    found.append(_compared(cells, *sides, test, limits, beside, metric, definition, name, *pair))
    adjusted = holm([comparison.p for comparison in found])
    return [replace(comparison, adjusted=p) for comparison, p in zip(found, adjusted, strict=True)]


@dataclass(frozen=True)
class _Cells:
    """Where each cell lies: which value of the compared axis it has, and which pair, input and seed it belongs to."""

    sides: Codes
    pairs: Codes
    inputs: Codes
    seeds: Codes

    def laid_out(self, column: pd.Series[Any]) -> Floats:
        """Values of the compared axis x pairs, NaN where there is none."""
        grid = np.full((self.sides.max() + 1, self.pairs.max() + 1), math.nan)
        grid[self.sides, self.pairs] = column.to_numpy(dtype=float, na_value=math.nan)
        return grid

    def units(self) -> tuple[Codes, Codes]:
        """Each pair's input and seed."""
        _, first = np.unique(self.pairs, return_index=True)
        return self.inputs[first], self.seeds[first]


def _compared(
    cells: _Cells,
    numbers: Floats,
    nfe: Floats,
    test: str,
    limits: tuple[int, Bounds],
    beside: Sequence[str],
    metric: str,
    definition: Mapping[str, Any],
    axis: str,
    value: Any,
    baseline: Any,
) -> Comparison:
    """The comparison that two rows of numbers allow, its p not adjusted yet. limits: of intervals, the fewest repeats
    and the bounds; beside: the axes that count as inputs."""
    inputs, seeds = cells.units()
    whole = np.isfinite(numbers).all(axis=0)
    pairs = pd.DataFrame({"input": inputs[whole], "seed": seeds[whole], "by": (numbers[0] - numbers[1])[whole]})
    mean = pairs.groupby(["input", "seed"])["by"].mean()
    inputs, seeds = (mean.index.get_level_values(name).to_numpy() for name in ("input", "seed"))
    n_inputs, n_seeds = len(set(inputs)), len(set(seeds))
    over_inputs = n_inputs >= FEW_INPUTS or n_seeds == 1 < n_inputs
    repeats: tuple[str, ...] = units(beside) if beside else ()
    difference = low = high = p = math.nan
    if len(mean):
        column = mean.to_numpy()[:, None]
        difference = float(averaged(column, inputs)[0])
        low, high = (float(end[0]) for end in intervals(column, inputs, seeds, *limits))
        p = p_value(mean.groupby("input" if over_inputs else "seed").mean().to_numpy(), test)
    places = decimals(definition, numbers[np.isfinite(numbers)])
    largest = max((abs(number) for number in (difference, low, high) if math.isfinite(number)), default=1.0)
    return Comparison(
        metric=metric,
        direction=definition["direction"],
        axis=axis,
        value=value,
        baseline=baseline,
        difference=difference,
        low=low,
        high=high,
        p=p,
        adjusted=math.nan,
        n=len(mean),
        seeds=n_seeds,
        inputs=n_inputs,
        units=repeats[1] if over_inputs else "seeds",
        repeats=repeats,
        dropped=int((~whole & np.isfinite(numbers).any(axis=0)).sum()),
        nfe=(_mean(nfe[0][whole]), _mean(nfe[1][whole])),
        places=places if largest == 0 or largest >= 10 ** (1 - places) else places + 2,
    )


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else math.nan


def explained(comparisons: Sequence[Comparison], test: str = "wilcoxon", fewest: int = FEWEST) -> str:
    """What the sentences' numbers are, and how small a p so few units allow."""
    repeats = " or ".join(dict.fromkeys(one.repeats[0] for one in comparisons if one.repeats))
    share = f"seed, {repeats}" if repeats else "seed"
    text = f"Mean differences of pairs that share {share} and all other axes, with 95 % bootstrap intervals from "
    text += f"{fewest} repeats on; n {f'units ({share})' if repeats else 'seeds'}, each averaged over the other axes"
    text += f"; each {repeats} counts alike." if repeats else "."
    tested = [comparison for comparison in comparisons if not math.isnan(comparison.p)]
    if not tested:
        return text
    least = min(tested, key=lambda comparison: comparison.independent)
    over = " or ".join(sorted({comparison.units for comparison in tested}))
    text += f" p: {TESTS[test]} over {over}, adjusted over {counted('comparison', len(tested))} (Holm)."
    floor = 2.0 ** (1 - least.independent)
    unit = "seed" if least.units == "seeds" else least.repeats[0]
    number = counted(unit, least.independent, several=least.units)
    return f"{text} {number} allow{'s' * (least.independent == 1)} no p below {floor:.3g} before that."


def nothing_to_compare(frame: pd.DataFrame) -> str:
    """Why there is no comparison, and what mends it."""
    there = measured(frame)
    if refused := redefined(frame):
        return refused
    if not there:
        sets = " but by metrics of whole settings, which have no pairs" if frame.attrs["sets"] else ""
        how = "`diffsweep-results score SWEEP metric=NAMES` measures the stored pictures"
        return f"Nothing to compare: no picture was measured{sets}; {how}"
    if all(frame[name].nunique() <= 1 for name in there):
        return f"Nothing to compare: all pictures have the same numbers ({', '.join(there)})"
    return "No axis of 2 to 10 values; axis=NAME compares one of more"


def redefined(frame: pd.DataFrame) -> str:
    """The metrics whose numbers are of two definitions."""
    mends = (f"{n}: measured by two definitions (score SWEEP metric={n} mends it)" for n in frame.attrs["refused"])
    return "; ".join(mends)


def to_frame(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """A row a comparison, unrounded."""
    numbers = ("difference", "low", "high", "p", "adjusted", "n", "seeds", "inputs", "units", "dropped")
    return pd.DataFrame(
        {
            "metric": comparison.metric,
            "axis": comparison.axis,
            **{
                side: value if isinstance(value, str) else shown(value)
                for side, value in (("value", comparison.value), ("baseline", comparison.baseline))
            },
            **{name: getattr(comparison, name) for name in numbers},
            "nfe": comparison.nfe[0],
            "baseline_nfe": comparison.nfe[1],
            "sentence": comparison.sentence,
        }
        for comparison in comparisons
    )
