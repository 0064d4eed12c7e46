"""Whatever happens: no key, no server, one that stalls, a service that dies."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import wandb

from diffsweep.tracker import session as session_module
from diffsweep.tracker.run_logs import run_id
from diffsweep.tracker.wandb import Wandb
from tests.tracker.runs import (
    BOTH,
    OFFLINE,
    REFUSING,
    Finished,
    kill_service,
    meanwhile,
    read,
    reported,
    runs,
    summary,
    swept,
    synced,
)
from tests.tracker.server import KEY, Serving

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("home")]


def test_without_a_key_the_run_is_offline_with_one_warning(
    finished: Finished, capfd: pytest.CaptureFixture[str]
) -> None:
    line = Wandb(granularity="sweep").log(*finished)
    out, err = capfd.readouterr()
    (run,) = runs(finished[0])
    assert line == f"wandb: offline run; cd {run.parent} && wandb sync ."
    assert not out and re.fullmatch(r"warning: wandb: No API key .*; the rest is written offline\n", err)


def test_a_server_that_refuses_costs_one_warning_and_the_key_is_written_nowhere(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, value in REFUSING.items():
        monkeypatch.setenv(name, value)
    line = Wandb(mode="online", granularity="sweep").log(*finished)
    out, err = capfd.readouterr()
    (run,) = runs(finished[0])
    assert line == f"wandb: offline run; cd {run.parent} && wandb sync ."
    assert not out and re.fullmatch(r"warning: wandb: .*refused.*; the rest is written offline\n", err)
    assert len(list((run / "files" / "media" / "images").glob("samples_*.png"))) == 3
    everything = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in everything if KEY.encode() in path.read_bytes()]


def test_a_server_that_fails_halfway_costs_one_warning(
    serving: Serving,
    finished: Finished,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    serving("beginning")
    monkeypatch.setenv("WANDB_FINISH_TIMEOUT", "1")
    monkeypatch.setattr(wandb.Api, "_HTTP_TIMEOUT", 1, raising=False)  # WANDB_HTTP_TIMEOUT as it was at the import
    before = dict(os.environ)
    line = Wandb(granularity="sweep").log(*finished)
    (run,) = runs(finished[0])
    assert line == f"wandb: offline run; cd {run.parent} && wandb sync ."
    assert dict(os.environ) == before
    assert capfd.readouterr() == (
        "",
        "warning: wandb: Timed out finishing run; the rest is written offline\n",
    )


def test_a_service_that_dies_costs_one_warning(
    finished: Finished, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    killed: list[bool] = []

    def kill() -> None:
        if not killed:
            killed.append(kill_service())

    meanwhile(monkeypatch, kill)
    assert OFFLINE.log(*finished) is not None
    out, err = capfd.readouterr()
    assert killed == [True] and not out and re.fullmatch(r"warning: wandb: .*; the rest is written offline\n", err)
    (run,) = runs(finished[0])
    assert summary(run)["state"] == "finished"


@pytest.mark.parametrize("error", [OSError("no space\nleft"), SystemExit(2)], ids=["error", "exit"])
def test_an_error_is_one_warning(
    error: BaseException, finished: Finished, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """wandb itself ends the program where its service has ended with an exit code."""
    meanwhile(monkeypatch, lambda: raising(error))
    assert OFFLINE.log(*finished) is None
    name, text = type(error).__name__, " ".join(str(error).split())
    warning = f"warning: wandb: the sweep is stored, but not logged: {name}: {text}; "
    assert capfd.readouterr() == ("", f"{warning}diffsweep-results sync scales logs it, once that is fixed\n")


def test_a_variables_value_that_wandb_refuses_is_told_by_its_name(
    finished: Finished, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_MODE", "bogus")
    assert Wandb().log(*finished) is None
    out, err = capfd.readouterr()
    assert not out and len(err.splitlines()) == 1 and "WANDB_MODE: Input should be 'online', 'offline'" in err
    assert "https://" not in err and err.endswith("diffsweep-results sync scales logs it, once that is fixed\n")


def test_an_interrupt_goes_through_and_the_run_has_failed(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    meanwhile(monkeypatch, lambda: raising(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        OFFLINE.log(*finished)
    (run,) = runs(finished[0])
    assert summary(run)["exit_code"] == 1


@pytest.mark.parametrize("answers", ["refusing", "500", "nothing", "beginning"])
def test_a_server_that_fails_loses_nothing(
    answers: str,
    serving: Serving,
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
    assert tracker.log(store, sweep, report) == f"wandb: 4 offline runs; cd {report.folder / 'wandb'} && wandb sync ."
    out, err = capfd.readouterr()
    assert not out and len(err.splitlines()) == 1 and err.endswith("; the rest is written offline\n")
    assert {summary(run)["state"] for run in runs(store)} == {"finished"}
    assert all(run.name.startswith("offline-run-") for run in runs(store))
    server = serving()
    for what in ("INIT", "FINISH"):
        monkeypatch.delenv(f"WANDB_{what}_TIMEOUT")
    line = tracker.log(store, sweep, reported(store, sweep))
    assert line and line.startswith(f"wandb: {server.url}/")
    ids = {run_id(sweep), *(f"{i:020x}-{run_id(sweep)[:8]}" for i in range(3))}
    assert {name for name in ids if server.streamed(name, "wandb-summary.json")} == ids
    assert not [run for run in runs(store) if run.name.startswith("offline-run-")]


def test_what_wandb_sync_has_sent_is_not_sent_again(serving: Serving, finished: Finished) -> None:
    server = serving()
    BOTH.log(*finished)
    synced(str(finished[2].folder / "wandb"))
    server.taken.clear()
    assert Wandb(granularity="both").log(*finished) == "wandb: sent by wandb sync, and 3 of its cells"
    assert not server.taken


def test_a_service_killed_among_the_cells_costs_one_warning_and_no_run(
    finished: Finished, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    before = session_module.start

    def opening(**arguments: Any) -> Any:
        run = before(**arguments)
        opened.append(arguments["id"])
        if len(opened) == 2:
            kill_service()
        return run

    monkeypatch.setattr(session_module, "start", opening)
    assert BOTH.log(*finished)
    out, err = capfd.readouterr()
    assert not out and re.fullmatch(r"warning: wandb: .*; the rest is written offline\n", err)
    found = read(finished[0], finished[1], None)
    assert len(found.cells) == 3 and found.own in found.folders
    assert {one["state"] for one in found.summaries.values()} == {"finished"}


def test_no_secret_is_written_anywhere(
    serving: Serving,
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


def raising(error: BaseException) -> None:
    raise error
