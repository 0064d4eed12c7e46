"""A sweep in short: each setting's mean over its seeds and inputs with an interval, or another statistic.

A setting is one choice of every axis but those that repeat it (`metric.settings.replicates`, and those named by
`over`). Nothing is averaged over different settings. Pictures equal to their reference have no finite PSNR: they are
left out and counted (`2 exact`). Failed cells are counted, and in no number.

The best of a metric is that of all comparable settings, however they are laid out as lines and columns: of those that
share seed and input, where these are laid out too, since one picture is easier than another.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from diffsweep.core.problems import BadInput, did_you_mean
from diffsweep.core.text import gathered, level
from diffsweep.metric.settings import replicates
from diffsweep.report.frame import CEILING
from diffsweep.report.selection import bounds, levels, measured, plain, split_axes, units
from diffsweep.report.statistics import FEWEST, Stat, averaged, intervals
from diffsweep.report.text import ARROWS, briefs, decimals, fixed, no_axis, shown

NONE = Stat(math.nan, math.nan, 0)
STATS = ("mean", "median", "best")  # and q1 to q99, best1, best2, ...


@dataclass(frozen=True)
class Row:
    """One setting: its axis values, the cells done and failed, their seeds and inputs, and a Stat a metric."""

    setting: tuple[Any, ...]
    done: int
    failed: int
    stats: dict[str, Stat]
    nfe: float
    seconds: float
    seeds: int
    inputs: int
    vae_psnr: float = math.nan


@dataclass(frozen=True)
class Column:
    """One statistic of one metric, a number a line, for one choice of the axes that are laid out as columns.

    done: the cells of each line. places: decimals. uneven: whether a metric of sets, whose value depends on their size,
    is of sets of several sizes. beside_others: whether the table has further statistics of it.
    ranks: 1 for the lines that hold the best number, 2 for the second best.
    """

    metric: str
    direction: str
    stat: str
    across: tuple[Any, ...]
    stats: tuple[Stat, ...]
    done: tuple[int, ...]
    places: int = 3
    uneven: bool = False
    beside_others: bool = False
    ranks: Mapping[int, int] = field(default_factory=dict)

    @cached_property
    def numbers(self) -> list[float]:
        return [number(stat, self.stat, self.direction) for stat in self.stats]

    @property
    def title(self) -> str:
        """`psnr ↑`, `clip_score q95 ↑`, `clip_score best of 4 ↑`; `psnr mean ↑` beside other statistics."""
        which = called(self.stat) or ("mean" if self.beside_others else "")
        return " ".join(filter(None, [self.metric, which, ARROWS[self.direction]]))

    def estimate(self, line: int) -> str:
        """`28.31`, `exact` or `–`."""
        if math.isnan(value := self.numbers[line]):
            return "exact" if self.stats[line].exact else "–"
        return fixed(value, self.places)

    def beside(self, line: int) -> str:
        """`[27.02, 29.55]`, `(2 exact)`, `(n = 3)` where cells have no value or sets differ in size, or nothing."""
        stat = self.stats[line]
        if math.isnan(self.numbers[line]):
            return ""
        ends = [fixed(end, self.places) for end in (stat.low, stat.high)]
        return " ".join(
            [
                *([f"[{', '.join(ends)}]"] if self.stat == "mean" and not math.isnan(stat.low) else []),
                *([f"({stat.exact} exact)"] if stat.exact else []),
                *([f"(n = {stat.n})"] if self.uneven or stat.n + stat.exact < self.done[line] else []),
            ]
        )

    def text(self, line: int) -> str:
        return f"{self.estimate(line)} {self.beside(line)}".strip()


@dataclass(frozen=True)
class Table:
    """Settings in the sweep's order; `directions` names the metrics that have numbers, in order.

    `across`: the last of the axes, where they are laid out as columns. `stats`: the statistics shown. `inputs`: the
    axes whose values are averaged over, beside the seeds. `notes`: what else a reader must know. `absent`: metrics
    without numbers, and why. `fewest`: the repeats that an interval takes.
    """

    axes: tuple[str, ...]
    rows: tuple[Row, ...]
    directions: dict[str, str]
    notes: tuple[str, ...] = ()
    across: tuple[str, ...] = ()
    stats: tuple[str, ...] = ("mean",)
    inputs: tuple[str, ...] = ()
    definitions: dict[str, dict[str, Any]] = field(default_factory=dict)
    absent: tuple[str, ...] = ()
    fewest: int = FEWEST

    @property
    def units(self) -> tuple[str, str]:
        """One and several of what is averaged over beside the seeds."""
        return units(self.inputs)

    @property
    def down(self) -> tuple[str, ...]:
        """The axes that are laid out as lines."""
        return self.axes[: len(self.axes) - len(self.across)]

    @cached_property
    def texts(self) -> dict[str, dict[Any, str]]:
        """Each axis's values in short, as they are shown."""
        columns = ([*dict.fromkeys(row.setting[i] for row in self.rows)] for i in range(len(self.axes)))
        return {axis: dict(zip(own, briefs(own), strict=True)) for axis, own in zip(self.axes, columns, strict=True)}

    @cached_property
    def lines(self) -> list[tuple[Any, ...]]:
        """The values of `down`, a line each."""
        return list(dict.fromkeys(row.setting[: len(self.down)] for row in self.rows))

    @cached_property
    def columns(self) -> list[Column]:
        """What is shown of each metric, all values of `across` side by side."""
        found = {row.setting: row for row in self.rows}
        groups = list(dict.fromkeys(row.setting[len(self.down) :] for row in self.rows))
        places = [list(dict.fromkeys(values)) for values in zip(*groups, strict=True)]
        groups.sort(key=lambda group: [place.index(value) for place, value in zip(places, group, strict=True)])
        columns = []
        for metric, direction in self.directions.items():
            single = any(row.stats[metric].values for row in self.rows)  # else a metric of sets: it has no quantiles
            for stat in self.stats if single else self.stats[:1]:
                block = []
                for group in groups:
                    there = [found.get((*line, *group)) for line in self.lines]
                    stats = tuple(row.stats[metric] if row else NONE for row in there)
                    done = tuple(row.done if row else 0 for row in there)
                    column = Column(metric, direction, stat if single else "mean", group, stats, done)
                    block.append(replace(column, beside_others=single and len(self.stats) > 1))
                columns += self._compared(block)
        return columns

    @cached_property
    def alike(self) -> dict[str, str]:
        """The metrics whose numbers are those of an earlier one in every line, as of two regions that are the same, and
        that one."""
        first: dict[tuple[str, str], str] = {}
        found: dict[str, str] = {}
        for name in self.directions:
            numbers = repr([row.stats[name] for row in self.rows])
            before = first.setdefault((str(self.definitions.get(name, {}).get("metric")), numbers), name)
            found |= {name: before} if before != name else {}
        return found

    @property
    def repeated(self) -> list[str]:
        """The axes that repeat a setting, seed and input, where they make lines or columns: what differs in them is not
        compared."""
        return replicates(self.axes)

    def _compared(self, block: Sequence[Column]) -> list[Column]:
        """The columns of one metric and statistic: with decimals in common, and the best of what is comparable."""
        stats = [stat for column in block for stat in column.stats]
        definition = self.definitions.get(block[0].metric, {})
        places = decimals(definition, (number for column in block for number in column.numbers))
        uneven = len({stat.n for stat in stats if stat.n and not stat.values}) > 1
        alike: dict[tuple[Any, ...], list[tuple[int, int]]] = defaultdict(list)
        for k, column in enumerate(block):
            for i, line in enumerate(self.lines):
                setting = dict(zip(self.axes, (*line, *column.across), strict=True))
                alike[tuple(setting[axis] for axis in self.repeated)].append((k, i))
        ranks: list[dict[int, int]] = [{} for _ in block]
        for cells in () if uneven else alike.values():
            numbers = [round(block[k].numbers[i], places) for k, i in cells]
            found = ranked([block[k].stats[i] for k, i in cells], numbers, block[0].direction)
            for (k, i), rank in zip(cells, found, strict=True):
                ranks[k] |= {i: rank} if rank else {}
        return [replace(column, places=places, uneven=uneven, ranks=ranks[k]) for k, column in enumerate(block)]


