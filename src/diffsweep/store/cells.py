"""The store: one folder a cell, complete or absent.

`outputs/cells/<id[:2]>/<id>/` holds `image.png`, further named PNGs and `record.json`. A cell is written into a scratch
folder beside its place and renamed into it, so that the record's presence means done. Two processes that finish the
same cell write the same bytes; the first rename wins.

A stored cell may be damaged later. It counts as finished while each of its files has the size, the time and the ends of
the PNG that was written; a file whose time differs is read and compared with its hash. Whoever reads a picture compares
it, and marks a damaged one by its time. So the next run samples again what anybody found damaged.

`packing.py` moves cells into lots (`lots.py`), where their folders would be too many files; every method reads a cell
wherever it is. Whoever changes a packed cell gives it a folder again first.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from io import BytesIO
from pathlib import Path
from stat import S_ISREG
from struct import unpack
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from diffsweep.core import files, locks
from diffsweep.core.files import write_atomic
from diffsweep.core.locks import locked
from diffsweep.core.text import counted
from diffsweep.store.lots import FOLDER, Lots
from diffsweep.store.pictures import IMAGE, STEP
from diffsweep.store.schema import Absent, Damaged, Record, Shared, dump, load, loaded

BEGINS, ENDS = b"\x89PNG\r\n\x1a\n", b"\0\0\0\0IEND\xaeB`\x82"  # as every PNG does
MEND = "The sweep's command, run again, samples damaged cells again."
FEW = 5  # of damaged cells are named
NOTHING = {"config": {}, "metrics": {}, "facts": {}, "nfe": 0, "seconds": 0.0}  # of what a writer says nothing
T = TypeVar("T")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class Store:
    """Cells under `root` (the `output_dir`), read and written by id. damaged: the damage found, by the cell's id;
    seen: the cells checked so far, for a reader that checks each once; shared: what their records have in common."""

    root: Path
    damaged: dict[str, Damaged] = field(default_factory=dict, compare=False, repr=False)
    seen: dict[str, Record] | None = field(default=None, compare=False, repr=False)
    shared: Shared | None = field(default=None, compare=False, repr=False)

    def looking_once(self) -> Store:
        """The same store, for a reader that checks each finished cell's files once, and reads its record again only
        where it has changed that itself."""
        if self.seen is not None:
            return self
        once = replace(self, seen={}, shared=Shared())
        vars(once)["lots"] = self.lots  # which knows them already, and tells those that cannot be read
        return once

    @cached_property
    def lots(self) -> Lots:
        return Lots(self.root / FOLDER)

    def folder(self, cell_id: str) -> Path:
        return self.root / f"cells/{cell_id[:2]}/{cell_id}"

    def file(self, cell_id: str, name: str = IMAGE) -> Path:
        """The file that holds a cell's picture, if it has one of this name: its own, or the lot that the cell is in."""
        return self.packed(cell_id) or self.folder(cell_id) / f"{name}.png"

    def packed(self, cell_id: str) -> Path | None:
        """The lot that holds a cell, None where it has a folder, or is not in the store."""
        lot = self.lots.of(cell_id)
        return None if lot is None or self.folder(cell_id).is_dir() else lot

    def __contains__(self, cell_id: str) -> bool:
        """Whether the cell's record is there, and can be read."""
        return self.get(cell_id) is not None

    def get(self, cell_id: str) -> Record | None:
        """The record of a cell, None if it is not there or unreadable."""
        there = self.seen.get(cell_id) if self.seen else None
        return there or self._noted(self.record, cell_id)

    def finished(self, cell_id: str) -> Record | None:
        """The record of a cell, None unless every file that it lists is there and seems as it was written."""
        if self.seen and cell_id in self.seen:
            return self.seen[cell_id]
        record = self._noted(self.checked, cell_id)
        if self.seen is not None and record is not None:
            self.seen[cell_id] = record
        return record

    def is_complete(self, cell_id: str) -> bool:
        """Whether the cell is finished."""
        return self.finished(cell_id) is not None

    def record(self, cell_id: str) -> Record:
        """The record of a cell; Damaged, and Absent where there is no cell."""
        path = self.folder(cell_id) / "record.json"
        try:
            record = load(path, Record, self.shared)
        except Absent:
            if path.parent.is_dir():
                raise Damaged(path, "missing") from None
            if (found := self.lots.record(cell_id)) is None:
                raise
            path, data = found
            record = loaded(data, path, Record, self.shared)
        if record["cell_id"] != cell_id:
            raise Damaged(path, f"of another cell, {record['cell_id']}")
        return record

    def checked(self, cell_id: str) -> Record:
        """The record of a finished cell, its files looked at; Damaged, and Absent where there is no cell."""
        folder = self.folder(cell_id)

        def check(record: Record) -> Record:
            if self.packed(cell_id):
                self._look_at_lot(record)
            else:
                for name in record["files"]:
                    self._look(folder / name, record)
            return record

        return self._current(cell_id, check)

    def read(self, cell_id: str, name: str) -> bytes:
        """A stored file as its record has it; Damaged."""
        try:
            return self._current(cell_id, lambda record: self._read(name, record))
        except Damaged as error:
            self.note(cell_id, error)
            raise

    def contents(self, record: Record) -> dict[str, bytes]:
        """All files of a cell, each compared with its hash; Damaged."""
        return {name: self.read(record["cell_id"], name) for name in record["files"]}

    def size(self, cell_id: str, name: str = IMAGE) -> tuple[int, int]:
        """Width and height of a stored picture, as its first bytes have it; Damaged."""
        path = self.folder(cell_id) / f"{name}.png"
        try:
            data = files.read(path, 24)
        except OSError as error:
            packed = self.lots.content(cell_id, path.name) if _is_missing(error) else None
            if packed is None:
                raise _unreadable(path, error) from None
            data = packed[:24]
        if data[:8] != BEGINS or len(data) < 24:
            raise Damaged(path, "not a PNG")
        width, height = unpack(">16x2I", data)
        return width, height

    def pixels(self, cell_id: str, name: str = IMAGE) -> np.ndarray:
        """A stored picture (`image`, `input`, `mask`, `noisy`, ...): uint8, H W 3, or H W for a mask; Damaged where it
        is not the one that was stored."""
        with Image.open(BytesIO(self.read(cell_id, f"{name}.png"))) as image:
            return np.asarray(image)

    def save(self, cell_id: str, pictures: Mapping[str, np.ndarray], record: Mapping[str, Any]) -> None:
        """Store a finished cell: pictures (uint8) by name, then its record with each file's hash. One that is there
        already stays, unless it is damaged."""
        if cell_id in self.lots and self.is_complete(cell_id):
            return
        place = self.folder(cell_id)
        place.parent.mkdir(parents=True, exist_ok=True)
        scratch = files.scratch(place)
        try:
            own = {f"{name}.png": _png(pixels) for name, pixels in pictures.items()}
            _fill(scratch, own, {**NOTHING, **record, "cell_id": cell_id})
            self._put(scratch, cell_id)
            self.damaged.pop(cell_id, None)
            self._forget(cell_id)
        finally:
            files.remove(scratch)
        files.tidy(place.parent, cell_id)

    def _put(self, scratch: Path, cell_id: str) -> None:
        """A cell into its place. A damaged one there is moved aside, never removed first, by one process at a time; a
        place that is free is anybody's."""
        place = self.folder(cell_id)
        if _moved(scratch, place) or self.is_complete(cell_id):
            return
        with locked(place.parent, name=cell_id):
            if self.is_complete(cell_id):
                return
            aside = files.scratch(place)
            try:
                with suppress(FileNotFoundError):
                    os.rename(place, aside)
                if not _moved(scratch, place) and not self.is_complete(cell_id):
                    raise Damaged(place, "cannot be replaced")
            finally:
                files.remove(aside)

    def add(self, cell_id: str, pictures: Mapping[str, np.ndarray], instead: str, facts: Mapping[str, Any]) -> None:
        """Further pictures for a finished cell, in place of those whose names begin with `instead`, and their facts for
        its record.

        A name stands for one picture of the cell: one that is stored already stays. So the files of the record before
        and after lie side by side until it is swapped.
        """
        place = self.folder(cell_id)
        with locked(place.parent, name=cell_id):
            self.give_folder(cell_id)
            record = self.record(cell_id)
            own = {f"{name}.png": _png(pixels) for name, pixels in pictures.items()}
            new = {name: data for name, data in own.items() if name not in record["files"]}
            for name, data in new.items():
                write_atomic(place / name, data)
            stay = [name for name in record["files"] if name in own or not name.startswith(instead)]
            before: dict[str, dict[str, Any]] = {"files": {**record["files"]}, "stats": {**record.get("stats", {})}}
            changes = {
                key: {name: before[key][name] for name in stay if name in before[key]} | described
                for key, described in _described(place, new).items()
            }
            self._amend(cell_id, {**changes, "facts": {**record["facts"], **facts}})
            for path in place.glob(f"{instead}*.png"):
                if path.name not in own:
                    files.remove(path)

    def merge(self, cell_id: str, entry: str, new: Mapping[str, Any]) -> None:
        """Merge `new` into one entry of a record, beside what other processes write there."""
        with locked(self.folder(cell_id).parent, name=cell_id):
            self.give_folder(cell_id)
            before: Mapping[str, Any] = self.record(cell_id)
            self._amend(cell_id, {entry: {**before.get(entry, {}), **new}})

    def verify(self, cell_id: str) -> list[str]:
        """What is wrong with a cell's files, all of them read: nothing when every hash in its record agrees."""
        found = []
        for name in self.record(cell_id)["files"]:
            try:
                self.read(cell_id, name)
            except Damaged as error:
                found.append(f"{cell_id}/{name}: {error.reason}")
        return found

    def damage_report(self, what: str = "damaged", mend: bool = False) -> list[str]:
        """The damage found, in lines for the user: a file of each of the first cells, and how many more. mend: how to
        mend it, too."""
        cells = list(self.damaged.values())
        lines = [f"{what}: {error}" for error in cells[:FEW]]
        lines += [f"{what}: {counted('more cell', len(cells) - FEW)}"] if len(cells) > FEW else []
        return [*lines, MEND] if lines and mend else lines

    def copy(self, cell_id: str, to: Store) -> None:
        """A cell into another store, each file compared with its hash; Damaged."""
        record, folder = self.record(cell_id), to.folder(cell_id)
        contents = self.contents(record)
        folder.mkdir(parents=True)
        for name, data in contents.items():
            (folder / name).write_bytes(data)
        (folder / "record.json").write_bytes(dump({**record, **_described(folder, contents)}, Record))

    def give_folder(self, cell_id: str) -> None:
        """Give a packed cell its folder again, while no other process changes it; Damaged."""
        if self.packed(cell_id):
            record, scratch = self.record(cell_id), files.scratch(self.folder(cell_id))
            try:
                _fill(scratch, self.contents(record), record)
                _moved(scratch, self.folder(cell_id))
            finally:
                files.remove(scratch)
            self._forget(cell_id)

    def note(self, cell_id: str, error: Damaged) -> None:
        self._forget(cell_id)
        if not isinstance(error, Absent):
            self.damaged[cell_id] = error

    def wrong(self, cell_id: str) -> str | None:
        """The damage found in a cell, in a word or two."""
        error = self.damaged.get(cell_id)
        return f"damaged: {error.path.name} {error.reason}" if error else None

    def tidy(self, cell_ids: Iterable[str]) -> None:
        """Remove what killed processes left beside these cells."""
        for folder in dict.fromkeys(self.folder(cell_id).parent for cell_id in cell_ids):
            if folder.is_dir():
                files.tidy(folder)
                locks.tidy(folder)
        if self.lots.folder.is_dir():
            files.tidy(self.lots.folder)
            locks.tidy(self.lots.folder)

    # -- within --------------------------------------------------------------------------------------------------------
    def _forget(self, cell_id: str) -> None:
        if self.seen is not None:
            self.seen.pop(cell_id, None)

    def _amend(self, cell_id: str, changes: Mapping[str, Any]) -> None:
        write_atomic(self.folder(cell_id) / "record.json", dump({**self.record(cell_id), **changes}, Record))
        self._forget(cell_id)

    def _current(self, cell_id: str, act: Callable[[Record], T]) -> T:
        """What an act makes of a record; once more where another process has replaced or moved that meanwhile."""
        record, lot = self.record(cell_id), self.packed(cell_id)
        while True:
            try:
                return act(record)
            except Damaged:
                before = record, lot
                record, lot = self.record(cell_id), self.packed(cell_id)
                if (record, lot) == before:
                    raise

    def _look(self, path: Path, record: Record) -> None:
        """Whether a file seems as it was written; Damaged."""
        try:
            state = path.stat()
            if not S_ISREG(state.st_mode):
                raise Damaged(path, "not a regular file")
            size, changed = record.get("stats", {}).get(path.name, (state.st_size, None))
            if state.st_size != size:
                raise Damaged(path, f"has {state.st_size} bytes, not {size}")
            if not _ends_as_png(path):
                raise Damaged(path, "not a complete PNG")
            if changed is None:  # of a record that does not say
                if state.st_mtime_ns > path.with_name("record.json").stat().st_mtime_ns:
                    self._read(path.name, record)
            elif changed != state.st_mtime_ns:
                self._read(path.name, record)
                with suppress(OSError):  # so that it is trusted
                    os.utime(path, ns=(state.st_atime_ns, changed))
        except Damaged:
            raise
        except OSError as error:
            raise _unreadable(path, error) from None

    def _look_at_lot(self, record: Record) -> None:
        """Whether a packed cell's files seem as they were written; Damaged."""
        if not self.lots.trusted(record["cell_id"]):
            for name in record["files"]:
                self._read(name, record)
            self.lots.compared(record["cell_id"])

    def _read(self, name: str, record: Record) -> bytes:
        """A cell's file, compared with its hash; Damaged."""
        cell_id = record["cell_id"]
        path = self.folder(cell_id) / name
        digest = record["files"].get(name)
        if digest is None:
            raise Absent(path, "not of this cell")
        try:
            data = files.read(path)
        except OSError as error:
            packed = None
            if _is_missing(error) and not path.parent.is_dir():
                packed = self.lots.content(cell_id, name)
            if packed is None:
                raise _unreadable(path, error) from None
            data = packed
        if sha256(data) != digest:
            if (lot := self.packed(cell_id)) is None:
                with suppress(OSError):  # so that it is not trusted any more
                    os.utime(path)
            else:
                path = lot / cell_id / name
                self.lots.distrust(cell_id)
            raise Damaged(path, "differs from its recorded hash")
        return data

    def _noted(self, act: Callable[[str], Record], cell_id: str) -> Record | None:
        try:
            return act(cell_id)
        except Damaged as error:
            self.note(cell_id, error)
            return None


