"""`store.format=lots`, `pack`, `unpack` and WebDataset: every command reads packed cells as it reads folders."""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffsweep import results
from diffsweep.core.problems import BadInput
from diffsweep.runner import plan as planning
from diffsweep.runner import run as running
from diffsweep.runner.listener import Listener
from diffsweep.runner.plan import plan
from diffsweep.runner.run import Outcome
from diffsweep.store import leftover
from diffsweep.store.cells import Store
from tests.running import run_sweep

COMMAND = "diffsweep -m seed=0,1,2,3"
TABLES = ("results.csv", "table.md", "table.tex")
Run = Callable[..., Outcome]
Told = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, config: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Run:
    """A small sweep in the working folder."""
    monkeypatch.chdir(tmp_path)

    def run(name: str = "mine", form: str = "auto", cells: int = 4, listener: Any = None, **changes: Any) -> Outcome:
        size = {} if "model" in changes else {"model__size": 8}
        usual = {"technique": "inpaint", "scheduler__steps": 2, "metric__names": ("psnr",), "output_dir": "outputs"}
        changes = {**usual, **size, "store__format": form, **changes}
        raw = [(config(**changes, seed=seed), {"seed": seed}) for seed in range(cells)]
        return run_sweep(raw, name, COMMAND, **({"listener": listener} if listener else {}))

    return run


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Told:
    """Run diffsweep-results; its exit code and what it says."""

    def told(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = results.run(words)
        return code, *capsys.readouterr()

    return told


def folders(root: str = "outputs") -> list[str]:
    return [path.name for path in Path(root).glob("cells/[0-9a-f]*/*")]


def lots(root: str = "outputs") -> list[str]:
    return sorted(path.name for path in Path(root).glob("lots/*"))


def ids(name: str = "mine") -> list[str]:
    document = json.loads(Path(f"outputs/sweeps/{name}/sweep.json").read_bytes())
    return [cell["cell_id"] for cell in document["cells"]]


def shown(root: str) -> dict[str, bytes]:
    """A sweep's files, without what time it took and where cells lie."""
    folder = Path(root) / "sweeps/mine"
    found = {name: (folder / name).read_bytes() for name in TABLES}
    lines = [line.split(b",") for line in found.pop("results.csv").splitlines()]
    kept = [place for place, name in enumerate(lines[0]) if name not in (b"seconds", b"image")]
    tables = {name: found.pop(name) for name in ("table.md", "table.tex")}
    without = {name: b"".join(line for line in text.splitlines() if b"psnr" in line) for name, text in tables.items()}
    with Image.open(folder / "grid.png") as sheet:  # which bears the time of each picture's file
        found["grid.png"] = sheet.tobytes()
    return {**found, **without, "results": b"\n".join(b",".join(line[place] for place in kept) for line in lines)}


def test_a_sweep_in_lots_is_the_sweep_in_folders(run: Run, told: Told) -> None:
    one, other = run(output_dir="folders"), run(form="lots")
    assert one.ids == other.ids and other.statuses == ["done"] * 4
    assert (folders(), lots(), lots("folders")) == ([], ["000001.parquet"], [])
    packed, plain = Store(Path("outputs")), Store(Path("folders"))
    for cell_id in one.ids:
        files = plain.record(cell_id)["files"]
        assert packed.record(cell_id)["files"] == files
        assert [packed.read(cell_id, name) for name in files] == [plain.read(cell_id, name) for name in files]
    assert shown("outputs") == shown("folders")
    assert told("verify", "mine") == (0, "4 cells, every file as recorded\n", "")
    again = run(form="lots")
    assert json.loads((again.folder / "sweep.json").read_bytes())["runs"][-1]["cells"] == 4  # none was sampled again
    assert len(json.loads((again.folder / "sweep.json").read_bytes())["runs"]) == 1


@pytest.mark.parametrize("command", ["table", "compare", "grid", "report", "score", "verify"])
def test_every_command_says_of_lots_what_it_says_of_folders(run: Run, told: Told, command: str) -> None:
    run()
    words = [command, "mine", *(["metric=ssim"] if command == "score" else [])]
    first = told(*words)
    assert told("unpack", "mine") == (0, "all cells are in folders under outputs/cells already\n", "")
    run(name="other")  # the same cells
    assert told("pack", "mine")[:2] == (0, "4 cells packed under outputs/lots\n") and folders() == []
    second = told(*words[:1], "other" if command == "score" else "mine", *words[2:])
    assert second[0] == first[0] == 0
    if command == "score":  # the numbers are there, and the cells are packed as before
        assert "0 of 4 cells measured" in second[2] and folders() == []
        assert told("score", "mine", "metric=ssim", "force=true")[0] == 0 and folders() == []
    else:
        assert second == first
    assert told("pack", "mine")[1] == "all cells are packed under outputs/lots already\n"


def test_a_page_holds_the_pictures_that_lots_hold(run: Run) -> None:
    run()
    run(form="lots", output_dir="other")
    page, other = (Path(root, "sweeps/mine/report.html").read_text() for root in ("outputs", "other"))
    store, uri = Store(Path("other")), "data:image/png;base64,"
    assert uri not in page and other.count(uri) == len(
        {mark for cell_id in ids() for mark in store.record(cell_id)["files"].values()}
    )


def test_lots_are_for_many_cells_unless_they_are_asked_for(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert planning.MANY == 100_000
    monkeypatch.setattr(planning, "MANY", 4)
    run(cells=3)
    assert lots() == []
    run(form="folders")
    assert lots() == []
    run()
    assert lots() == ["000001.parquet"] and folders() == []


def test_a_worker_packs_while_it_samples(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "CELLS", 2)
    monkeypatch.setattr("diffsweep.runner.background.WAIT", 0.0)
    seen: list[int] = []

    class Waits(Listener):
        def cell(self, cell_id: str, error: str | None) -> None:
            end = time.monotonic() + 20
            while len(seen) == 1 and not lots() and time.monotonic() < end:  # the second is in the background's hands
                time.sleep(0.01)
            seen.append(len(lots()))

    run(form="lots", cells=3, engine__rows=1, listener=Waits())
    assert seen[-1] >= 1 and folders() == []


@pytest.mark.parametrize(("value", "words"), [("lot", "did you mean 'lots'"), (3, "store.format=3")])
def test_a_format_that_is_none_is_refused(config: Callable[..., Any], value: Any, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        plan([(config(store__format=value), {})])


def test_a_damaged_packed_cell_is_sampled_again_alone(run: Run, told: Told) -> None:
    run(form="lots")
    store, path = Store(Path("outputs")), Path("outputs/lots/000001.parquet")
    right = {cell_id: store.read(cell_id, "image.png") for cell_id in ids()}
    data = bytearray(path.read_bytes())
    data[data.index(right[ids()[1]]) + 60] ^= 1
    path.write_bytes(data)
    code, out, err = told("verify", "mine", "repair=true")
    assert (code, out.splitlines()[0]) == (1, "4 cells, 1 problem")
    assert f"{ids()[1]}/image.png: differs from its recorded hash" in err and "1 cell to sample again" in err
    again = run(form="lots")
    assert json.loads((again.folder / "sweep.json").read_bytes())["runs"][-1]["cells"] == 1
    fresh = Store(Path("outputs"))
    assert {cell_id: fresh.read(cell_id, "image.png") for cell_id in ids()} == right
    assert folders() == [] and told("verify", "mine")[0] == 0


def test_a_lot_that_cannot_be_read_is_put_aside_and_its_cells_sampled_again(run: Run, told: Told) -> None:
    run(form="lots")
    path = Path("outputs/lots/000001.parquet")
    path.write_bytes(path.read_bytes()[:-9])
    code, out, err = told("verify", "mine")
    assert code == 1 and f"{path}: cannot be read" in err and out == "4 cells, 5 problems\n"
    assert "1 lot that cannot be read to outputs/cells/damaged" in err
    code, out, _ = told("verify", "mine", "repair=true")
    assert code == 1 and "1 lot that cannot be read moved to outputs/cells/damaged\n" in out and lots() == []
    assert run(form="lots").statuses == ["done"] * 4 and told("verify", "mine")[0] == 0
    code, out, _ = told("gc", "remove=true")
    assert code == 0 and "damaged cell that was put aside" in out and not list(Path("outputs/cells/damaged").iterdir())


@pytest.mark.parametrize("command", ["pack", "unpack"])
def test_what_is_lost_is_told_by_whoever_moves_cells(command: str, run: Run, told: Told) -> None:
    run(form="lots")
    path = Path("outputs/lots/000001.parquet")
    path.write_bytes(path.read_bytes()[:-9])
    code, out, err = told(command, "mine")
    assert code == 1 and out.startswith("no cell to move: all others are ")
    assert all(f"{cell_id}: not in the store\n" in err for cell_id in ids())
    assert f"note: {path}: cannot be read" in err and "verify mine repair=true puts it aside" in err


@pytest.mark.parametrize("command", ["table", "report", "score"])
def test_each_command_tells_a_lot_that_cannot_be_read(command: str, run: Run, told: Told) -> None:
    run(form="lots")
    path = Path("outputs/lots/000001.parquet")
    path.write_bytes(path.read_bytes()[:-9])
    assert f"note: {path}: cannot be read" in told(command, "mine", *(["metric=psnr"] * (command == "score")))[2]


def test_other_sweeps_that_show_moved_cells_are_named(run: Run, told: Told) -> None:
    """Their tables and pages say where the cells were."""
    run(), run("other one", cells=2), run("far", scheduler__steps=3)
    for command in ("pack", "unpack"):
        code, _, err = told(command, "mine")
        assert code == 0 and err.count("note:") == 1 and "diffsweep-results report 'other one' writes" in err
        assert told("verify", "other one")[0] == 1
        assert told("report", "other one")[0] == 0 and told("verify", "other one")[0] == 0
        assert "note:" not in told(command, "mine")[2]


def test_gc_thins_lots_of_cells_that_no_sweep_names(run: Run, told: Told) -> None:
    run(form="lots")
    all_of_them = ids()
    run(cells=2, sweep__replace=True)
    path = Path("outputs/lots/000001.parquet")
    assert "2 cells that no sweep names are younger than an hour" in told("gc")[1] and path.exists()
    old = time.time() - 2 * leftover.YOUNG
    os.utime(path, (old, old))
    assert "lot with cells that nobody needs" in told("gc")[1] and path.exists()
    found = told("gc", "remove=true")
    assert found[0] == 0 and not path.exists(), found
    store = Store(Path("outputs"))
    assert [cell_id in store for cell_id in all_of_them] == [True, True, False, False]
    assert told("verify", "mine")[0] == 0 and "nothing is left over" in told("gc")[1]


def test_export_to_a_full_disk_is_the_systems_error(run: Run, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    run(form="lots")

    def full(source: str, target: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", target)

    monkeypatch.setattr("shutil.copy2", full)
    with pytest.raises(OSError, match="No space left") as raised:
        told("export", "mine", "to=there")
    assert raised.value.errno == errno.ENOSPC and sorted(path.name for path in Path().iterdir()) == ["outputs"]


@pytest.mark.parametrize("form", ["folders", "lots"])
def test_an_export_is_a_store_like_the_one_that_it_is_of(run: Run, told: Told, form: str) -> None:
    run(form=form)
    assert told("export", "mine", "to=copy")[:2] == (0, "copy: 4 cells as a store\n")
    assert told("verify", "mine", "output_dir=copy") == (0, "4 cells, every file as recorded\n", "")
    assert (len(folders("copy")), len(lots("copy"))) == (len(folders()), len(lots()))
    copied, store = Store(Path("copy")), Store(Path("outputs"))
    assert all(copied.read(cell_id, "image.png") == store.read(cell_id, "image.png") for cell_id in ids())


@pytest.mark.slow
def test_a_second_stage_begins_from_a_packed_first(run: Run, told: Told) -> None:
    names = {"model": "tiny", "upscale": "tiny", "upscale__scheduler__steps": 1, "scheduler__steps": 1, "cells": 1}
    names |= {"technique": "text_to_image", "metric__names": (), "form": "lots"}
    outcome = run(**names)
    store = Store(Path("outputs"))
    base = store.record(outcome.ids[0])["facts"]["base"]
    assert folders() == [] and store.packed(base)
    right = store.read(base, "image.png")
    again = run(name="other", **{**names, "upscale__scheduler__steps": 2})
    document = json.loads((again.folder / "sweep.json").read_bytes())
    assert [one["cells"] for one in document["runs"]] == [1] and folders() == []  # the first stage is not sampled again
    assert store.record(again.ids[0])["facts"]["base"] == base and store.read(base, "image.png") == right
    assert told("verify", "other")[0] == told("verify", "mine")[0] == 0
    assert told("unpack", "other")[0] == 0 and sorted(folders()) == sorted([base, again.ids[0]])


def test_gc_removes_a_lot_whose_cells_a_later_one_holds(run: Run, told: Told) -> None:
    run(form="lots")
    first, second = Path("outputs/lots/000001.parquet"), Path("outputs/lots/000002.parquet")
    shutil.copy(first, second)
    old = time.time() - 2 * leftover.YOUNG
    for path in (first, second):
        os.utime(path, (old, old))
    assert told("gc", "remove=true")[0] == 0 and not first.exists() and second.exists()
    assert told("verify", "mine")[0] == 0


def test_a_run_that_packs_what_another_sweep_shows_says_so(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run(name="the other")
    run(form="lots")
    note = "note: the other shows some of the cells that were moved; diffsweep-results report 'the other' writes its"
    assert note in capsys.readouterr().err
    run(form="lots")
    assert "moved" not in capsys.readouterr().err


def test_nothing_is_exported_of_a_sweep_of_which_nothing_is_stored(run: Run, told: Told) -> None:
    run(cells=1)
    shutil.rmtree("outputs/cells")
    with pytest.raises(BadInput, match="none of its cells is stored"):
        told("export", "mine", "to=there")


def test_verify_says_so_where_another_sweep_has_moved_the_cells(run: Run, told: Told) -> None:
    run(form="lots")
    run(name="other", form="lots")
    told("unpack", "other")
    code, out, err = told("verify", "mine")
    assert (code, out) == (1, "4 cells, 3 problems\n")
    assert err.count("says where cells were before they were packed or unpacked") == 3
    told("verify", "mine", "repair=true")
    assert told("verify", "mine")[0] == 0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # webdataset leaves files open
@pytest.mark.parametrize("form", ["folders", "lots"])
def test_webdataset_reads_what_export_writes(run: Run, told: Told, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    import webdataset

    monkeypatch.setattr("diffsweep.export.SHARD_CELLS", 3)
    run(form=form)
    assert told("export", "mine", "to=webdataset")[:2] == (0, "webdataset: 4 cells as WebDataset\n")
    assert sorted(path.name for path in Path("webdataset").iterdir()) == ["cells-000000.tar", "cells-000001.tar"]
    samples = list(webdataset.WebDataset("webdataset/cells-{000000..000001}.tar", shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == ids()
    store = Store(Path("outputs"))
    for seed, sample in enumerate(samples):
        record = store.record(sample["__key__"])
        with Image.open(BytesIO(sample["png"])) as picture:
            np.testing.assert_array_equal(np.asarray(picture), store.pixels(sample["__key__"]))
        assert sample["mask.png"] == store.read(sample["__key__"], "mask.png")
        assert sample["txt"].decode() == record["config"]["prompt"]
        about = json.loads(sample["json"])
        assert (about["seed"], about["axes"], about["config"]) == (seed, {"seed": seed}, record["config"])
        assert about["metrics"] == {"psnr": record["metrics"]["psnr"]["value"]}
    assert told("export", "mine", "to=there", "format=webdataset")[0] == 0 and Path("there").is_dir()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("to=webdataset",), "to=webdataset: exists already"),
        (("to=x.zip", "format=webdataset"), "a folder is needed, for tar files"),
        (("to=x.tar",), "no .tar file is written"),
        (("to=x", "format=tar"), "format=tar"),
        (("format=webdataset",), "a folder or a .zip file is needed"),
    ],
)
def test_an_export_that_cannot_be_is_refused(run: Run, told: Told, words: tuple[str, ...], message: str) -> None:
    run(cells=1)
    Path("webdataset").mkdir()
    with pytest.raises(BadInput, match=message):
        told("export", "mine", *words)
    assert sorted(path.name for path in Path().iterdir()) == ["outputs", "webdataset"]
