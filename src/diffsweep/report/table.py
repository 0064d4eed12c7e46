"""A sweep in short: mean ± standard deviation over the seeds of each setting.

A setting is one choice of every axis but the seed. Pictures equal to their reference have no finite PSNR: they are left
out of the mean and counted (`2 exact`). Failed cells are counted, and in no mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from diffsweep.core.problems import BadInput, did_you_mean
from diffsweep.report.text import ARROWS, digits, latex, markdown, short, shown

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True)
class Stat:
    """One setting's mean over `n` finite values; `std` is the sample standard deviation (n - 1), NaN for n < 2."""

    mean: float
    std: float
    n: int
    exact: int = 0


@dataclass(frozen=True)
class Row:
    """One setting: its axis values, the cells done and failed, and a Stat a metric."""

    setting: tuple[Any, ...]
    done: int
    failed: int
    stats: dict[str, Stat]
    nfe: float
    seconds: float


@dataclass(frozen=True)
class Table:
    """Settings in the sweep's order; `directions` names the metrics that have numbers, in order."""

    axes: tuple[str, ...]
    rows: tuple[Row, ...]
    directions: dict[str, str]
    notes: tuple[str, ...] = field(default=())

    def first(self, n: int) -> Table:
        """The same table with its first n rows."""
        return replace(self, rows=self.rows[:n])

    def best(self, metric: str) -> set[int]:
        """The rows that share the best mean as it is shown; none where exact and other pictures are mixed."""
        stats = [row.stats[metric] for row in self.rows]
        if len(stats) < 2 or any(stat.exact and stat.n for stat in stats):
            return set()
        if any(stat.exact for stat in stats):
            return {i for i, stat in enumerate(stats) if stat.exact}
        places = digits(stat.mean for stat in stats)
        means = {i: round(stat.mean, places) for i, stat in enumerate(stats) if stat.n}
        best = (max if self.directions[metric] == "higher" else min)(means.values(), default=math.nan)
        return {i for i, mean in means.items() if mean == best}


def summarise(frame: pd.DataFrame, metrics: Sequence[str] | None = None) -> Table:
    """Group a sweep's cells (`frame.results`) by setting. metrics: which, in order; BadInput for one it has not."""
    definitions, reasons = frame.attrs["metrics"], frame.attrs["reasons"]
    wanted = list(definitions) if metrics is None else list(dict.fromkeys(metrics))
    if wrong := [name for name in wanted if name not in definitions]:
        measured = f"it has {', '.join(definitions)}" if definitions else "it has none"
        raise BadInput(
            f"metric={name}: this sweep has no such numbers; {measured}{did_you_mean(name, definitions)} "
            f"(`diffsweep-results score SWEEP metric=...` computes more)"
            for name in wrong
        )
    axes = tuple(axis for axis in frame.attrs["axes"] if axis != "seed")
    exact = [f"{name}_exact" for name in wanted if f"{name}_exact" in frame]
    there = [name for name in wanted if frame[name].notna().any() or f"{name}_exact" in exact]
    notes = [f"{name}: no value ({'; '.join(reasons[name])})" for name in wanted if name not in there]
    stages = sorted(frame["stage"].dropna().unique())
    if stages[-1:] > [1]:
        notes.append(f"Pictures of stage {' and '.join('I' * int(stage) for stage in stages)}")
    notes += [
        f"{name}: measured by two definitions, so not compared; `diffsweep-results score SWEEP metric={name}` mends it"
        for name in frame.attrs.get("refused", ())
    ]
    numbers = frame.assign(_done=frame["status"] == "done", _all=0, nfe=frame["nfe"].astype("Float64").astype(float))
    groups = numbers.groupby([*axes] or ["_all"], sort=False, dropna=False)
    tallies = groups[["_done", *exact]].sum()
    sizes = groups.size().tolist()
    means, stds, counts = (getattr(groups[[*there, "nfe", "seconds"]], what)() for what in ("mean", "std", "count"))
    columns = {
        name: [
            Stat(*values)
            for values in zip(
                means[name].tolist(),
                stds[name].tolist(),
                counts[name].tolist(),
                tallies[f"{name}_exact"].astype(int).tolist() if f"{name}_exact" in exact else [0] * len(sizes),
                strict=True,
            )
        ]
        for name in there
    }
    settings = list(means.index) if len(axes) > 1 else [(value,) if axes else () for value in means.index]
    rows = tuple(
        Row(
            tuple(_value(value) for value in settings[i]),
            done := int(tallies["_done"].iloc[i]),
            sizes[i] - done,
            {name: columns[name][i] for name in there},
            float(means["nfe"].iloc[i]),
            float(means["seconds"].iloc[i]),
        )
        for i in range(len(sizes))
    )
    return Table(axes, rows, {name: definitions[name]["direction"] for name in there}, tuple(notes))


def _value(value: Any) -> Any:
    """A plain value from pandas' or numpy's."""
    return None if pd.isna(value) else value.item() if hasattr(value, "item") else value


