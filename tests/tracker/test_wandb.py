"""Real runs, offline or with a server that refuses, read back with wandb's own `wandb leet inspect`."""

from __future__ import annotations

import gc
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest
import wandb
import yaml
from wandb.util import get_core_path

from diffsweep.core.problems import BadInput
from diffsweep.paths import shipped
from diffsweep.report.choice import common
from diffsweep.report.comparison import overview
from diffsweep.report.frame import results
from diffsweep.report.table import summarise
from diffsweep.report.write import Report
from diffsweep.sweep.parts import build
from diffsweep.sweep.store import Store
from diffsweep.tracker import session as session_module
from diffsweep.tracker.none import NoTracker
from diffsweep.tracker.said import of_cell, run_id
from diffsweep.tracker.wandb import Wandb

KEY = "0123456789abcdef" * 2 + "01234567"
REFUSING = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": KEY, "WANDB_INIT_TIMEOUT": "1"}
OFFLINE = Wandb(mode="offline", granularity="sweep")
CELLS = Wandb(mode="offline", granularity="cell")
BOTH = Wandb(mode="offline", granularity="both")
FILES = "results.csv", "grid.png", "grid_2.png", "figures/curve.png", "report.html"
PSNR = {"direction": "higher", "data_range": 1.0}

Finished = tuple[Store, dict[str, Any], Report]


