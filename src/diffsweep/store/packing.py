"""Moves cells between their folders and lots.

A cell's folder goes once its lot is there, and a lot once its cells are whole elsewhere. So a process that is killed
between the two leaves a cell twice, never nowhere. One process at a time writes lots.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import suppress
from pathlib import Path

from diffsweep.core import files
from diffsweep.core.locks import locked
from diffsweep.store.cells import Store
from diffsweep.store.lots import BYTES, CELLS, Row
from diffsweep.store.progress import bar
from diffsweep.store.schema import Damaged, Record, dump, load

PACK = "pack"  # the lock's name


def pack(store: Store, cell_ids: Iterable[str], shows: bool = False) -> int:
    """Move these cells into lots; a damaged one stays as it is. How many were moved. shows: a progress bar."""
    ids, moved = [cell_id for cell_id in dict.fromkeys(cell_ids) if not _lies_well(store, cell_id)], 0
    if not ids:
        return 0
    with locked(store.lots.folder, name=PACK), bar("packing", len(ids), shows) as progress:
        files.tidy(store.lots.folder)
        for few in _by_size(store, ids):
            before = {lot for cell_id in few if (lot := store.lots.of(cell_id))}
            packed = dict[str, Record]()
            store.lots.write(_rows(store, few, packed))
            for cell_id, record in packed.items():
                _let_go(store, cell_id, record)
                progress.update()
            _remove_unused(store, before)
            moved += len(packed)
    return moved


def unpack(store: Store, cell_ids: Iterable[str], shows: bool = False) -> int:
    """Give packed cells their folders again; one that is damaged stays packed. How many were moved. shows: a
    progress bar."""
    ids = [cell_id for cell_id in dict.fromkeys(cell_ids) if store.packed(cell_id)]
    before, moved = set[Path](), 0
    if not ids:
        return 0
    with locked(store.lots.folder, name=PACK), bar("unpacking", len(ids), shows) as progress:
        for cell_id in ids:
            if lot := store.packed(cell_id):
                try:
                    with locked(store.folder(cell_id).parent, name=cell_id):
                        store.give_folder(cell_id)
                except Damaged as error:
                    store.note(cell_id, error)
                    continue
                before.add(lot)
                moved += 1
                progress.update()
        _remove_unused(store, before)
    return moved


def thin(store: Store, lot: Path, needed: AbstractSet[str]) -> bool:
    """Write a lot anew with its needed cells alone; whether it could be: not where one of them is damaged."""
    with locked(store.lots.folder, name=PACK):
        ids = [cell_id for cell_id in store.lots.cells().get(lot, ()) if cell_id in needed]
        packed = dict[str, Record]()
        written = store.lots.write(_rows(store, ids, packed))
        if whole := len(packed) == len(ids):
            store.lots.remove(lot)
        elif written:
            store.lots.remove(written)
    return whole


def copy_packed(store: Store, cell_ids: Iterable[str], to: Store) -> int:
    """Cells into lots of another store, each file compared with its hash; damaged ones stay behind. How many."""
    packed = dict[str, Record]()
    for few in _by_size(store, cell_ids):
        to.lots.write(_rows(store, few, packed))
    return len(packed)


def _by_size(store: Store, cell_ids: Iterable[str]) -> Iterator[list[str]]:
    """Cells that are whole, in parts that each make a lot."""
    few, size = list[str](), 0
    for cell_id in dict.fromkeys(cell_ids):
        if (record := store.finished(cell_id)) is None:
            continue
        few.append(cell_id)
        size += sum(length for length, _ in record.get("stats", {}).values())
        if len(few) == CELLS or size >= BYTES:
            yield few
            few, size = [], 0
    if few:
        yield few


def _lies_well(store: Store, cell_id: str) -> bool:
    """Whether a cell is in a lot that was neither changed nor copied since it was written."""
    return store.packed(cell_id) is not None and store.lots.trusted(cell_id)


def _rows(store: Store, cell_ids: Iterable[str], packed: dict[str, Record]) -> Iterator[Row]:
    """Cells as rows of a lot. packed: is given their records."""
    for cell_id in cell_ids:
        try:
            record = store.record(cell_id)
            contents = store.contents(record)
        except Damaged as error:
            store.note(cell_id, error)
            continue
        packed[cell_id] = record
        sizes = {name: [len(data), 0] for name, data in contents.items()}
        yield cell_id, dump({"stats": sizes, **record}, Record), contents


def _let_go(store: Store, cell_id: str, packed: Record) -> None:
    """Remove a cell's folder, whose lot is there, unless it was changed meanwhile."""
    place = store.folder(cell_id)
    with locked(place.parent, name=cell_id):
        aside = files.scratch(place)
        with suppress(FileNotFoundError, Damaged):
            if place.is_dir() and load(place / "record.json", Record) == packed:
                os.rename(place, aside)
        files.remove(aside)


def _remove_unused(store: Store, paths: Iterable[Path]) -> None:
    """Remove those of these lots whose cells are all elsewhere, and whole there."""
    held = store.lots.cells()
    for path in paths:
        if all(store.folder(cell_id).is_dir() and store.is_complete(cell_id) for cell_id in held.get(path, ())):
            store.lots.remove(path)
