"""Notes on metrics, before anything is sampled: which do not apply to which cells, and which have few pictures."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from diffsweep.core.text import gathered
from diffsweep.metric import called
from diffsweep.metric.settings import replicates

if TYPE_CHECKING:
    from diffsweep.metric import Chosen
    from diffsweep.runner.cell import Cell

MOST_NAMES = 6
FITTING = {"views": "anagram", "low": "hybrid", "prompt": "clip"}  # by what a cell has, a choice that measures it


def metric_notes(cells: Sequence[Cell], chosen: Chosen) -> Iterator[str]:
    """The metrics that need what a technique's cells lack, and caveats on numbers of few pictures."""
    metrics = (*chosen.metrics, *chosen.of_sets)
    lacks: dict[tuple[str, ...], list[str]] = defaultdict(list)  # metrics: the techniques that they do not fit
    needed: dict[tuple[str, ...], set[str]] = defaultdict(set)
    fitting: dict[tuple[str, ...], dict[str, None]] = defaultdict(dict)  # what measures those that nothing fits
    for technique, cell in {cell.config["technique"]["name"]: cell for cell in cells}.items():
        there = _there(cell)
        if unfit := tuple(metric.name for metric in metrics if metric.needs - there):
            lacks[unfit].append(technique)
            if len(unfit) == len(metrics) and (choice := next((FITTING[n] for n in FITTING if n in there), None)):
                fitting[unfit][f"metric={choice} measures {technique}"] = None
            needed[unfit] |= frozenset().union(*(metric.needs for metric in metrics)) - there
    for unfit, techniques in lacks.items():
        listed = gathered(unfit, (metric.name for metric in metrics))
        more = f" and {len(listed) - MOST_NAMES} more" if len(listed) > MOST_NAMES else ""
        names = ", ".join(listed[:MOST_NAMES]) + more
        they = "it needs" if len(unfit) == 1 else "they need"
        mend = f"; {', '.join(also)}" if (also := fitting.get(unfit)) else ""
        yield f"{names}: not measured for technique={','.join(techniques)}, where {they} {called(needed[unfit])}{mend}"
    fewest = _fewest(cells)
    for metric in chosen.of_sets:
        if caveat := getattr(metric, "caveat", lambda number: None)(fewest):
            yield f"{metric.name}: {caveat}"


def _there(cell: Cell) -> set[str]:
    """Which needs of metrics a cell will meet."""
    pictures = {"reference": cell.pixels, "mask": cell.mask, "hard_mask": cell.hard_mask}
    there = {need for need, pixels in pictures.items() if pixels is not None} | ({"prompt"} & cell.config.keys())
    return there | getattr(cell.technique, "stores", frozenset())


def _fewest(cells: Sequence[Cell]) -> int:
    """The number of pictures of the smallest setting."""
    axes = dict.fromkeys(axis for cell in cells for axis in cell.axes)
    own = [axis for axis in axes if axis not in replicates(axes)]
    return min(Counter(json.dumps([cell.axes.get(axis) for axis in own], default=str) for cell in cells).values())