def ranked(stats: Sequence[Stat], numbers: Sequence[float], direction: str) -> list[int]:
    """1 for those that share the best number as it is shown, 2 for the second best of at least three, 0 for others.

    All 0 where all are equal, and where exact and other pictures are mixed: there is no number to compare then.
    """
    exact = [int(stat.exact > 0) for stat in stats]
    if any(exact):
        mixed = any(stat.exact and stat.n for stat in stats) or all(exact)
        return [0] * len(stats) if mixed else exact
    there = [number for number in numbers if math.isfinite(number)]
    if len(set(there)) < 2:
        return [0] * len(stats)
    order = sorted(set(there), reverse=direction == "higher")[: 2 if len(there) > 2 else 1]
    return [order.index(number) + 1 if number in order else 0 for number in numbers]


def number(stat: Stat, which: str, direction: str) -> float:
    """mean, median, q95 (a quantile), best4 (the expected best of 4 seeds), best (of all seeds)."""
    if which == "mean":
        return stat.mean
    if which == "median":
        return stat.median
    if which.startswith("best"):
        return stat.best_of(int(which[4:] or min(map(len, stat.values), default=0)), direction)
    return stat.quantile(int(which[1:]) / 100)


def called(stat: str) -> str:
    """Nothing for the mean, `median`, `q95`, `best of 4`, `best of all`."""
    return "" if stat == "mean" else re.sub(r"^best(\d*)$", lambda found: f"best of {found[1] or 'all'}", stat)


