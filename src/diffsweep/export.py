"""A stored sweep in another form, to send, to keep, or to train on: a store of its own, or WebDataset."""

from __future__ import annotations

import errno
import re
import shutil
import stat
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from io import BytesIO
from os.path import lexists
from pathlib import Path

from diffsweep.core import files
from diffsweep.core.files import is_folder
from diffsweep.core.problems import BadInput
from diffsweep.core.text import counted
from diffsweep.store.cells import Store
from diffsweep.store.packing import copy_packed
from diffsweep.store.pictures import IMAGE
from diffsweep.store.progress import bar
from diffsweep.store.schema import CellEntry, Damaged, to_json
from diffsweep.store.stored import Stored

STORE, WEBDATASET = "store", "webdataset"
SHARD_CELLS, SHARD_BYTES = 1000, 512 << 20  # of a WebDataset shard, at most


def export(stored: Stored, to: str, form: str) -> int:
    """Write a sweep to a folder or a zip file that is not there yet, complete or not at all, each of its files compared
    with its hash. The exit code: 1 where cells are left out, as they are damaged or not in the store. BadInput."""
    target = Path(to).expanduser().absolute()
    if lexists(target):
        other = f"; format={WEBDATASET} to=FOLDER writes another one" if form == WEBDATASET else ""
        raise BadInput(f"to={to}: exists already; nothing is overwritten{other}")
    if not is_folder(target.parent):
        raise BadInput(f"to={to}: {target.parent} does not exist")
    suffix = re.search(r"\.(zip|tar|tgz|tbz2?|txz|7z|rar|(tar\.)?(gz|bz2|xz|zst))$", target.name, re.IGNORECASE)
    if suffix and form == WEBDATASET:
        raise BadInput(f"to={to}: a folder is needed, for tar files")
    if suffix and suffix[0].lower() != ".zip":
        raise BadInput(f"to={to}: no {suffix[0]} file is written, only a folder or a .zip file")
    if not stored.cell_ids:
        raise BadInput(f"{stored.sweep['name']}: none of its cells is stored; nothing is exported")
    scratch = files.scratch(target)
    left: list[str] = []
    try:
        place = scratch / (target.stem if suffix else target.name)
        cells = _as_webdataset(stored, place) if form == WEBDATASET else _as_store(stored, place, left)
        if suffix:
            place = Path(shutil.make_archive(str(place), "zip", scratch, place.name))
        place.rename(target)
    finally:
        files.remove(scratch)
    files.tidy(target.parent, target.name)
    left += [f"{cell_id}: not in the store" for cell_id in stored.lost]
    for line in left:
        print(f"left out: {line}", file=sys.stderr)
    print(f"{to}: {counted('cell', cells)} {'as WebDataset' if form == WEBDATASET else 'as a store'}")
    return 1 if left or stored.store.damaged else 0


def _as_store(stored: Stored, place: Path, left: list[str]) -> int:
    """A folder with an output_dir's layout, so that every command works there. What is damaged stays behind, and so
    does what is no file of ours: links, and scratch of processes that were killed. left: is told so."""
    whole, lacking = stored.with_bases()
    left += [
        f"{base}: not in the store; its picture is what {cell_id} was enlarged from"
        for base, cell_id in lacking.items()
        if base not in stored.lost
    ]

    def ignored(folder: str, names: list[str]) -> list[str]:
        hidden = [name for name in names if name.startswith(".")]
        odd = [name for name in names if name not in hidden and not _plain(Path(folder, name))]
        left.extend(f"{Path(folder, name)}: neither a file nor a folder" for name in odd)
        return [*hidden, *odd]

    _copy_tree(stored.folder, place / "sweeps" / stored.sweep["name"], ignored)
    packed = [cell_id for cell_id in whole if stored.store.packed(cell_id)]
    cells = copy_packed(stored.store, packed, Store(place))  # where they stay packed, as the tables say
    others = [cell_id for cell_id in whole if not stored.store.packed(cell_id)]
    with bar("exporting", len(others)) as progress:
        for cell_id in others:
            try:
                stored.store.copy(cell_id, Store(place))
                cells += 1
            except Damaged as error:
                stored.store.damaged[cell_id] = error
            progress.update()
    return cells


def _as_webdataset(stored: Stored, place: Path) -> int:
    """Tar files of at most a thousand cells, as WebDataset reads them: of each cell `<id>.png`, its other pictures
    (`<id>.input.png`), its prompt (`<id>.txt`), and axes, settings and metrics (`<id>.json`)."""
    place.mkdir(parents=True)
    entries = {cell["cell_id"]: cell for cell in reversed(stored.sweep["cells"])}
    ids = stored.cell_ids
    shards = cells = held = size = 0
    with bar("exporting", len(ids)) as progress, ExitStack() as last:
        for cell_id in ids:
            progress.update()
            try:
                own = dict(_sample(stored.store, entries[cell_id]))
            except Damaged as error:
                stored.store.damaged[cell_id] = error
                continue
            if not shards or held == SHARD_CELLS or size >= SHARD_BYTES:
                last.close()
                shard = last.enter_context(tarfile.open(place / f"cells-{shards:06}.tar", "w"))
                shards, held, size = shards + 1, 0, 0
            for name, data in own.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                shard.addfile(entry, BytesIO(data))
                size += len(data)
            cells, held = cells + 1, held + 1
    return cells


def _sample(store: Store, entry: CellEntry) -> Iterator[tuple[str, bytes]]:
    """A cell's files in a shard, and what each holds."""
    cell_id = entry["cell_id"]
    record = store.record(cell_id)
    for name in record["files"]:
        own = "png" if name == f"{IMAGE}.png" else name.replace(".", "_", name.count(".") - 1)
        yield f"{cell_id}.{own}", store.read(cell_id, name)
    yield f"{cell_id}.txt", str(record["config"].get("prompt", "")).encode()
    about = {
        "cell_id": cell_id,
        "axes": entry["axes"],
        "seed": entry["seed"],
        "metrics": {name: found["value"] for name, found in record["metrics"].items()},
        **{key: record[key] for key in ("config", "nfe", "seconds", "facts")},
    }
    yield f"{cell_id}.json", to_json(about)


def _copy_tree(folder: Path, place: Path, ignored: Callable[[str, list[str]], list[str]]) -> None:
    """Copy a folder; the system's own error where that fails, of which shutil makes a list."""

    def copied(source: str, target: str) -> None:
        try:
            shutil.copy2(source, target)
        except OSError as error:
            raise _Stopped from error

    try:
        shutil.copytree(folder, place, ignore=ignored, copy_function=copied)
    except _Stopped as stopped:
        raise (stopped.__cause__ or stopped) from None
    except shutil.Error as error:  # of a folder
        raise OSError(errno.EIO, "; ".join(str(why) for *_, why in error.args[0]), str(folder)) from None


class _Stopped(Exception):
    """A file could not be copied."""


def _plain(path: Path) -> bool:
    """Whether it is a file or a folder itself: no link, no pipe, no device."""
    mode = path.lstat().st_mode
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)
