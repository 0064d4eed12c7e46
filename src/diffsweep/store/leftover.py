"""What lies under an output_dir and serves nobody any more, and its removal.

A cell is left over where no sweep.json names it, neither as a cell nor as one whose picture leads to such a cell, and
where it is older than an hour. Of the rest the names say what it is: scratch and locks of processes that are dead,
folders of workers that are silent for a day, damaged cells that were put aside. Whatever has another name is somebody
else's.

A run counts on stored cells before its sweep.json names them: until then it holds `cells` together with other runs
(`unnamed`), and no cell is removed.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from diffsweep.core import files, locks
from diffsweep.core.problems import BadInput
from diffsweep.store import document
from diffsweep.store.cells import Store
from diffsweep.store.check import ASIDE
from diffsweep.store.lots import FOLDER, NAME
from diffsweep.store.packing import thin
from diffsweep.store.schema import Damaged

YOUNG, DAY = 3600.0, 24 * 3600.0  # seconds: a cell that a run may still need; a worker that may still live
CELL = re.compile(r"[0-9a-f]{20}")
UNNAMED = "unnamed"  # the lock's name
DERIVED = ("results.parquet", "results.csv", "report.html")  # that there was a sweep
KINDS = {  # one of each, and several
    "cell": ("cell that no sweep names", "cells that no sweep names"),
    "lot": ("lot with cells that nobody needs", "lots with cells that nobody needs"),
    "aside": ("damaged cell that was put aside", "damaged cells that were put aside"),
    "scratch": ("scratch file or folder of a dead process", "scratch files and folders of dead processes"),
    "lock": ("lock of a dead process", "locks of dead processes"),
    "work": ("work folder of dead workers", "work folders of dead workers"),
}


class Unsure(RuntimeError):
    """It cannot be said which cells the sweeps need; the message says why."""


@dataclass(frozen=True)
class Leftover:
    """kind: one of KINDS; bytes: of all its files, and of a lot the share of its cells that no sweep names."""

    kind: str
    path: Path
    bytes: int


def unnamed(root: Path) -> AbstractContextManager[None]:
    """Within, no cell is removed: this process counts on some that no sweep.json may name yet."""
    cells = root / "cells"
    return locks.shared(cells, UNNAMED) if cells.is_dir() else nullcontext()


def cells(root: Path, now: float | None = None) -> tuple[list[Leftover], int]:
    """The cells that no sweep names, the lots that hold such cells, and how many cells are too young to be left over.
    Unsure where a sweep cannot be read."""
    now = time.time() if now is None else now
    there = [root / name for name in ("cells", FOLDER) if (root / name).is_dir()]
    for folder in there:
        if folder.is_symlink():
            raise Unsure(f"{folder} is a link: sweeps of other output_dirs may need its cells")
    needed = _needed(root) if there else set()
    unneeded = [path for path in _cells(root / "cells") if path.name not in needed]
    old = [path for path in unneeded if now - _changed(path) > YOUNG]
    held = Store(root).lots.cells()
    left = [_leftover("cell", path) for path in old]
    young = len(unneeded) - len(old)
    for path, ids in held.items():
        number = sum(cell_id not in needed for cell_id in ids)
        if (number or not ids) and now - _changed(path) > YOUNG:  # without ids: later lots hold all of its cells
            left.append(Leftover("lot", path, _size(path) * number // len(ids) if ids else _size(path)))
        else:
            young += number
    return left, young


def others(root: Path) -> Iterator[Leftover]:
    """What else is left over."""
    aside = root / "cells" / ASIDE
    for path in sorted(aside.iterdir()) if aside.is_dir() else ():
        if CELL.match(path.name) or NAME.match(path.name):
            yield _leftover("aside", path)
    for folder in _folders(root):
        with suppress(FileNotFoundError, PermissionError):  # gone meanwhile, or another's
            found = [("scratch", path) for path in sorted(files.left(folder))]
            found += [("lock", path) for path in locks.left(folder)]
            yield from (_leftover(kind, path) for kind, path in found)
    for path in sorted((root / "sweeps").glob("*/work/*")):
        if work_is_left(path):
            yield _leftover("work", path)


def work_is_left(folder: Path, now: float | None = None) -> bool:
    """Whether the workers of a folder `sweeps/<name>/work/<digest>` are dead: none of them has written there for a
    day."""
    now = time.time() if now is None else now
    if folder.is_symlink() or not folder.is_dir():
        return False
    return all(now - _changed(path) > DAY for path in (folder, *folder.rglob("*")))


def remove_cells(root: Path) -> list[Leftover]:
    """Remove the cells that no sweep names, each at one moment; those that are gone. Unsure; Busy where a run counts on
    cells that no sweep names yet."""
    with locks.locked(root / "cells", patience=0, name=UNNAMED):
        left, _ = cells(root)
        needed = _needed(root)
        lots = [one for one in left if one.kind == "lot" and thin(Store(root), one.path, needed)]
        away = [(one, place) for one in left if one.kind == "cell" and (place := _taken_away(one.path))]
    for _, place in away:
        files.remove(place)
    return [*lots, *(one for one, place in away if not os.path.lexists(place))]


def remove(left: Leftover) -> bool:
    """Remove what else is left over, unless it serves somebody by now; whether it is gone."""
    if left.kind == "lock":
        locks.tidy(left.path.parent)
    elif left.kind == "scratch":
        files.remove(left.path)
    elif (left.kind != "work" or work_is_left(left.path)) and (place := _taken_away(left.path)):
        files.remove(place)
        return not os.path.lexists(place)
    return not os.path.lexists(left.path)


# -- within ------------------------------------------------------------------------------------------------------------
def _taken_away(path: Path) -> Path | None:
    """A folder under a name of scratch, so that at one moment it is not there any more; None where it was gone."""
    scratch = files.scratch(path)
    try:
        os.rename(path, scratch)
    except FileNotFoundError:
        return None
    return scratch


def _needed(root: Path) -> set[str]:
    """The cells that sweeps name, and those whose pictures lead to theirs."""
    if not (root / "sweeps").is_dir():
        raise Unsure(f"{root / 'sweeps'} is no folder: nothing says which cells are needed")
    needed: set[str] = set()
    for folder in sorted((root / "sweeps").iterdir()):
        if files.OWNED.fullmatch(folder.name) or not _holds_a_sweep(folder):
            continue
        try:
            sweep = document.read(folder)
            ids = [cell["cell_id"] for cell in sweep["cells"]]
            bases = sweep.get("bases")
            needed.update(_with_bases(Store(root), folder, ids) if bases is None else (*ids, *bases, *bases.values()))
        except Damaged as error:
            raise Unsure(f"{error}; its command, run again, writes it anew") from None
        except BadInput as error:  # a later diffsweep's
            raise Unsure("; ".join(error.messages)) from None
    return needed


def _holds_a_sweep(folder: Path) -> bool:
    """Whether sweep.json is there, or was, as its other files say; or whether that cannot be said."""
    try:
        return not {document.NAME, *DERIVED}.isdisjoint(os.listdir(folder))
    except NotADirectoryError:
        return False
    except OSError:
        return True


def _with_bases(store: Store, folder: Path, ids: Iterable[str]) -> Iterable[str]:
    """These cells and those whose pictures lead to theirs, as records say it; Unsure where one does not."""
    found = dict.fromkeys(ids)
    line = list(found)
    for cell_id in line:
        record = store.get(cell_id)
        if record is None:
            told = f"its cell {cell_id} is not in the store, and may need others; its command, run again, says which"
            raise Unsure(f"{folder / document.NAME}: {told}")
        base = record["facts"].get("base")
        if base and base not in found:
            found[base] = None
            line.append(base)
    return found


def _cells(folder: Path) -> Iterator[Path]:
    """The folders that are named as cells, where cells lie."""
    for part in sorted(folder.iterdir()) if folder.is_dir() else ():
        if re.fullmatch("[0-9a-f]{2}", part.name) and part.is_dir() and not part.is_symlink():
            for path in sorted(part.iterdir()):
                if CELL.fullmatch(path.name) and path.name[:2] == part.name and path.is_dir() and not path.is_symlink():
                    yield path


def _folders(root: Path) -> Iterator[Path]:
    """The folders that diffsweep writes to; no link is followed, and nothing of a worker's is looked at."""
    yield root
    for top in ("cells", FOLDER, "sweeps", "embeddings"):
        for folder, below, _ in os.walk(root / top):
            place = Path(folder)
            below[:] = sorted(name for name in below if not name.startswith("."))
            if place.parent.parent == root / "sweeps" and place.name == "work":
                below.clear()
            yield place


def _leftover(kind: str, path: Path) -> Leftover:
    return Leftover(kind, path, sum(_size(one) for one in (path, *path.rglob("*"))))


def _size(path: Path) -> int:
    with suppress(OSError):
        return path.lstat().st_size if path.is_symlink() or not path.is_dir() else 0
    return 0


def _changed(path: Path) -> float:
    """When a path changed last, and of a cell its record; now, where that cannot be said."""
    try:
        times = [path.lstat().st_mtime]
        with suppress(FileNotFoundError, NotADirectoryError):
            times.append((path / "record.json").lstat().st_mtime)
        return max(times)
    except OSError:
        return time.time()
