"""`wandb sweep` and `wandb agent` as a user starts them, against a stand-in for their server: whole trials."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from threading import Thread
from typing import Any

import pytest
import yaml

from diffsweep.paths import shipped
from tests.tracker.server import KEY, PROJECT, Server

pytestmark = pytest.mark.slow
BIN = Path(sys.executable).parent
Chosen = dict[str, Any]  # a trial's parameters


class Sweeps(Server):
    """Keeps a sweep as `wandb sweep` brings it, hands an agent one trial after the other, and ends it after the last.

    stops: told of a trial that runs, whether it is to end early.
    """

    def __init__(self, trials: dict[str, Chosen], stops: Callable[[str], bool]) -> None:
        super().__init__()
        self.waiting, self.stops = list(trials.items()), stops
        self.config = ""

    def data(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        if "mutation UpsertSweep" in query:
            self.config = variables["config"]
            return {"upsertSweep": {"sweep": {"name": "tuning", "project": PROJECT}, "configValidationWarnings": []}}
        if "query SweepWithRuns" in query:
            return {"project": {"sweep": {"id": "4", "config": self.config, "runs": {"edges": []}}}}
        if "mutation CreateAgent" in query:
            return {"createAgent": {"agent": {"id": "agent"}}}
        if "mutation Heartbeat" in query:
            commands = self._commands(json.loads(variables["runState"]))
            return {"agentHeartbeat": {"agent": {"id": "agent"}, "commands": json.dumps(commands)}}
        return super().data(query, variables)

    def _commands(self, running: dict[str, bool]) -> list[dict[str, Any]]:
        if running:
            return [{"type": "stop", "run_id": name} for name in running if self.stops(name)]
        if not self.waiting:
            return [{"type": "exit"}]
        name, chosen = self.waiting.pop(0)
        args = {key: {"value": value} for key, value in chosen.items()}
        return [{"type": "run", "run_id": name, "program": yaml.safe_load(self.config)["program"], "args": args}]


@dataclass
class Desk:
    """A user's folder, which is the home too, and what the programs started from it said."""

    folder: Path
    server: Sweeps
    said: dict[str, subprocess.CompletedProcess[str]] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """Nothing set but the server, a key, and the path to the programs."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "XDG_", "NETRC"))}
        path = f"{BIN}{os.pathsep}{kept['PATH']}"
        own = {"HOME": str(self.folder), "TMPDIR": str(self.folder), "PATH": path}
        return kept | own | {"WANDB_BASE_URL": self.server.url, "WANDB_API_KEY": KEY}

    def wandb(self, *words: str) -> None:
        self.said[words[0]] = subprocess.run(
            [BIN / "wandb", *words],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=500,
        )

    def processes(self) -> list[str]:
        """What runs with this home, by whomever it was started."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if f"HOME={self.folder}\0".encode() in (process / "environ").read_bytes():
                    found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:  # it has ended, or is somebody else's
                continue
        return found

    def quiet(self) -> bool:
        """Nothing runs, or nothing after a moment: a service follows its program."""
        for _ in range(50):
            if not self.processes():
                return True
            time.sleep(0.1)
        return False

    def tuned(self, config: dict[str, Any]) -> None:
        """The sweep registered, then an agent until it ends, which a trial that counts as failed would end early."""
        (self.folder / "sweep.yaml").write_text(yaml.safe_dump(config))
        self.wandb("sweep", "--project", "diffsweep", "sweep.yaml")
        self.wandb("agent", "--max-consecutive-failed-runs", "1", "me/diffsweep/tuning")

    def values(self, name: str) -> dict[str, float | None]:
        """A metric's value of each stored cell, by the cell's id; None where it was not measured."""
        records = (self.folder / "outputs/cells").glob("*/*/record.json")
        metrics = {path.parent.name: json.loads(path.read_text())["metrics"] for path in records}
        return {cell_id: found.get(name, {}).get("value") for cell_id, found in metrics.items()}

    def sweeps(self) -> list[dict[str, Any]]:
        """Each sweep.json, the oldest first."""
        documents = [json.loads(path.read_text()) for path in (self.folder / "outputs/sweeps").glob("*/sweep.json")]
        return sorted(documents, key=lambda document: document["created"])

    def ends(self, run_id: str) -> list[int]:
        """The exit code of each time that the run was said to be over."""
        return [body["exitcode"] for body in self.server.stream(run_id) if body.get("complete")]


@contextmanager
def desk(folder: Path, trials: dict[str, Chosen], stops: Callable[[str], bool] = lambda _: False) -> Iterator[Desk]:
    folder.mkdir()
    own = Desk(folder, Sweeps(trials, stops))
    Thread(target=own.server.serve_forever, daemon=True).start()
    yield own
    own.server.shutdown()
    own.server.server_close()


def small(name: str, *words: str, **exchanged: str) -> dict[str, Any]:
    """A shipped sweep, with the words of its command that begin with these keys exchanged, and others added."""
    config = yaml.safe_load((shipped("sweeps") / "wandb" / f"{name}.yaml").read_text())
    *command, last = config["command"]
    assert last == "${args_no_hyphens}"
    for key, value in exchanged.items():
        (place,) = [i for i, word in enumerate(command) if word.startswith(f"{key.replace('__', '.')}=")]
        command[place] = f"{key.replace('__', '.')}={value}"
    return config | {"command": [*command, *words, last]}


