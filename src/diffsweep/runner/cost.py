"""What cells cost: model rows, model calls, and how long a row takes, as stored cells tell. Needs no torch."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

from diffsweep.core.problems import BadInput
from diffsweep.core.text import counted
from diffsweep.runner.cell import Cell
from diffsweep.store.cells import Store
from diffsweep.store.schema import Record

MOST = 400  # records that are looked at
DECIDE_TIME = ("fingerprint", "dtype", "compile", "offload", "height", "width")  # of a row, keys of a model
ALIKE = 2  # a row takes about as long in calls of up to so many times as many rows, or as few


@dataclass(frozen=True)
class Speed:
    """How long a model takes: seconds for each row that it is asked for, or for each call. source: how that is known,
    as in `as 36 stored cells took`."""

    seconds: float
    per: Literal["row", "call"]
    source: str


@dataclass(frozen=True)
class On:
    """Where stored cells must have been sampled to tell how long others take: a kind of device, the rows of a call and,
    on a processor, its threads."""

    kind: str
    rows: int
    threads: int

    def fits(self, made: Mapping[str, Any]) -> bool:
        """Whether a record's provenance is of such a place."""
        kind, rows = str(made.get("device")).partition(":")[0], made.get("rows") or 0
        threads = made.get("threads") if self.kind == "cpu" else self.threads
        alike = self.rows <= ALIKE * rows and rows <= ALIKE * self.rows
        return alike and (kind, threads) == (self.kind, self.threads)


def rows_of(cell: Cell) -> int:
    """The model rows that a cell's own stage is asked for."""
    return cell.evaluations


def fewest_calls(cells: Iterable[Cell], rows: int) -> int:
    """The calls of so many rows that answer these cells, of one stage, at the least. A cell of n steps needs n calls,
    one after another: Hu's bound, as in `engine.policy`."""
    width: Counter[int] = Counter()
    for cell in cells:
        width[cell.rounds] += len(cell.prompts)
    most = asked = above = 0
    for length in range(max(width, default=0), 0, -1):
        asked += width[length]
        above += asked  # rows that have at least so many calls to go, their own among them
        most = max(most, length - 1 + -(-above // rows))
    return most


def recorded(store: Store, records: Iterable[Record], cell: Cell, on: On | None = None) -> Speed | None:
    """How long a row takes of the model of a cell's own stage, as records of its cells tell; None where there are none.
    on: where they must have been sampled; without it, anywhere. It is the time of calls and techniques; that of storing
    pictures is not in it, which counts where a model takes no time."""
    seconds = rows = cells = 0.0
    models, kinds = _models(cell.config), set()
    for record in records:
        made = record.get("provenance", {})
        if _models(record["config"]) != models or (on is not None and not on.fits(made)):
            continue
        own = _own(store, record)
        if own and own[1]:
            seconds, rows, cells = seconds + own[0], rows + own[1], cells + 1
            kinds.add(str(made.get("device")).partition(":")[0])
    if not rows:
        return None
    there = "" if on else f" on {', '.join(sorted(kinds))}"
    return Speed(seconds / rows, "row", f"as {counted('stored cell', int(cells))} took{there}")


def some_records(store: Store) -> Iterator[Record]:
    """Records of a store, at most MOST: a random choice, for a cell's folder is called by a hash."""
    fresh = Store(store.root)  # damage that is found by the way is no news of a sweep
    for cell_id in islice(_stored(store), MOST):
        with suppress(BadInput):  # of a later diffsweep
            if record := fresh.get(cell_id):
                yield record


def _stored(store: Store) -> Iterator[str]:
    with suppress(OSError):
        for outer in sorted(os.listdir(store.root / "cells")):
            with suppress(OSError):
                yield from sorted(name for name in os.listdir(store.root / "cells" / outer) if name.startswith(outer))
    yield from store.lots.ids()


def _models(config: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """The models of each stage, from the last back: their weights, how they compute, and on what."""
    found, stage = [], config.get("upscale")
    while isinstance(stage, Mapping):
        found.append(stage)
        stage = stage.get("of")
    own = [tuple(part.get(key) for key in DECIDE_TIME) for part in [*found, config["model"]]]
    return [*own, (config["technique"].get("space"),)]


def _own(store: Store, record: Record) -> tuple[float, int] | None:
    """Seconds and model rows of a record's own stage: both are counted together with those of the stages before."""
    if (base := record["facts"].get("base")) is None:
        return record["seconds"], record["nfe"]
    before = store.get(base)
    return before and (record["seconds"] - before["seconds"], record["nfe"] - before["nfe"])
