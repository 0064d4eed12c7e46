"""The runs of cells, and what is told again."""

from __future__ import annotations

import base64
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from diffsweep.tracker.run_logs import of_cell, run_id
from diffsweep.tracker.wandb import Wandb
from tests.rewriting import rewrite
from tests.tracker.runs import (
    BOTH,
    CELLS,
    OFFLINE,
    PSNR,
    Finished,
    Many,
    away,
    inpainted,
    inspected,
    read,
    reported,
    runs,
    summary,
    swept,
    synced,
)
from tests.tracker.server import Serving

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("home")]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Many:
    root = tmp_path_factory.mktemp("many")
    with pytest.MonkeyPatch.context() as patch:
        away(patch, root / "home")
        store, sweep, report = inpainted(root)
        line = replace(BOTH, tags=("paper",)).log(store, sweep, report)
    return read(store, sweep, line)


def test_each_finished_cell_has_a_run_in_the_sweeps_group(many: Many) -> None:
    assert many.cells == [f"{i:020x}-{many.own[:8]}" for i in range(3)]
    assert {run["run_group"] for run in many.run.values()} == {"scales"}
    assert many.run[many.own]["job_type"] == "sweep"
    assert {many.run[name]["job_type"] for name in many.cells} == {"inpaint"}
    assert [many.summaries[name]["name"] for name in many.cells] == [
        "scale=1 seed=0",
        "scale=1 seed=1",
        "scale=2 seed=0",
    ]
    assert [found["tags"] for found in many.summaries.values()] == [["paper"]] * 4
    assert {found["state"] for found in many.summaries.values()} == {"finished"}
    folder = many.store.root / "sweeps" / "scales" / "wandb"
    assert many.line == f"wandb: 4 offline runs; cd {folder} && wandb sync ."


def test_a_cells_configuration_is_its_records_and_says_where_its_files_are(many: Many) -> None:
    for i, name in enumerate(many.cells):
        config = dict(many.summaries[name]["config"])
        assert (config.pop("sweep"), config.pop("cell_id")) == ("scales", f"{i:020x}")
        assert many.store.root / config.pop("files") == many.store.folder(f"{i:020x}")
        assert config == many.store.record(f"{i:020x}")["config"]


def test_a_cells_summary_holds_its_metrics_and_costs(many: Many) -> None:
    first, second = (many.summaries[name]["summary"] for name in many.cells[:2])
    assert {key: first.get(key) for key in ("psnr", "psnr_outside", "psnr_outside_exact", "nfe", "seconds")} == {
        "psnr": 20.0,
        "psnr_outside": None,  # equal to its reference: no finite number
        "psnr_outside_exact": True,
        "nfe": 30,
        "seconds": 0.5,
    }
    assert (second["psnr"], second["psnr_outside"]) == (21.0, 31.0)
    assert not {"psnr_edge", "psnr_outside_exact"} & second.keys()


def test_a_cells_pictures_are_media_with_captions_and_its_way_from_noise_has_steps(many: Many) -> None:
    cell, steps = "0" * 20, many.steps[many.cells[0]]
    files = many.folders[many.cells[0]] / "files"
    for step, t in enumerate((750, 0)):
        for kind in ("noisy", "clean"):
            assert steps[step][f"{kind}.caption"] == f"t = {t}, guidance.scale = 1, seed = 0"
            stored = many.store.folder(cell) / f"step_{step:03}_{kind}.png"
            assert (files / steps[step][f"{kind}.path"]).read_bytes() == stored.read_bytes()
    for name in ("image", "input", "mask"):
        assert steps[2][f"{name}.caption"] == f"{name}: guidance.scale = 1, seed = 0"
        stored = many.store.folder(cell) / f"{name}.png"
        assert (files / steps[2][f"{name}.path"]).read_bytes() == stored.read_bytes()
    assert len(steps) == 3 and len(many.steps[many.cells[1]]) == 1


def test_the_sweeps_run_has_a_step_a_cell_with_its_numbers_and_the_means_so_far(many: Many) -> None:
    *cells, last, _ = many.steps[many.own]  # after them the page
    expected = [
        {"cells/number": 0, "cells/guidance_scale": 1, "cells/seed": 0, "cells/psnr": 20, "cells/psnr_mean": 20},
        {"cells/number": 1, "cells/guidance_scale": 1, "cells/seed": 1, "cells/psnr": 21, "cells/psnr_mean": 20.5},
        {"cells/number": 2, "cells/guidance_scale": 2, "cells/seed": 0, "cells/psnr": 22, "cells/psnr_mean": 21},
    ]
    assert [{key: step[key] for key in expected[0]} for step in cells] == expected
    assert [step.get("cells/psnr_outside_mean") for step in cells] == [None, 31, 31.5]  # of those that have a number
    captions = [f"guidance.scale = {w}, seed = {s}" for w, s in ((1, 0), (1, 1), (2, 0))]
    assert [step["cells/image.caption"] for step in cells] == captions
    assert last["psnr"] == 21
    assert not [step for step in cells if "psnr" in step]  # an agent would take each for a result
    assert not [key for key in many.summaries[many.own]["summary"] if key.startswith("cells/")]


