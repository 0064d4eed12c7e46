"""A metric over two axes: brighter is better, and each field bears its number."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from diffsweep.report.figure import style
from diffsweep.report.figure.data import (
    ACROSS,
    Axis,
    axis,
    described,
    grouped,
    measure,
    side_by_side,
    spread,
    value,
)
from diffsweep.report.fonts import drawable
from diffsweep.report.text import decimals, fixed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

    from diffsweep.report.table import Table

WRITTEN = 12  # fields in a row or column up to which they bear their numbers


@dataclass(frozen=True)
class Field:
    """values: a row of them for each value of the axis `y`; NaN where nothing was measured, infinite where exact."""

    title: str
    measure: str
    higher: bool
    values: tuple[tuple[float, ...], ...]
    definition: Mapping[str, Any]


@dataclass(frozen=True)
class Heatmap:
    """Fields side by side, those of a metric with one scale of colours."""

    heading: str
    x: Axis
    y: Axis
    fields: tuple[Field, ...]
    columns: int

    def draw(self) -> Figure:
        _, across, leans = self.x.ticks(style.room(self.columns) - 2)
        height = min(max(1.5, 0.24 * len(self.y.values)), 3.5)
        rows = -(-len(self.fields) // self.columns)
        figure, grid = style.panels(rows, self.columns, height + (style.LEANING if leans else 0))
        places = [axes for line in grid for axes in line]
        for axes in places[len(self.fields) :]:
            axes.remove()
        for measured in dict.fromkeys(field.measure for field in self.fields):
            own = [(axes, field) for axes, field in zip(places, self.fields, strict=False) if field.measure == measured]
            numbers = [v for _, field in own for line in field.values for v in line if math.isfinite(v)]
            low, high = min(numbers, default=0.0), max(numbers, default=1.0)
            for axes, field in own:
                image = self._field(axes, field, low, high)
                for ticks, names, label, number in (
                    (axes.set_xticks, self.x, axes.set_xlabel, len(across)),
                    (axes.set_yticks, self.y, axes.set_ylabel, int(height / 0.14)),
                ):
                    step = math.ceil(len(names.values) / number)
                    texts = [drawable(text) for text in names.labels.values()]
                    ticks(range(0, len(texts), step), texts[::step])
                    label(drawable(names.name))
                if leans:
                    style.lean(axes)
            bar = figure.colorbar(image, ax=[axes for axes, _ in own], fraction=0.06, pad=0.03, aspect=20 * height)
            bar.set_label(drawable(measured))
            bar.outline.set_visible(False)
        style.heading(figure, self.heading)
        style.settle(figure)
        return figure

    def _field(self, axes: Axes, field: Field, low: float, high: float) -> AxesImage:
        """One field; low, high: the ends of its metric's colours."""
        from matplotlib import colormaps
        from matplotlib.colors import Normalize

        values = np.array(field.values)
        colours = colormaps["cividis" if field.higher else "cividis_r"].with_extremes(bad="#dddddd")
        norm, best = Normalize(low, high), high if field.higher else low
        filled = np.ma.masked_invalid(np.where(np.isinf(values), best, values))
        image = axes.imshow(filled, cmap=colours, norm=norm, aspect="auto", origin="lower", interpolation="nearest")
        style.title(axes, field.title, self.columns)
        axes.grid(False)
        if max(values.shape) > WRITTEN:
            return image
        places = decimals(field.definition, (low, high))
        for (j, i), number in np.ndenumerate(values):
            text = "–" if math.isnan(number) else "exact" if math.isinf(number) else fixed(number, places)
            red, green, blue, _ = colours(norm(best if math.isinf(number) else number))
            dark = not math.isnan(number) and 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.5
            axes.text(i, j, text, ha="center", va="center", fontsize=6, color="white" if dark else "black")
        return image


def heatmap(table: Table, name: str, metrics: Sequence[str], x: str, y: str, facet: str | None) -> Heatmap:
    """Metrics over two axes; one field for each setting of the others."""
    across, up = axis(table, x), axis(table, y)
    others = [facet] if facet else []
    others += [each for each in table.axes if each not in (x, y, facet) and len(axis(table, each).values) > 1]
    places = table.axes.index(x), table.axes.index(y)
    parts = grouped(table, others, named=True)
    fields = []
    for metric in metrics:
        direction, definition = table.directions[metric], table.definitions.get(metric, {})
        for part in spread(parts, ACROSS):
            found = {tuple(row.setting[i] for i in places): value(row.stats[metric], direction) for row in part.rows}
            lines = tuple(tuple(found.get((i, j), math.nan) for i in across.values) for j in up.values)
            fields.append(Field(part.label, measure(table, metric), direction == "higher", lines, definition))
    left_out = f"; {ACROSS} of {len(parts)} panels shown" if len(parts) > ACROSS else ""
    heading = f"{name}: {described(table, bars=False)}{left_out}; brighter is better"
    return Heatmap(heading, across, up, tuple(fields), side_by_side(len(metrics), len(fields)))
