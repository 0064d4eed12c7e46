"""Lots: many cells in one Parquet file, for sweeps whose folders would be too many files.

`outputs/lots/000001.parquet` has a row for each of its cells: `cell_id`, `record` (what record.json holds), `digest`
(that one's SHA-256), `image` (what image.png holds) and `pictures` (what its other files hold, by name). A lot is
written once and never changed. Of two lots that hold the same cell, the one with the higher number counts; a cell's own
folder counts before any lot.

The file's time is written in it. A lot whose time is another one was changed, or copied: its cells are compared with
their hashes until all of them have been. Whoever finds a damaged cell marks the lot by its time.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISREG
from threading import RLock
from time import time, time_ns
from typing import TYPE_CHECKING, Any, TypeVar

from diffsweep.core import files
from diffsweep.store.pictures import IMAGE
from diffsweep.store.schema import SCHEMA, Damaged, Newer, newer

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

FOLDER = "lots"  # beside `cells`
CELLS = 1024  # of a lot, at most
BYTES = 256 << 20  # of a lot's pictures, about, at most
GROUP_CELLS, GROUP_BYTES = 256, 2 << 20  # of a row group, which is read at once
NAME = re.compile(r"([0-9]{6}|[1-9][0-9]{6,})\.parquet")  # each number has one name
TICK = 50_000_000  # ns: more than the grain of a file system's times
SHIFT = 20  # bits for a row's place
TIME, NUMBERED = b"diffsweep.time", b"diffsweep.schema"  # in the file's metadata: seconds, and the shape's number
T = TypeVar("T")

Row = tuple[str, bytes, Mapping[str, bytes]]  # a cell's id, its record, and its files' contents by name


@dataclass
class Lot:
    """A lot's file. ids: of its cells, in order; groups: where its row groups begin, and its end; trusted: whether it
    is as it was written; compared: places of those cells that were compared with their hashes."""

    path: Path
    state: tuple[int, int, int]
    ids: list[str]
    groups: list[int]
    time: int
    trusted: bool
    compared: set[int] = field(default_factory=set)


class Lots:
    """The lots of a store. It looks at the folder again where that has changed. wrong: lots that cannot be read, and
    why."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.wrong: dict[Path, str] = {}
        self._lots: dict[int, Lot] = {}
        self._at: dict[str, int] = {}  # a lot's number and a row's place in it, by the cell's id
        self._looked: int | None = None
        self._lock = RLock()  # the engine's thread and the one that measures read the same store
        self._files, self._records, self._contents = _Latest(16), _Latest(64), _Latest(4)

    def __contains__(self, cell_id: str) -> bool:
        return self._find(cell_id) is not None

    def ids(self) -> list[str]:
        with self._lock:
            self._look()
            return list(self._at)

    def of(self, cell_id: str) -> Path | None:
        """The lot that holds a cell."""
        return found[0].path if (found := self._find(cell_id)) else None

    def cells(self) -> dict[Path, list[str]]:
        """The cells that each lot holds, but for those that a later lot holds as well."""
        with self._lock:
            self._look()
            held: dict[Path, list[str]] = {lot.path: [] for lot in self._lots.values()}
            for cell_id, at in self._at.items():
                held[self._lots[at >> SHIFT].path].append(cell_id)
            return held

    def record(self, cell_id: str) -> tuple[Path, bytes] | None:
        """A cell's record and the lot that it is in; None where no lot holds it. Damaged."""

        def read(lot: Lot, row: int) -> tuple[Path, bytes]:
            group, place = _group(lot, row)
            columns = self._read(self._records, lot, group, ["record", "digest"])
            data, digest = (columns[name][place].as_py() for name in ("record", "digest"))
            if data is None or hashlib.sha256(data).hexdigest() != digest:
                self.distrust(cell_id)
                raise Damaged(lot.path / cell_id, "its record differs from its hash")
            return lot.path, data

        return self._with(cell_id, read)

    def content(self, cell_id: str, name: str) -> bytes | None:
        """What a cell's file holds, not compared with its hash; None where no lot holds the cell. Damaged."""

        def read(lot: Lot, row: int) -> bytes:
            group, place = _group(lot, row)
            columns = self._read(self._contents, lot, group, ["image", "pictures"])
            if name == f"{IMAGE}.png":
                data = columns["image"][place].as_py()
            else:
                data = dict(columns["pictures"][place].as_py() or ()).get(name)
            if data is None:
                raise Damaged(lot.path, f"lacks {cell_id}/{name}")
            return data

        return self._with(cell_id, read)

    def trusted(self, cell_id: str) -> bool:
        """Whether the lot that holds a cell has the time at which it was written."""
        found = self._find(cell_id)
        return bool(found and found[0].trusted)

    def compared(self, cell_id: str) -> None:
        """A cell's files agree with their hashes; a lot is trusted again once all of its cells do."""
        with self._lock:
            if (found := self._find(cell_id)) and not found[0].trusted:
                lot, row = found
                lot.compared.add(row)
                if len(lot.compared) == len(lot.ids):
                    with suppress(OSError):
                        os.utime(lot.path, (lot.time, lot.time))
                        lot.state, lot.trusted = _state(lot.path.stat()), True

    def distrust(self, cell_id: str) -> None:
        """A cell is damaged: whoever looks at its lot from now on compares its cells with their hashes."""
        if found := self._find(cell_id):
            found[0].trusted = False
            with suppress(OSError):
                os.utime(found[0].path)

    def write(self, rows: Iterable[Row]) -> Path | None:
        """Write a lot, complete or not at all; None where there are no rows."""
        import pyarrow.parquet as pq

        self.folder.mkdir(parents=True, exist_ok=True)
        written = int(time())
        shape = _columns().with_metadata({TIME: str(written).encode(), NUMBERED: str(SCHEMA).encode()})
        scratch = files.scratch(self.folder / "lot.parquet")
        number = 0
        try:
            with pq.ParquetWriter(
                scratch,
                shape,
                compression="none",  # so that a wrong byte is one cell's; and a PNG is compressed
                use_dictionary=False,
                write_statistics=False,
            ) as writer:
                for group in _grouped(rows):
                    number += len(group)
                    writer.write_table(_table(group, shape), row_group_size=len(group))
            if not number:
                return None
            with scratch.open("rb") as file:
                os.fsync(file.fileno())
            os.utime(scratch, (written, written))
            return self._put(scratch)
        finally:
            scratch.unlink(missing_ok=True)

    def remove(self, path: Path) -> None:
        """Remove a lot whose cells are all elsewhere, or needed no more."""
        path.unlink(missing_ok=True)
        with self._lock:
            self._looked = None

    def report(self, sweep: str) -> list[str]:
        """The lots that cannot be read, in lines for the user of a sweep."""
        aside = f"diffsweep-results verify {shlex.quote(sweep)} repair=true puts it aside"
        return [f"note: {path}: {why}; its cells count as not stored; {aside}" for path, why in self.wrong.items()]

    # -- within --------------------------------------------------------------------------------------------------------
    def _put(self, scratch: Path) -> Path:
        """A lot under the next number, which no other has."""
        with self._lock:
            self._look()
            number = max((*self._lots, *(int(path.stem) for path in self.wrong)), default=0) + 1
        while True:
            place = self.folder / f"{number:06}.parquet"
            made = files.linked(scratch, place)
            if made is None and not place.exists():  # no other process packs now
                os.rename(scratch, place)
                made = True
            if made:
                with self._lock:
                    self._looked = None
                return place
            number += 1

    def _find(self, cell_id: str) -> tuple[Lot, int] | None:
        with self._lock:
            self._look()
            at = self._at.get(cell_id)
            return None if at is None else (self._lots[at >> SHIFT], at & ((1 << SHIFT) - 1))

    def _with(self, cell_id: str, read: Callable[[Lot, int], T]) -> T | None:
        """What is read of a cell's lot; once more where that has gone meanwhile."""
        with self._lock:
            while found := self._find(cell_id):
                lot, row = found
                try:
                    return read(lot, row)
                except FileNotFoundError:
                    self._looked = None
                    self._look()
                except Damaged:
                    raise
                except (OSError, ValueError) as error:  # pyarrow's own are of both kinds
                    self.distrust(cell_id)
                    raise Damaged(lot.path, f"cannot be read ({_first_line(error)})") from None
            return None

    def _read(self, latest: _Latest, lot: Lot, group: int, columns: list[str]) -> pa.Table:
        def read() -> pa.Table:
            return self._files((lot.path, lot.state), lambda: _file(lot.path)).read_row_group(group, columns=columns)

        return latest((lot.path, lot.state, group), read)

    def _look(self) -> None:
        """Know the lots that are there."""
        try:
            looked = self.folder.stat().st_mtime_ns
        except OSError:
            looked = None
        if looked is not None and looked == self._looked:
            return
        settled = looked is not None and abs(time_ns() - looked) > TICK  # else it may change again at the same time
        self._looked = looked if settled else None
        there = dict[int, Path]()
        for entry in os.scandir(self.folder) if looked is not None else ():
            if match := NAME.fullmatch(entry.name):
                there[int(match[1])] = Path(entry.path)
        known, self._lots, self.wrong = self._lots, {}, {}
        for number in sorted(there):
            with suppress(FileNotFoundError):
                try:
                    self._lots[number] = _renewed(known.get(number), there[number])
                except (FileNotFoundError, Newer):
                    raise
                except (OSError, ValueError) as error:
                    why = error.reason if isinstance(error, Damaged) else f"cannot be read ({_first_line(error)})"
                    self.wrong[there[number]] = why
        fresh = [number for number, lot in self._lots.items() if lot is not known.get(number)]
        if self._lots.keys() >= known.keys() and not (known and fresh and fresh[0] <= max(known)):
            added = fresh
        else:
            self._at, added = {}, list(self._lots)
        for number in added:
            self._at.update((cell_id, number << SHIFT | row) for row, cell_id in enumerate(self._lots[number].ids))


