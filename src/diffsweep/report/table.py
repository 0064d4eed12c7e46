"""A sweep in short: each setting's mean over its seeds and inputs with an interval, or another statistic.

A setting is one choice of every axis but those that repeat it (`metric.sets.replicates`, and those named by `over`).
Nothing is averaged over different settings. Pictures equal to their reference have no finite PSNR: they are left out
and counted (`2 exact`). Failed cells are counted, and in no number.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from diffsweep.core.problems import BadInput, did_you_mean
from diffsweep.report.choice import levels, measured, plain, split_axes
from diffsweep.report.statistics import FEW_INPUTS, Stat, intervals
from diffsweep.report.text import ARROWS, digits, fixed, markdown, no_axis, short, shown

if TYPE_CHECKING:
    from rich.console import RenderableType

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


@dataclass(frozen=True)
class Column:
    """One statistic of one metric, a number a line, for one choice of the axes that are laid out as columns."""

    metric: str
    direction: str
    stat: str
    across: tuple[Any, ...]
    stats: tuple[Stat, ...]
    done: tuple[int, ...]  # the cells of each line

    @cached_property
    def numbers(self) -> list[float]:
        return [number(stat, self.stat, self.direction) for stat in self.stats]

    @cached_property
    def places(self) -> int:
        return digits(self.numbers)

    @property
    def title(self) -> str:
        """`psnr ↑`, `clip_score q95 ↑`, `clip_score best of 4 ↑`."""
        return " ".join(filter(None, [self.metric, called(self.stat), ARROWS[self.direction]]))

    @cached_property
    def ranks(self) -> dict[int, int]:
        """1 for the lines that share the best number as it is shown, 2 for the second best of at least three.

        Empty where all are equal, and where exact and other pictures are mixed: there is no number to compare then.
        """
        if len(self.stats) < 2 or any(stat.exact and stat.n for stat in self.stats) or self.uneven:
            return {}
        exact = {line: 1 for line, stat in enumerate(self.stats) if stat.exact}
        if exact:
            return exact if len(exact) < len(self.stats) else {}
        numbers = {i: round(value, self.places) for i, value in enumerate(self.numbers) if math.isfinite(value)}
        if len(set(numbers.values())) < 2:
            return {}
        order = sorted(set(numbers.values()), reverse=self.direction == "higher")[: 2 if len(numbers) > 2 else 1]
        return {i: order.index(value) + 1 for i, value in numbers.items() if value in order}

    @property
    def uneven(self) -> bool:
        """Whether a metric of sets, whose value depends on their size, is of sets of several sizes."""
        return len({stat.n for stat in self.stats if stat.n and not stat.values}) > 1

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
    without numbers, and why.
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

    @property
    def down(self) -> tuple[str, ...]:
        """The axes that are laid out as lines."""
        return self.axes[: len(self.axes) - len(self.across)]

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
                for group in groups:
                    there = [found.get((*line, *group)) for line in self.lines]
                    stats = tuple(row.stats[metric] if row else NONE for row in there)
                    done = tuple(row.done if row else 0 for row in there)
                    columns.append(Column(metric, direction, stat if single else "mean", group, stats, done))
        return columns


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
) -> Table:
    """Group a sweep's cells (`frame.results`) by setting; BadInput for a name that it has not.

    metrics, stats: which, in order. rows: the axes to sort by, first; cols: those laid out as columns; all other axes
    of a setting are lines too. Seed and inputs are averaged over unless named there. over: axes that count as inputs.
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
    stats_of = {name: _stats(frame, name, members, *codes) for name in there}
    sets, notes = _sets(frame, metrics, axes, members)
    nfe, seconds = (frame[name].astype("Float64").to_numpy(dtype=float, na_value=np.nan) for name in ("nfe", "seconds"))
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


def _stats(frame: pd.DataFrame, metric: str, members: Sequence[Any], inputs: Any, seeds: Any) -> list[Stat]:
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
        lows, highs = intervals(matrix.T, inputs[first], seeds[first])
        means = matrix.mean(axis=1)
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
    return found, notes


