"""Real runs, offline or with a server that refuses, read back with wandb's own `wandb leet inspect`."""

from __future__ import annotations

import gc
import json
import os
import re
import subprocess
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
from diffsweep.report.frame import results
from diffsweep.report.table import summarise
from diffsweep.report.write import Report
from diffsweep.sweep.parts import build
from diffsweep.sweep.store import Store
from diffsweep.tracker.none import NoTracker
from diffsweep.tracker.said import common, run_id
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
    return Report(frame, summarise(frame), folder, Files([folder / name for name in FILES], meanwhile))  # type: ignore[arg-type]


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
    assert len(named) == 10  # three pictures, two sheets, a figure, three tables, the page
    assert all((told.run / "files" / name).is_file() for name in named)
    assert not [record for record in told.records if "artifact" in record["type"]]
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
    assert not out and re.fullmatch(r"warning: wandb: No API key .*; what is not logged is written offline\n", err)


def test_a_server_that_refuses_costs_one_warning_and_the_key_is_written_nowhere(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, value in REFUSING.items():
        monkeypatch.setenv(name, value)
    line = Wandb(mode="online", granularity="sweep").log(*finished)
    out, err = capfd.readouterr()
    (run,) = runs(finished[0])
    assert line == f"wandb: offline run; wandb sync {run}"
    assert not out and re.fullmatch(r"warning: wandb: .*refused.*; what is not logged is written offline\n", err)
    assert len(list((run / "files" / "media" / "images").glob("samples_*.png"))) == 3
    everything = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in everything if KEY.encode() in path.read_bytes()]


class Server(ThreadingHTTPServer):
    """A loopback stand-in for wandb's server. It takes all that comes, or only lets a run begin and answers 500 from
    then on, or answers nothing but 500, or stalls: takes what comes and never answers."""

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
        "warning: wandb: Timed out finishing run; what is not logged is written offline\n",
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


def test_a_service_that_dies_costs_one_warning(finished: Finished, capfd: pytest.CaptureFixture[str]) -> None:
    killed = []

    def kill() -> None:
        for process in [] if killed else [thing for thing in gc.get_objects() if type(thing) is subprocess.Popen]:
            if "wandb" in str(process.args) and process.poll() is None:
                process.kill()
                killed.append(process.wait())

    store, sweep, _ = finished
    assert OFFLINE.log(store, sweep, reported(store, sweep, kill)) is not None
    out, err = capfd.readouterr()
    assert killed and not out and re.fullmatch(r"warning: wandb: .*; what is not logged is written offline\n", err)
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
