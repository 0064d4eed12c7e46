"""The store: a cell is complete or absent, whoever writes it and whenever they stop."""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffsweep.store import cells as module
from diffsweep.store.cells import Store, write_atomic
from diffsweep.store.schema import Damaged, to_json

CELL = "0123456789abcdef0123"
IMAGE = np.random.default_rng(0).integers(0, 256, (8, 6, 3), np.uint8)
MASK = np.random.default_rng(1).integers(0, 256, (8, 6), np.uint8)
PICTURES = {"image": IMAGE, "mask": MASK}
PSNR = {"value": 30.5, "definition": {"direction": "higher"}}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def files(root: Path) -> list[str]:
    return sorted(file.relative_to(root).as_posix() for file in root.rglob("*") if file.is_file())


def test_a_cell_comes_back_as_it_was(store: Store) -> None:
    assert CELL not in store
    store.save(CELL, PICTURES, {"nfe": 8, "config": {"seed": 3}})
    assert CELL in store
    folder = f"cells/01/{CELL}"
    assert files(store.root) == [f"{folder}/{name}" for name in ("image.png", "mask.png", "record.json")]
    np.testing.assert_array_equal(store.pixels(CELL), IMAGE)
    np.testing.assert_array_equal(store.pixels(CELL, "mask"), MASK)
    with Image.open(store.root / folder / "image.png") as image:  # as anyone reads it
        np.testing.assert_array_equal(np.asarray(image), IMAGE)

    record = store.record(CELL)
    assert (record["cell_id"], record["nfe"], record["config"]) == (CELL, 8, {"seed": 3})
    assert record["files"] == {
        name: hashlib.sha256((store.root / folder / name).read_bytes()).hexdigest()
        for name in ("image.png", "mask.png")
    }
    assert store.verify(CELL) == []


def test_everyone_may_read_what_is_written(store: Store) -> None:
    store.save(CELL, PICTURES, {})
    for path in store.root.rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644)


# -- complete or absent ------------------------------------------------------------------------------------------------
class Breaks(dict[str, np.ndarray]):
    """Pictures that are lost after the first."""

    def items(self) -> Iterator[tuple[str, np.ndarray]]:  # type: ignore[override]
        yield "image", IMAGE
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    "pictures, record, error",
    [
        (Breaks(), {}, KeyboardInterrupt),
        ({"image": IMAGE, "broken": np.zeros((2, 2, 2, 2))}, {}, TypeError),
        (PICTURES, {"seconds": math.nan}, ValueError),
        (PICTURES, {"facts": object()}, TypeError),
    ],
    ids=["interrupted", "not a picture", "not strict JSON", "not JSON"],
)
def test_a_failure_on_the_way_leaves_nothing(store: Store, pictures: Any, record: Any, error: type) -> None:
    with pytest.raises(error):
        store.save(CELL, pictures, record)
    assert CELL not in store and files(store.root) == []
    with pytest.raises(Damaged, match=CELL):
        store.record(CELL)


DIES = """
import os, sys
from pathlib import Path
import numpy as np
from diffsweep.store import cells

def die(*arguments): os._exit(9)

store, at = cells.Store(Path(sys.argv[1])), sys.argv[2]
setattr(cells if at == "write_atomic" else cells.os, at, die)
store.save(sys.argv[3], {"image": np.zeros((8, 8, 3), np.uint8)}, {"nfe": 1})
"""


@pytest.mark.parametrize("at", ["write_atomic", "replace", "rename"])
def test_a_process_that_dies_leaves_no_cell_and_the_next_one_saves_it(store: Store, at: str) -> None:
    """Before the record is written, before it is in place, and before the folder is."""
    died = subprocess.run([sys.executable, "-c", DIES, str(store.root), at, CELL], check=False)
    assert died.returncode == 9
    assert CELL not in store and not store.folder(CELL).exists()
    store.save(CELL, PICTURES, {"nfe": 2})
    assert store.verify(CELL) == [] and store.record(CELL)["nfe"] == 2


