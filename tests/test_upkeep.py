"""`verify` and `gc`: what is damaged is found and mended, what nobody needs is removed, and nothing else."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from diffsweep import results
from diffsweep.core import files, locks
from diffsweep.core.locks import locked
from diffsweep.core.problems import BadInput
from diffsweep.runner.listener import Listener
from diffsweep.runner.run import Outcome
from diffsweep.store import leftover
from diffsweep.store.cells import Store
from tests.runner.test_damage import DAMAGE, flipped
from tests.running import run_sweep

COMMAND = "diffsweep -m seed=0,1,2 prompt='a \x1b[31mred dog'"
Run = Callable[..., Outcome]


@pytest.fixture
def run(tmp_path: Path, config: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Run:
    """A small sweep in the working folder."""
    monkeypatch.chdir(tmp_path)

    def run(number: int = 3, name: str = "mine", listener: Listener | None = None, **changes: Any) -> Outcome:
        size = {} if "model" in changes else {"model__size": 8}
        changes = {"technique": "inpaint", "scheduler__steps": 2, "metric__names": ("psnr",), **size, **changes}
        cells = [(config(**changes, output_dir="outputs", seed=seed), {"seed": seed}) for seed in range(number)]
        return run_sweep(cells, name, COMMAND, **({"listener": listener} if listener else {}))

    return run


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run diffsweep-results; its exit code and what it says."""

    def told(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = results.run(words)
        return code, *capsys.readouterr()

    return told


def listed(root: Path = Path("outputs")) -> dict[str, tuple[int, bytes]]:
    """Every file below, by name: which one it is, and its content."""
    return {str(f): (f.stat().st_ino, f.read_bytes()) for f in root.rglob("*") if f.is_file() and not f.is_symlink()}


def ids(name: str = "mine") -> list[str]:
    return [cell["cell_id"] for cell in json.loads(Path(f"outputs/sweeps/{name}/sweep.json").read_text())["cells"]]


def put_aside() -> list[str]:
    return sorted(path.name.split(".")[0] for path in Path("outputs/cells/damaged").glob("*"))


# -- verify: cells -----------------------------------------------------------------------------------------------------
def test_repair_puts_damaged_cells_aside_and_the_command_makes_exactly_those_again(run: Run, told: Any) -> None:
    number = len(DAMAGE) + 2
    run(number, technique="text_to_image", metric__names=())
    store, cell_ids = Store(Path("outputs")), ids()
    right = {cell_id: (store.folder(cell_id) / "image.png").read_bytes() for cell_id in cell_ids}
    for damage, cell_id in zip(DAMAGE.values(), cell_ids, strict=False):
        damage(store.folder(cell_id))
    whole = {path: found for path, found in listed().items() if any(i in path for i in cell_ids[-2:])}

    before = listed()
    code, out, err = told("verify", "mine", "all=true")
    assert code == 1 and out.startswith(f"{number} cells, ") and listed() == before
    would = f"repair=true moves {len(DAMAGE)} damaged cells to outputs/cells/damaged, for the command to sample again"
    assert (
        would in err
        and "\x1b" not in err
        and err.splitlines()[-1] == (f"{len(DAMAGE)} cells to sample again, by: {COMMAND}".replace("\x1b", "\\x1b"))
    )

    code, out, err = told("verify", "mine", "--repair")
    assert code == 1 and f"{len(DAMAGE)} damaged cells moved to outputs/cells/damaged\n" in out
    assert err.splitlines()[-1].startswith(f"{len(DAMAGE)} cells to sample again, by: diffsweep -m seed=0,1,2")
    assert put_aside() == sorted(cell_ids[: len(DAMAGE)])
    assert not [i for i in cell_ids[: len(DAMAGE)] if os.path.lexists(store.folder(i))]
    assert {path: found for path, found in listed().items() if path in whole} == whole

    again = run(number, technique="text_to_image", metric__names=())
    assert again.statuses == ["done"] * number
    assert json.loads((again.folder / "sweep.json").read_text())["runs"][-1]["cells"] == len(DAMAGE)
    assert {i: (store.folder(i) / "image.png").read_bytes() for i in cell_ids} == right
    assert told("verify", "mine") == (0, f"{number} cells, every file as recorded\n", "")


def test_a_cell_that_is_whole_by_now_is_not_put_aside(run: Run, told: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process mends it between the look and the move."""
    run()
    store, cell_id = Store(Path("outputs")), ids()[0]
    picture = store.file(cell_id)
    right = picture.read_bytes()
    picture.write_bytes(b"")

    @contextmanager
    def overtaken(folder: Path, *arguments: Any, **more: Any) -> Iterator[None]:
        with locked(folder, *arguments, **more):
            picture.write_bytes(right)
            yield

    monkeypatch.setattr("diffsweep.store.check.locked", overtaken)
    told("verify", "mine", "repair=true")
    assert picture.read_bytes() == right and put_aside() == []


def test_a_damaged_first_stage_is_put_aside_too(run: Run, told: Any) -> None:
    names = {"model": "tiny", "upscale": "tiny", "upscale__scheduler__steps": 1, "scheduler__steps": 1}
    run(1, technique="text_to_image", **names)
    store = Store(Path("outputs"))
    base = store.record(ids()[0])["facts"]["base"]
    picture = store.file(base)
    right = picture.read_bytes()
    picture.write_bytes(flipped(right))
    code, _, err = told("verify", "mine", "repair=true")
    assert code == 1 and f"{base}/image.png: differs from its recorded hash" in err and put_aside() == [base]
    (store.folder(ids()[0]) / "record.json").unlink()  # so that its picture is needed again
    run(1, technique="text_to_image", **names)
    assert picture.read_bytes() == right


def test_what_a_later_diffsweep_wrote_is_left_where_it_is(run: Run, told: Any) -> None:
    run()
    record = Store(Path("outputs")).folder(ids()[0]) / "record.json"
    record.write_text('{"schema": 7}')
    code, _, err = told("verify", "mine", "repair=true")
    assert code == 1 and "of a later diffsweep" in err and "sample again" not in err
    assert record.read_text() == '{"schema": 7}' and put_aside() == []


# -- verify: the sweep's files -----------------------------------------------------------------------------------------
def middle(data: bytes) -> bytes:
    """A bit flipped in the middle; of a Parquet file in its footer's length, for most other bytes say nothing of it."""
    at = len(data) - 6 if data.startswith(b"PAR1") else len(data) // 2
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


SPOILT: dict[str, Callable[[bytes], bytes | None]] = {
    "gone": lambda data: None,
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "a bit": middle,
    "another's": lambda data: b"GIF89a",
}


@pytest.fixture
def drawn(tmp_path: Path, config: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a sweep that has figures, too."""
    monkeypatch.chdir(tmp_path)
    same = {"technique": "inpaint", "scheduler__steps": 2, "metric__names": ("psnr",), "model__size": 8}
    axes = [{"mask.softness": softness, "seed": seed} for softness in (0.0, 2.0) for seed in (0, 1)]
    cells = [(config(**same, mask__softness=a["mask.softness"], seed=a["seed"]), a) for a in axes]
    return run_sweep(cells, "mine", COMMAND).folder


@pytest.mark.parametrize("kind", SPOILT)
def test_each_file_that_a_report_writes_is_found_spoilt_and_written_anew(kind: str, drawn: Path, told: Any) -> None:
    tables = [drawn / name for name in ("results.parquet", "results.csv", "table.md", "table.tex", "report.html")]
    pictures = [*drawn.glob("*.png"), *drawn.glob("figures/*.png")]
    pictures += drawn.glob("figures/*.pdf") if kind != "a bit" else ()
    assert len(pictures) >= 2 and told("verify", "mine")[0] == 0
    for some in (tables, pictures):
        right = {path: path.read_bytes() for path in some}
        for path in some:
            new = SPOILT[kind](right[path])
            path.unlink()
            if new is not None:
                path.write_bytes(new)
        code, out, err = told("verify", "mine", "all=true")
        assert (code, out) == (1, f"4 cells, {len(some)} problems\n")
        *lines, advice = err.splitlines()
        assert sorted(line.partition(": ")[0] for line in lines) == sorted(map(str, some))
        assert advice == "repair=true writes the sweep's files anew from the store"
        code, out, _ = told("verify", "mine", "repair=true")
        assert code == 0 and "written anew from the store" in out
        assert {path: path.read_bytes() for path in some} == right
        assert told("verify", "mine")[0] == 0


@pytest.mark.parametrize("put", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to(path.name)])
def test_what_is_no_file_in_the_place_of_one_is_named(put: Callable[[Path], object], run: Run, told: Any) -> None:
    folder = run().folder
    for name in ("results.parquet", "report.html", "grid.png"):
        (folder / name).rename("kept")
        put(folder / name)
        code, _, err = told("verify", "mine")
        assert code == 1 and err.startswith(f"{folder / name}: cannot be read ("), name
        files.remove(folder / name)
        Path("kept").rename(folder / name)


def test_tables_that_the_store_has_left_behind_are_stale(run: Run, told: Any) -> None:
    folder = run().folder
    record = Store(Path("outputs")).folder(ids()[1]) / "record.json"
    changed = json.loads(record.read_text())
    changed["metrics"]["psnr"]["value"] = 12.5
    record.write_text(json.dumps(changed))
    code, _, err = told("verify", "mine")
    assert code == 1 and f"{folder}/results.parquet: not what the store gives now" in err
    assert told("verify", "mine", "repair=true")[0] == 0
    assert ",12.5," in (folder / "results.csv").read_text() and told("verify", "mine")[0] == 0


def test_a_table_that_another_library_wrote_is_not_stale(run: Run, told: Any) -> None:
    import pandas as pd

    file = run().folder / "results.parquet"
    before = file.read_bytes()
    pd.read_parquet(file).to_parquet(file, index=False, compression="gzip")
    assert file.read_bytes() != before and told("verify", "mine")[0] == 0


def test_a_report_draws_a_spoilt_sheet_again(drawn: Path, told: Any) -> None:
    """Its mark, which says what it was drawn from, is still right."""
    sheet, figures = drawn / "grid.png", sorted(drawn.glob("figures/*"))
    right = {path: path.read_bytes() for path in (sheet, *figures)}
    sheet.write_bytes(middle(right[sheet]))
    for path in figures:
        path.write_bytes(right[path][:-40])
    assert told("report", "mine")[0] == 0
    assert {path: path.read_bytes() for path in right} == right


def test_of_a_damaged_sweep_file_the_command_is_still_told(run: Run) -> None:
    file = run().folder / "sweep.json"
    right = file.read_bytes()
    for spoilt in (right[:-9], right.replace(b'"cells"', b'"bells"'), right.replace(b"{", b"[", 1)):
        file.write_bytes(spoilt)
        with pytest.raises(BadInput) as caught:
            results.run(["verify", "mine", "repair=true"])
        told = "the sweep's command, run again, writes it anew: " + COMMAND.replace("\x1b", "\\x1b")
        assert str(caught.value).endswith(told) and file.read_bytes() == spoilt
    file.write_bytes(b"")
    with pytest.raises(BadInput, match=r"run again, writes it anew$"):
        results.run(["verify", "mine", "repair=true"])


def test_a_failed_cell_does_not_keep_the_tables_from_being_looked_at(run: Run, told: Any) -> None:
    folder = run().folder
    sweep = json.loads((folder / "sweep.json").read_text())
    shutil.rmtree(Store(Path("outputs")).folder(ids()[2]))
    sweep["cells"][2] |= {"status": "failed", "reason": "no ink"}
    (folder / "sweep.json").write_text(json.dumps(sweep))
    told("report", "mine")
    (folder / "table.tex").unlink()
    code, out, err = told("verify", "mine")
    assert (code, out) == (1, "3 cells, 2 problems\n") and f"{folder}/table.tex: missing" in err


# -- gc: cells ---------------------------------------------------------------------------------------------------------
def old(seconds: float = leftover.DAY * 2) -> None:
    """All that lies there was written long ago."""
    for path in [*Path("outputs").rglob("*"), Path("outputs")]:
        os.utime(path, (time.time() - seconds,) * 2, follow_symlinks=False)


def stored() -> list[str]:
    return sorted(path.name for path in Path("outputs/cells").glob("??/*") if not path.name.startswith("."))


def forget(name: str) -> None:
    shutil.rmtree(f"outputs/sweeps/{name}")


def test_gc_removes_the_cells_that_no_sweep_names_after_a_dry_run(run: Run, told: Any) -> None:
    run(2)
    run(5, "more")
    kept, extra = ids(), ids("more")[2:]
    forget("more")
    old()
    number = sum(f.stat().st_size for i in extra for f in Store(Path("outputs")).folder(i).iterdir())
    before = listed()
    code, out, err = told("gc")
    assert (code, err) == (0, "") and listed() == before
    lines = out.splitlines()
    assert 10_000 <= number < 100_000
    size = f"{number / 1000:.0f} kB"
    assert lines[0] == f"3 cells that no sweep names, {size}" and lines[-1] == f"remove=true removes {size}"
    assert lines[1:-1] == sorted(f"  outputs/cells/{i[:2]}/{i}" for i in extra)

    code, out, err = told("gc", "remove=true")
    assert (code, err) == (0, "") and out.splitlines()[-1] == f"removed {size}"
    assert stored() == sorted(kept) and told("verify", "mine")[0] == 0
    left = {path: found for path, found in before.items() if not any(i in path for i in extra)}
    assert listed() == left
    assert told("gc", "--remove") == (0, "nothing is left over under outputs\n", "")


def test_a_young_cell_stays(run: Run, told: Any) -> None:
    run(3, "more")
    extra = ids("more")
    forget("more")
    (Path("outputs") / "sweeps").mkdir(exist_ok=True)
    old(leftover.YOUNG + 60)
    folder = Store(Path("outputs")).folder(extra[0])
    os.utime(folder / "record.json")  # as one that was measured just now
    code, out, _ = told("gc", "remove=true")
    assert code == 0 and "1 cell that no sweep names is younger than an hour, and left alone\n" in out
    assert stored() == [extra[0]]


def test_the_first_stages_of_a_sweeps_cells_stay(run: Run, told: Any) -> None:
    """With what sweep.json says of them, or, of one that an earlier diffsweep wrote, by the records."""
    names = {"model": "tiny", "upscale": "tiny", "upscale__scheduler__steps": 1, "scheduler__steps": 1}
    folder = run(2, technique="text_to_image", **names).folder
    before = stored()
    assert len(before) == 4
    sweep = json.loads((folder / "sweep.json").read_text())
    records = {i: Store(Path("outputs")).record(i)["facts"].get("base") for i in ids()}
    assert sweep["bases"] == records
    old()
    assert told("gc", "remove=true")[1] == "nothing is left over under outputs\n" and stored() == before
    del sweep["bases"]
    (folder / "sweep.json").write_text(json.dumps(sweep))
    assert told("gc", "remove=true")[1] == "nothing is left over under outputs\n" and stored() == before
    shutil.rmtree(Store(Path("outputs")).folder(ids()[0]))  # who made its picture larger is not known any more
    code, _, err = told("gc", "remove=true")
    assert code == 1 and "may need others" in err and len(stored()) == 3


@pytest.mark.parametrize(
    "harm",
    [
        lambda sweep: (sweep / "sweep.json").write_text("{"),
        lambda sweep: (sweep / "sweep.json").unlink(),
        lambda sweep: (sweep / "sweep.json").write_text('{"schema": 7}'),
        lambda sweep: (shutil.rmtree(sweep), sweep.symlink_to("nowhere")),
        lambda sweep: shutil.rmtree(sweep.parent),
        lambda sweep: (
            (sweep.parents[1] / "cells").rename("elsewhere")
            and (sweep.parents[1] / "cells").symlink_to(Path("elsewhere").resolve())
        ),
    ],
    ids=["damaged", "missing", "of a later diffsweep", "a link to nothing", "no sweeps", "cells elsewhere"],
)
def test_no_cell_is_removed_where_nobody_can_tell_which_are_needed(
    harm: Callable[[Path], object], run: Run, told: Any
) -> None:
    folder = run(2).folder
    run(3, "more")
    forget("more")
    old()
    before = stored()
    (Path("outputs/sweeps") / files.scratch(Path("mine")).name.replace(str(os.getpid()), "999999999")).mkdir()
    harm(folder)
    for words in (["gc"], ["gc", "remove=true"]):
        code, _, err = told(*words)
        assert code == 1 and re.fullmatch(r"no cell is removed: [^\n]+\n", err), err
        assert stored() == before
    assert not list(Path("outputs/sweeps").glob(".mine.*"))


def test_no_cell_is_removed_where_a_sweeps_folder_cannot_be_read(
    run: Run, told: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run(2).folder
    old()

    def denied(act: Callable[..., Any]) -> Callable[..., Any]:
        def denied(path: Any, *arguments: Any) -> Any:
            if str(path).startswith(str(folder)):
                raise PermissionError(13, "Permission denied", str(path))
            return act(path, *arguments)

        return denied

    for name in ("listdir", "open"):
        monkeypatch.setattr(os, name, denied(getattr(os, name)))
    with pytest.raises(leftover.Unsure, match=rf"{folder}/sweep.json: cannot be read \(Permission denied\)"):
        leftover.cells(Path("outputs"))


def test_what_is_not_named_as_diffsweep_names_it_is_somebody_elses(run: Run, told: Any) -> None:
    run(2)
    mine = ["outputs/notes.txt", "outputs/cells/readme", "outputs/cells/ab/notes", "outputs/cells/zz/" + "ab" * 10]
    mine += ["outputs/sweeps/mine/.mine.lock.txt", "outputs/sweeps/.hidden", "outputs/sweeps/mine/.swp"]
    mine += ["outputs/cells/damaged/notes", "outputs/cells/cd/" + "ab" * 10 + "/x"]
    for name in mine:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("mine")
    Path("outputs/cells/ab/" + "ab" * 10).symlink_to("/")
    Path("outputs/sweeps/mine/root").symlink_to("/")
    old()
    before = listed()
    assert told("gc", "remove=true") == (0, "nothing is left over under outputs\n", "")
    assert listed() == before and Path("outputs/cells/ab/" + "ab" * 10).is_symlink()


# -- gc: beside runs ---------------------------------------------------------------------------------------------------
def test_no_cell_of_a_sweep_that_runs_is_removed(run: Run, told: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever a cell ends, however old it seems: sweep.json names it, and the first stages of those still to come."""
    monkeypatch.setattr(leftover, "YOUNG", -leftover.DAY)
    seen = []

    class Collects(Listener):
        def cell(self, cell_id: str, error: str | None) -> None:
            seen.append(results.run(["gc", "remove=true"]))

    names = {"model": "tiny", "upscale": "tiny", "upscale__scheduler__steps": 1, "scheduler__steps": 1}
    outcome = run(3, listener=Collects(), technique="text_to_image", **names)
    assert outcome.statuses == ["done"] * 3 and seen == [0] * 6
    assert len(stored()) == 6 and told("verify", "mine")[0] == 0


def test_no_cell_is_removed_that_a_run_counts_on_and_has_not_named_yet(
    run: Run, told: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run has found it stored, and loads its models: its sweep.json is still to be written."""
    from diffsweep.runner import preflight

    run(2, "first")
    forget("first")
    old()
    seen = []

    def disk(cells: Any) -> None:
        seen.append(results.run(["gc", "remove=true"]))

    monkeypatch.setattr(preflight, "disk", disk)
    outcome = run(3)
    assert seen == [1] and outcome.statuses == ["done"] * 3
    assert json.loads((outcome.folder / "sweep.json").read_text())["runs"][-1]["cells"] == 1
    assert told("verify", "mine")[0] == 0
    assert not [*Path("outputs/cells").glob(".*.lock")]


def test_a_run_waits_until_cells_are_removed_and_samples_them(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from threading import Thread

    run(2, "first")
    forget("first")
    (Path("outputs") / "sweeps").mkdir(exist_ok=True)
    old()
    looked, outcomes = leftover.cells, list[Outcome]()

    def overtaken(root: Path) -> Any:
        thread.start()
        time.sleep(0.5)  # for the run to come as far as it can
        return looked(root)

    thread = Thread(target=lambda: outcomes.append(run(2)))
    monkeypatch.setattr(leftover, "cells", overtaken)
    assert len(leftover.remove_cells(Path("outputs"))) == 2
    thread.join()
    assert outcomes[0].statuses == ["done"] * 2
    assert json.loads((outcomes[0].folder / "sweep.json").read_text())["runs"][-1]["cells"] == 2


# -- gc: the rest ------------------------------------------------------------------------------------------------------
def of_dead(path: str) -> Path:
    """What a dead process left beside a path."""
    name = files.scratch(Path(path)).name
    return Path(path).with_name(re.sub(r"-\d+-", "-999999999-", name))


def test_gc_removes_what_dead_processes_left(run: Run, told: Any) -> None:
    run(1)
    (cell_id,) = ids()
    cell = f"outputs/cells/{cell_id[:2]}/{cell_id}"
    dead = [of_dead(f"{cell}/record.json"), of_dead("outputs/sweeps/mine/figures/x.png"), of_dead("outputs/x")]
    dead += [
        of_dead("outputs/embeddings/ab/x"),
        Path("outputs/sweeps/mine/.lock"),
        Path(f"outputs/cells/ab/.{cell_id}.lock"),
    ]
    living = [files.scratch(Path("outputs/sweeps/mine/grid.png")), Path("outputs/embeddings/ab/kept.safetensors")]
    other = Path("outputs/sweeps/mine/.grid.png.00000000-1-12345678")  # another host's: nobody knows
    for path in (*dead, *living, other):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    folder = of_dead(cell)
    folder.mkdir()
    (folder / "image.png").write_bytes(b"twelve bytes")
    before = listed()
    code, out, _ = told("gc")
    assert code == 0 and listed() == before
    assert "5 scratch files and folders of dead processes, 28 bytes\n" in out
    assert "2 locks of dead processes, 8 bytes\n" in out and out.endswith("remove=true removes 36 bytes\n")
    assert told("gc", "remove=true")[0] == 0
    assert not [path for path in (*dead, folder) if path.exists()]
    assert all(path.exists() for path in (*living, other)) and told("verify", "mine")[0] == 0
    old()
    assert told("gc", "remove=true")[0] == 0 and not other.exists() and living[0].exists()


def test_a_lock_that_is_held_stays(run: Run, told: Any) -> None:
    holds = """
import sys
from pathlib import Path
from diffsweep.core.locks import locked
with locked(Path("outputs/sweeps/mine"), name="report"):
    print("held", flush=True)
    sys.stdin.read()
"""
    folder = run(1).folder
    words = [sys.executable, "-c", holds]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "held\n"
        assert told("gc", "remove=true") == (0, "nothing is left over under outputs\n", "")
        assert (folder / ".report.lock").exists()
        process.kill()
        process.wait()
    assert told("gc", "remove=true")[0] == 0 and not (folder / ".report.lock").exists()


def test_gc_removes_cells_that_were_put_aside(run: Run, told: Any) -> None:
    run(2)
    Store(Path("outputs")).file(ids()[0]).write_bytes(b"")
    told("verify", "mine", "repair=true")
    code, out, _ = told("gc", "remove=true")
    assert code == 0 and out.startswith("1 damaged cell that was put aside, ")
    assert put_aside() == [] and stored() == ids()[1:]


def test_a_work_folder_is_left_over_once_nobody_has_written_there_for_a_day(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    (folder / "leases").mkdir(parents=True)
    (folder / "leases/one").write_text("")
    now = time.time()
    for path in (folder / "leases/one", folder / "leases", folder):
        assert not leftover.work_is_left(folder, now)
        os.utime(path, (now - leftover.DAY - 1,) * 2)
    assert leftover.work_is_left(folder, now)
    assert not leftover.work_is_left(folder / "leases/one", now) and not leftover.work_is_left(tmp_path / "none", now)
    (tmp_path / "link").symlink_to(folder)
    assert not leftover.work_is_left(tmp_path / "link", now)


def test_gc_removes_work_folders_that_are_left_over(run: Run, told: Any) -> None:
    work = run(1).folder / "work"
    for name in ("old", "new"):
        (work / name).mkdir(parents=True)
        (work / name / "lease").write_bytes(b"seven b")
    old()
    os.utime(work / "new/lease")
    code, out, _ = told("gc", "remove=true")
    assert code == 0 and "1 work folder of dead workers, 7 bytes\n" in out
    assert [path.name for path in work.iterdir()] == ["new"]


# -- several that hold a folder together -------------------------------------------------------------------------------
def test_many_hold_a_folder_together_and_the_last_one_removes_the_file(tmp_path: Path) -> None:
    with locks.shared(tmp_path, "x"):
        with locks.shared(tmp_path, "x"), pytest.raises(locks.Busy), locked(tmp_path, patience=0, name="x"):
            pytest.fail("it is held")
        assert os.listdir(tmp_path) == [".x.lock"]
        with pytest.raises(locks.Busy), locked(tmp_path, patience=0, name="x"):
            pytest.fail("it is held")
    assert os.listdir(tmp_path) == []
    with locked(tmp_path, name="x"), pytest.raises(locks.Busy), locks.shared(tmp_path, "x", patience=0):
        pytest.fail("it is locked")
    assert os.listdir(tmp_path) == []
