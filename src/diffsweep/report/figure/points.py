"""Settings as points: a metric against an axis, against what a picture costs, or against another metric."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from diffsweep.report.figure.data import (
    ACROSS,
    DECADES,
    SERIES,
    axis,
    described,
    grouped,
    measure,
    several,
    side_by_side,
    spread,
    value,
)
from diffsweep.report.figure.plot import Panel, Plot, Point, Series
from diffsweep.report.text import short

if TYPE_CHECKING:
    from diffsweep.report.table import Row, Table

COSTS = {"nfe": "model evaluations a picture", "seconds": "seconds a picture"}


def curve(table: Table, name: str, metrics: Sequence[str], x: str, hue: str | None, facet: str | None) -> Plot:
    """Metrics against an axis, a line for each value of `hue` and of the axes without a role. Where hardly two settings
    share a line (a random search), points alone."""
    along, place = axis(table, x), table.axes.index(x)
    hues, facets, loose = _roles(table, x, hue, facet)

    def order(row: Row) -> float:
        return along.at(row.setting[place])

    panels, names, notes = _panels(
        table, metrics, hues, facets, x, lambda row, metric: _point(order(row), row, table, metric), order
    )
    joined = along.numeric and not loose
    columns, shared = side_by_side(len(metrics), len(panels)), len(panels) > len(metrics)
    return Plot(
        f"{name}: {described(table)}{notes}", panels, names, ", ".join(hues), joined, along, False, columns, shared
    )


def pareto(table: Table, name: str, metrics: Sequence[str], cost: str, hue: str | None, facet: str | None) -> Plot:
    """Metrics against what a picture costs, and the settings that no other beats: none is as good for as little."""
    few = [each for each in several(table) if len(each.values) <= SERIES and each.name != facet]
    hues = [hue] if hue else [each.name for each in sorted(few, key=lambda each: each.numeric)][:1]
    named = [each for each in several(table) if each.name != facet]
    places = [table.axes.index(each.name) for each in named]

    def point(row: Row, metric: str) -> Point:
        texts = (short(each.labels[row.setting[i]], 16) for each, i in zip(named, places, strict=True))
        return _point(getattr(row, cost), row, table, metric, short(", ".join(texts), 40))

    panels, names, notes = _panels(table, metrics, hues, [facet] if facet else [], COSTS[cost], point)
    found = []
    for number, panel in enumerate(panels):
        metric = metrics[number * len(metrics) // len(panels)]
        points = [point for series in panel.series for point in series.points]
        front = tuple(points[i] for i in pareto_front(points, table.directions[metric]))
        on = set(front)
        series = tuple(
            Series(each.style, tuple(p if p in on else replace(p, name="") for p in each.points))
            for each in panel.series
        )
        found.append(replace(panel, series=series, front=front))
    costs = [getattr(row, cost) for row in table.rows if getattr(row, cost) > 0]
    heading = f"{name}: {described(table)}{notes}; named by {', '.join(each.name for each in named)}"
    columns, shared = side_by_side(len(metrics), len(panels)), len(panels) > len(metrics)
    log = bool(costs) and max(costs) / min(costs) >= DECADES
    return Plot(heading, tuple(found), names, ", ".join(hues), False, None, log, columns, shared)


def pareto_front(points: Sequence[Point], direction: str) -> list[int]:
    """The points that no other beats, by rising cost: none is as good and as cheap, and better in one of both."""
    sign = 1.0 if direction == "higher" else -1.0
    there = [i for i, point in enumerate(points) if not math.isnan(point.x + point.y)]
    front: list[int] = []
    for i in sorted(there, key=lambda i: (points[i].x, -sign * points[i].y)):
        last = points[front[-1]] if front else None
        if last is None or sign * points[i].y > sign * last.y or (points[i].x, points[i].y) == (last.x, last.y):
            front.append(i)
    return front


def tradeoff(
    table: Table, name: str, pairs: Sequence[tuple[str, str]], x: str, hue: str | None, facet: str | None
) -> Plot:
    """Pairs of metrics against each other, the settings joined in the order of the axis `x` and named by its values."""
    along, place = axis(table, x), table.axes.index(x)
    hues, facets, loose = _roles(table, x, hue, facet)
    panels: list[Panel] = []
    for first, second in pairs:

        def point(row: Row, metric: str, first: str = first) -> Point:
            own = _point(value(row.stats[first], table.directions[first]), row, table, metric)
            across, name = row.stats[first], "" if loose else short(along.labels[row.setting[place]], 12)
            own = replace(own, left=across.low, right=across.high, name=name)
            return own if math.isfinite(own.x) and math.isfinite(own.y) else replace(own, y=math.nan)

        found, names, notes = _panels(
            table, [second], hues, facets, measure(table, first), point, lambda row: along.at(row.setting[place])
        )
        panels += found
    joined = along.numeric and not loose
    named = "" if loose else f"; {'joined and ' if joined else ''}named by {x}"
    columns = side_by_side(len(pairs), len(panels))
    heading = f"{name}: {described(table)}{notes}{named}"
    return Plot(heading, tuple(panels), names, ", ".join(hues), joined, columns=columns)


def _roles(table: Table, x: str, hue: str | None, facet: str | None) -> tuple[list[str], list[str], bool]:
    """The axes that part lines and panels, and whether nearly every setting would be a line of its own: then only those
    that were asked for do."""
    free = [each for each in several(table) if each.name not in (x, hue, facet)]
    asked = [name for name in (hue,) if name], [name for name in (facet,) if name]
    hue = hue or next((each.name for each in free if len(each.values) <= SERIES), None)
    facet = facet or next((each.name for each in free if len(each.values) <= ACROSS and each.name != hue), None)
    facets = [facet] if facet else []
    hues = [*([hue] if hue else []), *(each.name for each in free if each.name not in (hue, facet))]
    loose = len(table.rows) < 2 * len(grouped(table, [*hues, *facets]))
    return (*asked, True) if loose else (hues, facets, False)


def _panels(
    table: Table,
    metrics: Sequence[str],
    hues: Sequence[str],
    facets: Sequence[str],
    x: str,
    point: Callable[[Row, str], Point],
    order: Callable[[Row], float] | None = None,
) -> tuple[tuple[Panel, ...], tuple[str, ...], str]:
    """A panel for each metric and facet, the names of its series, and what is not shown."""
    parts, keys = grouped(table, facets, named=True), grouped(table, hues)
    shown_parts, shown_keys = spread(parts, ACROSS), spread(keys, SERIES)
    if len(hues) > 1 and len(keys) > SERIES:  # each hue, at as many settings of the other axes as there are lines for
        others = spread(grouped(table, hues[1:]), max(SERIES // len(axis(table, hues[0]).values), 1))
        shown_keys = spread(grouped(table, hues, [row for other in others for row in other.rows]), SERIES)
    look = {key.label: i for i, key in enumerate(shown_keys)}
    panels = []
    for metric in metrics:
        for part in shown_parts:
            series = []
            for key in grouped(table, hues, part.rows):
                if key.label in look:
                    rows = sorted(key.rows, key=order) if order else key.rows
                    series.append(Series(look[key.label], tuple(point(row, metric) for row in rows)))
            panels.append(Panel(part.label, x, measure(table, metric), tuple(series)))
    notes = "".join(
        f"; {len(shown)} of {len(there)} {what} shown"
        for shown, there, what in ((shown_parts, parts, "panels"), (shown_keys, keys, "series"))
        if len(shown) < len(there)
    )
    return tuple(panels), tuple(key.label for key in shown_keys), notes


def _point(x: float, row: Row, table: Table, metric: str, name: str = "") -> Point:
    stat = row.stats[metric]
    return Point(x, value(stat, table.directions[metric]), stat.low, stat.high, name=name)