def _notes(frame: pd.DataFrame) -> Iterator[str]:
    """Which stage the pictures are of, and what cannot be compared."""
    stages = sorted(frame["stage"].dropna().unique())
    if stages[-1:] > [1]:
        yield f"Pictures of stage {' and '.join('I' * int(stage) for stage in stages)}"
    for name in frame.attrs.get("refused", ()):
        mend = f"`diffsweep-results score SWEEP metric={name}` mends it"
        yield f"{name}: measured by two definitions, so not compared; {mend}"


def _absent(frame: pd.DataFrame, metrics: Sequence[str] | None, there: Sequence[str]) -> Iterator[str]:
    """The metrics that have no numbers, and why."""
    for name in frame.attrs["metrics"]:
        if name not in there and (metrics is None or name in metrics):
            yield f"{name}: no value ({'; '.join(frame.attrs['reasons'][name])})"
    for name, reason in frame.attrs.get("unavailable", {}).items():
        if metrics is None or name in metrics:
            yield f"{name}: not measured ({reason})"


def _mean(values: Any) -> float:
    """NaN where there is no value."""
    there = values[np.isfinite(values)]
    return float(there.mean()) if len(there) else math.nan


def _place(setting: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """A setting by its values, whole: numbers as they are, all else as the frame tells it."""
    number = (int, float)
    return tuple(sorted((k, repr(float(v)) if type(v) in number else shown(v)) for k, v in setting.items()))


def caption(table: Table) -> str:
    """What the numbers are, in a few sentences: which statistic, of how many seeds and inputs, with which interval."""
    stats = [row.stats[name] for row in table.rows for name in table.directions]
    text = [_sentence(table, stats), *(_told(stat) for stat in table.stats if stat != "mean")]
    failed, cells = sum(row.failed for row in table.rows), sum(row.failed + row.done for row in table.rows)
    if failed:
        text.append(f"Failed cells, {_share(failed, cells)} of {cells}, are in no number.")
    if any(stat.exact for stat in stats):
        text.append("Pictures equal to their reference (exact) are counted and left out.")
    whole = [n for n in table.directions if any(row.stats[n].n and not row.stats[n].values for row in table.rows)]
    if whole:
        sizes = [row.stats[name].n for name in whole for row in table.rows if row.stats[name].n]
        number = _counted("picture", sizes)
        text.append(f"{', '.join(whole)}: one number of all of a setting's pictures ({number}), without an interval.")
    if any(_few(stat) for stat in stats):
        text.append("An interval of two or three is wide, and may leave what a metric can be.")
    return " ".join([*text, *(f"{note}." for note in table.notes)])


def full_caption(table: Table) -> str:
    """The caption, and which metrics have no numbers."""
    return " ".join([caption(table), *(f"{note}." for note in table.absent)])


def _few(stat: Stat) -> bool:
    """Whether its interval stands on two or three draws alone."""
    drawn = stat.inputs if stat.seeds == 1 else stat.seeds
    return not math.isnan(stat.low) and drawn <= 3


def _sentence(table: Table, stats: Sequence[Stat]) -> str:
    """`Mean over 4 seeds, with a 95 % interval (bootstrap over seeds).`"""
    over = _counted("seed", [row.seeds for row in table.rows])
    if any(row.inputs > 1 for row in table.rows):
        axes = f" ({', '.join(table.inputs)})"
        over += f" and {_counted('input', [row.inputs for row in table.rows])}{axes}"
    if "mean" not in table.stats:
        return f"Over {over} a setting."
    drawn = {_drawn(stat) for stat in stats if not math.isnan(stat.low)}
    interval = f", with a 95 % interval (bootstrap over {' or '.join(sorted(drawn))})" if drawn else ""
    return f"Mean over {over} a setting{interval}."


def _counted(what: str, numbers: Sequence[int]) -> str:
    """`4 seeds`, `1 to 3 inputs`."""
    low, high = min(numbers, default=0), max(numbers, default=0)
    return f"{low if low == high else f'{low} to {high}'} {what}{'' if high == 1 else 's'}"


def _drawn(stat: Stat) -> str:
    """What the interval's bootstrap draws, as `statistics.intervals` does."""
    if stat.inputs == 1:
        return "seeds"
    if stat.seeds == 1:
        return "inputs"
    return "seeds, for these inputs" if stat.inputs < FEW_INPUTS else "seeds and inputs"


def _told(stat: str) -> str:
    """What a statistic's short name means."""
    if stat.startswith("best"):
        k = called(stat).removeprefix("best of ")
        return f"Best of {k}: the best of {k} seeds, " + (
            "which grows with their number." if k == "all" else "its mean over all choices of them (unbiased)."
        )
    return f"{stat}: the {int(stat[1:])} % quantile." if stat.startswith("q") else "Median over all cells."


Cells = list[tuple[str, bool]]  # a line's cells: the text, and whether it is the best of its column


def counts(table: Table) -> list[tuple[str, list[str]]]:
    """The columns of counts: their headers and texts. A pivoted table has none, its caption tells them."""
    if table.across:
        return []
    rows = table.rows
    found = [("seeds", [str(row.seeds) for row in rows])]
    if any(row.inputs > 1 for row in rows):
        found.append(("inputs", [str(row.inputs) for row in rows]))
    if any(row.failed for row in rows):
        found.append(("failed", [_share(row.failed, row.failed + row.done) for row in rows]))
    return found


def _share(number: int, of: int) -> str:
    """`1 (33 %)`, or `0`."""
    return f"{number} ({100 * number / of:.0f} %)" if number else "0"


def costs(table: Table) -> list[tuple[str, list[str]]]:
    """The columns that say what a picture took."""
    if table.across:
        return []
    return [
        ("nfe", ["–" if math.isnan(row.nfe) else fixed(row.nfe, 1).removesuffix(".0") for row in table.rows]),
        ("seconds", ["–" if math.isnan(row.seconds) else fixed(row.seconds, 2) for row in table.rows]),
    ]


def heading(table: Table, column: Column) -> list[str]:
    """A column's title, and the values of the axes across, if any."""
    across = [f"{axis} {shown(value)}" for axis, value in zip(table.across, column.across, strict=True)]
    return [column.title, *([", ".join(across)] if across else [])]


def cells(table: Table, text: Callable[[str], str], limit: int = 10**6) -> tuple[list[str], list[Cells]]:
    """Header and lines of a table, as text; `text` escapes what is not ours, `limit` shortens settings."""
    before, columns, after = counts(table), table.columns, costs(table)
    header = [*map(text, table.down), *(name for name, _ in before)]
    header += [text(", ".join(heading(table, column))) for column in columns]
    header += [name for name, _ in after]
    ranks = [column.ranks for column in columns]
    lines: list[Cells] = []
    for i, line in enumerate(table.lines):
        found: Cells = [(text(short(shown(value), limit)), False) for value in line]
        found += [(texts[i], False) for _, texts in before]
        found += [(text(column.text(i)), best.get(i) == 1) for column, best in zip(columns, ranks, strict=True)]
        lines.append([*found, *((texts[i], False) for _, texts in after)])
    return header, lines


def to_markdown(table: Table) -> str:
    """A GitHub table, the best of each column bold, its caption and the metrics' definitions below."""
    header, lines = cells(table, markdown)
    rule = ["---" if i < len(table.down) else "---:" for i in range(len(header))]
    body = [[f"**{text}**" if best else text for text, best in line] for line in lines]
    rows = [f"| {' | '.join(line)} |" for line in [header, rule, *body]]
    return "\n".join(
        [*rows, "", markdown(full_caption(table)), "", *(f"* {markdown(text)}" for text in defined(table)), ""]
    )


def defined(table: Table) -> list[str]:
    """What each metric is: `psnr: PSNR against the clean input, in dB`, with the region and network it has."""
    found = []
    for name, definition in table.definitions.items():
        region, network = definition.get("region", ""), definition.get("network")
        parts = [definition.get("metric", name), *([region] if not region.startswith("the whole") else [])]
        against = f"against {definition['references']}" if "references" in definition else None
        found.append(f"{name}: {', '.join(filter(None, [*parts, network, against]))}")
    return found


def to_frame(table: Table) -> pd.DataFrame:
    """The table's numbers, unrounded, a row a setting: counts, and each metric's mean, interval, std, n and so on."""
    return pd.DataFrame(
        {
            **{
                axis: value if isinstance(value, int | float) else shown(value)
                for axis, value in zip(table.axes, row.setting, strict=True)
            },
            "n": row.done,
            "failed": row.failed,
            "failure_rate": row.failed / (row.failed + row.done),
            "seeds": row.seeds,
            "inputs": row.inputs,
            **{
                f"{name}_{what}": value
                for name, direction in table.directions.items()
                for what, value in _numbers(row.stats[name], direction, table.stats)
            },
            "nfe": row.nfe,
            "seconds": row.seconds,
        }
        for row in table.rows
    )


def _numbers(stat: Stat, direction: str, stats: Sequence[str]) -> Iterator[tuple[str, float]]:
    for what in ("mean", "low", "high", "std", "n", "exact"):
        yield what, getattr(stat, what)
    for what in dict.fromkeys(["median", *stats]):
        if what != "mean":
            yield what, number(stat, what, direction)


def to_terminal(table: Table, width: int, most: int = 10**6) -> Iterator[RenderableType]:
    """Rich tables no wider than `width`, of the first `most` lines: columns that do not fit follow in a further table.

    The best of a column is bold and green, the second underlined. The caption comes last.
    """
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    lines, columns = table.lines[:most], table.columns
    styles = ["", "bold green", "underline"]
    plain_columns = [
        *((axis, [short(shown(line[i]), 36) for line in lines]) for i, axis in enumerate(table.down)),
        *counts(table),
    ]
    found = [(title, [(text, "") for text in texts[:most]]) for title, texts in plain_columns]
    first = len(found)
    for column in columns:
        ranks = column.ranks
        texts = [(column.text(i), styles[ranks.get(i, 0)]) for i in range(len(lines))]
        found.append(("\n".join(heading(table, column)), texts))
    found += [(title, [(text, "") for text in texts[:most]]) for title, texts in costs(table)]
    sizes = [max(len(text) for text in [*title.split("\n"), *(text for text, _ in body)]) + 3 for title, body in found]
    for chosen in fitting(sizes, [title.partition("\n")[0] for title, _ in found], first, width):
        rich = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
        for i in chosen:
            left = i < len(table.down)
            rich.add_column(Text(found[i][0]), justify="left" if left else "right", no_wrap=i >= first)
        for i in range(len(lines)):
            rich.add_row(*(Text.assemble(found[column][1][i]) for column in chosen))
        yield rich
    yield Text(full_caption(table), style="dim")


def fitting(sizes: Sequence[float], titles: Sequence[str], first: int, width: float) -> Iterator[list[int]]:
    """Columns a table: the `first` ones in each, then as many of the others as fit, at least one.

    Neighbours of one title stay together where a table holds them.
    """
    held, chosen = sum(sizes[:first]), list(range(first))
    for _, block in groupby(range(first, len(sizes)), key=lambda i: titles[i]):
        whole = list(block)
        fits = held + sum(sizes[i] for i in whole) <= width
        for part in [whole] if fits else [[i] for i in whole]:
            new = not fits and part[0] == whole[0]  # a block that a table of its own holds better
            if len(chosen) > first and (new or sum(sizes[i] for i in [*chosen, *part]) > width):
                yield chosen
                chosen = list(range(first))
            chosen += part
    if len(chosen) > first or len(sizes) == first:
        yield chosen