def steps(record: Record) -> dict[str, float]:
    """The timesteps at which a cell was watched, by how the names of their pictures begin (`step_0003`), in order."""
    trajectory = record["facts"].get("trajectory")
    names = dict.fromkeys(name.rpartition("_")[0] for name in sorted(record["files"]) if name.startswith(STEP))
    return dict(zip(names, trajectory["t"] if trajectory else (), strict=False))


def _fill(folder: Path, contents: Mapping[str, bytes], entries: Mapping[str, Any]) -> None:
    """Write a cell's files into a folder that is made for them, then its record, with each file's hash."""
    folder.mkdir()
    for name, data in contents.items():
        files.write(folder / name, data)
    write_atomic(folder / "record.json", dump({**entries, **_described(folder, contents)}, Record))


def _is_missing(error: OSError) -> bool:
    return isinstance(error, FileNotFoundError | NotADirectoryError)


def _unreadable(path: Path, error: OSError) -> Damaged:
    return Damaged(path, "missing" if _is_missing(error) else f"cannot be read ({error.strerror or error})")


def _ends_as_png(path: Path) -> bool:
    """Whether a file begins and ends as a PNG does."""
    with path.open("rb", buffering=0) as file:
        if file.read(len(BEGINS)) != BEGINS:
            return False
        file.seek(-len(ENDS), os.SEEK_END)
        return file.read() == ENDS


def _png(pixels: np.ndarray) -> bytes:
    file = BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()


def _described(folder: Path, contents: Mapping[str, bytes]) -> dict[str, dict[str, Any]]:
    """What a record holds of files: the hash of each, its size and its time."""
    states = {name: (folder / name).stat() for name in contents}
    return {
        "files": {name: sha256(data) for name, data in contents.items()},
        "stats": {name: [state.st_size, state.st_mtime_ns] for name, state in states.items()},
    }


def _moved(source: Path, target: Path) -> bool:
    """Move a folder to a place that is free; whether it was."""
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
            raise
        return False
    return True
