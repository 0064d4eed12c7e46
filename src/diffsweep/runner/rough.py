"""A rough figure for a sweep that is too large to be expanded: the mean of a few of its cells. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from diffsweep.core.files import root_of
from diffsweep.core.text import counted, duration, rounded
from diffsweep.runner.cost import recorded, rows_of, some_records
from diffsweep.runner.freeze import freeze
from diffsweep.store.cells import Store


def rough(configs: Sequence[Mapping[str, Any]], number: int) -> list[str]:
    """What so many cells would cost, of which these are a few: their model rows and, where stored cells tell, their
    time. BadInput where these are wrong."""
    cells = [freeze(config, {}) for config in configs]
    each = [sum(map(rows_of, cell.cascade)) for cell in cells]
    rows = rounded(number * sum(each) / len(each))
    told = f"some {rows} model rows ({_range(each)} a cell, of {counted('cell', len(cells))} looked at)"
    store = Store(root_of(str(configs[0].get("output_dir") or "outputs")))
    records = [*some_records(store)]
    stages = [stage for cell in cells for stage in cell.cascade if rows_of(stage)]
    speeds = [recorded(store, records, stage) for stage in stages]
    if not all(speeds) or not stages:
        return [told]
    seconds = sum(rows_of(stage) * speed.seconds for stage, speed in zip(stages, speeds, strict=True) if speed)
    sources = ", ".join(dict.fromkeys(speed.source for speed in speeds if speed))
    return [told, f"some {duration(number * seconds / len(cells))} of sampling, {sources}"]


def _range(each: Sequence[int]) -> str:
    low, high = min(each), max(each)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
