"""Whole commands on the analytic model: launchers of other processes, lost readers, full disks, plugins that fail."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

DIFFSWEEP = "import sys; from diffsweep.app import main; sys.exit(main())"
SMALL = ("model=analytic", "scheduler.steps=2", "metric=none", "device=cpu", "sweep.name=it")
Done = subprocess.CompletedProcess[str]
TECHNIQUE = """
from dataclasses import dataclass
from diffsweep.technique.text_to_image import TextToImage

@dataclass(frozen=True)
class Mine(TextToImage):
    def program(self, job):
        if job.streams.seed == 1:
            {line}
        return super().program(job)
"""

METRIC = """
from diffsweep.metric.psnr import Psnr

class Mine(Psnr):
    needs = frozenset()

    def __call__(self, batch):
        raise SystemExit(0)

METRICS = (Mine(),)
"""


@pytest.fixture
def diffsweep(tmp_path: Path) -> Callable[..., Done]:
    def run(*words: str, **more: Any) -> Done:
        there = more.pop("env", {})
        environment = {**os.environ, "PYTHONPATH": str(tmp_path), "TMPDIR": str(tmp_path), **there}
        flags = [word for word in words if word.startswith("-")]
        command = [sys.executable, "-c", DIFFSWEEP, *flags, *SMALL, *(word for word in words if word not in flags)]
        more = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | more
        return subprocess.run(command, cwd=tmp_path, env=environment, text=True, check=False, **more)

    return run


def statuses(folder: Path) -> list[str]:
    return [cell["status"] for cell in json.loads((folder / "outputs/sweeps/it/sweep.json").read_bytes())["cells"]]


def plugin(folder: Path, group: str, text: str) -> None:
    """A part of the user's own, `my_parts/GROUP/mine.py`, and its choice `GROUP=mine`."""
    for place, name, content in (
        (folder / "my_parts" / group, "mine.py", text),
        (folder / "conf" / group, "mine.yaml", "name: mine\n"),
    ):
        place.mkdir(parents=True)
        (place / name).write_text(content)


@pytest.mark.parametrize("launcher", [("joblib", "hydra.launcher.n_jobs=2"), ("submitit_local",)])
def test_launchers_send_cells_to_processes_and_their_results_back(
    diffsweep: Callable[..., Done], tmp_path: Path, launcher: tuple[str, ...]
) -> None:
    name, *keys = launcher
    words = ("-m", f"hydra/launcher={name}", *keys)
    plugin(tmp_path, "technique", TECHNIQUE.format(line="raise ValueError('no')"))
    own = ("--config-dir=conf", "plugins=[my_parts]", "technique=mine")
    done = diffsweep(*words, *own, "seed=0,1")
    assert done.returncode == 1, done.stderr
    assert sorted(statuses(tmp_path)) == ["done", "failed"]
    good = diffsweep(*words, "seed=2,3", "sweep.name=other")
    assert good.returncode == 0 and good.stderr.endswith("outputs/sweeps/other/: 2 cells done\n"), good.stderr
    unnamed = diffsweep(*words, "seed=2,3", "guidance.scale=0", "sweep.name=auto")
    (folder,) = (tmp_path / "outputs/sweeps").glob("multirun-*")  # one for all processes
    sweep = json.loads((folder / "sweep.json").read_bytes())
    assert (sorted(sweep["axes"]["seed"]), len(sweep["cells"])) == ([2, 3], 2)
    assert list(sweep["axes"]) == ["seed"] and unnamed.stdout.count("seconds") == 1  # the whole table, once
    assert "failed" not in unnamed.stderr  # no process tells of cells that others have yet to sample
    bad = diffsweep(*words, "seed=-1,-2")
    message = "diffsweep: seed=-1: must be between 0 and 9223372036854775807"
    assert (bad.returncode, bad.stderr.splitlines()[-1]) == (2, message)
    assert "Traceback" not in bad.stderr and "Error executing" not in bad.stderr


def test_a_reader_who_leaves_does_not_end_the_sampling(diffsweep: Callable[..., Done], tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)  # as of `| head` that has read enough
    try:
        done = diffsweep("-m", "seed=range(0,8)", stdout=writing, stderr=writing)
    finally:
        os.close(writing)
    assert done.returncode == 0 and statuses(tmp_path) == ["done"] * 8
    with Path("/dev/full").open("w") as full:
        assert diffsweep("-m", "seed=range(0,9)", stderr=full).returncode == 0


def test_a_terminal_of_another_encoding_is_no_failure(diffsweep: Callable[..., Done], tmp_path: Path) -> None:
    terminal = {"PYTHONIOENCODING": "ascii"}
    done = diffsweep("-m", 'prompt="café 犬",b', "guidance.scale=1,2", env=terminal)
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii() and r"caf\xe9 \u72ac" in done.stdout
    assert len(statuses(tmp_path)) == 4


def test_a_full_disk_is_told_once_and_the_same_command_goes_on(diffsweep: Callable[..., Done], tmp_path: Path) -> None:
    limit = (400, resource.RLIM_INFINITY)  # bytes a file: a picture has more
    words = ("-m", "seed=0,1")
    full = diffsweep(*words, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit))
    last = [line for line in full.stderr.splitlines() if line.startswith("diffsweep: ")]
    assert full.returncode == 1 and "Traceback" not in full.stderr
    assert last[0].startswith("diffsweep: File too large")
    assert last[1:] == ["diffsweep: Cells that are stored are safe: make room, then run the same command again"]
    assert list(tmp_path.rglob("outputs/cells/*/*")) == []
    assert diffsweep(*words).returncode == 0 and statuses(tmp_path) == ["done", "done"]


def test_a_technique_that_fails_is_that_cells_failure_and_leaves_its_traceback(
    diffsweep: Callable[..., Done], tmp_path: Path
) -> None:
    plugin(tmp_path, "technique", TECHNIQUE.format(line="raise SystemExit(0)"))
    words = ("--config-dir=conf", "plugins=[my_parts]", "technique=mine", "-m", "seed=0,1,2")
    done = diffsweep(*words)
    assert done.returncode == 1 and statuses(tmp_path) == ["done", "failed", "done"]
    (file,) = (tmp_path / "outputs/sweeps/it/errors").iterdir()
    assert f"traceback: {file.relative_to(tmp_path)}" in done.stderr.splitlines()
    assert 'my_parts/technique/mine.py", line 9, in program\n    raise SystemExit(0)\n' in file.read_text()
    (tmp_path / "my_parts/technique/mine.py").write_text(TECHNIQUE.format(line="pass"))
    assert diffsweep(*words).returncode == 0
    assert not file.parent.exists()


def test_a_metric_that_exits_is_a_metric_that_failed(diffsweep: Callable[..., Done], tmp_path: Path) -> None:
    plugin(tmp_path, "metric", METRIC)
    done = diffsweep("-m", "seed=0,1", "plugins=[my_parts]", "metric.names=[psnr]")
    assert statuses(tmp_path) == ["done", "done"]
    assert "SystemExit: 0" in (tmp_path / "outputs/sweeps/it/errors/psnr.txt").read_text()
    assert "traceback: outputs/sweeps/it/errors/psnr.txt" in done.stderr.splitlines()
