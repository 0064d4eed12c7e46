"""What is wrong with a sweep's cells, every file of them read, and how a damaged one is put aside.

A cell that is put aside is kept, under `cells/damaged`, for whoever wants to see what became of it. Its place is free,
so that the sweep's command samples it again.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from diffsweep.core.locks import locked
from diffsweep.core.problems import BadInput
from diffsweep.store.cells import Store
from diffsweep.store.packing import PACK
from diffsweep.store.schema import Absent, Damaged

ASIDE = "damaged"  # the folder beside those of the cells


class State(Enum):
    """What a cell with a problem is: not as it was stored, not stored, or stored by a later diffsweep; or a lot that
    cannot be read, whose cells count as not stored."""

    DAMAGED, ABSENT, NEWER, LOT = range(4)


@dataclass(frozen=True)
class Problem:
    """Something wrong with a cell, in a line that begins with its id; or with a lot."""

    cell_id: str
    text: str
    state: State = State.DAMAGED


def problems(store: Store, ids: Iterable[str]) -> Iterator[Problem]:
    """What is wrong with these cells, with those whose pictures lead to theirs, and with lots that cannot be read."""
    asked = dict.fromkeys(ids)
    line, seen = list(asked), {*asked}
    for cell_id in line:
        for problem in _of(store, cell_id):
            if cell_id in asked or problem.state is not State.ABSENT:
                yield problem
        base = _base(store, cell_id)
        if base and base not in seen:
            seen.add(base)
            line.append(base)
    for path, reason in store.lots.wrong.items():
        yield Problem(path.name, f"{path}: {reason}", State.LOT)


def put_aside(store: Store, cell_id: str) -> Path | None:
    """Move a damaged cell out of its place; where it lies now, None where it is whole by now, or in a lot, which the
    sweep's command looks at again."""
    place = store.folder(cell_id)
    if store.packed(cell_id):
        return None
    with locked(place.parent, name=cell_id):
        if not any(problem.state is State.DAMAGED for problem in _of(store, cell_id)):
            return None
        aside = store.root / "cells" / ASIDE / f"{cell_id}.{secrets.token_hex(4)}"
        aside.parent.mkdir(exist_ok=True)
        os.rename(place, aside)
    store.damaged.pop(cell_id, None)
    return aside


def put_lot_aside(store: Store, name: str) -> Path | None:
    """Move a lot that cannot be read out of its place; where it lies now, None where it can be read by now."""
    with locked(store.lots.folder, name=PACK):
        place = store.lots.folder / name
        if place not in store.lots.wrong:
            return None
        aside = store.root / "cells" / ASIDE / f"{name}.{secrets.token_hex(4)}"
        aside.parent.mkdir(parents=True, exist_ok=True)
        os.rename(place, aside)
    return aside


def _of(store: Store, cell_id: str) -> list[Problem]:
    """What is wrong with a cell."""
    try:
        return [Problem(cell_id, text) for text in store.verify(cell_id)]
    except Absent:
        return [Problem(cell_id, f"{cell_id}: not in the store", State.ABSENT)]
    except Damaged as error:
        return [Problem(cell_id, f"{cell_id}/record.json: {error.reason}")]
    except BadInput as error:  # a later diffsweep's
        reason = " ".join(error.messages).partition(": ")[2]
        return [Problem(cell_id, f"{cell_id}/record.json: {reason}", State.NEWER)]


def _base(store: Store, cell_id: str) -> str | None:
    """The cell whose picture leads to this one, as its record says."""
    try:
        return store.record(cell_id)["facts"].get("base")
    except (Damaged, BadInput):
        return None
