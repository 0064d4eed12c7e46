"""The batch shape: how many rows a call of each stage's model has, the same for a sweep however often it is resumed.

A shape is a number of rows by the key of a stage's model: `model` for the first stage, `upscale` and the others after
it. sweep.json keeps the shape that the sweep began with, so that a resumed sweep gives the same bits.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from diffsweep.core.text import counted
from diffsweep.runner.cell import Cell
from diffsweep.store.schema import Document

Rows = Mapping[str, int]
MOST = {"cpu": 16, "cuda": 32}  # a row's cost hardly falls beyond


class Parted(NamedTuple):
    """A shape as sweep.json holds it: the rows of the first stage, and those of the stages that follow."""

    first: int
    later: dict[str, int]


@dataclass(frozen=True)
class Shape:
    """kept: what sweep.json keeps; rows: what this run begins with, which fits the memory; notes: where they differ, or
    differ from what was."""

    kept: Rows
    rows: Rows
    notes: tuple[str, ...] = ()


def wanted(cells: Iterable[Cell]) -> dict[str, int]:
    """The rows that these cells can ask each stage for at once."""
    rows: dict[str, int] = defaultdict(int)
    for cell in {cell.id: cell for one in cells for cell in one.cascade}.values():
        rows[cell.key] += len(cell.prompts)
    return rows


def fitting(most: Rows, asked: int | None, device: str) -> dict[str, int]:
    """The rows asked for, or else what a sweep that can ask for so many at most can fill."""
    if asked:
        return dict.fromkeys(most, asked)
    return {key: max(1, min(n, MOST[device.partition(":")[0]])) for key, n in most.items()}


def as_begun(room: Rows, earlier: Document) -> Shape:
    """The shape that the sweep began with, as far as it fits the room; that of a lone cell binds nobody."""
    if not (began := earlier.get("rows")) or len(earlier["cells"]) == 1:
        return Shape(room, room)
    kept = {**room, "model": began, **earlier.get("later_rows", {})}
    last = earlier["runs"][-1] if earlier["runs"] else None
    ended = {"model": last["rows"], **last.get("later_rows", {})} if last and last.get("halvings") else {}
    notes = []
    for key, n in room.items():
        told = f"{key}: {counted('model row', kept[key])} a call, as {earlier['name']} began"
        if (fewer := ended.get(key, n)) < min(n, kept[key]):
            notes.append(
                f"{told}; the last run lacked memory and ended with {fewer}: bits may differ from those of the cells "
                f"that it stored; engine.rows={fewer} keeps them"
            )
        elif kept[key] < n:
            notes.append(f"{told}; engine.rows={n} would be faster")
        elif kept[key] > n:
            notes.append(f"{told}, do not fit any more, {n} do: bits may differ from those of the cells stored")
    return Shape(kept, {key: min(kept[key], n) for key, n in room.items()}, tuple(notes))


def fewest(before: Rows, rows: Rows) -> dict[str, int]:
    """The fewest rows a call, of each stage; 0 is none yet."""
    return {key: min(n, before.get(key) or n) for key, n in rows.items()}


def parted(rows: Rows) -> Parted:
    return Parted(rows.get("model", 0), {key: n for key, n in rows.items() if key != "model"})
