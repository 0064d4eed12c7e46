"""Damage to a store: a rerun samples again what it hit, and every command names it and goes on."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffsweep import results
from diffsweep.core import locks
from diffsweep.core.locks import Busy, locked
from diffsweep.core.problems import BadInput
from diffsweep.runner.run import Outcome
from diffsweep.store.cells import Store
from diffsweep.store.schema import Damaged
from tests.running import run_sweep
from tests.waiting import awake


def edited(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """The record, changed."""

    def damage(folder: Path) -> None:
        record = json.loads((folder / "record.json").read_text())
        change(record)
        (folder / "record.json").write_text(json.dumps(record))

    return damage


def written(name: str, content: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / name).write_bytes(content((folder / name).read_bytes()))

    return damage


def replaced(name: str, put: Callable[[Path], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / name).unlink()
        put(folder / name)

    return damage


def another(folder: Path) -> None:
    """Another cell's picture, as `cp -p` puts it there."""
    other = next(path for path in sorted(folder.parents[1].glob("*/*/image.png")) if path.parent != folder)
    shutil.copy2(other, folder / "image.png")


def flipped(data: bytes) -> bytes:
    return data[:-20] + bytes([data[-20] ^ 1]) + data[-19:]


DAMAGE: dict[str, Callable[[Path], None]] = {
    "another picture": another,
    "truncated": written("image.png", lambda data: data[:-9]),
    "empty": written("image.png", lambda data: b""),
    "zero bytes": written("image.png", lambda data: bytes(len(data))),
    "a bit": written("image.png", flipped),
    "longer": written("image.png", lambda data: data + b"more"),
    "no PNG": written("image.png", lambda data: b"GIF89a"),
    "missing": lambda folder: (folder / "image.png").unlink(),
    "a folder": replaced("image.png", lambda path: path.mkdir()),
    "a pipe": replaced("image.png", os.mkfifo),
    "a loop": replaced("image.png", lambda path: path.symlink_to(path.name)),
    "a device": replaced("image.png", lambda path: path.symlink_to("/dev/zero")),
    "no record": lambda folder: (folder / "record.json").unlink(),
    "a record of null": written("record.json", lambda data: b"null"),
    "a record of a list": written("record.json", lambda data: b"[]"),
    "a record of a number": written("record.json", lambda data: b"3"),
    "a record of NaN": written("record.json", lambda data: data.replace(b'"nfe": ', b'"nfe": NaN, "was": ')),
    "half a record": written("record.json", lambda data: data[: len(data) // 2]),
    "deep": written("record.json", lambda data: b"[" * 100_000),
    "a record that is a folder": replaced("record.json", lambda path: path.mkdir()),
    "a record that is a pipe": replaced("record.json", os.mkfifo),
    "no files": edited(lambda record: record.pop("files")),
    "no config": edited(lambda record: record.pop("config")),
    "no metrics": edited(lambda record: record.pop("metrics")),
    "files of a list": edited(lambda record: record.update(files=["image.png"])),
    "a path out of the folder": edited(lambda record: record["files"].update({"../../x.png": "0" * 64})),
    "seconds as text": edited(lambda record: record.update(seconds="1")),
    "a metric of null": edited(lambda record: record.update(metrics={"psnr": None})),
    "another cell's record": edited(lambda record: record.update(cell_id="0" * 20)),
}


@pytest.fixture
def run(tmp_path: Path, config: Callable[..., Any]) -> Callable[..., Outcome]:
    def run(number: int = 1, name: str = "mine", **changes: Any) -> Outcome:
        size = {} if "model" in changes else {"model__size": 4}
        changes = {"scheduler__steps": 2, **size, "output_dir": str(tmp_path / "outputs"), **changes}
        return run_sweep([(config(**changes, seed=seed), {"seed": seed}) for seed in range(number)], name)

    return run


def document(outcome: Outcome) -> dict[str, Any]:
    return json.loads((outcome.folder / "sweep.json").read_text())


def test_a_rerun_samples_again_what_is_damaged_and_that_alone(
    run: Callable[..., Outcome], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path / "outputs")
    outcome = run(len(DAMAGE) + 2)
    ids = [cell["cell_id"] for cell in document(outcome)["cells"]]
    before = [store.pixels(cell_id) for cell_id in ids]
    for damage, cell_id in zip(DAMAGE.values(), ids, strict=False):
        damage(store.folder(cell_id))
    capsys.readouterr()
    again = run(len(DAMAGE) + 2)
    told = capsys.readouterr().err
    assert f"{len(ids)} cells, 2 already stored, {len(DAMAGE)} to sample" in told
    assert f"sampled again, damaged: {store.folder(ids[1])}/image.png: has " in told
    assert f"sampled again, damaged: {len(DAMAGE) - 5} more cells" in told and "\ndamaged: " not in told
    assert again.statuses == ["done"] * len(ids) and document(again)["runs"][-1]["cells"] == len(DAMAGE)
    for kind, cell_id, picture in zip([*DAMAGE, "", ""], ids, before, strict=True):
        assert store.verify(cell_id) == [], kind
        np.testing.assert_array_equal(store.pixels(cell_id), picture, err_msg=kind)
    assert sorted(path.name for path in (tmp_path / "outputs/cells").glob("*/*")) == sorted(ids)


def test_what_leaves_a_sweep_is_not_sampled_again(
    run: Callable[..., Outcome], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path / "outputs")
    ids = [cell["cell_id"] for cell in document(run(3))["cells"]]
    for cell_id in ids[1:]:
        (store.folder(cell_id) / "image.png").write_bytes(b"")
    capsys.readouterr()
    assert run(2).statuses == ["done"] * 2
    told = [line for line in capsys.readouterr().err.splitlines() if "damaged" in line]
    assert told == [f"sampled again, damaged: {store.folder(ids[1])}/image.png: has 0 bytes, not {told[0].split()[-1]}"]


def test_every_command_goes_on_and_names_what_is_damaged(
    run: Callable[..., Outcome], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {"technique": "image_to_image", "model__size": 16, "metric__names": ("psnr",)}
    ids = [cell["cell_id"] for cell in document(run(len(DAMAGE) + 3, **names))["cells"]]
    store = Store(tmp_path / "outputs")
    for damage, cell_id in zip(DAMAGE.values(), ids, strict=False):
        damage(store.folder(cell_id))
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    for words in ("table", "compare", "figure x=seed", "grid", "report embed=true", "score metric=psnr,ssim"):
        command, *keys = words.split()
        assert results.run([command, "mine", *keys]) == (command == "score"), words  # which measures no such cell
        told = capsys.readouterr().err
        assert told.count("\ndamaged: ") + told.startswith("damaged: ") == 6, words
        assert f"damaged: {len(DAMAGE) - 5} more cells\nThe sweep's command, run again, samples" in told, words
    with (tmp_path / "outputs/sweeps/mine/results.csv").open() as file:
        lines = file.read().splitlines()[1:]
    assert [line.split(",")[1] for line in lines] == ["failed"] * len(DAMAGE) + ["done"] * 3
    assert all("damaged: image.png" in line or "damaged: record.json" in line for line in lines[: len(DAMAGE)])
    assert all("ssim" in store.record(cell_id)["metrics"] for cell_id in ids[-3:])
    assert "ssim" not in (store.get(ids[0]) or {})["metrics"]  # of the wrong picture

    assert results.run(["verify", "mine", "all=true"]) == 1
    told = capsys.readouterr()
    assert [line.partition("/")[0] for line in told.err.splitlines()] and all(
        any(line.startswith(f"{cell_id}/") for line in told.err.splitlines()) for cell_id in ids[: len(DAMAGE)]
    )
    assert not any(cell_id in told.err for cell_id in ids[-3:])
    assert told.out.startswith(f"{len(ids)} cells, ")

    assert results.run(["export", "mine", "to=elsewhere"]) == 1
    assert "elsewhere: 3 cells" in capsys.readouterr().out
    assert sorted(path.name for path in Path("elsewhere/cells").glob("*/*")) == sorted(ids[-3:])
    assert all(Store(Path("elsewhere")).verify(cell_id) == [] for cell_id in ids[-3:])


def test_a_flipped_bit_that_leaves_size_and_time_is_found_by_who_reads_it_and_sampled_again(
    run: Callable[..., Outcome], tmp_path: Path
) -> None:
    (cell_id,) = [cell["cell_id"] for cell in document(run())["cells"]]
    store, path = Store(tmp_path / "outputs"), tmp_path / "outputs/cells" / cell_id[:2] / cell_id / "image.png"
    state, data = path.stat(), path.read_bytes()
    path.write_bytes(flipped(data))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert store.is_complete(cell_id)  # no file is read whole to be counted
    with pytest.raises(Damaged) as caught:
        store.pixels(cell_id)
    assert caught.match(rf"^{path}: differs from its recorded hash$") and not store.is_complete(cell_id)
    assert document(run())["runs"][-1]["cells"] == 1
    assert path.read_bytes() == data and store.is_complete(cell_id)


def test_a_copy_with_new_times_is_compared_once_and_then_trusted(
    run: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cell_id,) = [cell["cell_id"] for cell in document(run())["cells"]]
    store, hashed = Store(tmp_path / "outputs"), list[int]()
    monkeypatch.setattr("diffsweep.store.cells.sha256", lambda data: hashed.append(1) or "?")
    assert store.is_complete(cell_id) and not hashed
    monkeypatch.undo()
    os.utime(store.folder(cell_id) / "image.png")
    assert store.is_complete(cell_id)
    monkeypatch.setattr("diffsweep.store.cells.sha256", lambda data: hashed.append(1) or "?")
    assert store.is_complete(cell_id) and not hashed


@pytest.mark.parametrize("kind", ["truncated", "empty", "zero bytes", "a bit", "missing", "a folder", "a pipe"])
def test_of_a_record_without_sizes_damage_is_found_too(kind: str, run: Callable[..., Outcome], tmp_path: Path) -> None:
    store = Store(tmp_path / "outputs")
    store.save("0" * 20, {"image": np.zeros((4, 4, 3), np.uint8)}, {})
    edited(lambda record: (record.pop("stats"), record.pop("schema")))(store.folder("0" * 20))
    assert store.is_complete("0" * 20)
    DAMAGE[kind](store.folder("0" * 20))
    assert not store.is_complete("0" * 20)


def test_a_damaged_base_is_sampled_again_before_what_enlarges_it(
    run: Callable[..., Outcome], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path / "outputs")
    names = {"model": "tiny", "upscale": "tiny", "upscale__scheduler__steps": 1, "scheduler__steps": 1}
    outcome = run(**names)
    (cell_id,) = [cell["cell_id"] for cell in document(outcome)["cells"]]
    base = store.record(cell_id)["facts"]["base"]
    right, low = store.pixels(cell_id), store.pixels(base)
    (store.folder(cell_id) / "image.png").unlink()
    written("image.png", flipped)(store.folder(base))
    assert run(**names).statuses == ["done"]
    np.testing.assert_array_equal(store.pixels(base), low)
    np.testing.assert_array_equal(store.pixels(cell_id), right)


# -- sweep.json --------------------------------------------------------------------------------------------------------
SWEEP: dict[str, Callable[[dict[str, Any]], object]] = {
    "null": lambda sweep: None,
    "list": lambda sweep: [],
    "number": lambda sweep: 3,
    "no cells": lambda sweep: {k: v for k, v in sweep.items() if k != "cells"},
    "cells of null": lambda sweep: {**sweep, "cells": None},
    "a cell of a number": lambda sweep: {**sweep, "cells": [3]},
    "an id that is a path": lambda sweep: {**sweep, "cells": [{**sweep["cells"][0], "cell_id": "../../x"}]},
    "axes of a list": lambda sweep: {**sweep, "axes": ["seed"]},
    "a run without counts": lambda sweep: {**sweep, "runs": [{"started": "now"}]},
    "metrics of numbers": lambda sweep: {**sweep, "metrics": [1]},
    "schema of text": lambda sweep: {**sweep, "schema": "1"},
}


def test_a_sweep_file_of_another_shape_is_named_by_commands_and_renewed_by_a_run(
    run: Callable[..., Outcome], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run().folder / "sweep.json"
    right = json.loads(path.read_text())
    for kind, change in SWEEP.items():
        path.write_text(json.dumps(change(right)))
        with pytest.raises(BadInput, match=rf"^{path}: has another shape \(.*run again, writes it anew$"):
            results.opened("mine", str(tmp_path / "outputs"))
        capsys.readouterr()
        assert run().statuses == ["done"], kind
        assert f"note: {path}: has another shape (" in capsys.readouterr().err, kind
        assert json.loads(path.read_text())["cells"] == right["cells"], kind


def test_what_a_later_diffsweep_wrote_is_refused_with_its_version(run: Callable[..., Outcome], tmp_path: Path) -> None:
    outcome = run()
    path = outcome.folder / "sweep.json"
    right = path.read_bytes()
    (cell_id,) = [cell["cell_id"] for cell in json.loads(right)["cells"]]
    path.write_text(json.dumps({**json.loads(right), "schema": 7, "cells": "of another shape"}))
    message = r"json: of a later diffsweep \(schema 7, this one reads up to 1\); upgrade diffsweep"
    for act in (run, lambda: results.opened("mine", str(tmp_path / "outputs"))):
        with pytest.raises(BadInput, match=message):
            act()
    path.write_bytes(right)
    record = tmp_path / "outputs/cells" / cell_id[:2] / cell_id / "record.json"
    record.write_text('{"schema": 7}')
    for command in ("table", "export"):
        with pytest.raises(BadInput, match=message):
            results.run([command, "mine", f"output_dir={tmp_path / 'outputs'}", *(["to=x"] * (command == "export"))])
    with pytest.raises(BadInput, match=message):
        run()
    assert record.read_text() == '{"schema": 7}'
    assert results.run(["verify", "mine", f"output_dir={tmp_path / 'outputs'}"]) == 1


def test_keys_beyond_the_known_ones_are_tolerated_and_stay(run: Callable[..., Outcome], tmp_path: Path) -> None:
    store = Store(tmp_path / "outputs")
    store.save("0" * 20, {"image": np.zeros((4, 4, 3), np.uint8)}, {"mood": {"of": ["all", None]}})
    store.merge("0" * 20, "metrics", {"psnr": {"value": 1, "definition": {"direction": "higher", "by": "hand"}}})
    assert store.record("0" * 20)["mood"] == {"of": ["all", None]}  # type: ignore[typeddict-item]


# -- two processes -----------------------------------------------------------------------------------------------------
def test_who_cannot_report_says_who_is_at_it_and_what_is_stored(
    run: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run().folder
    monkeypatch.setattr(locks.locked.__wrapped__, "__defaults__", (0.2, "", locks.report))  # type: ignore[attr-defined]
    with locked(folder, name="report"), pytest.raises(Busy) as caught:
        run(2)
    assert caught.match(rf"^{folder} is held by process {os.getpid()} on .*; gave up waiting\. 2 of 2 cells stored; ")
    assert str(caught.value).endswith("diffsweep-results report mine writes their tables and sheets later")
    assert run(2).statuses == ["done", "done"]


# -- verify, export ----------------------------------------------------------------------------------------------------
def test_verify_lists_a_few_of_each_kind(run: Callable[..., Outcome], tmp_path: Path, capsys: Any) -> None:
    ids = [cell["cell_id"] for cell in document(run(12))["cells"]]
    for cell_id in ids[:9]:
        shutil.rmtree(tmp_path / "outputs/cells" / cell_id[:2] / cell_id)
    (tmp_path / "outputs/cells" / ids[9][:2] / ids[9] / "image.png").unlink()
    capsys.readouterr()
    where = f"output_dir={tmp_path / 'outputs'}"
    assert results.run(["verify", "mine", where]) == 1
    told = capsys.readouterr()
    assert told.err.splitlines() == [
        *(f"{cell_id}: not in the store" for cell_id in ids[:5]),
        "and 4 more: not in the store (all=true lists them)",
        f"{ids[9]}/image.png: missing",
        f"repair=true moves 1 damaged cell to {tmp_path / 'outputs/cells/damaged'}, for the command to sample again",
        "10 cells to sample again, by: the sweep's command",
    ]
    assert told.out == "12 cells, 10 problems\n"
    assert results.run(["verify", "mine", where, "all=true"]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 12


@pytest.mark.parametrize("put", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["pipes", "devices"])
def test_a_run_waits_for_nothing_that_stands_in_the_place_of_its_files(
    put: Callable[[Path], object], run: Callable[..., Outcome], tmp_path: Path, capsys: Any
) -> None:
    outcome = run(2)
    store = Store(tmp_path / "outputs")
    (cell, other) = [cell["cell_id"] for cell in document(outcome)["cells"]]
    before = [store.pixels(cell_id) for cell_id in (cell, other)]
    files = [path for path in outcome.folder.rglob("*") if path.is_file()]
    assert outcome.folder / "sweep.log" in files
    for path in [*files, *store.folder(cell).iterdir()]:
        path.unlink()
        put(path)
    with awake():
        assert run(2).statuses == ["done"] * 2
    for cell_id, picture in zip((cell, other), before, strict=True):
        np.testing.assert_array_equal(store.pixels(cell_id), picture)
    assert all(path.is_file() and not path.is_symlink() for path in files)


def test_a_log_that_is_a_link_changes_nothing_elsewhere(run: Callable[..., Outcome], tmp_path: Path) -> None:
    outcome = run(2)
    store = Store(tmp_path / "outputs")
    cell, other = [store.folder(cell["cell_id"]) for cell in document(outcome)["cells"]]
    log = outcome.folder / "sweep.log"
    log.unlink()
    log.symlink_to(other / "image.png")
    shutil.rmtree(cell)
    assert run(2).statuses == ["done"] * 2
    assert store.verify(cell.name) == store.verify(other.name) == []
    assert "1/1 cells" in log.read_text()


def test_an_export_holds_no_links_and_no_scratch(run: Callable[..., Outcome], tmp_path: Path, capsys: Any) -> None:
    outcome = run()
    (cell_id,) = [cell["cell_id"] for cell in document(outcome)["cells"]]
    cell = tmp_path / "outputs/cells" / cell_id[:2] / cell_id
    (tmp_path / "secret").write_text("secret")
    for folder in (outcome.folder, cell):
        (folder / "link").symlink_to(tmp_path / "secret")
        (folder / "loop").symlink_to(".")
        (folder / ".grid.png.12345678-1-12345678").write_bytes(b"half")
        os.mkfifo(folder / "pipe")
    capsys.readouterr()
    words = ["export", "mine", f"output_dir={tmp_path / 'outputs'}", f"to={tmp_path / 'elsewhere'}"]
    assert results.run(words) == 1
    assert sorted(capsys.readouterr().err.splitlines()) == [
        f"left out: {outcome.folder / name}: neither a file nor a folder" for name in ("link", "loop", "pipe")
    ]
    copied = {path.name for path in (tmp_path / "elsewhere").rglob("*")}
    assert not copied & {"link", "loop", "pipe", ".grid.png.12345678-1-12345678"}
    assert {path.name for path in (tmp_path / "elsewhere").glob("cells/*/*/*")} == {"image.png", "record.json"}
