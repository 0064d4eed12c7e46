"""The run of a sweep: real ones, offline or on a loopback server."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import wandb
import yaml

from diffsweep.core.problems import BadInput
from diffsweep.paths import shipped
from diffsweep.report.choice import common
from diffsweep.runner.parts import build
from diffsweep.store.cells import Store
from diffsweep.tracker import said, steps
from diffsweep.tracker.none import NoTracker
from diffsweep.tracker.said import run_id
from diffsweep.tracker.wandb import Wandb
from tests.rewriting import rewrite
from tests.tracker.runs import (
    OFFLINE,
    PSNR,
    Finished,
    away,
    inspected,
    meanwhile,
    reported,
    runs,
    summary,
    swept,
    tree,
)
from tests.tracker.server import Serving

pytestmark = pytest.mark.usefixtures("home")


@dataclass(frozen=True)
class Told:
    """One offline run: its folder, what wandb reads in it, and what there was besides, before and after."""

    store: Store
    line: str | None
    run: Path
    summary: dict[str, Any]
    records: list[dict[str, Any]]
    before: set[str]
    after: set[str]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    root = tmp_path_factory.mktemp("told")
    with pytest.MonkeyPatch.context() as patch:
        away(patch, root / "home")
        store, sweep, _ = swept(root)
        before = tree(root)
        tracker = Wandb(project="priors", mode="offline", granularity="sweep", tags=("paper",))
        meanwhile(patch, lambda: print("not for the record"))
        line = tracker.log(store, sweep, reported(store, sweep))
        after = tree(root)
    (run,) = runs(store)
    records = [json.loads(text) for text in inspected(run).splitlines()]
    return Told(store, line, run, summary(run), records, before, after)


def test_the_run_is_named_after_the_sweep_and_the_line_says_where_it_is(told: Told) -> None:
    assert told.summary["state"] == "finished"
    assert [told.summary[key] for key in ("name", "project", "tags")] == ["scales", "priors", ["paper"]]
    assert told.line == f"wandb: offline run; cd {told.run.parent} && wandb sync ."


def test_the_configuration_is_what_all_cells_share_the_axes_and_the_command(told: Told) -> None:
    assert told.summary["config"] == {
        "sweep": "scales",
        "prompt": "a skull",
        "technique": {"name": "inpaint"},
        "guidance": {"name": "classifier_free", "negative_prompt": ""},
        "axes": {"guidance.scale": [1.0, 2.0], "seed": [0, 1]},
        "command": "diffsweep -m seed=0,1 guidance.scale=1,2",
    }


def test_the_summary_holds_the_counts_and_the_mean_of_each_metrics_values(told: Told) -> None:
    expected = {"cells": 4, "failed": 1, "psnr": 21.0, "psnr_outside": 31.5, "nfe": 90, "seconds": 1.5}
    assert {key: told.summary["summary"][key] for key in expected} == expected
    updates = [record["summary"]["update"] for record in told.records if record["type"] == "summary"]
    assert not [update for update in updates if "psnr_edge" in update]  # no value, no mean: not NaN either


def test_the_table_has_a_row_a_cell_of_plain_values(told: Told) -> None:
    table = json.loads((told.run / "files" / told.summary["summary"]["results"]["path"]).read_text())
    columns = "cell_id status reason guidance.scale seed prompt stage psnr psnr_outside psnr_outside_exact psnr_edge"
    assert table["columns"] == [*columns.split(), "nfe", "seconds", "image"]
    ids = [f"{i:020x}" for i in range(4)]
    images = [f"cells/00/{cell_id}/image.png" for cell_id in ids]
    assert table["data"] == [
        [ids[0], "done", None, 1.0, 0, "a skull", 1, 20.0, None, True, None, 30, 0.5, images[0]],
        [ids[1], "done", None, 1.0, 1, "a skull", 1, 21.0, 31.0, False, None, 30, 0.5, images[1]],
        [ids[2], "done", None, 2.0, 0, "a skull", 1, 22.0, 32.0, False, None, 30, 0.5, images[2]],
        [ids[3], "failed", "FloatingPointError: NaN", 2.0, 1, None, None, None, None, False, None, None, None, None],
    ]


def test_pictures_are_media_of_the_run_with_captions_and_the_stores_bytes(told: Told) -> None:
    media = told.summary["summary"]
    scales_and_seeds = (1, 0), (1, 1), (2, 0)
    assert media["samples"]["captions"] == [f"guidance.scale = {w}, seed = {s}" for w, s in scales_and_seeds]
    logged = [(told.run / "files" / name).read_bytes() for name in media["samples"]["filenames"]]
    stored = [(told.store.folder(f"{i:020x}") / "image.png").read_bytes() for i in range(3)]
    assert logged == stored
    assert len(set(stored)) == 3
    for sheet in ("grid", "grid_2"):
        assert (told.run / "files" / media[sheet]["path"]).read_bytes() == stored[0]


def test_the_runs_folder_is_complete_in_itself(told: Told) -> None:
    """So that it can be moved to another machine and sent from there: no file is named that lies outside."""
    named = [file["path"] for record in told.records for file in record.get("files", {}).get("files", ())]
    assert len(named) == 13  # three pictures, by their steps and together, two sheets, a figure, three tables, the page
    assert all((told.run / "files" / name).is_file() for name in named)
    (artifact,) = [record["artifact"] for record in told.records if "artifact" in record["type"]]
    copies = [told.run.parent / entry["local_path"] for entry in artifact["manifest"]["contents"]]
    assert all(copy.is_relative_to(told.run) and copy.is_file() for copy in copies)
    assert not [path for path in told.run.parent.rglob("*") if path.is_symlink()]
    (log,) = told.run.glob("*.wandb")
    assert str(told.store.root.parent).encode() not in log.read_bytes()


def test_nothing_about_the_machine_or_the_code_is_logged(told: Told) -> None:
    (run,) = [record["run"] for record in told.records if record["type"] == "run"]
    assert not {"host", "git", "labels"} & set(run)
    assert {path.name for path in (told.run / "files").iterdir()} == {"media"}
    assert not [record["type"] for record in told.records if record["type"] in ("stats", "output", "output_raw")]


def test_nothing_is_written_outside_of_the_sweeps_folder(told: Told) -> None:
    new = told.after - told.before
    assert new
    assert not [path for path in new if not path.startswith("outputs/sweeps/scales/wandb")]


def test_a_sweep_told_again_is_the_same_run_with_todays_numbers(finished: Finished) -> None:
    store, sweep, report = finished
    OFFLINE.log(store, sweep, report)
    (first,) = runs(store)
    for i in range(3):
        rewrite(store, f"{i:020x}", metrics={"psnr": {"value": 10.0, "definition": PSNR}})
    sweep |= {"command": "diffsweep -m +sweeps=scales"}
    OFFLINE.log(store, sweep, reported(store, sweep))
    (second,) = runs(store)
    found = summary(second)
    assert first != second
    assert found["run_id"] == run_id(sweep) and first.name.endswith(run_id(sweep))
    assert found["summary"]["psnr"] == 10.0


def test_a_sheet_drawn_anew_is_told_again(finished: Finished) -> None:
    store, _, report = finished
    OFFLINE.log(*finished)
    drawn = (store.folder(f"{1:020x}") / "image.png").read_bytes()
    (report.folder / "grid.png").write_bytes(drawn)
    OFFLINE.log(*finished)
    (run,) = runs(store)
    assert (run / "files" / summary(run)["summary"]["grid"]["path"]).read_bytes() == drawn


def test_two_sweeps_are_two_runs(finished: Finished) -> None:
    _, sweep, _ = finished
    others = sweep | {"name": "scales-2"}, sweep | {"created": "2026-11-24T12:00:01+00:00"}
    assert len({run_id(sweep), *map(run_id, others)}) == 3


def test_with_a_key_and_a_server_the_run_is_online(
    serving: Serving, finished: Finished, capfd: pytest.CaptureFixture[str]
) -> None:
    server = serving()
    line = Wandb(granularity="sweep").log(*finished)
    assert line == f"wandb: {server.url}/me/diffsweep/runs/{run_id(finished[1])}"
    assert capfd.readouterr() == ("", "")
    sent = [body for path, body in server.taken if path != "/graphql"]
    assert any(b"psnr_outside" in body for body in sent)
    addresses = {path.split("/")[1] for path, _ in server.taken}
    assert addresses == {"graphql", "files", run_id(finished[1])}  # no error reports


def test_wandb_mode_counts_where_no_mode_is_given(
    finished: Finished, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    before = tree(finished[0].root)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert Wandb(granularity="sweep").log(*finished) is None
    assert tree(finished[0].root) == before
    assert OFFLINE.log(*finished)
    (run,) = runs(finished[0])
    assert run.name.startswith("offline-run-")
    assert capfd.readouterr() == ("", "")


def test_many_pictures_are_thinned_evenly_and_the_line_says_so(tmp_path: Path) -> None:
    store, sweep, report = swept(tmp_path, scales=60)
    line = OFFLINE.log(store, sweep, report)
    (run,) = runs(store)
    samples = summary(run)["summary"]["samples"]
    assert line is not None and line.endswith(" (100 of 119 pictures)")
    assert samples["count"] == len(set(samples["captions"])) == 100
    assert samples["captions"][0] == "guidance.scale = 1, seed = 0"
    assert samples["captions"][-1] == "guidance.scale = 59, seed = 1"  # cell 117 of 0 to 118


def test_there_is_room_for_so_many_rows_and_pictures(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, most in product((steps, said), ("MOST_ROWS", "MOST_PICTURES")):
        monkeypatch.setattr(module, most, 2)
    line = OFFLINE.log(*finished)
    assert line is not None and line.endswith(" (2 of 4 rows, 2 of 3 pictures)")
    (run,) = runs(finished[0])
    records = map(json.loads, inspected(run).splitlines())
    history = [record["history"]["item"] for record in records if record["type"] == "history"]
    assert [step.get("cells/number") for step in history] == [0, 1, None, None]
    assert ["cells/image.path" in step for step in history[:2]] == [True, False]  # of four cells the first and third
    found = summary(run)["summary"]
    assert found["samples"]["captions"] == ["guidance.scale = 1, seed = 0", "guidance.scale = 1, seed = 1"]
    table = json.loads((run / "files" / found["results"]["path"]).read_text())
    assert [row[0] for row in table["data"]] == [f"{i:020x}" for i in range(2)]


def test_a_sweep_without_pictures_is_logged(finished: Finished) -> None:
    store, sweep, _ = finished
    sweep |= {"cells": sweep["cells"][-1:]}
    assert OFFLINE.log(store, sweep, replace(reported(store, sweep), files=())) is not None
    (run,) = runs(store)
    found = summary(run)
    assert set(found["config"]) == {"sweep", "axes", "command"}
    assert {key: found["summary"].get(key) for key in ("cells", "failed", "psnr")} == {
        "cells": 1,
        "failed": 1,
        "psnr": None,
    }


def test_a_run_that_the_caller_has_open_stays_open(finished: Finished, tmp_path: Path) -> None:
    with wandb.init(mode="offline", dir=str(tmp_path), settings={"silent": True, "console": "off"}) as own:
        assert OFFLINE.log(*finished) is not None
        assert wandb.run is own
        own.log({"still": 1})
        assert own.summary["still"] == 1 and "results" not in own.summary.keys()  # noqa: SIM118


def test_common_keeps_what_is_equal_at_any_depth() -> None:
    same = {"a": 1, "b": {"c": None, "d": {"e": [1]}}}
    one = {"a": 1, "b": {"c": None, "d": {"e": [1], "f": 1}}, "g": 1, "h": None, "i": {"j": 1}}
    two = {"a": 1, "b": {"c": None, "d": {"e": [1], "f": 2}}, "g": {"k": 1}, "i": {"j": 2}}
    assert common([one, two]) == common([two, one]) == same
    assert common([one]) == one
    assert common([]) == {}


@pytest.mark.parametrize(
    "keys, message",
    [
        ({"project": "a/b"}, "tracker.project=a/b: must be 1 to 128 characters, none of them"),
        ({"project": ""}, "tracker.project=: must be 1 to 128 characters"),
        ({"mode": "onlin"}, "tracker.mode=onlin: must be one of online, offline, disabled; did you mean 'online'?"),
        ({"tags": ["good", "x" * 65]}, "tracker.tags: 'xxx"),
        ({"tags": [""]}, "tracker.tags: '' must be 1 to 64 characters"),
        ({"proyect": "a"}, "tracker.proyect: unknown key of tracker=wandb"),
    ],
)
def test_a_wrong_key_or_value_is_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=re.escape(message)):
        build("tracker", {"name": "wandb", **keys})


def test_the_shipped_settings_are_the_defaults() -> None:
    shipped_as = {path.stem: yaml.safe_load(path.read_text()) for path in (shipped("conf") / "tracker").glob("*.yaml")}
    assert {name: build("tracker", config) for name, config in shipped_as.items()} == {
        "none": NoTracker(),
        "wandb": Wandb(),
    }


def test_none_tells_nobody(finished: Finished) -> None:
    before = tree(finished[0].root)
    assert NoTracker().log(*finished) is None
    assert tree(finished[0].root) == before
