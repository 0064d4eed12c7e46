"""sweeps/wandb/*.yaml: a trial of each, started by wandb's own agent, run through the command, read back."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
import wandb
import yaml
from wandb import wandb_agent

from diffsweep.paths import shipped
from tests.tracker.runs import summary

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("hydra_restore_singletons")]  # in this process
SWEEPS = {path.stem: path for path in (shipped("sweeps") / "wandb").glob("*.yaml")}
SMALL = ["model=analytic", "device=cpu"]


def sampled(parameter: dict[str, Any]) -> Any:
    """A value as the server would choose it."""
    if "values" in parameter:
        return parameter["values"][-1]
    low, high = parameter["min"], parameter["max"]
    return (low + high) // 2 if parameter["distribution"] == "int_uniform" else low + (high - low) / 3


@pytest.fixture(autouse=True)
def environment(home: Path) -> Iterator[None]:
    """What the agent sets goes again."""
    with patch.dict(os.environ, WANDB_MODE="offline", WANDB_PROJECT="tuned", WANDB_SWEEP_ID="sweep"):
        yield


def started(sweep: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The words that the agent runs for one trial, whose id is `trial`; its environment is set."""
    found: list[list[str]] = []
    monkeypatch.setattr(wandb_agent, "AgentProcess", lambda command, **_: found.append(command) or SimpleNamespace())
    agent = wandb_agent.Agent(api=None, queue=None, sweep_id="sweep")
    agent._sweep_command = sweep["command"]  # as the server sends it
    args = {name: {"value": sampled(parameter)} for name, parameter in sweep["parameters"].items()}
    agent._command_run({"program": sweep["program"], "run_id": "trial", "args": args})
    return found[0]


def test_there_are_three() -> None:
    methods = {name: yaml.safe_load(path.read_text())["method"] for name, path in SWEEPS.items()}
    assert methods == {"grid": "grid", "random": "random", "bayes": "bayes"}
    assert yaml.safe_load(SWEEPS["bayes"].read_text())["early_terminate"]["type"] == "hyperband"


@pytest.mark.filterwarnings(
    "ignore:.*config-trial.yaml:pytest.PytestUnraisableExceptionWarning"
)  # wandb leaves it open
@pytest.mark.parametrize("name", SWEEPS)
def test_a_trial_logs_its_objective_in_the_agents_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffsweep import app

    sweep = yaml.safe_load(SWEEPS[name].read_text())
    for word in ("Question:", "Command:", "Cost:", "Expected:", f"sweeps/wandb/{name}.yaml"):
        assert word in SWEEPS[name].read_text()
    env, *words = started(sweep, monkeypatch)
    assert (env, words[0]) == ("/usr/bin/env", "diffsweep")
    monkeypatch.setattr(sys, "argv", [*words, *SMALL])
    assert app.main() == 0
    wandb.teardown()
    (folder,) = Path("outputs/sweeps").iterdir()
    (run,) = (folder / "wandb").glob("*run-*")
    found = summary(run)
    assert (found["run_id"], found["project"]) == ("trial", "tuned")
    document = json.loads((folder / "sweep.json").read_text())
    values = [
        json.loads(file.read_text())["metrics"][sweep["metric"]["name"]]["value"]
        for file in Path("outputs/cells").glob("*/*/record.json")
    ]
    assert len(values) == len(document["cells"]) >= 4
    assert found["summary"][sweep["metric"]["name"]] == pytest.approx(sum(values) / len(values))
    assert {key: found["config"][key] for key in sweep["parameters"]} == {
        key: sampled(parameter) for key, parameter in sweep["parameters"].items()
    }
