"""The store: one folder a cell, complete or absent.

`outputs/cells/<id[:2]>/<id>/` holds `image.png`, further named PNGs and `record.json`. A cell is written into a
temporary folder beside its place and renamed into it, record last, so that the record's presence means done. Two
processes that finish the same cell write the same bytes; the first rename wins.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from diffsweep.core.files import write_atomic

Record = dict[str, Any]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Busy(RuntimeError):
    """Another process holds what is wanted."""


@contextmanager
def locked(folder: Path, patience: float = math.inf) -> Iterator[None]:
    """Hold a folder against other processes that do so, where the system can (not on Windows); Busy where one of them
    has it for longer than `patience` seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:
        yield
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        began = time.monotonic()
        while patience < math.inf:
            try:
                fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() - began >= patience:
                    raise Busy(f"{folder}: held by another process") from None
                time.sleep(0.1)
        else:
            fcntl.flock(number, fcntl.LOCK_EX)
        yield
    finally:
        os.close(number)


def to_json(value: Any) -> bytes:
    """Strict JSON: an infinity or a NaN is a bug of the writer (`null` beside a flag says what was meant)."""
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False).encode() + b"\n"


@dataclass(frozen=True)
class Store:
    """Cells under `root` (the `output_dir`), read and written by id."""

    root: Path

    def folder(self, cell_id: str) -> Path:
        return self.root / f"cells/{cell_id[:2]}/{cell_id}"

    def __contains__(self, cell_id: str) -> bool:
        """Whether the cell is finished: its record is there, and can be read."""
        return self.get(cell_id) is not None

    def get(self, cell_id: str) -> Record | None:
        """The record of a cell, None if it is not there or unreadable."""
        try:
            return self.record(cell_id)
        except KeyError:
            return None

    def finished(self, cell_id: str) -> Record | None:
        """The record of a cell, None unless every file that it lists is there."""
        record = self.get(cell_id)
        return record if record and record["files"].keys() <= {*os.listdir(self.folder(cell_id))} else None

    def whole(self, cell_id: str) -> bool:
        """Whether the cell is finished and every file that its record lists is there."""
        return self.finished(cell_id) is not None

    def record(self, cell_id: str) -> Record:
        """The record of a finished cell; `KeyError` if it is not there or unreadable."""
        try:
            return json.loads((self.folder(cell_id) / "record.json").read_bytes())
        except (OSError, ValueError) as error:
            raise KeyError(f"cell {cell_id}: no readable record under {self.root}") from error

    def pixels(self, cell_id: str, name: str = "image") -> np.ndarray:
        """A stored picture (`image`, `input`, `mask`, `noisy`, ...): uint8, H W 3, or H W for a mask; OSError where it
        cannot be read."""
        path = self.folder(cell_id) / f"{name}.png"
        try:
            with Image.open(path) as image:
                return np.asarray(image)
        except (SyntaxError, ValueError) as error:  # some of Pillow's ways to say that a PNG is damaged
            raise OSError(f"{path}: {error}") from error

    def save(self, cell_id: str, pictures: Mapping[str, np.ndarray], record: Record) -> None:
        """Store a finished cell: pictures (uint8) by name, then its record with each file's hash."""
        place = self.folder(cell_id)
        place.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{cell_id}.", dir=place.parent))
        try:
            os.chmod(scratch, 0o755)
            files = _written(scratch, pictures)
            write_atomic(scratch / "record.json", to_json({**record, "cell_id": cell_id, "files": files}))
            if place.exists() and not self.whole(cell_id):
                shutil.rmtree(place)  # what a crash of an older kind left without a record
            try:
                os.rename(scratch, place)
            except OSError:
                if cell_id not in self:
                    raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def add(self, cell_id: str, pictures: Mapping[str, np.ndarray], instead: str, facts: Record) -> None:
        """Further pictures for a finished cell, in place of those whose names begin with `instead`, and what its record
        tells of them."""
        place = self.folder(cell_id)
        with locked(place):
            record = self.record(cell_id)
            gone = {name for name in record["files"] if name.startswith(instead)}
            files = {name: digest for name, digest in record["files"].items() if name not in gone}
            files |= _written(place, pictures)
            self.amend(cell_id, {"files": files, "facts": {**record["facts"], **facts}})
            for name in gone - files.keys():
                (place / name).unlink(missing_ok=True)

    def merge(self, cell_id: str, entry: str, new: Record) -> None:
        """More within one entry of a record, beside what other processes write there."""
        with locked(self.folder(cell_id)):
            self.amend(cell_id, {entry: {**self.record(cell_id).get(entry, {}), **new}})

    def amend(self, cell_id: str, changes: Record) -> None:
        """Replace top-level entries of a record, atomically."""
        write_atomic(self.folder(cell_id) / "record.json", to_json({**self.record(cell_id), **changes}))

    def verify(self, cell_id: str) -> list[str]:
        """What is wrong with a cell's files: nothing when every hash in its record agrees."""
        files = self.record(cell_id)["files"]
        place = self.folder(cell_id)
        return [
            f"{cell_id}/{name}: {'differs from its recorded hash' if (place / name).exists() else 'missing'}"
            for name, digest in files.items()
            if not (place / name).exists() or sha256((place / name).read_bytes()) != digest
        ]


def _written(folder: Path, pictures: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Each picture as a PNG in the folder; the hashes by the files' names."""
    files = {}
    for name, pixels in pictures.items():
        path = folder / f"{name}.png"
        with path.open("wb") as file:
            Image.fromarray(pixels).save(file, format="PNG")
            file.flush()
            os.fsync(file.fileno())
        files[path.name] = sha256(path.read_bytes())
    return files


def finite(value: float) -> float | None:
    """A number that strict JSON can hold: None for NaN and infinities."""
    return value if math.isfinite(value) else None
