"""What figures are drawn from: a table's settings, arranged by axes into panels and series."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

from diffsweep.core.text import counted
from diffsweep.report.fonts import drawable
from diffsweep.report.text import ARROWS, labels, shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from diffsweep.report.statistics import Stat
    from diffsweep.report.table import Row, Table

T = TypeVar("T")

SERIES = 8  # lines that colours, markers and dashes tell apart
ACROSS = 4  # panels side by side
DECADES = 30.0  # the ratio of greatest to least from which on an axis is logarithmic


@dataclass(frozen=True)
class Axis:
    """An axis's values in order: sorted where all are numbers, as the sweep has them otherwise."""

    name: str
    values: tuple[Any, ...]

    @cached_property
    def numeric(self) -> bool:
        return all(isinstance(v, int | float) and not isinstance(v, bool) for v in self.values)

    @cached_property
    def log(self) -> bool:
        return self.numeric and min(self.values) > 0 and max(self.values) / min(self.values) >= DECADES

    @cached_property
    def labels(self) -> dict[Any, str]:
        return dict(zip(self.values, labels(self.values, 20), strict=True))

    @cached_property
    def _index(self) -> dict[Any, int]:
        return {value: i for i, value in enumerate(self.values)}

    def at(self, value: Any) -> float:
        """Where a value lies: at itself, or at its number among the categories."""
        return float(value) if self.numeric else float(self._index[value])

    def ticks(self, room: int) -> tuple[list[float], list[str], bool]:
        """Places and labels, as many as find room in so many characters, and whether the labels must lean to do so."""
        texts = list(self.labels.values())
        long = max(map(len, texts)) + 1
        leans = not self.numeric and long * len(texts) > room
        step = math.ceil((3 if leans else long) * len(texts) / room)
        return [self.at(value) for value in self.values][::step], texts[::step], leans

    def apply(self, axes: Axes, room: int) -> None:
        """Scale, ticks and label of a horizontal axis of so many characters: at the values, where these are apart."""
        from diffsweep.report.figure.style import lean

        axes.set_xlabel(drawable(self.name))
        places = [self.at(value) for value in self.values]
        if self.log:
            axes.set_xscale("log")
            places = [math.log(place) for place in places]
        reach = (places[-1] - places[0]) or 1.0
        apart = min((b - a for a, b in pairwise(places)), default=1.0) / reach
        if self.numeric and apart * room < max(map(len, self.labels.values())) + 1:
            if self.log:
                axes.xaxis.set_major_formatter(lambda value, _: shown(float(value)))
            return
        places, texts, leans = self.ticks(room)
        axes.set_xticks(places, [drawable(text) for text in texts])
        axes.xaxis.minorticks_off()
        if leans:
            lean(axes)
        if not self.numeric:
            axes.set_xlim(-0.5, len(self.values) - 0.5)


def axis(table: Table, name: str) -> Axis:
    place = table.axes.index(name)
    found = Axis(name, tuple(dict.fromkeys(row.setting[place] for row in table.rows)))
    return Axis(name, tuple(sorted(found.values))) if found.numeric else found


def several(table: Table) -> list[Axis]:
    """The axes that have more than one value."""
    return [found for found in (axis(table, name) for name in table.axes) if len(found.values) > 1]


@dataclass(frozen=True)
class Group:
    """Settings that share a panel's or a series' values; the label names these."""

    label: str
    rows: tuple[Row, ...]


def grouped(table: Table, names: Sequence[str], rows: Iterable[Row] | None = None, named: bool = False) -> list[Group]:
    """The settings by their values of these axes, in the axes' order; `named`: the label holds the axes' names."""
    axes = [axis(table, name) for name in names]
    places = [table.axes.index(name) for name in names]
    found: dict[tuple[float, ...], list[Row]] = {}
    for row in table.rows if rows is None else rows:
        key = tuple(a.at(row.setting[place]) for a, place in zip(axes, places, strict=True))
        found.setdefault(key, []).append(row)
    groups = []
    for _, members in sorted(found.items()):
        texts = [a.labels[members[0].setting[place]] for a, place in zip(axes, places, strict=True)]
        parts = [f"{name} = {text}" for name, text in zip(names, texts, strict=True)] if named else texts
        groups.append(Group(", ".join(parts), tuple(members)))
    return groups


def spread(items: Sequence[T], most: int) -> list[T]:
    """At most so many of them, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / max(most - 1, 1))] for i in range(most)]


def side_by_side(metrics: int, panels: int) -> int:
    """Panels side by side: the facets of a metric, or else the metrics, up to three."""
    return panels // metrics if panels > metrics else metrics if metrics <= 3 else 2 if metrics == 4 else 3


def value(stat: Stat, direction: str) -> float:
    """The mean; infinitely good where every picture equals its reference."""
    if math.isnan(stat.mean) and stat.exact:
        return math.inf if direction == "higher" else -math.inf
    return stat.mean


def measure(table: Table, metric: str) -> str:
    """A metric's name with the arrow that points where it is better."""
    return f"{metric} {ARROWS[table.directions[metric]]}"


def described(table: Table, bars: bool = True) -> str:
    """`mean and 95 % interval over 4 seeds and 3 inputs (input.id)`, least to greatest where their numbers differ."""
    one, several = table.units
    axes = f" ({', '.join(table.inputs)})" if one == "input" else ""
    seeds, inputs = ([getattr(row, name) for row in table.rows if row.done] for name in ("seeds", "inputs"))
    parts = [counted("seed", *seeds)]
    parts += [counted(one, *inputs, several=several) + axes] if table.inputs else []
    there = [stat for row in table.rows for stat in row.stats.values()]
    if all(stat.n + stat.exact <= 1 and stat.values for stat in there if stat.n):
        return "one picture a setting"
    what = "mean and 95 % interval" if bars and any(not math.isnan(stat.low) for stat in there) else "mean"
    left_out = "; pictures equal to their reference left out" if any(stat.exact and stat.n for stat in there) else ""
    return f"{what} over {' and '.join(parts)}{left_out}"