def test_a_folder_without_a_record_is_no_cell_and_is_replaced(store: Store) -> None:
    store.folder(CELL).mkdir(parents=True)
    (store.folder(CELL) / "image.png").write_bytes(b"half of a pict")
    assert CELL not in store
    store.save(CELL, PICTURES, {})
    assert store.verify(CELL) == []


def test_of_two_writers_the_first_wins_and_neither_fails(store: Store) -> None:
    store.save(CELL, PICTURES, {"writer": "first"})
    before = {name: (store.root / name).stat().st_mtime_ns for name in files(store.root)}
    store.save(CELL, {"image": 255 - IMAGE}, {"writer": "second"})
    assert store.record(CELL)["writer"] == "first" and store.verify(CELL) == []
    assert {name: (store.root / name).stat().st_mtime_ns for name in files(store.root)} == before


def test_many_writers_of_one_cell_leave_one(store: Store) -> None:
    writers = 8
    together = Barrier(writers)

    def write(n: int) -> None:
        for i in range(10):
            together.wait()
            store.save(f"{i:020d}", PICTURES, {"writer": n})

    with ThreadPoolExecutor(writers) as pool:
        list(pool.map(write, range(writers)))
    ids = [f"{i:020d}" for i in range(10)]
    assert files(store.root) == sorted(
        f"cells/00/{i}/{name}" for i in ids for name in ("image.png", "mask.png", "record.json")
    )
    for i in ids:
        assert store.verify(i) == [] and store.record(i)["writer"] in range(writers)


# -- what is found wrong -----------------------------------------------------------------------------------------------
def test_verify_tells_what_was_altered_and_what_is_missing(store: Store) -> None:
    store.save(CELL, PICTURES, {})
    path = store.folder(CELL) / "image.png"
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)
    assert store.verify(CELL) == [f"{CELL}/image.png: differs from its recorded hash"]
    (store.folder(CELL) / "mask.png").unlink()
    path.unlink()
    assert store.verify(CELL) == [f"{CELL}/{name}: missing" for name in ("image.png", "mask.png")]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe"])
def test_a_record_that_cannot_be_read_is_told_with_its_cell(store: Store, content: bytes) -> None:
    store.save(CELL, PICTURES, {})
    (store.folder(CELL) / "record.json").write_bytes(content)
    with pytest.raises(Damaged, match=CELL):
        store.record(CELL)


def test_merging_adds_to_an_entry_and_keeps_the_others(store: Store) -> None:
    store.save(CELL, PICTURES, {"metrics": {"ssim": PSNR}, "nfe": 8})
    store.merge(CELL, "metrics", {"psnr": PSNR})
    assert store.record(CELL)["metrics"] == {"ssim": PSNR, "psnr": PSNR}
    assert store.record(CELL)["nfe"] == 8 and store.verify(CELL) == []
    with pytest.raises(ValueError, match="JSON"):
        store.merge(CELL, "metrics", {"lpips": {**PSNR, "value": math.inf}})
    assert store.record(CELL)["metrics"].keys() == {"ssim", "psnr"}
    with pytest.raises(Damaged):
        store.merge("f" * 20, "metrics", {})
    assert len(files(store.root)) == 3


# -- files -------------------------------------------------------------------------------------------------------------
def test_a_file_is_the_old_one_or_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "below" / "file"
    write_atomic(path, b"old")
    seen = []

    def look(source: str, target: Path) -> None:
        seen.append((Path(source).read_bytes(), path.read_bytes(), Path(source).parent))
        raise OSError("the disk is gone")

    with monkeypatch.context() as patch:
        patch.setattr(module.os, "replace", look)
        with pytest.raises(OSError, match="gone"):
            write_atomic(path, b"new")
    assert seen == [(b"new", b"old", path.parent)]  # whole, beside it, and the old one untouched
    assert path.read_bytes() == b"old" and os.listdir(path.parent) == ["file"]
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new" and os.listdir(path.parent) == ["file"]


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_json_is_strict(value: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        to_json({"value": [value]})
    assert json.loads(to_json({"b": None, "a": "ä"})) == {"a": "ä", "b": None}


def test_equal_contents_are_equal_bytes() -> None:
    assert to_json({"a": 1, "b": {"d": 2, "c": 3}}) == to_json({"b": {"c": 3, "d": 2}, "a": 1})
