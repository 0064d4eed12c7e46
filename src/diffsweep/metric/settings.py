"""Settings: the cells of a sweep that repeat each other, whose pictures some metrics judge together."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from diffsweep.core.text import level
from diffsweep.store.pictures import STEP
from diffsweep.store.schema import Document, Record, SetEntry


def replicates(axes: Iterable[str]) -> list[str]:
    """The axes that repeat a setting rather than make another: the seed, and those of the input."""
    return [axis for axis in axes if axis in ("seed", "input") or axis.startswith("input.")]


@dataclass
class Setting:
    """axes: what makes it; cells: the ids of those that are stored, each with a name of its input; pictures: of each
    all that a metric may need, by name and hash."""

    axes: dict[str, Any]
    cells: dict[str, str] = field(default_factory=dict)
    pictures: list[Any] = field(default_factory=list)

    @property
    def mark(self) -> str:
        """A hash of its pictures: it changes when any of them changes, comes or goes."""
        return hashlib.sha256(json.dumps([self.cells, self.pictures]).encode()).hexdigest()


def settings(sweep: Document, record: Callable[[str], Record | None]) -> list[Setting]:
    """A sweep's settings, in order. sweep: what sweep.json holds; record: a finished cell's, by its id."""
    axes, repeated = list(sweep["axes"]), replicates(sweep["axes"])
    found: dict[tuple[str, ...], Setting] = {}
    for cell in sweep["cells"]:
        whole = {axis: cell["axes"].get(axis) for axis in axes}
        own = {axis: value for axis, value in whole.items() if axis not in repeated}
        setting = found.setdefault(tuple(map(level, own.values())), Setting(own))
        cell_id, there = cell["cell_id"], record(cell["cell_id"])
        if there is not None and cell_id not in setting.cells:
            setting.cells[cell_id] = json.dumps([whole[axis] for axis in repeated if axis != "seed"])
            setting.pictures.append(sorted(file for file in there["files"].items() if not file[0].startswith(STEP)))
    return list(found.values())


def current(sets: Mapping[str, SetEntry], there: Iterable[Setting]) -> dict[str, SetEntry]:
    """Those of sweep.json's `sets` whose numbers belong to the current pictures."""
    marked = [(setting.mark, setting.axes) for setting in there if setting.cells]
    found: dict[str, SetEntry] = {}
    for name, one in sets.items():
        of = {entry["of"]: entry for entry in one["values"]}
        found[name] = {**one, "values": [{**of[mark], "axes": axes} for mark, axes in marked if mark in of]}
    return found
