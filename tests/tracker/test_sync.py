"""`tracker=wandb` and `diffsweep-results sync` through the commands: what is logged once is logged once."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from diffsweep import app, results
from diffsweep.tracker import logged
from tests.tracker.runs import summary
from tests.waiting import awake

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("offline", "hydra_restore_singletons")]  # in this process
WORDS = ["model=analytic", "model.size=8", "scheduler.steps=2", "device=cpu", "sweep.name=mine"]


def command(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["diffsweep", "-m", *WORDS, *words])
    assert app.main() == 0


def folders() -> dict[str, str]:
    """The folder of each run, by the run's id."""
    runs = list(Path("outputs/sweeps/mine/wandb").glob("*run-*/run-*.wandb"))
    found = {path.stem.removeprefix("run-"): path.parent.name for path in runs}
    assert len(found) == len(runs)
    return found


def test_a_sweep_that_goes_on_updates_its_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    command(monkeypatch, "tracker=wandb", "seed=0,1")
    first = folders()
    command(monkeypatch, "tracker=wandb", "seed=0,1,2")
    second = folders()
    assert len(first) == 3 and len(second) == 4
    assert {run for run in first if second[run] == first[run]} == {run for run in first if "-" in run}  # the cells'


def test_sync_logs_a_stored_sweep_then_what_is_missing_then_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command(monkeypatch, "seed=0,1")
    assert not Path("outputs/sweeps/mine/wandb").exists()
    capsys.readouterr()
    assert results.run(["sync", "mine", "granularity=sweep"]) == 0
    (own,) = folders().items()
    assert capsys.readouterr().out == "wandb: offline run; cd outputs/sweeps/mine/wandb && wandb sync .\n"
    assert results.run(["sync", "mine", "granularity=both"]) == 0
    whole = folders()
    assert len(whole) == 3 and own in whole.items()
    assert results.run(["sync", "mine"]) == 0
    assert folders() == whole
    assert results.run(["export", "mine", "to=elsewhere"]) == 0
    assert len(list(Path("elsewhere/sweeps/mine/wandb").glob("*run-*"))) == 3


def test_a_sweep_that_is_logged_afterwards_has_its_tags(monkeypatch: pytest.MonkeyPatch) -> None:
    command(monkeypatch, "seed=0")
    assert results.run(["sync", "mine", "granularity=sweep", "tags=paper,draft"]) == 0
    (folder,) = folders().values()
    assert sorted(summary(Path("outputs/sweeps/mine/wandb") / folder)["tags"]) == ["draft", "paper"]


def test_a_pipe_in_the_place_of_what_was_logged_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "logged.json")
    with awake():
        assert logged.read(tmp_path) == {}