def away(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """An empty home, which is the current folder too; no settings, no key."""
    for name in [name for name in os.environ if name.startswith(("WANDB_", "XDG_", "NETRC"))]:
        patch.delenv(name)
    folder.mkdir()
    patch.setenv("HOME", str(folder))
    patch.chdir(folder)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    away(monkeypatch, tmp_path / "home")
    yield tmp_path / "home"
    wandb.teardown()


def swept(root: Path, scales: int = 2) -> Finished:
    """A sweep as the runner leaves it, guidance.scale = 1, 2, ... x seed = 0, 1; its last cell has failed.

    PSNR is 20, 21, ...; outside of the mask it is 30, 31, ..., but the first cell equals its reference there; the mask
    has no edge.
    """
    store = Store(root / "outputs")
    cells: list[dict[str, Any]] = []
    for i in range(2 * scales):
        scale, seed = 1.0 + i // 2, i % 2
        failed = i == 2 * scales - 1
        cells.append(
            {
                "cell_id": f"{i:020x}",
                "axes": {"guidance.scale": scale, "seed": seed},
                "seed": seed,
                "status": "failed" if failed else "done",
                "reason": "FloatingPointError: NaN" if failed else None,
            }
        )
        if failed:
            break
        outside = {"value": 30.0 + i, "definition": PSNR} if i else {"value": None, "exact": True, "definition": PSNR}
        guidance = {"name": "classifier_free", "scale": scale, "negative_prompt": ""}
        record = {
            "config": {"seed": seed, "prompt": "a skull", "guidance": guidance, "technique": {"name": "inpaint"}},
            "nfe": 30,
            "seconds": 0.5,
            "metrics": {
                "psnr": {"value": 20.0 + i, "definition": PSNR},
                "psnr_outside": outside,
                "psnr_edge": {"value": None, "reason": "no pixel has 0 < m < 1", "definition": PSNR},
            },
        }
        store.save(cells[-1]["cell_id"], {"image": np.full((4, 4, 3), i, np.uint8)}, record)
    sweep = {
        "name": "scales",
        "command": "diffsweep -m seed=0,1 guidance.scale=1,2",
        "created": "2026-11-24T12:00:00+00:00",
        "axes": {"guidance.scale": [1.0 + i for i in range(scales)], "seed": [0, 1]},
        "metrics": ["psnr", "psnr_outside", "psnr_edge"],
        "cells": cells,
    }
    folder = store.root / "sweeps" / "scales"
    folder.mkdir(parents=True)
    picture = (store.folder(cells[0]["cell_id"]) / "image.png").read_bytes()
    for name in FILES:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(picture if name.endswith("png") else b"<p>")
    return store, sweep, reported(store, sweep)


def reported(store: Store, sweep: dict[str, Any], meanwhile: Callable[[], object] = lambda: None) -> Report:
    """What the runner hands over; to look at the files while the run is open does `meanwhile`."""
    folder, frame = store.root / "sweeps" / "scales", results(store, sweep)
    return Report(frame, summarise(frame), overview(frame), folder, Files([folder / name for name in FILES], meanwhile))  # type: ignore[arg-type]


@pytest.fixture
def finished(tmp_path: Path) -> Finished:
    return swept(tmp_path)


def runs(store: Store) -> list[Path]:
    folder = store.root / "sweeps" / "scales" / "wandb"
    return [path for path in folder.glob("*run-*") if path.is_dir() and not path.is_symlink()]


def inspected(run: Path, *options: str) -> str:
    """What wandb reads in a run's folder: its records as lines, or with --summary what they come to.

    This is `wandb leet inspect`, without the second or two that the command takes to import wandb.
    """
    (log,) = run.glob("*.wandb")
    command = [get_core_path(), "leet", "inspect", "--no-observability", "--json", *options]
    command += ["--run-file", str(log), str(run.parent)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def summary(run: Path) -> dict[str, Any]:
    return json.loads(inspected(run, "--summary"))


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


class Files(list[Path]):
    """A sweep's files. They are looked at before a run is opened, and while it is: then `meanwhile` is done."""

    def __init__(self, paths: list[Path], meanwhile: Callable[[], object]) -> None:
        super().__init__(paths)
        self.meanwhile, self.times = meanwhile, 0

    def __iter__(self) -> Iterator[Path]:
        self.times += 1
        if self.times % 2 == 0:
            self.meanwhile()
        return super().__iter__()


def raising(error: BaseException) -> None:
    raise error


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
        line = tracker.log(store, sweep, reported(store, sweep, lambda: print("not for the record")))
        after = tree(root)
    (run,) = runs(store)
    records = [json.loads(text) for text in inspected(run).splitlines()]
    return Told(store, line, run, summary(run), records, before, after)


def test_the_run_is_named_after_the_sweep_and_the_line_says_where_it_is(told: Told) -> None:
    assert told.summary["state"] == "finished"
    assert [told.summary[key] for key in ("name", "project", "tags")] == ["scales", "priors", ["paper"]]
    assert told.line == f"wandb: offline run; wandb sync {told.run}"


def test_the_configuration_is_what_all_cells_share_the_axes_and_the_command(told: Told) -> None:
    assert told.summary["config"] == {
        "prompt": "a skull",
        "technique": {"name": "inpaint"},
        "guidance": {"name": "classifier_free", "negative_prompt": ""},
        "axes": {"guidance.scale": [1.0, 2.0], "seed": [0, 1]},
        "command": "diffsweep -m seed=0,1 guidance.scale=1,2",
    }


def test_the_summary_holds_the_counts_and_the_mean_of_each_metrics_values(told: Told) -> None:
    expected = {"cells": 4, "failed": 1, "psnr": 21.0, "psnr_outside": 31.5}
    assert {key: told.summary["summary"][key] for key in expected} == expected
    updates = [record["summary"]["update"] for record in told.records if record["type"] == "summary"]
    assert not [update for update in updates if "psnr_edge" in update]  # no value, no mean: not NaN either


def test_the_table_has_a_row_a_cell_of_plain_values(told: Told) -> None:
    table = json.loads((told.run / "files" / told.summary["summary"]["results"]["path"]).read_text())
    columns = "cell_id status reason guidance.scale seed stage psnr psnr_outside psnr_outside_exact psnr_edge"
    assert table["columns"] == [*columns.split(), "nfe", "seconds", "image"]
    ids = [f"{i:020x}" for i in range(4)]
    images = [f"cells/00/{cell_id}/image.png" for cell_id in ids]
    assert table["data"] == [
        [ids[0], "done", None, 1.0, 0, 1, 20.0, None, True, None, 30, 0.5, images[0]],
        [ids[1], "done", None, 1.0, 1, 1, 21.0, 31.0, False, None, 30, 0.5, images[1]],
        [ids[2], "done", None, 2.0, 0, 1, 22.0, 32.0, False, None, 30, 0.5, images[2]],
        [ids[3], "failed", "FloatingPointError: NaN", 2.0, 1, None, None, None, False, None, None, None, None],
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
    assert not [record for record in told.records if "artifact" in record["type"]]
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
        store.amend(f"{i:020x}", {"metrics": {"psnr": {"value": 10.0, "definition": PSNR}}})
    sweep |= {"command": "diffsweep -m +sweeps=scales"}
    OFFLINE.log(store, sweep, reported(store, sweep))
    (second,) = runs(store)
    found = summary(second)
    assert first != second
    assert found["run_id"] == run_id(sweep) and first.name.endswith(run_id(sweep))
    assert found["summary"]["psnr"] == 10.0


def test_two_sweeps_are_two_runs(finished: Finished) -> None:
    _, sweep, _ = finished
    others = sweep | {"name": "scales-2"}, sweep | {"created": "2026-11-24T12:00:01+00:00"}
    assert len({run_id(sweep), *map(run_id, others)}) == 3


def test_without_a_key_the_run_is_offline_with_one_warning(
    finished: Finished, capfd: pytest.CaptureFixture[str]
) -> None:
    line = Wandb(granularity="sweep").log(*finished)
    out, err = capfd.readouterr()
    (run,) = runs(finished[0])
    assert line == f"wandb: offline run; wandb sync {run}"
    assert not out and re.fullmatch(r"warning: wandb: No API key .*; the rest is written offline\n", err)


def test_a_server_that_refuses_costs_one_warning_and_the_key_is_written_nowhere(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, value in REFUSING.items():
        monkeypatch.setenv(name, value)
    line = Wandb(mode="online", granularity="sweep").log(*finished)
    out, err = capfd.readouterr()
    (run,) = runs(finished[0])
    assert line == f"wandb: offline run; wandb sync {run}"
    assert not out and re.fullmatch(r"warning: wandb: .*refused.*; the rest is written offline\n", err)
    assert len(list((run / "files" / "media" / "images").glob("samples_*.png"))) == 3
    everything = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in everything if KEY.encode() in path.read_bytes()]


class Server(ThreadingHTTPServer):
    """A loopback stand-in for wandb's server. It answers all; or the beginning of a run, and 500 from then on; or 500;
    or nothing: it takes what comes and stalls."""

    def __init__(self, answers: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = answers
        self.taken: list[tuple[str, bytes]] = []
        self.over = Event()

    def asked(self, what: str) -> list[dict[str, Any]]:
        """The variables of each GraphQL question of this name."""
        asked = [json.loads(body) for path, body in self.taken if path == "/graphql"]
        return [question["variables"] for question in asked if what in question["query"]]

    def streamed(self, run_id: str, file: str) -> list[dict[str, Any]]:
        """The lines of a run's file as the server holds them: each goes to its place."""
        lines: dict[int, str] = {}
        for path, body in self.taken:
            sent = json.loads(body).get("files", {}).get(file) if path.endswith(f"/{run_id}/file_stream") else None
            lines |= dict(enumerate(sent["content"], start=sent["offset"])) if sent else {}
        return [json.loads(lines[i]) for i in sorted(lines)]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.server.answers == "nothing":
            self.server.over.wait()
            return
        if self.path == "/graphql" or self.path.startswith("/files/"):
            self.server.taken.append((self.path, body))
        else:
            self.server.taken.append((self.path, b"{}"))
        asked = json.loads(body) if self.path == "/graphql" else {"query": ""}
        project = {"id": "1", "name": "diffsweep", "entity": {"id": "2", "name": "me"}}
        data: dict[str, Any] = {}
        if "mutation UpsertBucket" in asked["query"] and self.server.answers != "500":
            bucket = {"id": "3", "name": asked["variables"]["name"], "project": project}
            data = {"upsertBucket": {"bucket": bucket, "inserted": True}}
        elif "mutation CreateRunFiles" in asked["query"] and self.server.answers == "all":
            data = {"createRunFiles": {"runID": "3", "uploadHeaders": [], "files": []}}
        answer = json.dumps({"data": data}).encode()
        self.send_response(200 if data or self.server.answers == "all" else 500)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Server]]:
    started: list[Server] = []

    def start(answers: str) -> Server:
        server = Server(answers)
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        started.append(server)
        return server

    yield start
    wandb.teardown()
    for server in started:
        server.over.set()
        server.shutdown()
        server.server_close()


def test_with_a_key_and_a_server_the_run_is_online(
    serving: Callable[[str], Server], finished: Finished, capfd: pytest.CaptureFixture[str]
) -> None:
    server = serving("all")
    line = Wandb(granularity="sweep").log(*finished)
    assert line == f"wandb: http://127.0.0.1:{server.server_port}/me/diffsweep/runs/{run_id(finished[1])}"
    assert capfd.readouterr() == ("", "")
    sent = [body for path, body in server.taken if path != "/graphql"]
    assert any(b"psnr_outside" in body for body in sent)
    assert all(path == "/graphql" or path.startswith("/files/") for path, _ in server.taken)  # no error reports


def test_a_server_that_fails_halfway_costs_one_warning(
    serving: Callable[[str], Server],
    finished: Finished,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    serving("beginning")
    monkeypatch.setenv("WANDB_FINISH_TIMEOUT", "1")
    before = dict(os.environ)
    line = Wandb(granularity="sweep").log(*finished)
    (run,) = runs(finished[0])
    assert line == f"wandb: offline run; wandb sync {run}"
    assert dict(os.environ) == before
    assert capfd.readouterr() == (
        "",
        "warning: wandb: Timed out finishing run; the rest is written offline\n",
    )


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


def test_a_sweep_without_pictures_is_logged(finished: Finished) -> None:
    store, sweep, _ = finished
    sweep |= {"cells": sweep["cells"][-1:]}
    assert OFFLINE.log(store, sweep, replace(reported(store, sweep), files=())) is not None
    (run,) = runs(store)
    found = summary(run)
    assert set(found["config"]) == {"axes", "command"}
    assert {key: found["summary"].get(key) for key in ("cells", "failed", "psnr")} == {
        "cells": 1,
        "failed": 1,
        "psnr": None,
    }


def kill_service() -> bool:
    """wandb's service, killed where it runs."""
    running = [thing for thing in gc.get_objects() if type(thing) is subprocess.Popen and "wandb" in str(thing.args)]
    for process in [process for process in running if process.poll() is None]:
        process.kill()
        process.wait()
        return True
    return False


def test_a_service_that_dies_costs_one_warning(finished: Finished, capfd: pytest.CaptureFixture[str]) -> None:
    killed: list[bool] = []

    def kill() -> None:
        if not killed:
            killed.append(kill_service())

    store, sweep, _ = finished
    assert OFFLINE.log(store, sweep, reported(store, sweep, kill)) is not None
    out, err = capfd.readouterr()
    assert killed == [True] and not out and re.fullmatch(r"warning: wandb: .*; the rest is written offline\n", err)
    (run,) = runs(store)
    assert summary(run)["state"] == "finished"


@pytest.mark.parametrize("error", [OSError("no space\nleft"), SystemExit(2)], ids=["error", "exit"])
def test_an_error_is_one_warning(error: BaseException, finished: Finished, capfd: pytest.CaptureFixture[str]) -> None:
    """wandb itself ends the program where its service has ended with an exit code."""
    store, sweep, _ = finished
    assert OFFLINE.log(store, sweep, reported(store, sweep, lambda: raising(error))) is None
    name, text = type(error).__name__, " ".join(str(error).split())
    warning = f"warning: wandb: the sweep is stored, but not logged: {name}: {text}\n"
    assert capfd.readouterr() == ("", warning)


def test_an_interrupt_goes_through_and_the_run_has_failed(finished: Finished) -> None:
    store, sweep, _ = finished
    with pytest.raises(KeyboardInterrupt):
        OFFLINE.log(store, sweep, reported(store, sweep, lambda: raising(KeyboardInterrupt())))
    (run,) = runs(store)
    assert summary(run)["exit_code"] == 1


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


# --- Runs of cells


def inpainted(root: Path) -> Finished:
    """As `swept`, with inputs, masks and two steps of the first cell's way from noise."""
    store, sweep, _ = swept(root)
    rng = np.random.default_rng(0)
    steps = {f"step_{i:03}_{kind}": rng.integers(255, size=(4, 4, 3)) for i in (0, 1) for kind in ("noisy", "clean")}
    others = {"input": rng.integers(255, size=(4, 4, 3)), "mask": np.zeros((4, 4))}
    pictures = {name: pixels.astype(np.uint8) for name, pixels in (steps | others).items()}
    store.amend("0" * 20, {"facts": {}})
    store.add("0" * 20, pictures, "step_", {"trajectory": {"asked": 2, "t": [750, 0]}})
    return store, sweep, reported(store, sweep)


@dataclass(frozen=True)
class Many:
    """A sweep of three finished cells, each of which has a run, as the sweep has: by their ids."""

    store: Store
    sweep: dict[str, Any]
    line: str | None
    folders: dict[str, Path]
    summaries: dict[str, dict[str, Any]]
    run: dict[str, dict[str, Any]]
    steps: dict[str, list[dict[str, Any]]]

    @property
    def own(self) -> str:
        return run_id(self.sweep)

    @property
    def cells(self) -> list[str]:
        return sorted(self.folders.keys() - {self.own})


def read(store: Store, sweep: dict[str, Any], line: str | None) -> Many:
    folders = {summary(run)["run_id"]: run for run in runs(store)}
    assert len(folders) == len(runs(store))
    records = {name: [json.loads(text) for text in inspected(run).splitlines()] for name, run in folders.items()}
    return Many(
        store,
        sweep,
        line,
        folders,
        {name: summary(run) for name, run in folders.items()},
        {name: next(r["run"] for r in found if r["type"] == "run") for name, found in records.items()},
        {name: [r["history"]["item"] for r in found if r["type"] == "history"] for name, found in records.items()},
    )


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
    assert many.line == f"wandb: 4 offline runs; wandb sync {folder}"


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
    *cells, last = many.steps[many.own]
    expected = [
        {"cells/number": 0, "cells/guidance_scale": 1, "cells/seed": 0, "cells/psnr": 20, "psnr": 20},
        {"cells/number": 1, "cells/guidance_scale": 1, "cells/seed": 1, "cells/psnr": 21, "psnr": 20.5},
        {"cells/number": 2, "cells/guidance_scale": 2, "cells/seed": 0, "cells/psnr": 22, "psnr": 21},
    ]
    assert [{key: step[key] for key in expected[0]} for step in cells] == expected
    assert last["psnr"] == 21
    assert not [key for key in many.summaries[many.own]["summary"] if key.startswith("cells/")]


def test_the_sweeps_run_holds_paired_statistics_settings_figures_and_the_page(many: Many) -> None:
    found, files = many.summaries[many.own]["summary"], many.folders[many.own] / "files"
    table = json.loads((files / found["comparisons"]["path"]).read_text())
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    by_metric = {row["metric"]: row for row in rows}
    assert by_metric["psnr"]["difference"] == 2  # seed 0: 22 - 20; seed 1 has no pair
    assert (by_metric["psnr"]["n"], by_metric["psnr"]["dropped"]) == (1, 1)
    assert "psnr +2.00" in by_metric["psnr"]["sentence"]
    settings = json.loads((files / found["settings"]["path"]).read_text())
    means = [dict(zip(settings["columns"], row, strict=True))["psnr_mean"] for row in settings["data"]]
    assert means == [20.5, 22]
    assert (files / found["report"]["path"]).read_bytes() == b"<p>"
    assert (files / found["figures/curve"]["path"]).is_file()


def test_a_mean_has_the_interval_of_a_t_test_stretched_bootstrap_over_its_seeds(tmp_path: Path) -> None:
    """Over settings of equal numbers the units are the seeds: 20 and 21, between which the mean lies."""
    store, sweep, _ = swept(tmp_path, scales=3)
    for i in range(5):
        store.amend(f"{i:020x}", {"metrics": {"psnr": {"value": 20.0 + i % 2, "definition": PSNR}}})
    OFFLINE.log(store, sweep, reported(store, sweep))
    (run,) = runs(store)
    found = summary(run)["summary"]
    assert found["psnr"] == 20.5
    assert found["psnr_low"] < 20 < 21 < found["psnr_high"]
    assert found["psnr_low"] + found["psnr_high"] == pytest.approx(41)


def test_runs_moved_elsewhere_are_accepted_and_arrive_whole(
    many: Many, tmp_path: Path, serving: Callable[[str], Server]
) -> None:
    moved = shutil.copytree(many.store.root / "sweeps" / "scales" / "wandb", tmp_path / "elsewhere")
    dry = synced("--dry-run", str(moved))
    assert "Would sync 4 run(s)" in dry
    server = serving("all")
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


def synced(*words: str) -> str:
    command = [sys.executable, "-m", "wandb", "sync", *words]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


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
    assert len(second.steps[second.own]) == 4
    before = times(report.folder / "wandb")
    line = BOTH.log(store, sweep, report)
    assert line == f"wandb: 4 offline runs; wandb sync {report.folder / 'wandb'}"
    assert times(report.folder / "wandb") == before
    store.amend(f"{1:020x}", {"metrics": {"psnr": {"value": 5.0, "definition": PSNR}}})
    CELLS.log(store, sweep, reported(store, sweep))
    third = read(store, sweep, None)
    assert third.folders.keys() == second.folders.keys()
    assert [third.summaries[name]["summary"]["psnr"] for name in third.cells] == [20, 5, 22]


def times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.glob("*run-*/**/*")}


def test_two_sweeps_that_share_a_cell_have_a_run_of_it_each(tmp_path: Path) -> None:
    store, sweep, _ = swept(tmp_path)
    other = sweep | {"created": "2027-01-01T00:00:00+00:00"}
    assert not {of_cell(store, one, sweep["cells"][0]).id for one in (sweep, other)} & {run_id(sweep), run_id(other)}
    assert of_cell(store, sweep, sweep["cells"][0]).id != of_cell(store, other, sweep["cells"][0]).id


def test_online_a_run_is_told_in_place_of_the_one_before(serving: Callable[[str], Server], tmp_path: Path) -> None:
    server = serving("all")
    store, sweep, _ = swept(tmp_path)
    part = sweep | {"cells": sweep["cells"][:2]}
    tracker = Wandb(granularity="both")
    tracker.log(store, part, reported(store, part))
    tracker.log(store, sweep, reported(store, sweep))
    rows = server.streamed(run_id(sweep), "wandb-history.jsonl")
    assert [row.get("cells/number") for row in rows] == [0, 1, 2, None]
    assert not server.asked("query RunResumeStatus")
    named = [asked["name"] for asked in server.asked("mutation UpsertBucket") if asked.get("config")]
    server.taken.clear()
    url = f"http://127.0.0.1:{server.server_port}/me/diffsweep/runs/{run_id(sweep)}"
    assert tracker.log(store, sweep, reported(store, sweep)) == f"wandb: {url}, and 3 of its cells"
    assert not server.taken
    assert set(named) == {run_id(sweep), *(f"{i:020x}-{run_id(sweep)[:8]}" for i in range(3))}


def test_a_sweep_of_failed_cells_has_no_runs_of_cells(finished: Finished) -> None:
    store, sweep, _ = finished
    sweep |= {"cells": sweep["cells"][-1:]}
    assert CELLS.log(store, sweep, reported(store, sweep)) == "wandb: no run, as no cell is finished"
    assert not runs(store)


@pytest.mark.parametrize(
    "granularity, cells, expected", [(None, 3, 4), (None, 101, 1), ("cell", 3, 3), ("sweep", 3, 1)]
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


# --- Whatever happens


@pytest.mark.parametrize("answers", ["refusing", "500", "nothing", "beginning"])
def test_a_server_that_fails_loses_nothing(
    answers: str,
    serving: Callable[[str], Server],
    finished: Finished,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    if answers == "refusing":
        for name, value in REFUSING.items():
            monkeypatch.setenv(name, value)
    else:
        serving(answers)
    for what in ("INIT", "FINISH"):
        monkeypatch.setenv(f"WANDB_{what}_TIMEOUT", "1")
    store, sweep, report = finished
    tracker = Wandb(granularity="both")
    assert tracker.log(store, sweep, report) == f"wandb: 4 offline runs; wandb sync {report.folder / 'wandb'}"
    out, err = capfd.readouterr()
    assert not out and len(err.splitlines()) == 1 and err.endswith("; the rest is written offline\n")
    assert {summary(run)["state"] for run in runs(store)} == {"finished"}
    assert all(run.name.startswith("offline-run-") for run in runs(store))
    server = serving("all")
    for what in ("INIT", "FINISH"):
        monkeypatch.delenv(f"WANDB_{what}_TIMEOUT")
    line = tracker.log(store, sweep, reported(store, sweep))
    assert line and line.startswith(f"wandb: http://127.0.0.1:{server.server_port}/")
    ids = {run_id(sweep), *(f"{i:020x}-{run_id(sweep)[:8]}" for i in range(3))}
    assert {name for name in ids if server.streamed(name, "wandb-summary.json")} == ids
    assert not [run for run in runs(store) if run.name.startswith("offline-run-")]


def test_what_wandb_sync_has_sent_is_not_sent_again(serving: Callable[[str], Server], finished: Finished) -> None:
    server = serving("all")
    BOTH.log(*finished)
    synced(str(finished[2].folder / "wandb"))
    server.taken.clear()
    assert Wandb(granularity="both").log(*finished) == "wandb: sent by wandb sync, and 3 of its cells"
    assert not server.taken


def test_a_service_killed_among_the_cells_costs_one_warning_and_no_run(
    finished: Finished, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    before = session_module._init

    def opening(**arguments: Any) -> Any:
        run = before(**arguments)
        opened.append(arguments["id"])
        if len(opened) == 2:
            kill_service()
        return run

    monkeypatch.setattr(session_module, "_init", opening)
    assert BOTH.log(*finished)
    out, err = capfd.readouterr()
    assert not out and re.fullmatch(r"warning: wandb: .*; the rest is written offline\n", err)
    found = read(finished[0], finished[1], None)
    assert len(found.cells) == 3 and found.own in found.folders
    assert {one["state"] for one in found.summaries.values()} == {"finished"}


def test_no_secret_is_written_anywhere(
    serving: Callable[[str], Server],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    server = serving("beginning")
    monkeypatch.setenv("HF_TOKEN", "hf_" + KEY[::-1])
    monkeypatch.setenv("WANDB_FINISH_TIMEOUT", "1")
    Wandb(granularity="both").log(*swept(tmp_path))
    secrets = (KEY.encode(), KEY[::-1].encode())
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 20
    assert not [path for path in files if any(secret in path.read_bytes() for secret in secrets)]
    assert not [body for _, body in server.taken if any(secret in body for secret in secrets)]
    assert not [text for text in capfd.readouterr() if any(secret.decode() in text for secret in secrets)]