def caption(table: Table) -> str:
    """What the numbers are, in one sentence or two."""
    text = "Mean ± sample standard deviation over seeds; n cells a setting."
    if any(stat.exact for row in table.rows for stat in row.stats.values()):
        text += " Pictures equal to their reference (exact) are counted and left out of the mean."
    return " ".join([text, *(f"{note}." for note in table.notes)])


Cells = list[tuple[str, bool]]  # a line's cells: the text, and whether it is the best of its column


def cells(table: Table, text: Callable[[str], str], limit: int = 10**6) -> tuple[list[str], list[Cells]]:
    """Header and lines of a table, as text; `text` escapes what is not ours, `limit` shortens settings."""
    failed = any(row.failed for row in table.rows)
    header = [*(text(axis) for axis in table.axes), "n", *(["failed"] if failed else [])]
    header += [f"{text(name)} {text(ARROWS[direction])}" for name, direction in table.directions.items()]
    header += ["nfe", "seconds"]
    best = {name: table.best(name) for name in table.directions}
    places = {name: digits(row.stats[name].mean for row in table.rows) for name in table.directions}
    lines: list[Cells] = []
    for i, row in enumerate(table.rows):
        line: Cells = [(text(short(shown(value), limit)), False) for value in row.setting]
        line += [(str(row.done), False), *([(str(row.failed), False)] if failed else [])]
        line += [(text(number(row.stats[name], places[name])), i in best[name]) for name in table.directions]
        line += [(text(_plain(row.nfe, 1).removesuffix(".0")), False), (text(_plain(row.seconds, 2)), False)]
        lines.append(line)
    return header, lines


def number(stat: Stat, places: int) -> str:
    """`28.31 ± 1.02`, `28.31` for one value, with `(2 exact)`, or `exact`."""
    if not stat.n:
        return "exact" if stat.exact else "–"
    text = _plain(stat.mean, places) + (f" ± {_plain(stat.std, places)}" if stat.n > 1 else "")
    return text + (f" ({stat.exact} exact)" if stat.exact else "")


def _plain(value: float, places: int) -> str:
    return "–" if math.isnan(value) else f"{value:.{places}f}"


def to_markdown(table: Table) -> str:
    """A GitHub table, the best of each column bold, its caption below."""
    header, lines = cells(table, markdown)
    rule = ["---" if i < len(table.axes) else "---:" for i in range(len(header))]
    body = [[f"**{text}**" if best else text for text, best in line] for line in lines]
    rows = [f"| {' | '.join(line)} |" for line in [header, rule, *body]]
    return "\n".join([*rows, "", markdown(caption(table)), ""])


def to_latex(table: Table, name: str = "results") -> str:
    """A `table` environment in booktabs style, every text escaped, the best of each column bold."""
    header, lines = cells(table, latex)
    body = [" & ".join(rf"\textbf{{{text}}}" if best else text for text, best in line) for line in lines]
    columns = "l" * len(table.axes) + "r" * (len(header) - len(table.axes))
    label = "".join(c if c.isalnum() or c in "-." else "-" for c in name)
    return "\n".join(
        [
            r"% needs \usepackage{booktabs}",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{latex(caption(table))}}}",
            rf"\label{{tab:{label}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            " & ".join(header) + r" \\",
            r"\midrule",
            *(line + r" \\" for line in body),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def to_frame(table: Table) -> pd.DataFrame:
    """The table's numbers, unrounded: a row a setting, `<metric>_mean`, `_std`, `_n` and `_exact`."""
    return pd.DataFrame(
        {
            **{
                axis: value if isinstance(value, int | float) else shown(value)
                for axis, value in zip(table.axes, row.setting, strict=True)
            },
            "n": row.done,
            "failed": row.failed,
            **{
                f"{name}_{what}": getattr(stat, what)
                for name, stat in row.stats.items()
                for what in ("mean", "std", "n", "exact")
            },
            "nfe": row.nfe,
            "seconds": row.seconds,
        }
        for row in table.rows
    )


def to_terminal(table: Table, width: int) -> Iterator[RenderableType]:
    """Rich tables no wider than `width`: metrics that do not fit follow in a further table, then the caption."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    header, lines = cells(table, str, limit=36)
    first = len(table.axes) + 1 + any(row.failed for row in table.rows)
    sizes = [max(len(text) for text in [h, *(line[i][0] for line in lines)]) + 2 for i, h in enumerate(header)]
    for chosen in _fitting(sizes, first, width):
        rich = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
        for i in chosen:
            rich.add_column(Text(header[i]), justify="left" if i < len(table.axes) else "right", no_wrap=i >= first)
        for line in lines:
            rich.add_row(*(Text(text, style="bold green" if best else "") for text, best in (line[i] for i in chosen)))
        yield rich
    yield Text(caption(table), style="dim")


def _fitting(sizes: Sequence[int], first: int, width: int) -> Iterator[list[int]]:
    """Columns a table: the `first` ones in each, then as many of the others as fit, at least one."""
    rest = list(range(first, len(sizes)))
    while rest:
        chosen = list(range(first))
        while rest and (len(chosen) == first or sum(sizes[i] for i in [*chosen, rest[0]]) <= width):
            chosen.append(rest.pop(0))
        yield chosen