def summarise(
    frame: pd.DataFrame,
    metrics: Sequence[str] | None = None,
    stats: Sequence[str] = ("mean",),
    rows: Sequence[str] = (),
    cols: Sequence[str] = (),
    over: Sequence[str] = (),
    fewest: int = FEWEST,
) -> Table:
    """Group a sweep's cells (`frame.results`) by setting; BadInput for a name that it has not.

    metrics, stats: which, in order. rows: the axes to sort by, first; cols: those laid out as columns; all other axes
    of a setting are lines too. Seed and inputs are averaged over unless named there. over: axes that count as inputs.
    fewest: the repeats that an interval takes.
    """
    there, stats = measured(frame, metrics), tuple(dict.fromkeys(stats))
    axes, inputs = _arranged(frame, stats, rows, cols, over)
    groups, order = levels(frame, axes), np.arange(len(frame))
    if rows or cols:  # sorted by each axis in turn, in the order in which its values come in the sweep
        order = np.lexsort([levels(frame, [axis]) for axis in reversed(axes)])
        groups = levels(frame.iloc[order], axes)
    members = [order[groups == group] for group in range(groups.max() + 1)] if len(axes) else [order]
    done = (frame["status"] == "done").to_numpy()
    codes = levels(frame, inputs), levels(frame, ["seed"])
    stats_of = {name: _stats(frame, name, members, *codes, fewest) for name in there}
    sets, notes = _sets(frame, metrics, axes, members)
    nfe, seconds = (frame[name].astype("Float64").to_numpy(dtype=float, na_value=np.nan) for name in ("nfe", "seconds"))
    ceilings = frame.get(CEILING, pd.Series(math.nan, frame.index)).to_numpy(dtype=float)
    columns = [frame[axis].tolist() for axis in axes]
    table_rows = []
    for i, cells in enumerate(members):
        finished = cells[done[cells]]
        table_rows.append(
            Row(
                tuple(plain(column[cells[0]]) for column in columns),
                len(finished),
                len(cells) - len(finished),
                {name: found[i] for name, found in (stats_of | sets).items()},
                _mean(nfe[finished]),
                _mean(seconds[finished]),
                len(np.unique(codes[1][finished])),
                len(np.unique(codes[0][finished])),
                _mean(ceilings[finished]),
            )
        )
    most = max((stat.seeds for found in stats_of.values() for stat in found), default=0)
    for stat in stats:
        if most and stat.startswith("best") and int(stat[4:] or 0) > most:
            raise BadInput(f"stat={stat}: no setting has so many seeds; the most are {most}")
    definitions = {**frame.attrs["metrics"], **{k: v["definition"] for k, v in frame.attrs.get("sets", {}).items()}}
    shown_metrics = [name for name in metrics or definitions if name in stats_of or name in sets]
    return Table(
        tuple(axes),
        tuple(table_rows),
        {name: definitions[name]["direction"] for name in shown_metrics},
        (*_notes(frame), *notes),
        tuple(cols),
        tuple(stats),
        tuple(inputs),
        {name: definitions[name] for name in shown_metrics},
        tuple(_absent(frame, metrics, there)),
        fewest,
    )


def _arranged(
    frame: pd.DataFrame, stats: Sequence[str], rows: Sequence[str], cols: Sequence[str], over: Sequence[str]
) -> tuple[list[str], list[str]]:
    """The axes of the table in order, and those averaged over as inputs; BadInput for a statistic or an axis wrong."""
    if wrong := [stat for stat in stats if not re.fullmatch(r"mean|median|q[1-9]\d?|best([1-9]\d*)?", stat)]:
        raise BadInput(
            f"stat={stat}: must be mean, median, a quantile (q5, q95) or a best of k seeds (best4; best: of all)"
            f"{did_you_mean(stat, STATS)}"
            for stat in wrong
        )
    settings, inputs = split_axes(frame, over)
    named = [*rows, *cols]
    known = [*settings, *inputs, *(["seed"] if "seed" in frame.attrs["axes"] else [])]
    for key, axes in (("rows", rows), ("cols", cols)):
        if wrong := [axis for axis in axes if axis not in known]:
            raise BadInput(no_axis(key, axis, known) for axis in wrong)
    if wrong := [axis for axis in named if named.count(axis) > 1 or axis in over]:
        raise BadInput(f"{axis}: named twice among rows, cols and over" for axis in dict.fromkeys(wrong))
    others = [axis for axis in settings if axis not in named]
    return [*rows, *others, *cols], [axis for axis in inputs if axis not in named]


