"""A sweep, run for real on the exact model: what is kept, sampled, counted and recorded, and what a failure costs."""

from __future__ import annotations

import csv
import importlib.metadata
import itertools
import json
import pickle
import platform
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from diffsweep.app import Task
from diffsweep.core.failures import NOT_FINITE
from diffsweep.core.leases import Leases
from diffsweep.core.memory import Lacking
from diffsweep.core.problems import BadInput
from diffsweep.model.analytic import GaussianMixture
from diffsweep.runner import run as runner
from diffsweep.runner import sampling
from diffsweep.runner.identity import cell_id
from diffsweep.runner.ingredients import to_pixels
from diffsweep.runner.part import Part
from diffsweep.runner.plan import Raw, plan
from diffsweep.runner.provenance import provenance
from diffsweep.runner.run import Outcome
from diffsweep.store.cells import Store
from diffsweep.terminal import show_failed
from tests.running import run_sweep

Config = Callable[..., dict[str, Any]]
Run = Callable[..., Outcome]
ROOT = Path(__file__).parents[2]
REPORTS = {"results.parquet", "results.csv", "table.md", "table.tex", "grid.png", "report.html", "sweep.log"}


@pytest.fixture(autouse=True)
def nothing_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loaded model is kept for a process: each test here begins as a process does."""
    monkeypatch.setattr(sampling, "_models", {})


@pytest.fixture
def swept(config: Config, tmp_path: Path) -> Callable[..., list[Raw]]:
    """Every combination of the axes (lists), last one fastest, on a model of 4 x 4 pixels."""

    def cells(**changes: Any) -> list[Raw]:
        held = {"model__size": 4, "scheduler__steps": 4, "prompt": "red", "output_dir": str(tmp_path / "outputs")}
        axes = {key: values for key, values in changes.items() if isinstance(values, list)}
        held |= {key: value for key, value in changes.items() if key not in axes}
        settings = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
        return [
            (config(**{**held, **one}), {key.replace("__", "."): value for key, value in one.items()})
            for one in settings
        ]

    return cells


@pytest.fixture
def run(swept: Callable[..., list[Raw]]) -> Run:
    return lambda name="mine", **changes: run_sweep(swept(**changes), name)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The batch size of each call of the model, as they come."""
    sizes: list[int] = []
    predict = GaussianMixture.predict

    def counted(self: GaussianMixture, x: torch.Tensor, *rest: Any) -> Any:
        sizes.append(len(x))
        return predict(self, x, *rest)

    monkeypatch.setattr(GaussianMixture, "predict", counted)
    return sizes


def document(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "sweep.json").read_text())


def records(outcome: Outcome) -> list[dict[str, Any]]:
    """The records of a sweep's cells, in order."""
    store = Store(outcome.folder.parents[1])
    return [store.record(cell["cell_id"]) for cell in document(outcome.folder)["cells"]]


def contents(root: Path, pattern: str) -> dict[str, bytes]:
    return {file.relative_to(root).as_posix(): file.read_bytes() for file in root.rglob(pattern)}


def ages(root: Path) -> dict[str, int]:
    return {str(file): file.stat().st_mtime_ns for file in root.rglob("*.*")}


def test_a_status_reads_the_number_of_its_own_cell(swept: Callable[..., list[Raw]]) -> None:
    """Launchers run a process a job, in any order, and again where all is stored."""
    own = {"technique": "image_to_image", "metric__names": ("psnr",), "sweep__name": "tuned"}
    raws = swept(**own, seed=[0, 1, 2])
    for one in (*reversed(raws), *raws):
        (status,) = Task().many([one], joins=True)
        record = Store(status.folder.parents[1]).record(plan([one]).cells[0].id)
        assert float(pickle.loads(pickle.dumps(status))) == record["metrics"]["psnr"]["value"]
    numbers = {record["metrics"]["psnr"]["value"] for record in records(status)}
    assert len(numbers) == 3


# -- stopped, and gone on ---------------------------------------------------------------------------------------------
def test_a_sweep_that_is_stopped_goes_on_to_the_same_bits(
    run: Run, tmp_path: Path, calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"seed": [0, 1, 2], "scheduler__steps": [2, 3, 9], "technique": "inpaint", "mask__softness": 2.0}
    whole = run(**changes, output_dir=str(tmp_path / "whole"))
    assert len(set(calls)) == 1
    rows = calls[0]
    predict = GaussianMixture.predict

    def stop(self: GaussianMixture, *asked: Any) -> Any:
        if len(calls) == 5:
            signal.raise_signal(signal.SIGINT)
        return predict(self, *asked)

    calls.clear()
    with monkeypatch.context() as patch:
        patch.setattr(GaussianMixture, "predict", stop)
        with pytest.raises(KeyboardInterrupt):
            run(**changes, output_dir=str(tmp_path / "halting"))
    stored = ages(tmp_path / "halting" / "cells")
    halted = document(tmp_path / "halting" / "sweeps" / "mine")
    assert halted["rows"] == rows and halted["runs"][0]["cells"] == len(stored) // 5 in range(1, 9)

    calls.clear()
    gone_on = run(**changes, output_dir=str(tmp_path / "halting"))
    assert set(calls) == {rows}
    assert gone_on.statuses == whole.statuses == ["done"] * 9
    pictures = contents(tmp_path / "whole" / "cells", "*.png")
    assert len(pictures) == 36 and contents(tmp_path / "halting" / "cells", "*.png") == pictures
    assert ages(tmp_path / "halting" / "cells").items() >= stored.items()  # what was stored is left alone
    first, second = document(gone_on.folder)["runs"]
    assert first["cells"] + second["cells"] == 9 and second["rows"] == rows
    assert second["model_rows"] < document(whole.folder)["runs"][0]["model_rows"]


