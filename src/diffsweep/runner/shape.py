"""The batch shape: how many rows a call of each stage's model has, the same for a sweep however often it is resumed.

A shape is a number of rows by the key of a stage's model: `model` for the first stage, `upscale` and the others after
it. sweep.json keeps the shape that the sweep began with, so that a resumed sweep gives the same bits.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
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
    """kept: the shape in sweep.json; rows: the shape that this run begins with, which fits the memory; notes: where
    they differ, or changed."""

    kept: Rows
    rows: Rows
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Agreed:
    """What the workers of a sweep have in common, so that their pictures have the same bits: the rows of a call (kept:
    in sweep.json), the threads, and the kind of device."""

    kept: Rows
    rows: Rows
    threads: int
    device: str

    @property
    def text(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, text: str) -> Agreed:
        return cls(**json.loads(text))

    def problems(self, mine: Agreed, room: Rows, devices: str) -> Iterator[str]:
        """Why a worker cannot take part. room: the rows that fit it; devices: `same` or `any`."""
        if mine.device != self.device and devices == "same":
            yield (
                f"device: the other workers of this sweep compute on {self.device}, this one on {mine.device}: its "
                "pictures would differ in rounding; engine.devices=any allows that"
            )
        for key, n in self.rows.items():
            if room.get(key, n) < n:
                yield (
                    f"{key}: the other workers of this sweep have {counted('row', n)} a call, and {room[key]} fit in "
                    f"memory here; engine.rows={room[key]} for all of them"
                )


def wanted(cells: Iterable[Cell]) -> dict[str, int]:
    """The rows that these cells can ask each stage for at once."""
    rows: dict[str, int] = defaultdict(int)
    for cell in {cell.id: cell for one in cells for cell in one.cascade}.values():
        rows[cell.config_key] += len(cell.prompts)
    return rows


def fitting(most: Rows, asked: int | None, device: str) -> dict[str, int]:
    """The requested rows; by default as many as the sweep can fill, at most `MOST`."""
    if asked:
        return dict.fromkeys(most, asked)
    return {key: max(1, min(n, MOST[device.partition(":")[0]])) for key, n in most.items()}


def as_begun(room: Rows, earlier: Document) -> Shape:
    """The shape that the sweep began with, as far as it fits the memory. A lone cell's shape does not count."""
    if not (began := earlier.get("rows")) or len(earlier["cells"]) == 1:
        return Shape(room, room)
    kept = {**room, "model": began, **earlier.get("later_rows", {})}
    last = earlier["runs"][-1] if earlier["runs"] else None
    ended = {"model": last["rows"], **last.get("later_rows", {})} if last and last.get("halvings") else {}
    notes = []
    for key, n in room.items():
        text = f"{key}: {earlier['name']} began with {counted('row', kept[key])} a call"
        if (fewer := ended.get(key, n)) < min(n, kept[key]):
            notes.append(
                f"{text}; the last run ran out of memory and ended with {fewer}. Pictures may differ in rounding from "
                f"those that it stored; engine.rows={fewer} avoids that"
            )
        elif kept[key] < n:
            notes.append(f"{text}; engine.rows={n} would be faster")
        elif kept[key] > n:
            notes.append(
                f"{text}; only {n} fit in memory now. Pictures may differ in rounding from those already stored"
            )
    return Shape(kept, {key: min(kept[key], n) for key, n in room.items()}, tuple(notes))


def fewest(before: Rows, rows: Rows) -> dict[str, int]:
    """The fewest rows a call, of each stage; 0 is none yet."""
    return {key: min(n, before.get(key) or n) for key, n in rows.items()}


def parted(rows: Rows) -> Parted:
    return Parted(rows.get("model", 0), {key: n for key, n in rows.items() if key != "model"})