def test_a_grid_of_which_two_trials_are_the_same(tmp_path: Path) -> None:
    chosen = {"guidance.scale": 3, "mask.softness": 6}
    trials = {"first": chosen, "second": chosen, "third": chosen | {"mask.softness": 0}}
    config = small("grid", "model=analytic", "model.size=8", "device=cpu", scheduler__steps="2")
    with desk(tmp_path / "home", trials) as own:
        own.tuned(config)
    server, said = own.server, own.said["agent"].stderr

    # `wandb sweep` sends the file, and names the agent's line; the agent runs what it is given, and ends
    assert own.said["sweep"].returncode == 0, own.said["sweep"].stderr
    assert "wandb agent me/diffsweep/tuning\n" in own.said["sweep"].stderr
    (asked,) = server.asked("mutation UpsertSweep")
    assert (asked["projectName"], yaml.safe_load(asked["config"])) == ("diffsweep", config)
    assert own.said["agent"].returncode == 0 and not server.waiting, said
    assert "warning" not in said

    # each run is the agent's, with its choices, in its sweep; there is no other
    buckets = server.asked("mutation UpsertBucket")
    assert {bucket["name"] for bucket in buckets} == trials.keys()
    assert {path.split("/")[-2] for path, _ in server.taken if path.endswith("/file_stream")} == trials.keys()
    for bucket in [bucket for bucket in buckets if bucket["sweep"]]:
        assert (bucket["entity"], bucket["project"], bucket["sweep"]) == ("me", "diffsweep", "tuning")
        sent, args = json.loads(bucket["config"]), trials[bucket["name"]]
        assert {key: sent[key]["value"] for key in args} == args
    for name, args in trials.items():
        assert any(bucket["sweep"] for bucket in buckets if bucket["name"] == name)
        assert f"wandb: {server.url}/me/diffsweep/runs/{name}\n" in said
        assert all(f" {key}={value}" in said for key, value in args.items())

    # cells that are stored are sampled once: two trials are one sweep of ours
    told = [line.partition(" cells, ")[2] for line in said.splitlines() if "already stored" in line]
    fresh, known = "0 already stored, 4 to sample", "4 already stored, 0 to sample"
    assert told == [fresh, known, fresh]
    twice, once = own.sweeps()
    assert [(run["cells"], run["model_loads"]) for run in twice["runs"] if run["model_calls"]] == [(4, 1)]
    stored = own.values(config["metric"]["name"])
    assert len(stored) == 8 and len(twice["cells"]) == len(once["cells"]) == 4

    # the objective arrives at top level, pictures and tables too, and each run is over
    pictures = {path.read_bytes() for path in (own.folder / "outputs/cells").glob("*/*/image.png")}
    for name, document in {"first": twice, "second": twice, "third": once}.items():
        values = [stored[cell["cell_id"]] for cell in document["cells"]]
        assert told_means(server, name, config["metric"]["name"], values) == 1
        sent = server.files(name)
        assert len(pictures.intersection(sent.values())) == 4
        assert any(path.startswith("media/table/results_") for path in sent)
        assert own.ends(name) == [0]

    # nothing is left running, and the key is nowhere
    assert own.quiet()
    assert not [path for path in own.folder.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


def test_a_trial_that_is_stopped_early_and_the_next(tmp_path: Path) -> None:
    long, short = {"guidance.scale": 3.0, "scheduler.steps": 200}, {"guidance.scale": 1.0, "scheduler.steps": 5}
    seen: list[list[str]] = []

    def stops(name: str) -> bool:
        """The long one, as soon as a cell of it is stored."""
        if name == "next" or not own.values("clip_score"):
            return False
        seen.append(own.processes())
        return True

    with desk(tmp_path / "home", {"stopped": long, "next": short}, stops) as own:
        one_by_one = "model=analytic", "model.size=32", "device=cpu", "engine.rows=1"
        own.tuned(small("bayes", *one_by_one, seed="range(0,8)"))
    server, said = own.server, own.said["agent"].stderr

    # it is stopped among its first four seeds: what is stored are some of them
    assert said.count("diffsweep: stopped by SIGTERM\n") == 1
    cut, whole = own.sweeps()
    stored = own.values("clip_score")
    scores = {cell["cell_id"]: stored[cell["cell_id"]] for cell in whole["cells"]}
    kept = {cell["cell_id"] for cell in cut["cells"]} & stored.keys()
    assert len(cut["cells"]) == 4 and len(scores) == 8
    assert 1 <= len(kept) < 4 and stored.keys() == kept | scores.keys()
    assert f"stopped: {len(kept)} of 4 cells stored; the same command resumes from there\n" in said

    # the server has heard of it, of no other run, and that it has failed
    assert {bucket["name"] for bucket in server.asked("mutation UpsertBucket")} == {"next", "stopped"}
    assert set(own.ends("stopped")) == {1}

    # the agent goes on with the next, which tells its score once for each four seeds, and ends
    assert own.said["agent"].returncode == 0 and not server.waiting, said
    assert "Traceback" not in said and "warning" not in said
    assert told_means(server, "next", "clip_score", [*scores.values()]) == 2
    assert set(own.ends("next")) == {0}

    # nothing is left running; while the trial ran, it was seen
    assert any("bin/diffsweep -m" in process for process in seen[0])
    assert own.quiet()


def told_means(server: Server, run_id: str, objective: str, values: Sequence[Any]) -> int:
    """How many lines hold the objective: each a mean of some values, the last of all. So does the summary."""
    lines = server.streamed(run_id, "wandb-history.jsonl")
    told = [line[objective] for line in lines if objective in line]
    low, high = min(values), max(values)
    assert all(low - 1e-6 <= value <= high + 1e-6 for value in told)
    assert told[-1] == pytest.approx(mean(values))
    assert server.streamed(run_id, "wandb-summary.json")[-1][objective] == pytest.approx(mean(values))
    return len(told)