def test_an_interrupt_counts_the_cells_that_are_stored(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    saved = Store.save

    def stop(self: Store, cell_id: str, *what: Any) -> None:
        if len([*tmp_path.rglob("record.json")]) == 2:
            raise KeyboardInterrupt
        saved(self, cell_id, *what)

    monkeypatch.setattr(Store, "save", stop)
    with pytest.raises(KeyboardInterrupt):
        run(seed=[0, 1, 2, 3])
    assert "stopped: 2 of 4 cells stored" in capsys.readouterr().err


def test_the_batch_shape_is_kept_when_an_axis_grows(run: Run, calls: list[int]) -> None:
    first = run(seed=[0, 1])
    assert document(first.folder)["rows"] == 4 and set(calls) == {4}
    before = ages(first.folder.parents[1] / "cells")
    calls.clear()
    grown = run(seed=[0, 1, 2, 3], guidance__scale=[1.0, 4.0])
    assert set(calls) == {4}
    found = document(grown.folder)
    assert found["rows"] == 4 and found["axes"] == {"seed": [0, 1, 2, 3], "guidance.scale": [1.0, 4.0]}
    assert [entry["cells"] for entry in found["runs"]] == [2, 6]
    assert ages(grown.folder.parents[1] / "cells").items() >= before.items()
    assert {record["provenance"]["rows"] for record in records(grown)} == {4}
    calls.clear()
    run(seed=[7], engine__rows=3, sweep__replace=True)  # what is asked for counts before what was recorded
    assert set(calls) == {3}


def test_the_batch_shape_does_not_depend_on_what_is_stored_already(run: Run, calls: list[int]) -> None:
    run("other", seed=[0, 1, 2])
    calls.clear()
    assert document(run(seed=[0, 1, 2, 3]).folder)["rows"] == 8 and set(calls) == {8}


def test_a_lone_first_cells_shape_binds_nobody(run: Run, calls: list[int]) -> None:
    run(seed=[0], guidance__scale=1.0)
    assert set(calls) == {1}
    calls.clear()
    run(seed=[0, 1, 2], guidance__scale=1.0)
    assert set(calls) == {3}


def test_a_cell_whose_picture_is_gone_is_sampled_again_to_the_same_bits(run: Run) -> None:
    outcome = run(seed=[0, 1])
    before = contents(outcome.folder.parents[1] / "cells", "*.png")
    gone = next((outcome.folder.parents[1] / "cells").rglob("image.png"))
    gone.unlink()
    run(seed=[0, 1])
    assert contents(outcome.folder.parents[1] / "cells", "*.png") == before
    assert [entry["cells"] for entry in document(outcome.folder)["runs"]] == [2, 1]


def test_processes_of_one_cell_each_make_one_sweep(swept: Callable[..., list[Raw]]) -> None:
    """As Hydra's launchers for clusters run it, in any order; without `joins` the last one alone would be left."""
    raw = swept(seed=[0, 1], guidance__scale=[1.0, 4.0])
    for one in [raw[2], raw[0], raw[3], raw[1]]:
        outcome = run_sweep([one], "mine", joins=True)
    found = document(outcome.folder)
    assert found["axes"] == {"seed": [1, 0], "guidance.scale": [1.0, 4.0]}
    assert len({cell["cell_id"] for cell in found["cells"]}) == len(found["runs"]) == 4
    rows = list(csv.DictReader((outcome.folder / "results.csv").read_text().splitlines()))
    assert {(row["seed"], row["guidance.scale"], row["status"]) for row in rows} == {
        (seed, scale, "done") for seed in "01" for scale in ("1.0", "4.0")
    }


def test_a_key_that_a_later_command_types_parts_its_cells_from_those_before(swept: Callable[..., list[Raw]]) -> None:
    """It has one value among them, and the cells of the first command have another: no mean may be of both."""
    for one in [*swept(seed=[0, 1]), *swept(seed=[0, 1], guidance__scale=[1.0])]:
        folder = run_sweep([one], "mine", joins=True).folder
    assert document(folder)["axes"] == {"seed": [0, 1], "guidance.scale": [1.0]}
    lines = [line for line in (folder / "table.md").read_text().splitlines() if line.startswith("| ")]
    assert len(lines) == 2 + 2  # the heading of two lines, and two settings


def test_joined_cells_keep_their_own_shape_and_their_twins(
    swept: Callable[..., list[Raw]], calls: list[int], tmp_path: Path
) -> None:
    """Whatever comes first, a cell's bits are the same; two strengths that come to one picture are both listed."""
    raw = swept(technique="image_to_image", input="drawing", technique__strength=[0.5, 0.6], guidance__scale=[1.0, 4.0])
    pictures = []
    for name, order in (("there", raw), ("back", raw[::-1])):
        changed = [(config | {"output_dir": str(tmp_path / name)}, axes) for config, axes in order]
        calls.clear()
        for one in changed:
            outcome = run_sweep([one], "mine", joins=True)
        assert sorted(set(calls)) == [1, 2]
        found = document(outcome.folder)["cells"]
        assert len(found) == 4 and len({cell["cell_id"] for cell in found}) == 2
        pictures.append(contents(tmp_path / name / "cells", "*.png"))
    assert pictures[0] == pictures[1]


def test_a_sweep_is_not_replaced_by_a_narrower_one_unless_asked(
    run: Run, swept: Callable[..., list[Raw]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run(seed=[0, 1, 2]).folder
    before = (folder / "results.csv").read_bytes()
    with pytest.raises(BadInput, match=r"sweep.name=mine: this sweep has 2 other cells.* or sweep.replace=true"):
        run(seed=[0])
    assert (folder / "results.csv").read_bytes() == before
    run(seed=[0, 1, 2, 3])  # a wider one, and the same again, go on with it
    run(seed=[0, 1, 2, 3])
    capsys.readouterr()
    told = [(config | {"sweep": {"name": "auto", "replace": True}}, axes) for config, axes in swept(seed=[0])]
    run_sweep(told, "mine")
    assert "note: mine had 3 other cells" in capsys.readouterr().err
    assert len(document(folder)["cells"]) == 1


def test_who_asks_for_a_metric_hears_how_what_is_stored_is_measured(swept: Callable[..., list[Raw]]) -> None:
    run_sweep(swept(seed=[0, 1]), "mine")
    with pytest.raises(BadInput, match=r"`diffsweep-results score mine metric=\.\.\.` measures what is stored"):
        run_sweep(swept(seed=[2]), "mine", "diffsweep seed=2 metric=clip sweep.name=mine")
    with pytest.raises(BadInput, match=r"\(stored cells stay\)$"):
        run_sweep(swept(seed=[2]), "mine", "diffsweep seed=2 sweep.name=mine")


@pytest.mark.parametrize("change", [{"prompt": "blue"}, {"scheduler__steps": 3}, {"seed": 7}])
def test_a_key_that_is_no_axis_replaces_no_cells_either(run: Run, change: dict[str, Any]) -> None:
    given = {"guidance__scale": [2.0, 4.0], "seed": 0}
    folder = run(**given).folder
    before = document(folder)
    with pytest.raises(BadInput, match="this sweep has 2 other cells"):
        run(**{**given, **change})
    assert document(folder) == before
    assert run(**{**given, **change}, sweep__replace=True).failed == 0


def test_an_edited_input_renews_its_cells(run: Run, tmp_path: Path) -> None:
    """The same command over a picture that was painted over: as many cells as before."""
    given = {"technique": "image_to_image", "input": "file", "input__path": str(tmp_path / "own.png"), "seed": [0, 1]}
    found = []
    for level in (40, 200):
        Image.new("RGB", (4, 4), (level, 0, 0)).save(tmp_path / "own.png")
        found.append(run(**given))
    assert not set(found[0].ids) & set(found[1].ids) and found[1].failed == 0
    with pytest.raises(BadInput, match="this sweep has 2 other cells"):
        run(**given, technique__strength=0.3)


def test_cells_that_were_never_finished_make_no_claim(run: Run, tmp_path: Path) -> None:
    """As after a sweep that was stopped, and is run again with fewer cells."""
    folder = run(seed=[0, 1]).folder
    gone = document(folder)["cells"][1]["cell_id"]
    shutil.rmtree(folder.parents[1] / "cells" / gone[:2] / gone)
    run(seed=[0])
    assert len(document(folder)["cells"]) == 1


def test_a_sweep_that_comes_in_parts_may_come_again(swept: Callable[..., list[Raw]]) -> None:
    """As an optimiser's trials or `max_batch_size` launch it: the first part lacks what later ones bring."""
    raw = swept(seed=[0, 1, 2, 3])
    for _ in range(2):
        run_sweep(raw[:2], "mine")
        outcome = run_sweep(raw[2:], "mine", before=raw[:2])
    assert len(document(outcome.folder)["cells"]) == 4


def test_a_drawing_that_failed_is_a_failure(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffsweep.report import write

    def broken(*arguments: object, **keys: object) -> list[Path]:
        raise IndexError("string index out of range")

    monkeypatch.setattr(write, "write_grid", broken)
    outcome = run(seed=[0])
    assert outcome.failed == 1 and outcome.statuses == ["done"] and (outcome.folder / "report.html").is_file()


def test_two_processes_lose_none_of_each_others_runs(swept: Callable[..., list[Raw]]) -> None:
    first = runner.Sweep(runner.plan(swept(seed=[0]), "mine"), "")
    second = runner.Sweep(runner.plan(swept(seed=[1]), "mine"), "")
    for sweep in (first, second, first):  # each began before the other wrote
        sweep.this.device = "cpu"
        sweep._write()
    assert {entry["id"] for entry in document(first.folder)["runs"]} == {first.this.id, second.this.id}


RAW = (
    "import json, sys; from diffsweep.runner.run import run_sweep; from diffsweep.terminal import Terminal; "
    "run_sweep(json.load(sys.stdin), 'mine', listener=Terminal())"
)


@pytest.mark.slow  # torchmetrics alone takes seconds to import
def test_a_finished_sweep_loads_no_model_and_no_torch(swept: Callable[..., list[Raw]], tmp_path: Path) -> None:
    raw = swept(seed=[0, 1], technique="inpaint", metric="default")
    outcome = run_sweep(raw, "mine")
    before = contents(outcome.folder, "sweep.json"), ages(tmp_path / "outputs" / "cells")
    code = f"{RAW}; print('loaded:', *{{'torch', 'torchmetrics', 'diffusers'}} & {{*sys.modules}})"
    again = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(raw), cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert again.returncode == 0, again.stderr
    assert again.stdout.splitlines()[-1] == "loaded:"
    assert "2 already stored, 0 to sample" in again.stderr
    assert (contents(outcome.folder, "sweep.json"), ages(tmp_path / "outputs" / "cells")) == before


def test_two_sweeps_share_their_cells(run: Run, calls: list[int]) -> None:
    one = run("one", seed=[0, 1])
    before = ages(one.folder.parents[1] / "cells")
    calls.clear()
    other = run("other", seed=[1, 2], tracker="none", grid__cols="seed")
    assert {cell["cell_id"] for cell in document(one.folder)["cells"]} & {
        cell["cell_id"] for cell in document(other.folder)["cells"]
    } == {records(one)[1]["cell_id"]}
    assert document(other.folder)["runs"][0]["cells"] == 1 and len(calls) == 4
    assert ages(one.folder.parents[1] / "cells").items() >= before.items()


def test_a_picture_asked_for_twice_is_sampled_once(run: Run) -> None:
    outcome = run(technique="forward_noise", guidance__scale=[1.0, 7.0], seed=[0, 1])
    assert outcome.statuses == ["done"] * 4
    assert document(outcome.folder)["runs"][0]["cells"] == 2


# -- what a failure costs ----------------------------------------------------------------------------------------------
STUMBLE = '''
from dataclasses import dataclass
from pathlib import Path

from diffsweep.technique.job import Outcome, Plain


@dataclass(frozen=True)
class Stumble(Plain):
    uses = frozenset({"prompt", "scheduler", "guidance"})

    def program(self, job):
        """Seed 1 raises and seed 2 loses a side picture, until a file `mended` lies in the working folder."""
        image = yield from job.denoise(job.noise(), self.guided(job))
        well = Path("mended").exists()
        if job.streams.seed == 1 and not well:
            raise RuntimeError("one is unlucky")
        return Outcome(image, {"side": image if well or job.streams.seed != 2 else image / 0})
'''


@pytest.fixture
def diffsweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hydra_restore_singletons: None
) -> Iterator[Callable[..., int]]:
    """The command, in a folder from which a package `stumbles` can be imported."""
    from diffsweep import app

    (tmp_path / "stumbles" / "technique").mkdir(parents=True)
    (tmp_path / "stumbles" / "technique" / "stumble.py").write_text(STUMBLE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGTERM)

    def command(*words: str) -> int:
        small = ("model=analytic", "model.size=4", "scheduler.steps=3", "metric=none", "device=cpu")
        monkeypatch.setattr(sys, "argv", ["diffsweep", *small, *words])
        return app.main()

    yield command
    signal.signal(signal.SIGTERM, before)


def test_a_cell_that_fails_fails_alone_is_named_and_is_tried_again(
    diffsweep: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    words = "-m", "sweep.name=mine", "seed=0,1,2,3", "plugins=[stumbles]", "technique.name=stumble"
    assert diffsweep(*words) == 1
    folder = Path("outputs/sweeps/mine")
    cells = document(folder)["cells"]
    assert [cell["status"] for cell in cells] == ["done", "failed", "failed", "done"]
    assert [cell["reason"] for cell in cells] == [
        None,
        "RuntimeError: one is unlucky",
        "FloatingPointError: the picture holds NaN or infinite values",
        None,
    ]
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("failed: ")]
    assert [re.sub(r"\(\w+\)", "()", line) for line in told] == [
        f"failed: seed={cell['axes']['seed']} (): {cell['reason']}" for cell in cells[1:3]
    ]
    store = Store(Path("outputs"))
    assert [cell["cell_id"] in store for cell in cells] == [True, False, False, True]
    with (folder / "results.csv").open() as file:
        assert [row["status"] for row in csv.DictReader(file)] == [cell["status"] for cell in cells]
    assert {file.name for file in folder.iterdir()} == REPORTS | {"sweep.json", "errors"}

    done = ages(Path("outputs/cells"))
    Path("mended").touch()
    assert diffsweep(*words) == 0
    assert [cell["status"] for cell in document(folder)["cells"]] == ["done"] * 4
    assert [entry["cells"] for entry in document(folder)["runs"]] == [2, 2]
    assert ages(Path("outputs/cells")).items() >= done.items()
    assert "failed" not in capsys.readouterr().err


def test_a_cell_that_fails_does_not_touch_its_neighbours(diffsweep: Callable[..., int]) -> None:
    words = "plugins=[stumbles]", "technique.name=stumble", "engine.rows=4"
    assert diffsweep("-m", "sweep.name=mine", "seed=0,1,2,3", *words, "output_dir=among") == 1
    for seed in (0, 3):
        assert diffsweep(f"seed={seed}", *words, "output_dir=alone") == 0
    assert contents(Path("alone/cells"), "*.png") == contents(Path("among/cells"), "*.png")


@pytest.mark.parametrize(
    ("made", "told"),
    [
        ("return torch.zeros(3, 4, 4)", "has no attribute"),
        ("return Outcome(torch.zeros(1, 4, 4))", "ValueError: a picture of three channels is needed, not (1, 4, 4)"),
        ("return Outcome(torch.zeros(3, 4, 4), facts={'t': torch.zeros(1)})", "TypeError: "),
        ("return Outcome(torch.zeros(3, 4, 4), facts={'t': float('nan')})", "ValueError: "),
    ],
)
def test_a_result_that_is_none_fails_alone(run: Run, monkeypatch: pytest.MonkeyPatch, made: str, told: str) -> None:
    """What a technique of the user's own returns may be anything: its neighbours are done."""
    from diffsweep.technique.job import Outcome as Result
    from diffsweep.technique.text_to_image import TextToImage

    names: dict[str, Any] = {"torch": torch, "Outcome": Result}
    exec(f"def broken(): {made}", names)
    program = TextToImage.program

    def sometimes(self: Any, job: Any) -> Any:
        outcome = yield from program(self, job)
        return names["broken"]() if job.streams.seed == 1 else outcome

    monkeypatch.setattr(TextToImage, "program", sometimes)
    cells = document(run(seed=[0, 1, 2]).folder)["cells"]
    assert [cell["status"] for cell in cells] == ["done", "failed", "done"]
    assert told in cells[1]["reason"]


def test_processes_that_join_at_once_leave_every_cell_in_the_results(
    swept: Callable[..., list[Raw]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first, at its report, is overtaken by a second that runs from its beginning to its end."""
    from diffsweep.tracker.none import NoTracker

    raw, seen = swept(seed=[0, 1]), []

    def overtaken(self: Any, store: Any, sweep: Any, files: Any) -> str:
        seen.append(sweep["created"])
        if len(seen) == 1:
            run_sweep(raw[1:], "mine", joins=True)
        return ""

    monkeypatch.setattr(NoTracker, "log", overtaken)
    folder = run_sweep(raw[:1], "mine", joins=True).folder
    with (folder / "results.csv").open() as file:
        assert [row["seed"] for row in csv.DictReader(file)] == ["0", "1"]
    assert len(set(seen)) == 1  # of one sweep, whoever began it
    assert len(document(folder)["cells"]) == 2


def test_a_metric_added_later_stays(run: Run) -> None:
    folder = run(seed=[0, 1]).folder
    file = folder / "sweep.json"
    file.write_text(json.dumps(document(folder) | {"metrics": ["psnr"]}))
    assert document(run(seed=[0, 1]).folder)["metrics"] == ["psnr"]


def test_a_picture_that_is_gone_is_not_done(run: Run) -> None:
    folder = run(seed=[0]).folder
    (picture,) = (folder.parents[1] / "cells").rglob("image.png")
    picture.unlink()
    from diffsweep.report.frame import results

    assert list(results(Store(folder.parents[1]), document(folder))["status"]) == ["failed"]
    assert list(results(Store(folder.parents[1]), document(run(seed=[0]).folder))["status"]) == ["done"]


def test_a_picture_of_nan_fails_alone(run: Run) -> None:
    outcome = run(guidance__scale=[3.0, 1e39], seed=[0, 1], engine__rows=4)
    assert outcome.statuses == ["done", "done", "failed", "failed"] and outcome.failed == 2
    alone = run("alone", guidance__scale=[3.0], seed=[0, 1], engine__rows=4, output_dir=str(outcome.folder / "alone"))
    cells = outcome.folder.parents[1] / "cells"
    assert contents(cells, "image.png") == contents(alone.folder.parents[1] / "cells", "image.png") != {}


def test_a_run_that_lacks_memory_is_recorded_and_the_next_begins_with_the_sweeps_shape(
    run: Run, calls: list[int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    predict = GaussianMixture.predict

    def small(self: GaussianMixture, x: torch.Tensor, *rest: Any) -> Any:
        if len(x) > 3:
            raise torch.OutOfMemoryError("out of memory")
        return predict(self, x, *rest)

    monkeypatch.setattr(GaussianMixture, "predict", small)
    outcome = run(seed=[0, 1, 2, 3, 4, 5])  # 12 rows, 6, 3
    found = document(outcome.folder)
    assert outcome.failed == 0 and set(calls) == {3}
    assert (found["rows"], found["runs"][0]["rows"], found["runs"][0]["halvings"]) == (12, 3, 2)
    assert {record["provenance"]["rows"] for record in records(outcome)} == {3}
    monkeypatch.undo()
    capsys.readouterr()
    again = run(seed=[0, 1, 2, 3, 4, 5, 6])  # memory suffices again: the shape that the sweep began with
    found = document(again.folder)
    assert (found["rows"], found["runs"][1]["rows"], found["runs"][1]["halvings"]) == (12, 12, 0)
    assert [record["provenance"]["rows"] for record in records(again)] == [3] * 6 + [12]
    told = "mine began with 12 rows a call; the last run ran out of memory and ended with 3"
    assert told in capsys.readouterr().err
    run(seed=[0, 1, 2, 3, 4, 5, 6, 7])
    assert "out of memory" not in capsys.readouterr().err


def test_after_a_lack_that_stored_nothing_the_shape_is_the_first_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def lacks(self: GaussianMixture, *asked: Any) -> Any:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(GaussianMixture, "predict", lacks)
        assert run(seed=[0, 1, 2]).statuses == ["failed"] * 3
    outcome = run(seed=[0, 1, 2])
    assert {record["provenance"]["rows"] for record in records(outcome)} == {6}


def test_a_cell_that_starts_again_for_lack_of_memory_is_stored_as_any_other(
    run: Run, calls: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    changes = {"seed": [0, 1, 2, 3], "engine__rows": 4, "engine__trajectory": 3, "scheduler__steps": 5}
    undisturbed = run(**changes, output_dir=str(tmp_path / "undisturbed"))
    predict = GaussianMixture.predict
    calls.clear()

    def lacks(self: GaussianMixture, x: torch.Tensor, *asked: Any) -> Any:
        if len(calls) == 2 and len(x) == 4:
            raise torch.OutOfMemoryError
        return predict(self, x, *asked)

    monkeypatch.setattr(GaussianMixture, "predict", lacks)
    outcome = run(**changes)
    (entry,) = document(outcome.folder)["runs"]
    assert entry["halvings"] == 1 and entry["model_rows"] == 4 * 5 * 2 + 2 * 4  # two calls of four rows are lost
    for one, other in zip(records(outcome), records(undisturbed), strict=True):
        assert one["provenance"]["rows"] == 2 and one["nfe"] == other["nfe"] == 10
        assert one["facts"] == other["facts"] and one["files"].keys() == other["files"].keys()


@pytest.mark.parametrize("method", ["encode", "ready"])
def test_a_model_that_memory_cannot_hold_is_one_message(run: Run, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    def lacks(self: GaussianMixture, *asked: Any) -> Any:
        raise RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes\n"
        )

    monkeypatch.setattr(GaussianMixture, method, lacks)
    with pytest.raises(Lacking, match=r"^model: not enough memory to load it \(RuntimeError: .* 99 bytes\): free"):
        run(seed=[0, 1])


def test_loading_does_not_count_as_sampling(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = [0.0]
    monkeypatch.setattr(sampling.time, "perf_counter", lambda: seconds[0])

    def passing(method: str, n: float) -> None:
        original = getattr(GaussianMixture, method)

        def passes(self: GaussianMixture, *asked: Any) -> Any:
            seconds[0] += n
            return original(self, *asked)

        monkeypatch.setattr(GaussianMixture, method, passes)

    passing("ready", 1000)
    passing("encode", 100)
    passing("predict", 1)
    (entry,) = document(run(seed=[0, 1]).folder)["runs"]
    assert (entry["loading_seconds"], entry["sampling_seconds"]) == (1100, entry["model_calls"])


# -- what is counted and recorded --------------------------------------------------------------------------------------
def test_the_counts_are_the_planned_work(run: Run, calls: list[int]) -> None:
    techniques = {  # at 4 steps, two rows a step and prompt
        "text_to_image": 8,
        "image_to_image": 4,  # int(0.7 x 4) = 2 steps
        "one_step_denoise": 2,
        "forward_noise": 0,
        "anagram": 16,
    }
    outcome = run(technique=[*techniques], seed=[0, 1], engine__rows=7)
    assert [record["nfe"] for record in records(outcome)] == [rows for rows in techniques.values() for _ in range(2)]
    (entry,) = document(outcome.folder)["runs"]
    assert entry["cells"] == 10 and entry["model_loads"] == 1 and entry["halvings"] == 0
    assert entry["model_rows"] == 2 * sum(techniques.values())
    assert entry["encodes"] == 3  # the empty one, "red", and an anagram's second
    assert entry["model_calls"] == len(calls)
    assert 7 * entry["model_calls"] == entry["model_rows"] + entry["padded_rows"]
    seconds = sum(record["seconds"] for record in records(outcome))
    assert 0 < seconds <= entry["sampling_seconds"] + 1e-3


@pytest.mark.parametrize(
    "technique, rounds",
    [  # at 4 steps: DDIM and Heun on the table, then on the flow, whose first step, from noise alone, asks once
        ({}, [4, 7, 4, 6]),
        ({"technique": "inpaint", "technique__jump": 1, "technique__resamples": 2}, [7, 13, 7, 11]),  # all but 1 twice
    ],
    ids=["falling", "RePaint"],
)
def test_steps_that_ask_twice_are_counted_and_levels_that_rise_cost_nothing(
    swept: Callable[..., list[Raw]], technique: dict[str, Any], rounds: list[int]
) -> None:
    raws = swept(**technique, model=["analytic", "analytic_flow"], scheduler=["ddim", "heun"])
    outcome = run_sweep(raws, "mine")
    assert outcome.statuses == ["done"] * 4
    assert [cell.rounds for cell in plan(raws).cells] == rounds
    assert [record["nfe"] for record in records(outcome)] == [2 * asked for asked in rounds]
    (entry,) = document(outcome.folder)["runs"]
    assert entry["model_rows"] == 2 * sum(rounds)


def test_each_model_of_a_sweep_is_loaded_once_and_kept_for_the_next_launch(
    run: Run, swept: Callable[..., list[Raw]]
) -> None:
    outcome = run(seed=[0, 1], model__size=[4, 5])
    assert document(outcome.folder)["runs"][0]["model_loads"] == 2
    assert len(sampling._models) == 1  # in memory, one at a time
    sizes = [np.asarray(Image.open(file)).shape for file in (outcome.folder.parents[1] / "cells").rglob("image.png")]
    assert sorted(sizes) == [(4, 4, 3), (4, 4, 3), (5, 5, 3), (5, 5, 3)]
    later = run_sweep(swept(seed=[2], model__size=[5]), "mine", before=swept(seed=[0, 1], model__size=[4, 5]))
    found = document(later.folder)
    assert later.statuses == ["done"]
    assert [cell["axes"] for cell in found["cells"]] == [
        {"seed": seed, "model.size": size} for seed, size in ((0, 4), (0, 5), (1, 4), (1, 5), (2, 5))
    ]
    assert [entry["model_loads"] for entry in found["runs"]] == [2, 0]


@pytest.fixture
def fresh_provenance() -> Iterator[None]:
    provenance.cache_clear()
    yield
    provenance.cache_clear()


def test_a_record_says_how_its_picture_came_about(run: Run, fresh_provenance: None) -> None:
    threads = torch.get_num_threads()
    try:
        outcome = run(technique="image_to_image", seed=[3], engine__threads=1, engine__rows=5)
    finally:
        torch.set_num_threads(threads)
    (record,) = records(outcome)
    assert cell_id(record["config"]) == record["cell_id"]
    assert record["config"]["technique"] == {"name": "image_to_image", "start_index": 2, "strength": "auto"}
    assert record["timesteps"] == [250, 0]  # the last two of 750, 500, 250, 0
    assert record["nfe"] == 4 and record["recipe"] == 2 and record["metrics"] == {}
    made = record["provenance"]
    assert (made["device"], made["dtype"], made["rows"], made["threads"]) == ("cpu", "float32", 5, 1)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", made["time"])
    assert made["versions"]["python"] == platform.python_version()
    for package in ("torch", "diffusers", "numpy", "pillow", "diffsweep"):
        assert made["versions"][package] == importlib.metadata.version(package)
    if (ROOT / ".git").exists():
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
        assert made["git"].removesuffix("-dirty") == head.stdout.strip()


def test_a_sweep_runs_where_there_is_no_git(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_provenance: None
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shutil.which("git") is None
    outcome = run(seed=[0])
    assert outcome.statuses == ["done"] and records(outcome)[0]["provenance"]["git"] is None


def test_a_commit_is_the_checkouts_and_not_that_of_a_folder_around_the_installed_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_provenance: None
) -> None:
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "somebody's own project"], check=True)
    installed = tmp_path / "venv" / "lib" / "site-packages" / "diffsweep" / "sweep"
    installed.mkdir(parents=True)
    monkeypatch.setattr("diffsweep.runner.provenance.__file__", str(installed / "provenance.py"))
    assert provenance()["git"] is None


def test_nothing_is_written_but_what_the_interface_lists(diffsweep: Callable[..., int]) -> None:
    there = {*Path().iterdir()}
    words = "technique=inpaint", "input=drawing", "prompt=red", "mask.softness=1"
    assert diffsweep("-m", "sweep.name=mine", "seed=0,1", *words) == 0
    assert {*Path().iterdir()} - there == {Path("outputs")}
    assert {path.name for path in Path("outputs").iterdir()} == {"cells", "sweeps"}
    assert {path.name for path in Path("outputs/sweeps").iterdir()} == {"mine"}
    assert {path.name for path in Path("outputs/sweeps/mine").iterdir()} == REPORTS | {"sweep.json"}
    ids = [cell["cell_id"] for cell in document(Path("outputs/sweeps/mine"))["cells"]]
    names = ("image.png", "input.png", "mask.png", "hard_mask.png", "record.json")
    written = {path for path in Path("outputs/cells").rglob("*") if path.is_file()}
    assert written == {Path("outputs/cells") / i[:2] / i / name for i in ids for name in names}

    store = Store(Path("outputs"))
    for i in ids:
        assert store.verify(i) == []
        known = store.pixels(i, "mask") == 0  # what a mask keeps is the input's own pixels
        assert known.any() and not known.all()
        np.testing.assert_array_equal(store.pixels(i)[known], store.pixels(i, "input")[known])


def test_a_sweep_file_that_cannot_be_read_is_written_anew(run: Run) -> None:
    outcome = run(seed=[0])
    (outcome.folder / "sweep.json").write_text("{")
    assert document(run(seed=[0, 1]).folder)["runs"][0]["cells"] == 1


# -- refused before a model is loaded ----------------------------------------------------------------------------------
@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:7"])
def test_a_device_that_is_not_there_is_refused(
    run: Run, device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = 1 if device == "cuda:7" else 0
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    with pytest.raises(BadInput, match=f"^device={device}: "):
        run(seed=[0], device=device)
    assert not (tmp_path / "outputs").exists()


def test_weights_that_cannot_be_read_are_told_with_their_key(config: Config, checkpoint: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(checkpoint, damaged)
    (file,) = (damaged / "unet").glob("*.safetensors")
    file.write_bytes(b"not weights")
    with pytest.raises(BadInput, match=rf"^model\.path={damaged}: unet/.*safetensors is cut short or damaged"):
        run_sweep([(config(model="tiny", model__path=str(damaged), output_dir=str(tmp_path / "outputs")), {})])
    assert not (tmp_path / "outputs" / "cells").exists()


# -- pixels -----------------------------------------------------------------------------------------------------------
def test_pixels_are_rounded_to_the_nearest_of_256_levels() -> None:
    levels = np.arange(256)
    exact = torch.tensor(levels / 127.5 - 1)
    for offset in (-0.49, 0, 0.49):
        x = (exact + offset / 127.5).expand(3, 2, -1)
        np.testing.assert_array_equal(to_pixels(x), np.broadcast_to(levels[None, :, None], (2, 256, 3)))
    colours = to_pixels(torch.tensor([-3.0, 0.2, 3.0])[:, None, None])
    assert colours.tolist() == [[[0, 153, 255]]] and colours.dtype == np.uint8  # 127.5 x 1.2


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_picture_that_is_not_finite_is_no_picture(value: float) -> None:
    x = torch.zeros(3, 2, 2)
    x[1, 0, 1] = value
    with pytest.raises(FloatingPointError):
        to_pixels(x)


# -- a trajectory ------------------------------------------------------------------------------------------------------
def steps_of(store: Store, record: dict[str, Any], kind: str) -> list[np.ndarray]:
    names = sorted(name.removesuffix(".png") for name in record["files"] if name.endswith(f"{kind}.png"))
    return [store.pixels(record["cell_id"], name) for name in names if name.startswith("step_")]


def test_a_trajectory_leads_from_the_noise_to_the_picture(run: Run, tmp_path: Path) -> None:
    plain = run(output_dir=str(tmp_path / "plain"), seed=[3], scheduler__steps=9)
    outcome = run(seed=[3], scheduler__steps=9, engine__trajectory=4)
    (record,), store = records(outcome), Store(tmp_path / "outputs")
    assert contents(tmp_path / "plain", "image.png") == contents(tmp_path / "outputs", "image.png")
    assert records(plain)[0]["cell_id"] == record["cell_id"]
    visited = record["timesteps"]
    assert record["facts"]["trajectory"] == {"asked": 4, "t": [visited[i] for i in (0, 3, 5, 8)]}
    noisy, clean = (steps_of(store, record, kind) for kind in ("noisy", "clean"))
    assert len(noisy) == len(clean) == 4
    start = torch.randn((1, 3, 4, 4), generator=torch.Generator("cpu").manual_seed(3))[0]
    np.testing.assert_array_equal(noisy[0], to_pixels(start))
    # the last step is from t = 0 to the clean estimate itself
    assert visited[-1] == 0
    np.testing.assert_array_equal(clean[-1], store.pixels(record["cell_id"]))
    assert store.verify(record["cell_id"]) == []


def test_a_trajectory_asked_for_later_joins_its_cell(run: Run, tmp_path: Path, calls: list[int]) -> None:
    names = {"technique": "image_to_image", "metric": "default", "seed": [0, 1], "scheduler__steps": 12}
    before = records(run(**names))
    images = contents(tmp_path / "outputs", "image.png")
    asked = len(calls)
    for number in (5, 2):
        after = records(run(**names, engine__trajectory=number))
        assert [len(steps_of(Store(tmp_path / "outputs"), record, "clean")) for record in after] == [number] * 2
        for old, new in zip(before, after, strict=True):
            assert new["metrics"] == old["metrics"] != {} and new["files"].items() >= old["files"].items()
        assert len([*(tmp_path / "outputs").rglob("step_*.png")]) == 2 * 2 * number
    assert contents(tmp_path / "outputs", "image.png") == images
    sampled = len(calls)
    assert sampled == 3 * asked
    run(**names, engine__trajectory=2)  # there already
    run(**names)  # none asked for
    assert len(calls) == sampled and len([*(tmp_path / "outputs").rglob("step_*.png")]) == 8


def test_what_has_no_steps_has_no_trajectory_and_is_not_sampled_again(run: Run, calls: list[int]) -> None:
    for _ in range(2):
        (record,) = records(run(technique="one_step_denoise", engine__trajectory=4))
        assert record["facts"]["trajectory"] == {"asked": 4, "t": []}
    assert len(calls) == 1


def test_a_trajectory_is_not_below_none(run: Run) -> None:
    with pytest.raises(BadInput, match=r"engine\.trajectory=-1: must be between 0 and 10000"):
        run(engine__trajectory=-1)


# -- metrics of sets ---------------------------------------------------------------------------------------------------
def test_a_sets_number_is_of_the_cells_that_the_sweep_has_now(run: Run) -> None:
    names = {"metric__names": ("diversity_pixels",)}
    (before,) = document(run(seed=[0, 1, 2], **names).folder)["sets"]["diversity_pixels"]["values"]
    assert before["cells"] == 3 and before["axes"] == {}
    assert document(run(seed=[0, 1, 2]).folder)["sets"]["diversity_pixels"]["values"] == [before]
    assert document(run(seed=[5, 6], sweep__replace=True).folder)["sets"]["diversity_pixels"]["values"] == []
    (after,) = document(run(seed=[5, 6], **names).folder)["sets"]["diversity_pixels"]["values"]
    assert after["cells"] == 2 and after["value"] != before["value"]


def test_a_metric_that_fails_leaves_the_sweep_whole(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from diffsweep.metric.psnr import Psnr

    def fail(self: Psnr, batch: object) -> None:
        raise RuntimeError("no memory")

    monkeypatch.setattr(Psnr, "__call__", fail)
    outcome = run(technique="image_to_image", model__size=16, metric__names=("psnr", "ssim"), seed=[0])
    assert outcome.statuses == ["done"] and set(records(outcome)[0]["metrics"]) == {"ssim"}
    assert (outcome.unmeasured, outcome.failed) == ({"psnr": "RuntimeError: no memory"}, 1)
    reason = "metric psnr failed: RuntimeError: no memory; all cells are stored, the command run again measures them"
    assert reason in capsys.readouterr().err.splitlines()
    assert document(outcome.folder)["unavailable"] == {"psnr": "RuntimeError: no memory"}
    assert "psnr: not measured (RuntimeError: no memory)" in (outcome.folder / "table.md").read_text()
    monkeypatch.undo()
    again = run(technique="image_to_image", model__size=16, metric__names=("psnr", "ssim"), seed=[0])
    assert document(again.folder)["unavailable"] == {} and set(records(again)[0]["metrics"]) == {"psnr", "ssim"}


def test_a_metric_that_fails_ends_the_command_with_1(
    diffsweep: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from diffsweep.metric.psnr import Psnr

    words = "technique=inpaint", "input=drawing", "prompt=red", "metric.names=[psnr]", "sweep.name=mine"
    with monkeypatch.context() as broken:
        broken.setattr(Psnr, "__call__", lambda self, batch: 1 / 0)
        assert diffsweep(*words) == 1
    assert "metric psnr failed: ZeroDivisionError: division by zero; all cells are stored" in capsys.readouterr().err
    assert diffsweep(*words) == 0
    (cell,) = document(Path("outputs/sweeps/mine"))["cells"]
    assert Store(Path("outputs")).record(cell["cell_id"])["metrics"]["psnr"]["value"] > 0


def test_what_no_cell_can_be_measured_by_is_in_the_tables_notes(run: Run) -> None:
    outcome = run(metric__names=("psnr", "ssim", "diversity_pixels"), seed=[0, 1])
    assert document(outcome.folder)["unavailable"] == dict.fromkeys(("psnr", "ssim"), "no cell has a clean input")
    assert "psnr, ssim: not measured (no cell has a clean input)." in (outcome.folder / "table.md").read_text()


def test_on_a_rerun_each_cell_is_looked_at_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {"technique": "inpaint", "seed": [0, 1, 2], "metric__names": ("psnr",), "grid__metric": ("psnr",)}
    first = run(**changes)
    looked, checked = [], Store.checked
    monkeypatch.setattr(Store, "checked", lambda self, cell_id: looked.append(cell_id) or checked(self, cell_id))
    assert run(**changes).statuses == ["done"] * 3
    assert sorted(looked) == sorted(cell["cell_id"] for cell in document(first.folder)["cells"])


def test_a_metric_of_sets_that_fails_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffsweep.metric.diversity import Diversity

    def fail(self: Diversity, batch: object) -> None:
        raise RuntimeError("no memory")

    monkeypatch.setattr(Diversity, "together", fail)
    outcome = run(metric__names=("diversity_pixels",), seed=[0, 1])
    assert outcome.statuses == ["done", "done"]
    told = (outcome.folder / "table.md").read_text().replace("\\", "")
    assert "diversity_pixels: not measured (RuntimeError: no memory)" in told


def test_of_joined_cells_the_last_of_the_same_axes_counts(swept: Callable[..., list[Raw]]) -> None:
    for steps in (2, 3):
        for cell in swept(seed=[0, 1], scheduler__steps=steps):
            outcome = run_sweep([cell], "joined", joins=True)
    assert [cell["seed"] for cell in document(outcome.folder)["cells"]] == [0, 1]
    assert [len(record["timesteps"]) for record in records(outcome)] == [3, 3]


# -- what workers before, or beside, have left -------------------------------------------------------------------------
def work_of(cells: list[Raw], name: str = "mine") -> Path:
    """Where the workers of these cells meet."""
    return runner.Sweep(plan(cells, name), "").workplace


def test_work_whose_workers_died_before_the_report_is_ended(run: Run, swept: Callable[..., list[Raw]]) -> None:
    outcome = run(seed=[0, 1])
    (first,) = document(outcome.folder)["runs"]
    with Leases(work_of(swept(seed=[0, 1])), name="before") as before:
        before.more["run"] = {**first, "id": "before", "cells": 5}
    (outcome.folder / "report.html").unlink()
    outcome = run(seed=[0, 1])
    assert not (outcome.folder / "work").exists() and (outcome.folder / "report.html").exists()
    assert {one["id"]: one["cells"] for one in document(outcome.folder)["runs"]} == {first["id"]: 2, "before": 5}


def test_work_of_a_command_that_was_given_up_goes_with_the_next_one(run: Run, swept: Callable[..., list[Raw]]) -> None:
    with Leases(work_of(swept(seed=[0, 1]))):
        pass
    outcome = run(seed=[0, 1, 2])
    assert outcome.statuses == ["done"] * 3 and not (outcome.folder / "work").exists()


def test_two_commands_cannot_give_one_sweep_other_cells_at_once(run: Run, swept: Callable[..., list[Raw]]) -> None:
    other = swept(seed=[0, 1])
    with Leases(work_of(other), grace=1):
        with pytest.raises(
            BadInput, match="another command is at this sweep now, with other cells or settings; give another"
        ):
            run(seed=[0, 1, 2])
        assert run(seed=[0, 1], name="else").statuses == ["done"] * 2
    assert run(seed=[0, 1, 2]).statuses == ["done"] * 3


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"rows": 3}', "{"])
def test_what_a_disk_has_lost_of_the_work_is_begun_anew(run: Run, swept: Callable[..., list[Raw]], text: str) -> None:
    place = work_of(swept(seed=[0, 1]))
    with Leases(place) as before:
        before.settle("shape", text)
        before.settle("0-0")
        before.settle("nobody.failed0", text)
    outcome = run(seed=[0, 1])
    assert outcome.statuses == ["done"] * 2 and not (outcome.folder / "work").exists()


def test_who_joins_begins_with_the_fewer_rows_that_fit_the_others(
    run: Run, swept: Callable[..., list[Raw]], calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first, alone, halves 4 rows to 2; what it tells, and lives to tell, the second begins with."""
    predict, told = GaussianMixture.predict, []
    tell = Part.fewer

    def lacking(self: GaussianMixture, x: torch.Tensor, *rest: Any) -> Any:
        if len(x) > 2:
            raise MemoryError("out of memory")
        return predict(self, x, *rest)

    monkeypatch.setattr(GaussianMixture, "predict", lacking)
    monkeypatch.setattr(Part, "fewer", lambda self, rows: (told.append({**rows}), tell(self, rows)))
    first = run(seed=[0, 1, 2, 3], name="first", engine__rows=4)
    (rows,) = told
    assert [*rows.values()] == [2] and document(first.folder)["runs"][0]["halvings"] == 1
    monkeypatch.setattr(GaussianMixture, "predict", predict)
    with Leases(work_of(swept(seed=[4, 5, 6, 7], engine__rows=4), "second"), name="other") as other:
        other.more["fewer"] = rows
        other.tell()
        second = run(seed=[4, 5, 6, 7], name="second", engine__rows=4)
    counted = document(second.folder)["runs"][0]
    assert (
        counted["rows"] == 2
        and counted["halvings"] == 0
        and {one["provenance"]["rows"] for one in records(second)} == {2}
    )


def test_a_work_folder_that_is_removed_meanwhile_costs_no_cell(
    run: Run, swept: Callable[..., list[Raw]], monkeypatch: pytest.MonkeyPatch
) -> None:
    place, predict, times = (
        work_of(swept(seed=[0, 1, 2, 3], engine__rows=1)),
        GaussianMixture.predict,
        itertools.count(),
    )

    def removing(self: GaussianMixture, *arguments: Any) -> Any:
        if next(times) == 6:
            shutil.rmtree(place)
        return predict(self, *arguments)

    monkeypatch.setattr(GaussianMixture, "predict", removing)
    outcome = run(seed=[0, 1, 2, 3], engine__rows=1)
    assert outcome.statuses == ["done"] * 4 and next(times) > 16 and not (outcome.folder / "work").exists()


def test_failed_cells_are_to_be_tried_again_unless_all_would_fail_alike(capsys: pytest.CaptureFixture[str]) -> None:
    def told(*reasons: str) -> bool:
        frame = pd.DataFrame([{"cell_id": "a", "status": "failed", "reason": reason} for reason in reasons])
        frame.attrs["axes"] = []
        show_failed(SimpleNamespace(frame=frame, notes=(), failures={}, traceback=None))
        return "run again, tries failed cells again" in capsys.readouterr().err

    overflown = f"FloatingPointError: {NOT_FINITE}: a.b may be damaged"
    assert told("OSError: no space", overflown) and told("OSError: no space")
    assert not told(overflown, f"the picture to enlarge failed: {overflown}")
