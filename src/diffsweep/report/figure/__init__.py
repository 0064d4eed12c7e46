"""A sweep's figures, each as PDF and PNG, drawn from its table of settings; nothing is averaged over settings.

* `curve`: metrics against an axis, with intervals;
* `heatmap`: metrics over two axes;
* `pareto`: metrics against what a picture costs, and the front of those settings that no other beats;
* `tradeoff`: two metrics against each other.

`trajectory`, of one cell over its steps, is in the module of that name.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from diffsweep.core.problems import BadInput, one_of
from diffsweep.report.drawn import drawn_as, fingerprint, whole
from diffsweep.report.figure.data import several
from diffsweep.report.figure.heatmap import Heatmap, heatmap
from diffsweep.report.figure.plot import Plot
from diffsweep.report.figure.points import COSTS, curve, pareto, tradeoff
from diffsweep.report.text import no_axis, stem
from diffsweep.store.schema import Document

if TYPE_CHECKING:
    import pandas as pd

    from diffsweep.report.table import Table

USES = {  # which of the keys a kind knows beside metric and over
    "curve": ("x", "hue", "facet"),
    "heatmap": ("x", "y", "facet"),
    "pareto": ("cost", "hue", "facet"),
    "tradeoff": ("x", "hue", "facet"),
}
TRAJECTORY = "trajectory"  # a kind that is drawn from a cell's steps rather than from numbers
KEYS = ("x", "y", "hue", "facet", "cost")
FAMILIES = {  # what metrics are about, by how their names begin
    "fidelity": ("psnr", "ssim", "ms_ssim", "lpips", "dists", "drift"),
    "realism": ("fid", "kid"),
    "prompt": ("clip",),
    "diversity": ("diversity",),
}
METRICS, AXES, PANELS = 4, 3, 12  # in a figure that names none; figures of curves; panels that a figure may have
FIELDS = 10_000  # of a heat map


def write_figures(
    folder: Path,
    sweep: Document,
    frame: pd.DataFrame,
    table: Table | None = None,
    kind: str | None = None,
    metrics: Sequence[str] | None = None,
    over: Sequence[str] = (),
    **chosen: str | None,
) -> list[Path]:
    """Write figures/*.pdf and *.png of a sweep (frame: `frame.results` of it; table: `summarise(frame)`, where there is
    one): every kind that the numbers allow and that knows the keys, or one `kind`.

    chosen: an axis as `x`, `y`, `hue` or `facet`, and the `cost`, nfe or seconds; over: axes to average over. BadInput
    for what the sweep has not, or the kind cannot show. A figure that shows the same already is left as it is.
    """
    keys = {key: value for key, value in chosen.items() if value is not None}
    _check(frame, kind, keys, over)
    if table is None or metrics or over or keys:
        from diffsweep.report.table import summarise

        table = summarise(frame, metrics, rows=[axis for key, axis in keys.items() if key != "cost"], over=over)
    request = _Request(sweep["name"], table, tuple(dict.fromkeys(metrics or ())), keys)
    lacking = {each: request.lacking(each) for each in ([kind] if kind else USES)}
    kinds = [each for each, reason in lacking.items() if reason is None]
    if not kinds and (kind or keys or over or metrics):
        raise BadInput(f"kind={each}: {reason}" for each, reason in lacking.items())
    suffix = "".join(f"_over-{axis}" for axis in over)
    return [
        path for each in kinds for stem, plot in request.drawings(each) for path in _write(folder, stem + suffix, plot)
    ]


def _check(frame: pd.DataFrame, kind: str | None, keys: Mapping[str, str], over: Sequence[str]) -> None:
    """BadInput for an axis that the sweep has not, one named twice, or a key that the kind does not know."""
    axes = frame.attrs["axes"]
    problems = [one_of("kind", kind, (*USES, TRAJECTORY))] if kind else []
    problems += [one_of("cost", keys["cost"], COSTS)] if "cost" in keys else []
    named = [(key, axis) for key, axis in keys.items() if key != "cost"] + [("over", axis) for axis in over]
    problems += [no_axis(key, axis, axes) for key, axis in named if axis not in axes]
    for axis in dict.fromkeys(axis for _, axis in named):
        if len(twice := [f"{key}={axis}" for key, other in named if other == axis]) > 1:
            problems.append(f"{' '.join(twice)}: one axis cannot be both")
    if found := [problem for problem in problems if problem]:
        raise BadInput(found)


@dataclass(frozen=True)
class _Request:
    """What was asked of a sweep's table: metrics in order (none: the first that it has) and keys."""

    name: str
    table: Table
    asked: tuple[str, ...]
    keys: Mapping[str, str]

    @property
    def metrics(self) -> list[str]:
        if self.asked:
            return [name for name in self.asked if name in self.table.directions][:PANELS]
        return [name for name in self.finite if name in self.varying][:METRICS] or self.finite[:METRICS]

    @property
    def left_out(self) -> str:
        """Which metrics a figure does not show: those asked for that have no numbers, or else how many there are."""
        if self.asked:
            lacking = [name for name in self.asked if name not in self.metrics]
            return f"; without {', '.join(lacking)}" if lacking else ""
        number = len(self.table.directions)
        return f"; {len(self.metrics)} of {number} metrics (metric= names others)" if len(self.metrics) < number else ""

    @property
    def finite(self) -> list[str]:
        """The metrics that have numbers, not pictures equal to their reference alone; those asked for, if any are."""
        means = {name: [row.stats[name].mean for row in self.table.rows] for name in self.table.directions}
        there = [name for name, numbers in means.items() if any(map(math.isfinite, numbers))]
        return [name for name in self.asked if name in there][:PANELS] if self.asked else there

    @property
    def varying(self) -> list[str]:
        """The metrics that differ between settings."""
        means = {name: {row.stats[name].mean for row in self.table.rows} for name in self.finite}
        return [name for name, numbers in means.items() if len(numbers) > 1]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The first metric asked for with each other, or the first metrics of each two families."""
        if self.asked:
            return [(first, other) for first in self.finite[:1] for other in self.finite[1:]]
        firsts: dict[str, str] = {}
        for name in self.finite:
            firsts.setdefault(next((f for f, starts in FAMILIES.items() if name.startswith(starts)), name), name)
        return list(combinations(firsts.values(), 2))[:METRICS]

    @property
    def cost(self) -> str | None:
        """What was asked for, or what tells the settings apart: the time, only where it does so plainly."""
        for cost, ratio in ((self.keys.get("cost"), 1.0), ("nfe", 1.0), ("seconds", 1.5)):
            costs = [getattr(row, cost) for row in self.table.rows if row.done] if cost else []
            if costs and (self.keys.get("cost", cost) == cost) and max(costs) > ratio * min(costs):
                return cost
        return None

    @property
    def sides(self) -> tuple[str, str]:
        """A heat map's axes, across and up: as asked for, or the first two, numbers before categories."""
        free = sorted(several(self.table), key=lambda each: not each.numeric)
        rest = [each.name for each in free if each.name not in self.keys.values()]
        y = self.keys.get("y") or rest.pop(0)
        return self.keys.get("x") or rest.pop(0), y

    def lacking(self, kind: str) -> str | None:
        """Why there can be no such figure."""
        axes = {each.name: len(each.values) for each in several(self.table)}
        there = f"this one has {', '.join(axes)}" if axes else "this one has none beside the seed and the input"
        if unknown := [key for key in self.keys if key not in USES[kind]]:
            return f"knows no {' and no '.join(unknown)}, but {', '.join(USES[kind])}"
        if not self.metrics:
            return "nothing was measured that could be drawn (`diffsweep-results score SWEEP metric=...` measures)"
        if not axes:
            return f"needs a sweep with an axis; {there}"
        if kind == "heatmap":
            sides = [self.keys[key] for key in ("x", "y") if key in self.keys]
            free = [axis for axis in axes if axis not in self.keys.values()]
            if len(sides) + len(free) < 2:
                return f"needs two axes; {there}"
            fields = axes.get(self.sides[0], 1) * axes.get(self.sides[1], 1)
            if fields > FIELDS:
                return f"{' and '.join(self.sides)} span {fields} fields, more than {FIELDS}"
            if not sides and fields > 2 * len(self.table.rows):
                return f"the settings fill few fields of {' and '.join(self.sides)}; x and y draw it all the same"
        if kind == "pareto" and self.cost is None:
            return "every setting costs the same"
        if kind == "tradeoff" and not self.pairs:
            return f"needs two metrics, as in metric={','.join([*self.metrics, 'clip_score'][:2])}"
        return None

    def drawings(self, kind: str) -> Iterator[tuple[str, Plot | Heatmap]]:
        """File names and what is to be drawn."""
        for name, drawing in self._drawings(kind):
            told = "" if kind == "tradeoff" else self.left_out
            yield name, replace(drawing, heading=drawing.heading + told)

    def _drawings(self, kind: str) -> Iterator[tuple[str, Plot | Heatmap]]:
        hue, facet = self.keys.get("hue"), self.keys.get("facet")
        free = [each for each in several(self.table) if each.name not in (hue, facet)]
        if kind == "tradeoff":  # joined in the order of numbers rather than of categories
            free.sort(key=lambda each: not each.numeric)
        along = [self.keys["x"]] if "x" in self.keys else [each.name for each in free]
        if kind == "curve":
            for x in along[:AXES]:
                yield self._stem(kind, {**self.keys, "x": x}), curve(self.table, self.name, self.metrics, x, hue, facet)
        elif kind == "heatmap":
            yield self._stem(kind, self.keys), heatmap(self.table, self.name, self.metrics, *self.sides, facet)
        elif kind == "pareto" and self.cost:
            yield self._stem(kind, self.keys), pareto(self.table, self.name, self.metrics, self.cost, hue, facet)
        elif kind == "tradeoff" and along:
            yield self._stem(kind, self.keys), tradeoff(self.table, self.name, self.pairs, along[0], hue, facet)

    def _stem(self, kind: str, used: Mapping[str, str]) -> str:
        """A file's name, the same for the same request: `curve_x-guidance.scale_psnr`."""
        parts = [kind, *(f"{key}-{used[key]}" for key in KEYS if key in used), *self.asked]
        return stem(parts)


def _write(folder: Path, stem: str, drawing: Plot | Heatmap) -> list[Path]:
    from diffsweep.report.figure.style import save, styled

    files = [folder / "figures" / f"{stem}.pdf", folder / "figures" / f"{stem}.png"]
    mark = fingerprint(drawing)
    if not (whole(files[0]) and drawn_as(files[1]) == mark):
        with styled(str(drawing)):
            save(drawing.draw(), files, mark)
    return files
