"""Panels of points with intervals and names, drawn; `points.py` says what they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from diffsweep.report.figure import style
from diffsweep.report.figure.data import SERIES, Axis, spread
from diffsweep.report.fonts import drawable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BANDS = 12  # points on a line from which on intervals are a band
MANY = 500  # points in a series from which on intervals are left out
NAMED = 12  # points that are named in a panel


@dataclass(frozen=True)
class Point:
    """A setting: where it lies, its intervals (NaN where there is none), and its name, if it is to be named.

    An infinite `y` is that of pictures equal to their reference: it is drawn on the panel's edge.
    """

    x: float
    y: float
    low: float = math.nan
    high: float = math.nan
    left: float = math.nan
    right: float = math.nan
    name: str = ""


@dataclass(frozen=True)
class Series:
    """style: which colour, marker and dashes, the same in each panel."""

    style: int
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Panel:
    title: str
    x: str
    y: str
    series: tuple[Series, ...]
    front: tuple[Point, ...] = ()


@dataclass(frozen=True)
class Plot:
    """Panels with one legend. along: the axis below, where that is one of the sweep's; joined: lines between points;
    shared: one scale for the panels of a row."""

    heading: str
    panels: tuple[Panel, ...]
    names: tuple[str, ...]
    legend: str
    joined: bool
    along: Axis | None = None
    log: bool = False
    columns: int = 1
    shared: bool = False

    def draw(self) -> Figure:
        from matplotlib.lines import Line2D

        leans = self.along is not None and self.along.ticks(style.room(self.columns))[2]
        height = style.HIGH + (style.LEANING if leans else 0)
        figure, grid = style.panels(-(-len(self.panels) // self.columns), self.columns, height, self.shared)
        places = [axes for line in grid for axes in line]
        for axes in places[len(self.panels) :]:
            axes.remove()
        for axes, panel in zip(places, self.panels, strict=False):
            self._panel(axes, panel)
        style.heading(figure, self.heading)
        handles = [Line2D([], [], **self._look(i)) for i in range(len(self.names))] if len(self.names) > 1 else []
        names = list(self.names) if handles else []
        if any(panel.front for panel in self.panels):
            handles.append(Line2D([], [], color="black", linewidth=0.9))
            names.append("Pareto front")
        if any(math.isinf(point.y) for panel in self.panels for series in panel.series for point in series.points):
            handles.append(Line2D([], [], color="black", marker=6, linestyle="none"))
            names.append("on the edge: equal to the reference")
        if handles:
            style.legend(figure, handles, names, self.legend if len(self.names) > 1 else "")
        style.settle(figure)
        for axes, panel in zip(places, self.panels, strict=False):
            _name(axes, [point for series in panel.series for point in series.points])
        return figure

    def _look(self, number: int) -> dict[str, Any]:
        dashes = style.DASHES[number % SERIES] if self.joined else "none"
        return {
            "color": style.COLOURS[number % SERIES],
            "marker": style.MARKERS[number % SERIES],
            "linestyle": dashes,
            "markeredgecolor": "white",
            "markeredgewidth": 0.4,
        }

    def _aside(self, number: int) -> float:
        """How far a series stands aside, in inches, so that no interval hides another."""
        if self.along is None:
            return 0.0
        apart = min(1.5, 8 / len(self.names)) if self.along.numeric else 100 / len(self.along.values) / len(self.names)
        return min(apart, 4) * (number - (len(self.names) - 1) / 2) / 72

    def _panel(self, axes: Axes, panel: Panel) -> None:
        style.title(axes, panel.title, self.columns)
        axes.set_ylabel(drawable(panel.y))
        if self.along:
            self.along.apply(axes, style.room(self.columns))
        else:
            axes.set_xlabel(drawable(panel.x))
            if self.log:
                from diffsweep.report.text import shown

                axes.set_xscale("log")
                axes.xaxis.set_major_formatter(lambda value, _: shown(float(value)))
        steps = [point for point in panel.front if math.isfinite(point.y)]
        if steps:
            costs = [point.x for series in panel.series for point in series.points if math.isfinite(point.x)]
            steps.append(replace(steps[-1], x=max(costs)))
            x, y = [point.x for point in steps], [point.y for point in steps]
            axes.plot(x, y, drawstyle="steps-post", color="black", linewidth=0.9, zorder=1.5, label="front")
        for series in panel.series:
            self._series(axes, series)
        if not any(math.isfinite(point.y) for series in panel.series for point in series.points):
            axes.set_yticks([])
        if self.shared:
            axes.label_outer()

    def _series(self, axes: Axes, series: Series) -> None:
        from matplotlib.transforms import ScaledTranslation

        look = self._look(series.style)
        points = [point for point in series.points if math.isfinite(point.y)]
        x, y = [point.x for point in points], [point.y for point in points]
        band = bool(self.along) and self.joined and len(points) > BANDS
        aside = ScaledTranslation(0 if band else self._aside(series.style), 0, axes.figure.dpi_scale_trans)
        bars: dict[str, Any] = {}
        if band:
            axes.fill_between(
                x, [p.low for p in points], [p.high for p in points], color=look["color"], alpha=0.2, lw=0
            )
        elif len(points) <= MANY:
            bars["yerr"] = _bars([(point.low, point.y, point.high) for point in points])
            bars["xerr"] = _bars([(point.left, point.x, point.right) for point in points])
        faint = look["color"] if self.along else (look["color"], 0.4)
        axes.errorbar(
            x, y, **look, **bars, ecolor=faint, elinewidth=0.8, capthick=0.8, transform=axes.transData + aside
        )
        ends = [(p.x, end) for p in points for end in (p.low, p.y, p.high)]
        ends += [(end, p.y) for p in points for end in (p.left, p.right)]
        axes.update_datalim([end for end in ends if not math.isnan(sum(end))])
        edge = [point.x for point in series.points if math.isinf(point.y)]
        axes.update_datalim([(place, 0.0) for place in edge], updatey=False)
        axes.autoscale_view()
        if edge:  # a caret, its tip on the edge
            place = axes.get_xaxis_transform() + aside
            axes.plot(
                edge, [1.0] * len(edge), transform=place, clip_on=False, **look | {"marker": 6, "linestyle": "none"}
            )


def _bars(ends: Sequence[tuple[float, float, float]]) -> list[list[float]] | None:
    """Lengths below and above; None where no interval is known."""
    if all(math.isnan(low) for low, _, _ in ends):
        return None
    return [[max(middle - low, 0.0) for low, middle, _ in ends], [max(high - middle, 0.0) for _, middle, high in ends]]


def _name(axes: Axes, points: Sequence[Point]) -> None:
    """Names beside their points, where they hide neither another name nor another point nor the front; else none."""
    from matplotlib.path import Path
    from matplotlib.transforms import Bbox

    named = spread([point for point in points if point.name and math.isfinite(point.y)], NAMED)
    if not named:
        return
    dots = axes.transData.transform([(point.x, point.y) for point in points if math.isfinite(point.y)])
    room, taken = axes.get_window_extent(), list[Bbox]()
    steps = [axes.transData.transform(line.get_xydata()) for line in axes.lines if line.get_label() == "front"]
    fronts = [Path([*(v for a, b in pairwise(xy) for v in (a, (b[0], a[1]))), xy[-1]]) for xy in steps]
    for point in named:
        for across, up, ha, va in _SIDES:
            text = axes.annotate(
                drawable(point.name),
                (point.x, point.y),
                (across, up),
                textcoords="offset points",
                ha=ha,
                va=va,
                fontsize=6,
                annotation_clip=False,
            )
            box = text.get_window_extent()
            hidden = box.count_contains(dots) or any(box.overlaps(other) for other in taken)
            hidden = hidden or any(front.intersects_bbox(box, filled=False) for front in fronts)
            if (
                not hidden
                and room.x0 <= box.x0
                and box.x1 <= room.x1 + 4
                and room.y0 <= box.y0
                and box.y1 <= room.y1 + 8
            ):
                taken.append(Bbox.from_extents(box.x0 - 1, box.y0, box.x1 + 1, box.y1))
                break
            text.remove()


_SIDES = [
    (4, 3, "left", "bottom"),
    (4, -3, "left", "top"),
    (-4, 3, "right", "bottom"),
    (-4, -3, "right", "top"),
    (0, 5, "center", "bottom"),
    (0, -5, "center", "top"),
    (5, 0, "left", "center"),
    (-5, 0, "right", "center"),
    (7, 9, "left", "bottom"),
    (7, -9, "left", "top"),
]