def test_the_sweeps_run_holds_paired_statistics_settings_figures_and_the_page(many: Many) -> None:
    found, files = many.summaries[many.own]["summary"], many.folders[many.own] / "files"
    table = json.loads((files / found["comparisons"]["path"]).read_text())
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    by_metric = {row["metric"]: row for row in rows}
    assert by_metric["psnr"]["difference"] == 2  # seed 0: 22 - 20; seed 1 has no pair
    assert (by_metric["psnr"]["n"], by_metric["psnr"]["dropped"]) == (1, 1)
    assert "psnr mean +2.00" in by_metric["psnr"]["sentence"]
    settings = json.loads((files / found["settings"]["path"]).read_text())
    means = [dict(zip(settings["columns"], row, strict=True))["psnr_mean"] for row in settings["data"]]
    assert means == [20.5, 22]
    page = (files / found["report"]["path"]).read_bytes()
    assert base64.b64encode((many.store.folder("0" * 20) / "image.png").read_bytes()) in page
    assert (files / found["figures/curve"]["path"]).is_file()


def test_a_mean_has_the_interval_of_a_t_test_stretched_bootstrap_over_its_seeds(tmp_path: Path) -> None:
    """Over settings of equal numbers the units are the seeds: 20, 21 and 22, whose mean lies in the middle."""
    store, sweep, _ = swept(tmp_path, scales=3)
    for i, cell in enumerate(sweep["cells"]):  # two scales and three seeds
        cell |= {"seed": i % 3, "axes": {"guidance.scale": 1.0 + i // 3, "seed": i % 3}}
    for i in range(5):
        rewrite(store, f"{i:020x}", metrics={"psnr": {"value": 20.0 + i % 3, "definition": PSNR}})
    OFFLINE.log(store, sweep, reported(store, sweep))
    (run,) = runs(store)
    found = summary(run)["summary"]
    assert found["psnr"] == 21
    assert found["psnr_low"] < 20 < 22 < found["psnr_high"]
    assert found["psnr_low"] + found["psnr_high"] == pytest.approx(42)


def test_runs_moved_elsewhere_are_accepted_and_arrive_whole(many: Many, tmp_path: Path, serving: Serving) -> None:
    moved = shutil.copytree(many.store.root / "sweeps" / "scales" / "wandb", tmp_path / "elsewhere")
    dry = synced("--dry-run", str(moved))
    assert "Would sync 4 run(s)" in dry
    server = serving()
    synced(str(moved))
    assert {asked["name"] for asked in server.asked("mutation UpsertBucket")} == many.folders.keys()
    for name, expected in many.summaries.items():
        sent = server.streamed(name, "wandb-summary.json")[-1]
        numbers = {key: value for key, value in expected["summary"].items() if isinstance(value, int | float)}
        assert {key: sent[key] for key in numbers if key[0] != "_"} == {k: v for k, v in numbers.items() if k[0] != "_"}
        assert len(server.streamed(name, "wandb-history.jsonl")) == len(many.steps[name])
    asked = {file for question in server.asked("mutation CreateRunFiles") for file in question["files"]}
    media = {str(path.relative_to(run / "files")) for run in moved.glob("*run-*") for path in run.rglob("media/**/*.*")}
    assert media and media <= asked


def test_a_sweep_told_again_logs_what_is_new_alone_and_doubles_nothing(tmp_path: Path) -> None:
    store, sweep, _ = swept(tmp_path)
    part = sweep | {"cells": sweep["cells"][:2]}
    BOTH.log(store, part, reported(store, part))
    first = read(store, sweep, None)
    report = reported(store, sweep)
    BOTH.log(store, sweep, report)
    second = read(store, sweep, None)
    assert second.cells == [*first.cells, f"{2:020x}-{first.own[:8]}"]
    assert {second.folders[name] for name in first.cells} == {first.folders[name] for name in first.cells}
    assert len(second.steps[second.own]) == 5
    before = times(report.folder / "wandb")
    line = BOTH.log(store, sweep, report)
    assert line == f"wandb: 4 offline runs; cd {report.folder / 'wandb'} && wandb sync ."
    assert times(report.folder / "wandb") == before
    rewrite(store, f"{1:020x}", metrics={"psnr": {"value": 5.0, "definition": PSNR}})
    CELLS.log(store, sweep, reported(store, sweep))
    third = read(store, sweep, None)
    assert third.folders.keys() == second.folders.keys()
    assert [third.summaries[name]["summary"]["psnr"] for name in third.cells] == [20, 5, 22]


def times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.glob("*run-*/**/*")}


def test_of_a_cell_that_a_sweep_names_twice_the_first_is_told(tmp_path: Path) -> None:
    """As where a key has no effect: two settings, one picture."""
    store, sweep, _ = swept(tmp_path)
    sweep |= {"cells": [*sweep["cells"], sweep["cells"][0] | {"axes": {"guidance.scale": 9.0, "seed": 0}}]}
    BOTH.log(store, sweep, reported(store, sweep))
    found = read(store, sweep, None)
    assert [step.get("cells/number") for step in found.steps[found.own]] == [0, 1, 2, None, None]
    first = "guidance.scale = 1, seed = 0"
    assert found.steps[found.own][0]["cells/image.caption"] == first
    assert found.summaries[found.own]["summary"]["samples"]["captions"][0] == first
    assert len(found.cells) == 3 and found.summaries[found.cells[0]]["name"] == "scale=1 seed=0"


def test_two_sweeps_that_share_a_cell_have_a_run_of_it_each(tmp_path: Path) -> None:
    store, sweep, _ = swept(tmp_path)
    other = sweep | {"created": "2027-01-01T00:00:00+00:00"}
    assert not {of_cell(store, one, sweep["cells"][0]).id for one in (sweep, other)} & {run_id(sweep), run_id(other)}
    assert of_cell(store, sweep, sweep["cells"][0]).id != of_cell(store, other, sweep["cells"][0]).id


def test_online_a_run_is_told_in_place_of_the_one_before(serving: Serving, tmp_path: Path) -> None:
    server = serving()
    store, sweep, _ = swept(tmp_path)
    part = sweep | {"cells": sweep["cells"][:2]}
    tracker = Wandb(granularity="both")
    tracker.log(store, part, reported(store, part))
    tracker.log(store, sweep, reported(store, sweep))
    rows = server.streamed(run_id(sweep), "wandb-history.jsonl")
    assert [row.get("cells/number") for row in rows] == [0, 1, 2, None, None]
    assert not server.asked("query RunResumeStatus")
    named = [asked["name"] for asked in server.asked("mutation UpsertBucket") if asked.get("config")]
    server.taken.clear()
    url = f"{server.url}/me/diffsweep/runs/{run_id(sweep)}"
    assert tracker.log(store, sweep, reported(store, sweep)) == f"wandb: {url}, and 3 of its cells"
    assert not server.taken
    assert set(named) == {run_id(sweep), *(f"{i:020x}-{run_id(sweep)[:8]}" for i in range(3))}


def test_a_sweep_of_failed_cells_has_no_runs_of_cells(finished: Finished) -> None:
    store, sweep, _ = finished
    sweep |= {"cells": sweep["cells"][-1:]}
    assert CELLS.log(store, sweep, reported(store, sweep)) == "wandb: no run, as no cell is finished"
    assert not runs(store)


@pytest.mark.parametrize(
    "granularity, cells, expected", [("auto", 3, 4), ("auto", 101, 1), ("cell", 3, 3), ("sweep", 3, 1)]
)
def test_what_has_a_run(granularity: str | None, cells: int, expected: int, tmp_path: Path) -> None:
    store, sweep, _ = swept(tmp_path)
    sweep |= {"cells": sweep["cells"] + sweep["cells"][-1:] * (cells - 4)}
    Wandb(mode="offline", granularity=granularity).log(store, sweep, reported(store, sweep))
    assert len(runs(store)) == expected


def test_under_an_agent_the_sweep_is_the_agents_run(
    finished: Finished, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in {"SWEEP_ID": "s1", "RUN_ID": "agents", "PROJECT": "tuned", "TAGS": "one,two"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    assert BOTH.log(*finished)
    (run,) = runs(finished[0])
    found = summary(run)
    assert (found["run_id"], found["project"], found["tags"]) == ("agents", "tuned", ["one", "two"])
    assert found["summary"]["psnr"] == 21
    (record,) = [r["run"] for r in map(json.loads, inspected(run).splitlines()) if r["type"] == "run"]
    assert record["sweep_id"] == "s1"
    assert not {"display_name", "run_group"} & record.keys()  # the agent's: W&B names its trials, and groups them
    assert found["config"]["sweep"] == "scales"