def _stats(
    frame: pd.DataFrame, metric: str, members: Sequence[Any], inputs: Any, seeds: Any, fewest: int
) -> list[Stat]:
    """A Stat for each setting; settings whose values lie at the same inputs and seeds share one bootstrap."""
    values = frame[metric].to_numpy(dtype=float)
    exact = frame[f"{metric}_exact"].to_numpy(dtype=bool) if f"{metric}_exact" in frame else np.zeros(len(frame), bool)
    there = [cells[np.isfinite(values[cells])] for cells in members]
    alike: dict[tuple[bytes, bytes], list[int]] = defaultdict(list)
    for i, cells in enumerate(there):
        if len(cells):
            alike[inputs[cells].tobytes(), seeds[cells].tobytes()].append(i)
    found = [Stat(math.nan, math.nan, 0, int(exact[cells].sum())) for cells in members]
    for same in alike.values():
        first = there[same[0]]
        matrix = np.stack([values[there[i]] for i in same])
        lows, highs = intervals(matrix.T, inputs[first], seeds[first], fewest, bounds(frame, metric))
        means = averaged(matrix.T, inputs[first])
        stds = matrix.std(axis=1, ddof=1) if len(first) > 1 else np.full(len(same), math.nan)
        places = [np.flatnonzero(inputs[first] == level) for level in dict.fromkeys(inputs[first].tolist())]
        number_of_seeds = len(np.unique(seeds[first]))
        for i, row, mean, std, low, high in zip(same, matrix, means, stds, lows, highs, strict=True):
            found[i] = Stat(
                float(mean),
                float(std),
                len(first),
                found[i].exact,
                float(low),
                float(high),
                number_of_seeds,
                len(places),
                tuple(tuple(row[place].tolist()) for place in places),
            )
    return found


def _sets(
    frame: pd.DataFrame, metrics: Sequence[str] | None, axes: Sequence[str], members: Sequence[Any]
) -> tuple[dict[str, list[Stat]], list[str]]:
    """The metrics of whole sets of pictures, in the rows that are such sets, and what is to be said of them."""
    columns = {axis: frame[axis].tolist() for axis in axes}
    settings = [_place({axis: plain(columns[axis][cells[0]]) for axis in axes}) for cells in members]
    found, notes = {}, []
    for name, measure in frame.attrs.get("sets", {}).items():
        if metrics is not None and name not in metrics:
            continue
        of = {_place(entry["axes"]): entry for entry in measure["values"]}
        entries = [of.get(setting) for setting in settings]
        found[name] = [
            NONE if not entry or entry["value"] is None else Stat(float(entry["value"]), math.nan, int(entry["cells"]))
            for entry in entries
        ]
        if not any(entries):
            notes.append(f"{name}: a number of a whole setting's pictures, and no row here is one")
        reasons = sorted(
            {entry["reason"] for entry in entries if entry and entry["value"] is None and entry.get("reason")}
        )
        if reasons:
            notes.append(f"{name}: no value in places ({'; '.join(reasons)})")
        said = dict.fromkeys(entry["note"] for entry in entries if entry and entry.get("note"))
        notes += [f"{name}: {note}" for note in said]
    return found, notes


def _notes(frame: pd.DataFrame) -> Iterator[str]:
    """Which stage the pictures are of, and what cannot be compared."""
    stages = sorted(frame["stage"].dropna().unique())
    if stages[-1:] > [1]:
        yield f"Pictures of stage {' and '.join('I' * int(stage) for stage in stages)}"
    if CEILING in frame:
        yield f"{CEILING}: PSNR of the input, encoded and decoded alone: no setting's psnr can pass it by much"
    for name in frame.attrs.get("refused", ()):
        mend = f"`diffsweep-results score SWEEP metric={name}` measures them again"
        yield f"{name}: measured by two definitions, so not compared; {mend}"


def _absent(frame: pd.DataFrame, metrics: Sequence[str] | None, there: Sequence[str]) -> Iterator[str]:
    """The metrics that have no numbers, and why."""
    for name in frame.attrs["metrics"]:
        if name not in there and (metrics is None or name in metrics):
            yield f"{name}: no value ({'; '.join(frame.attrs['reasons'][name])})"
    unavailable: dict[str, list[str]] = defaultdict(list)
    known: Mapping[str, str] = frame.attrs.get("unavailable", {})
    for name, reason in known.items():
        if metrics is None or name in metrics:
            unavailable[reason].append(name)
    for reason, names in unavailable.items():
        yield f"{', '.join(gathered(names, [*frame.attrs['metrics'], *known]))}: not measured ({reason})"


def _mean(values: Any) -> float:
    """NaN where there is no value."""
    there = values[np.isfinite(values)]
    return float(there.mean()) if len(there) else math.nan


def _place(setting: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """A setting by its values, whole: numbers as they are, all else as the frame has it."""
    return tuple(sorted((k, level(v) if type(v) in (int, float) else shown(v)) for k, v in setting.items()))
