"""Lots: a packed cell reads as one in a folder does, whatever happens to its lot, and whenever a writer stops."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diffsweep.core.problems import BadInput
from diffsweep.store import lots, packing
from diffsweep.store.cells import Store
from diffsweep.store.packing import pack, unpack
from diffsweep.store.schema import Absent, Damaged

IDS = [f"{number:020x}" for number in range(7)]
PSNR = {"value": 30.5, "definition": {"direction": "higher"}}


def pictures(number: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(number)
    own = {"image": random.integers(0, 256, (6, 5, 3), np.uint8), "mask": random.integers(0, 256, (6, 5), np.uint8)}
    return {"view_1": own["image"][::-1], **own} if number % 2 else own


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path)
    for number, cell_id in enumerate(IDS):
        store.save(cell_id, pictures(number), {"config": {"seed": number}, "nfe": number})
    return store


def folders(store: Store) -> list[str]:
    return sorted(path.name for path in store.root.glob("cells/*/*"))


def lot_names(store: Store) -> list[str]:
    return sorted(path.name for path in store.lots.folder.iterdir())


def flip(path: Path, content: bytes, restore: bool = False) -> None:
    """Change a byte in the middle of what a file holds."""
    data, state = bytearray(path.read_bytes()), path.stat()
    data[data.index(content) + len(content) // 2] ^= 1
    path.write_bytes(data)
    if restore:
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def test_a_packed_cell_reads_as_one_in_a_folder(store: Store) -> None:
    before = {
        cell_id: (
            store.record(cell_id),
            {name: store.read(cell_id, name) for name in store.record(cell_id)["files"]},
            [store.pixels(cell_id, name).tolist() for name in pictures(number)],
            store.size(cell_id, "mask"),
        )
        for number, cell_id in enumerate(IDS)
    }
    assert pack(store, IDS) == 7
    assert (folders(store), lot_names(store)) == ([], ["000001.parquet"])
    for reader in (store, Store(store.root), store.looking_once()):
        for number, cell_id in enumerate(IDS):
            record, contents, pixels, size = before[cell_id]
            assert cell_id in reader and reader.is_complete(cell_id) and reader.verify(cell_id) == []
            assert reader.record(cell_id) == record
            assert {name: reader.read(cell_id, name) for name in record["files"]} == contents
            assert [reader.pixels(cell_id, name).tolist() for name in pictures(number)] == pixels
            assert reader.size(cell_id, "mask") == size == (5, 6)
            assert reader.file(cell_id) == store.lots.folder / "000001.parquet"
    with pytest.raises(Absent):
        store.record("f" * 20)
    with pytest.raises(Absent, match="not of this cell"):
        store.read(IDS[0], "view_1.png")


def test_pandas_reads_a_lot(store: Store) -> None:
    hashes = [store.record(cell_id)["files"] for cell_id in IDS]
    pack(store, IDS)
    frame = pd.read_parquet(store.lots.folder / "000001.parquet")
    assert list(frame["cell_id"]) == IDS
    assert [hashlib.sha256(data).hexdigest() for data in frame["image"]] == [files["image.png"] for files in hashes]
    others = [{name: hashlib.sha256(data).hexdigest() for name, data in own} for own in frame["pictures"]]
    assert others == [{name: mark for name, mark in files.items() if name != "image.png"} for files in hashes]


def test_unpacked_cells_are_as_they_were(store: Store) -> None:
    def files() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in store.root.glob("cells/*/*/*.png")}

    before = files()
    pack(store, IDS)
    assert unpack(store, IDS[:3]) == 3
    assert (folders(store), lot_names(store)) == (IDS[:3], ["000001.parquet"])
    assert unpack(store, IDS) == 4
    assert (files(), lot_names(store), folders(store)) == (before, [], IDS)
    assert all(Store(store.root).is_complete(cell_id) for cell_id in IDS)


def test_a_lot_is_parted_by_cells_and_by_bytes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "CELLS", 3)
    pack(store, IDS)
    assert [len(ids) for ids in store.lots.cells().values()] == [3, 3, 1]
    unpack(store, IDS)
    monkeypatch.setattr(packing, "BYTES", 1)
    monkeypatch.setattr(lots, "GROUP_BYTES", 1)
    pack(store, IDS[:2])
    assert [len(ids) for ids in store.lots.cells().values()] == [1, 1]


def test_rows_are_found_in_each_row_group(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lots, "GROUP_CELLS", 2)
    pack(store, IDS)
    assert pq.ParquetFile(store.lots.folder / "000001.parquet").num_row_groups == 4
    assert [store.record(cell_id)["nfe"] for cell_id in reversed(IDS)] == [6, 5, 4, 3, 2, 1, 0]
    assert all(store.verify(cell_id) == [] for cell_id in IDS)


def test_a_packed_cell_that_changes_gets_a_folder_and_is_packed_again(store: Store) -> None:
    reader = Store(store.root)
    pack(store, IDS)
    assert "psnr" not in reader.record(IDS[3])["metrics"]
    store.merge(IDS[3], "metrics", {"psnr": PSNR})
    store.add(IDS[4], {"step_0000_clean": pictures(0)["image"]}, "step", {"trajectory": {"asked": 1, "t": [3]}})
    assert folders(store) == IDS[3:5]
    assert reader.record(IDS[3])["metrics"] == {"psnr": PSNR} and reader.verify(IDS[4]) == []
    assert pack(store, IDS) == 2
    assert (folders(store), lot_names(store)) == ([], ["000001.parquet", "000002.parquet"])
    assert reader.record(IDS[3])["metrics"] == {"psnr": PSNR}
    assert "step_0000_clean.png" in reader.record(IDS[4])["files"]
    for cell_id in IDS:
        store.merge(cell_id, "metrics", {"ssim": PSNR})
    assert pack(store, IDS) == 7 and lot_names(store) == ["000003.parquet"]  # the others hold nothing any more
    assert reader.record(IDS[3])["metrics"] == {"psnr": PSNR, "ssim": PSNR}


def test_a_stored_cell_stays_where_it_is_packed(store: Store) -> None:
    pack(store, IDS)
    store.save(IDS[0], pictures(5), {"nfe": 100})
    assert folders(store) == [] and store.record(IDS[0])["nfe"] == 0


def test_what_changes_while_it_is_packed_is_not_lost(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    write = lots.Lots.write

    def slowly(self: lots.Lots, rows: Any) -> Path | None:
        written = write(self, rows)
        Store(store.root).merge(IDS[2], "metrics", {"psnr": PSNR})
        return written

    monkeypatch.setattr(lots.Lots, "write", slowly)
    pack(store, IDS)
    assert folders(store) == [IDS[2]] and store.record(IDS[2])["metrics"] == {"psnr": PSNR}
    monkeypatch.setattr(lots.Lots, "write", write)
    assert pack(store, IDS) == 1
    assert folders(store) == [] and Store(store.root).record(IDS[2])["metrics"] == {"psnr": PSNR}


STOPS = [
    (os, "link"),
    (os, "utime"),
    (packing, "_let_go"),
    (packing, "_remove_unused"),
    (pq.ParquetWriter, "write_table"),
]


@pytest.mark.parametrize(("owner", "name"), STOPS, ids=[name for _, name in STOPS])
@pytest.mark.parametrize("times", [0, 2])
def test_a_packer_that_is_stopped_loses_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, times: int
) -> None:
    contents = {cell_id: store.read(cell_id, "image.png") for cell_id in IDS}
    act, left = getattr(owner, name), [times]

    def stops(*arguments: Any, **keys: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return act(*arguments, **keys)

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, stops)
        for few in ([IDS[0]], IDS[1:3], IDS):  # so that each is reached more than once
            with suppress(KeyboardInterrupt):
                pack(store, few)
        assert left[0] < 0
    after = Store(store.root)
    assert {cell_id: after.read(cell_id, "image.png") for cell_id in IDS} == contents
    pack(after, IDS)
    assert {cell_id: after.read(cell_id, "image.png") for cell_id in IDS} == contents
    assert folders(after) == [] and not list(after.lots.folder.glob(".*"))


def test_a_flipped_byte_damages_that_cell_alone(store: Store) -> None:
    content = store.read(IDS[2], "image.png")
    pack(store, IDS)
    flip(lot := store.lots.folder / "000001.parquet", content)
    fresh = Store(store.root)
    assert [fresh.is_complete(cell_id) for cell_id in IDS] == [number != 2 for number in range(7)]
    assert str(fresh.damaged[IDS[2]]) == f"{lot}/{IDS[2]}/image.png: differs from its recorded hash"


def test_a_flipped_byte_of_a_record_damages_that_cell_alone(store: Store) -> None:
    pack(store, IDS)
    path = store.lots.folder / "000001.parquet"
    flip(path, f'"cell_id": "{IDS[2]}"'.encode())
    fresh = Store(store.root)
    assert [fresh.is_complete(cell_id) for cell_id in IDS] == [number != 2 for number in range(7)]
    assert "its record differs from its hash" in str(fresh.damaged[IDS[2]])


def test_a_picture_that_is_another_damages_that_cell_alone(store: Store) -> None:
    """A lot that some other writer made, with right checksums."""
    pack(store, IDS)
    path = store.lots.folder / "000001.parquet"
    table = pq.read_table(path)
    images = table["image"].to_pylist()
    images[2] = images[1]
    changed = table.set_column(
        table.schema.get_field_index("image"),
        table.schema.field("image"),
        pa.array([images]).flatten().cast(pa.binary()),
    )
    pq.write_table(changed, path)
    fresh = Store(store.root)
    assert [fresh.is_complete(cell_id) for cell_id in IDS] == [number != 2 for number in range(7)]
    assert "differs from its recorded hash" in str(fresh.damaged[IDS[2]])
    assert pack(fresh, IDS) == 6 and lot_names(store) == ["000001.parquet", "000002.parquet"]
    fresh.save(IDS[2], pictures(2), {"nfe": 2})  # sampled again
    assert fresh.is_complete(IDS[2]) and pack(fresh, IDS) == 1
    assert all(Store(store.root).verify(cell_id) == [] for cell_id in IDS) and "000001.parquet" not in lot_names(store)


def test_damage_that_keeps_the_time_is_found_by_whoever_reads_and_remembered(store: Store) -> None:
    content = store.read(IDS[2], "image.png")
    pack(store, IDS)
    flip(store.lots.folder / "000001.parquet", content, restore=True)
    assert store.is_complete(IDS[2])  # by its time
    fresh = Store(store.root)
    with pytest.raises(Damaged):
        fresh.read(IDS[2], "image.png")
    assert not Store(store.root).is_complete(IDS[2])


def test_a_copied_lot_is_compared_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    pack(store, IDS)
    os.utime(path := store.lots.folder / "000001.parquet")
    fresh, read = Store(store.root), []
    real = Store._read
    monkeypatch.setattr(Store, "_read", lambda self, name, record: read.append(name) or real(self, name, record))
    assert all(fresh.is_complete(cell_id) for cell_id in IDS)
    assert len(read) == sum(len(pictures(number)) for number in range(7))
    read.clear()
    assert all(Store(store.root).is_complete(cell_id) for cell_id in IDS) and not read
    assert Store(store.root).lots.trusted(IDS[0]) and path.stat().st_mtime_ns % 10**9 == 0


@pytest.mark.parametrize("kind", ["truncated", "empty", "text", "foreign", "pipe", "folder"])
def test_a_lot_that_cannot_be_read_is_told_and_holds_nothing(store: Store, kind: str) -> None:
    pack(store, IDS[:3])
    pack(store, IDS[3:])
    path = store.lots.folder / "000001.parquet"
    data = path.read_bytes()
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "foreign":
        pd.DataFrame({"cell_id": IDS[:3]}).to_parquet(path)
    else:
        path.write_bytes({"truncated": data[:-20], "empty": b"", "text": b"x" * 100}[kind])
    fresh = Store(store.root)
    assert [fresh.is_complete(cell_id) for cell_id in IDS] == [False] * 3 + [True] * 4
    assert list(fresh.lots.wrong) == [path]
    fresh.save(IDS[0], pictures(0), {})
    assert pack(fresh, IDS) == 1 and lot_names(store) == ["000001.parquet", "000002.parquet", "000003.parquet"]


def test_a_number_has_one_name_and_no_greatest_one(store: Store) -> None:
    pack(store, IDS[:3])
    folder = store.lots.folder
    (folder / "000001.parquet").rename(folder / "999999999999.parquet")
    assert pack(store, IDS[3:]) == 4 and lot_names(store) == ["1000000000000.parquet", "999999999999.parquet"]
    assert all(Store(store.root).verify(cell_id) == [] for cell_id in IDS)
    (folder / "1000000000000.parquet").rename(folder / "0999999999999.parquet")  # no name of ours, in the way of none
    assert [Store(store.root).is_complete(cell_id) for cell_id in IDS] == [True] * 3 + [False] * 4


@pytest.mark.parametrize("move", [pack, unpack])
def test_a_lot_stays_that_holds_what_is_damaged_in_its_folder(store: Store, move: Callable[..., int]) -> None:
    pack(store, IDS)
    changed = IDS if move is pack else IDS[:1]
    for cell_id in changed:
        store.merge(cell_id, "metrics", {"psnr": PSNR})
    os.truncate(store.file(IDS[0]), 20)
    assert move(store, IDS) == 6 and "000001.parquet" in lot_names(store)
    shutil.rmtree(store.folder(IDS[0]))  # as it is put aside
    assert all(Store(store.root).verify(cell_id) == [] for cell_id in IDS)


def test_a_later_diffsweeps_lot_is_refused(store: Store) -> None:
    pack(store, IDS)
    path = store.lots.folder / "000001.parquet"
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, lots.NUMBERED: b"2"}), path)
    with pytest.raises(BadInput, match="of a later diffsweep"):
        Store(store.root).get(IDS[0])


def test_a_record_of_another_cell_is_damage(store: Store) -> None:
    pack(store, IDS)
    path = store.lots.folder / "000001.parquet"
    table = pq.read_table(path)
    ids = pa.array([*reversed(IDS)])
    pq.write_table(table.set_column(0, table.schema.field(0), ids), path)
    fresh = Store(store.root)
    assert not fresh.is_complete(IDS[0]) and "of another cell" in str(fresh.damaged[IDS[0]])


def test_a_disk_without_hard_links_will_do(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*paths: Any) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", none)
    assert pack(store, IDS[:3]) == 3 and pack(store, IDS) == 4
    assert lot_names(store) == ["000001.parquet", "000002.parquet"]
    assert all(Store(store.root).verify(cell_id) == [] for cell_id in IDS)


def _packs(root: Path) -> None:
    pack(Store(root), IDS)


def _merges(root: Path) -> None:
    for number in range(3):
        for cell_id in IDS:
            Store(root).merge(cell_id, "metrics", {f"m{os.getpid()}_{number}": PSNR})


def _unpacks(root: Path) -> None:
    unpack(Store(root), IDS)


def test_processes_that_pack_unpack_and_amend_at_once_lose_nothing(store: Store) -> None:
    contents = {cell_id: store.read(cell_id, "image.png") for cell_id in IDS}
    works: list[Callable[[Path], None]] = [_packs, _merges, _unpacks, _packs, _merges]
    started = [get_context("fork").Process(target=work, args=(store.root,)) for work in works]
    for process in started:
        process.start()
    while any(process.is_alive() for process in started):  # who reads meanwhile sees each cell whole
        reader = Store(store.root)
        for cell_id in IDS:
            assert reader.read(cell_id, "image.png") == contents[cell_id] and reader.is_complete(cell_id)
    for process in started:
        process.join()
        assert process.exitcode == 0
    pack(store, IDS)
    for cell_id in IDS:
        assert len(store.record(cell_id)["metrics"]) == 6 and store.verify(cell_id) == []


def _to_and_fro(root: Path) -> None:
    while True:
        pack(Store(root), IDS)
        Store(root).merge(IDS[0], "metrics", {"psnr": PSNR})
        unpack(Store(root), IDS[:4])


def test_a_packer_that_is_killed_at_any_moment_loses_nothing(store: Store) -> None:
    contents = {cell_id: store.read(cell_id, "image.png") for cell_id in IDS}
    random = np.random.default_rng(3)
    for _ in range(6):
        process = get_context("fork").Process(target=_to_and_fro, args=(store.root,))
        process.start()
        time.sleep(random.uniform(0.01, 0.3))
        process.kill()
        process.join()
        fresh = Store(store.root)
        assert {cell_id: fresh.read(cell_id, "image.png") for cell_id in IDS} == contents and not fresh.damaged
        assert all(fresh.is_complete(cell_id) for cell_id in IDS) and not fresh.lots.wrong
    pack(fresh, IDS)
    fresh.tidy(IDS)
    assert folders(store) == [] and not list(store.root.glob("**/.*"))


def test_threads_read_one_store(store: Store) -> None:
    pack(store, IDS)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda number: store.read(IDS[number % 7], "image.png"), range(200)))
    assert found == [store.read(IDS[number % 7], "image.png") for number in range(200)]