def _columns() -> pa.Schema:
    import pyarrow as pa

    return pa.schema(
        [
            ("cell_id", pa.string()),
            ("record", pa.binary()),
            ("digest", pa.string()),
            ("image", pa.binary()),
            ("pictures", pa.map_(pa.string(), pa.binary())),
        ]
    )


class _Latest:
    """What was read last, so many of them."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[Any, Any] = OrderedDict()

    def __call__(self, key: Any, read: Callable[[], T]) -> T:
        value = self._kept.pop(key, None)
        value = read() if value is None else value
        self._kept[key] = value
        if len(self._kept) > self._most:
            self._kept.popitem(last=False)
        return value


def _renewed(known: Lot | None, path: Path) -> Lot:
    """A lot as it is now: the known one where that is its file. OSError or ValueError, Damaged, or Newer."""
    state = path.stat()
    if known and known.state == _state(state):
        return known
    if not S_ISREG(state.st_mode):
        raise Damaged(path, "not a regular file")
    return _opened(path, state)


def _file(path: Path) -> pq.ParquetFile:
    import pyarrow.parquet as pq

    return pq.ParquetFile(path)


def _opened(path: Path, state: os.stat_result) -> Lot:
    """A lot, its cells' ids read."""
    with _file(path) as file:
        about = file.schema_arrow.metadata or {}
        numbers = [about.get(key, b"") for key in (TIME, NUMBERED)]
        if not all(re.fullmatch(rb"\d{1,18}", number) for number in numbers):
            raise Damaged(path, "not a lot of diffsweep's")
        written, shape = map(int, numbers)
        if shape > SCHEMA:
            raise newer(path, shape)
        if not file.schema_arrow.equals(_columns()):
            raise Damaged(path, "not a lot of diffsweep's")
        ids = file.read(columns=["cell_id"])["cell_id"].to_pylist()
        groups, end = [], 0
        for place in range(file.num_row_groups):
            groups.append(end)
            end += file.metadata.row_group(place).num_rows
    if len(ids) != end or end >> SHIFT or not all(isinstance(one, str) for one in ids):
        raise Damaged(path, "not a lot of diffsweep's")
    return Lot(path, _state(state), ids, [*groups, end], written, written * 10**9 == state.st_mtime_ns)


def _state(state: os.stat_result) -> tuple[int, int, int]:
    return state.st_ino, state.st_size, state.st_mtime_ns


def _group(lot: Lot, row: int) -> tuple[int, int]:
    """The row group of a row, and its place there."""
    group = next(place for place, begin in enumerate(lot.groups[1:]) if row < begin)
    return group, row - lot.groups[group]


def _grouped(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Rows that are read together later."""
    group, size = list[Row](), 0
    for row in rows:
        group.append(row)
        size += sum(map(len, row[2].values()))
        if len(group) == GROUP_CELLS or size >= GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _table(rows: Iterable[Row], shape: pa.Schema) -> pa.Table:
    import pyarrow as pa

    own = f"{IMAGE}.png"
    entries = [
        {
            "cell_id": cell_id,
            "record": record,
            "digest": hashlib.sha256(record).hexdigest(),
            "image": contents.get(own),
            "pictures": [(name, data) for name, data in contents.items() if name != own],
        }
        for cell_id, record, contents in rows
    ]
    return pa.Table.from_pylist(entries, schema=shape)


def _first_line(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).strip().splitlines()[0][:200]
