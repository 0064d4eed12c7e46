"""Workers as users start them, in processes of their own: typed twice, by a launcher, by a real Slurm; and what kills,
stops and signals cost."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from diffsweep.store.cells import Store
from tests import slurm

pytestmark = pytest.mark.slow

DIFFSWEEP = "import sys; from diffsweep.app import main; sys.exit(main())"
RESULTS = "import sys; from diffsweep.results import main; sys.exit(main())"
SLOWLY = """
import os, time
from dataclasses import dataclass
from diffsweep.technique.text_to_image import TextToImage

@dataclass(frozen=True)
class Mine(TextToImage):
    def program(self, job):
        time.sleep(float(os.environ.get("SLOWLY", 0)))
        if job.streams.seed == int(os.environ.get("FAILS", -1)):
            raise ValueError("no luck")
        return super().program(job)
"""
SMALL = "--config-dir=conf plugins=[my_parts] technique=mine model=analytic model.size=4 scheduler.steps=3 device=cpu"
CELLS = "seed=range(0,12) guidance.scale=1,3 metric=none engine.rows=4 engine.threads=1"
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a command in the test's folder."""
    for place, name, text in (
        ("my_parts/technique", "mine.py", SLOWLY),
        ("conf/technique", "mine.yaml", "name: mine\n"),
    ):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / name).write_text(text)
    started: list[subprocess.Popen[str]] = []

    def run(*words: str, code: str = DIFFSWEEP, before: tuple[str, ...] = (), **variables: Any) -> Any:
        environment = {**os.environ, "PYTHONPATH": str(tmp_path), **{k: str(v) for k, v in variables.items()}}
        process = subprocess.Popen(
            [*before, sys.executable, "-c", code, *words],
            cwd=tmp_path,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()  # type: ignore[union-attr]


@pytest.fixture
def sweep(start: Start) -> Start:
    """Start the sweep `it` of 24 cells."""

    def run(*words: str, **more: Any) -> subprocess.Popen[str]:
        return start("-m", *SMALL.split(), *CELLS.split(), "sweep.name=it", *words, **more)

    return run


@pytest.fixture
def reference(sweep: Start, tmp_path: Path) -> dict[str, bytes]:
    """The pictures of the sweep as one process makes them."""
    told = sweep("output_dir=reference").communicate()[0]
    made = pictures(tmp_path / "reference")
    assert len(made) == 24, told
    return made


def pictures(root: Path) -> dict[str, bytes]:
    return {file.parent.name: file.read_bytes() for file in root.glob("cells/*/[!.]*/image.png")}


def document(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((root / "sweeps/it/sweep.json").read_bytes())
    return found


def until(holds: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def assert_whole(root: Path, reference: dict[str, bytes]) -> None:
    """Every cell is stored with the reference's bytes, nothing else lies there, and the work is over."""
    assert pictures(root) == reference
    left = [path for path in (root / "cells").rglob("*") if path.name.startswith(".")]
    assert left == [] and not (root / "sweeps/it/work").exists()
    assert {cell["status"] for cell in document(root)["cells"]} == {"done"}


def test_the_same_command_typed_twice_shares_the_work(
    sweep: Start, tmp_path: Path, reference: dict[str, bytes]
) -> None:
    both = [sweep(SLOWLY=0.5), sweep(SLOWLY=0.5)]
    told = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    assert_whole(tmp_path / "outputs", reference)
    runs = document(tmp_path / "outputs")["runs"]
    assert sum(run["cells"] for run in runs) == 24 and sum(run["model_rows"] for run in runs) == 24 // 2 * 3 * 3
    assert len(runs) == 2 and all(run["cells"] > 3 for run in runs)
    ends = sorted("written by another worker" in text for text in told)
    assert ends == [False, True] and all(text.count("Mean over 12 seeds a setting.") == 1 for text in told)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_what_a_worker_that_ends_had_at_hand_is_done_by_the_others(
    sweep: Start, tmp_path: Path, reference: dict[str, bytes], number: int
) -> None:
    first = sweep(SLOWLY=1)  # so that the second comes in time on a busy machine
    until(lambda: len(pictures(tmp_path / "outputs")) > 2)
    second = sweep(SLOWLY=0.1)
    until(lambda: len([*(tmp_path / "outputs").glob("sweeps/it/work/*/workers/*.json")]) == 2)
    first.send_signal(number)
    told = second.communicate()[0]
    assert second.returncode == 0, told
    assert first.wait() == (-number if number == signal.SIGKILL else 128 + number)
    assert_whole(tmp_path / "outputs", reference)


def test_after_all_workers_are_killed_the_same_command_goes_on(
    sweep: Start, tmp_path: Path, reference: dict[str, bytes]
) -> None:
    both = [sweep(SLOWLY=0.1), sweep(SLOWLY=0.1)]
    until(lambda: len(pictures(tmp_path / "outputs")) > 5)
    for process in both:
        process.kill()
        process.wait()
    stored = {file: file.stat().st_ino for file in (tmp_path / "outputs").glob("cells/*/[!.]*/image.png")}
    began = time.monotonic()
    told = sweep().communicate()[0]
    assert f"24 cells, {len(stored)} already stored" in told and time.monotonic() - began < 30  # not the grace of 60 s
    assert {file: file.stat().st_ino for file in stored} == stored
    assert_whole(tmp_path / "outputs", reference)


def test_a_stopped_worker_is_taken_over_from_and_commits_nothing_twice(
    sweep: Start, tmp_path: Path, reference: dict[str, bytes]
) -> None:
    root = tmp_path / "outputs"
    first = sweep("engine.grace=2", SLOWLY=0.2)
    until(lambda: len(pictures(root)) > 2)
    first.send_signal(signal.SIGSTOP)
    second = sweep("engine.grace=2")
    told = second.communicate()[0]
    assert second.returncode == 0, told
    assert_whole(root, reference)
    before = {file: (file.stat().st_ino, file.stat().st_mtime_ns) for file in root.rglob("*.png")}
    first.send_signal(signal.SIGCONT)
    woken = first.communicate()[0]
    assert first.returncode == 0 and "written by another worker" in woken
    assert {file: (file.stat().st_ino, file.stat().st_mtime_ns) for file in root.rglob("*.png")} == before


def test_torchrun_starts_workers_that_share_a_sweep(sweep: Start, tmp_path: Path, reference: dict[str, bytes]) -> None:
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--no-python", "--nproc-per-node=2")
    process = sweep(before=torchrun, SLOWLY=0.1)
    told = process.communicate()[0]
    assert process.returncode == 0, told
    assert_whole(tmp_path / "outputs", reference)
    assert told.count("written by another worker") == 1


def test_local_workers_sample_in_place_of_who_plans(sweep: Start, tmp_path: Path, reference: dict[str, bytes]) -> None:
    process = sweep("hydra/launcher=local", "hydra.launcher.workers=2", SLOWLY=0.1)
    told = process.communicate()[0]
    assert process.returncode == 0, told
    assert_whole(tmp_path / "outputs", reference)
    runs = document(tmp_path / "outputs")["runs"]
    assert {run["model_loads"] for run in runs} == {1} and sum(run["cells"] for run in runs) == 24
    logs = [file.read_text() for file in sorted((tmp_path / "outputs/sweeps/it/logs").iterdir())]
    assert len(logs) == 2 and all("  sampling: 24 cells" in log for log in logs)
    assert "2 workers on this machine" in told and "24/24 cells" in told
    log = (tmp_path / "outputs/sweeps/it/sweep.log").read_text()
    assert "hydra/launcher=local" in log and log.rstrip().endswith("report.html and all other files are written")


def test_workers_share_a_sweep_that_goes_into_lots(sweep: Start, tmp_path: Path, reference: dict[str, bytes]) -> None:
    words = ("hydra/launcher=local", "hydra.launcher.workers=2", "store.format=lots", "metric.names=[psnr]")
    told = sweep(*words).communicate()[0]
    store = Store(tmp_path / "outputs")
    assert pictures(store.root) == {} and "24 cells packed" in told, told
    assert {cell_id: store.read(cell_id, "image.png") for cell_id in reference} == reference
    assert {cell["status"] for cell in document(store.root)["cells"]} == {"done"}


@pytest.mark.parametrize("starts", ["typed", "local"])
def test_one_of_all_workers_logs_each_cell_once(
    sweep: Start, tmp_path: Path, reference: dict[str, bytes], starts: str
) -> None:
    words = ("tracker=wandb", "tracker.granularity=both", "tracker.mode=offline")
    if starts == "typed":
        both = [sweep(*words, SLOWLY=0.1, HOME=tmp_path) for _ in range(2)]
    else:
        both = [sweep(*words, "hydra/launcher=local", "hydra.launcher.workers=2", SLOWLY=0.1, HOME=tmp_path)]
    told = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0] * len(both), told
    assert_whole(tmp_path / "outputs", reference)
    runs = [path.name.split("-", 3)[3] for path in (tmp_path / "outputs/sweeps/it/wandb").glob("offline-run-*")]
    assert len(runs) == len({*runs}) == 1 + 24
    assert sum(text.count("wandb: 25 offline runs") for text in told) == 1


def test_local_workers_outlast_a_work_folder_that_is_removed(
    sweep: Start, tmp_path: Path, reference: dict[str, bytes]
) -> None:
    root = tmp_path / "outputs"
    process = sweep("hydra/launcher=local", "hydra.launcher.workers=2", SLOWLY=0.3)
    until(lambda: len(pictures(root)) > 2)
    shutil.rmtree(root / "sweeps/it/work", ignore_errors=True)
    told = process.communicate()[0]
    assert process.returncode == 0, told
    assert_whole(root, reference)
    assert told.count("2 workers on this machine") == 1  # they go on


def test_what_stops_every_worker_is_one_message(start: Start, tmp_path: Path) -> None:
    local = ("-m", *SMALL.split(), "sweep.name=it", "seed=0,1", "hydra/launcher=local", "hydra.launcher.workers=2")
    process = start(*local, "device=cuda")
    told = process.communicate()[0]
    assert process.returncode == 2 and "Traceback" not in told
    assert told.splitlines()[-1].startswith("diffsweep: device=cuda: no CUDA device is available to torch")
    wrong = start(*local, "hydra.launcher.workers=0")
    assert "hydra.launcher.workers=0: must be auto, or" in wrong.communicate()[0] and wrong.returncode == 2


def test_a_cell_that_fails_is_tried_by_another_worker_and_told_by_who_leads(
    sweep: Start, tmp_path: Path, reference: dict[str, bytes]
) -> None:
    process = sweep("hydra/launcher=local", "hydra.launcher.workers=2", SLOWLY=0.05, FAILS=3)
    told = process.communicate()[0]
    assert process.returncode == 1 and told.count("ValueError: no luck") >= 2 and "Traceback" not in told
    failed = [cell for cell in document(tmp_path / "outputs")["cells"] if cell["status"] == "failed"]
    assert [cell["seed"] for cell in failed] == [3, 3]
    tracebacks = [*(tmp_path / "outputs/sweeps/it/errors").glob("*.txt")]
    assert {file.stem for file in tracebacks} == {cell["cell_id"] for cell in failed}
    assert 'raise ValueError("no luck")' in tracebacks[0].read_text()
    assert sweep().communicate() and pictures(tmp_path / "outputs") == reference


def test_a_client_that_is_stopped_leaves_its_workers_at_work(
    sweep: Start, start: Start, tmp_path: Path, reference: dict[str, bytes]
) -> None:
    root = tmp_path / "outputs"
    client = sweep("hydra/launcher=local", "hydra.launcher.workers=2", SLOWLY=1)
    until(lambda: len(pictures(root)) > 1)
    client.send_signal(signal.SIGINT)
    told = client.communicate()[0]
    assert client.returncode == 130
    assert told.splitlines()[-3:-1] == [
        "the workers go on, and the last one reports",
        "diffsweep-results watch it shows how far they are, stop it stops them",
    ]
    watching = start("watch", "it", "every=0.2", code=RESULTS)
    seen = watching.communicate()[0]
    assert watching.returncode == 0 and " sampling" in seen and "all 24 cells stored" in seen
    until(lambda: not (root / "sweeps/it/work").exists())
    assert_whole(root, reference)
    assert (root / "sweeps/it/report.html").exists()
    nobody = start("watch", "it", code=RESULTS)
    assert "all 24 cells stored" in nobody.communicate()[0] and nobody.returncode == 0


def test_all_workers_can_be_stopped_from_anywhere(
    sweep: Start, start: Start, tmp_path: Path, reference: dict[str, bytes]
) -> None:
    root = tmp_path / "outputs"
    both = [sweep(SLOWLY=1), sweep(SLOWLY=1)]
    until(lambda: len(pictures(root)) > 1)
    until(lambda: len([*root.glob("sweeps/it/work/*/workers/*.json")]) == 2)
    assert "2 workers: they end within seconds" in start("stop", "it", code=RESULTS).communicate()[0]
    assert [process.wait(60) for process in both] == [130, 130]
    assert "0 workers: nobody is at work" in start("stop", "it", code=RESULTS).communicate()[0]
    watching = start("watch", "it", code=RESULTS)
    assert "nobody is at work; not stored: " in watching.communicate()[0] and watching.returncode == 1
    assert sweep().communicate() and pictures(root) == reference  # the request was for those that were there


def test_rays_actors_share_a_sweep(sweep: Start, tmp_path: Path, reference: dict[str, bytes]) -> None:
    if find_spec("ray") is None:
        pytest.skip("ray is not installed")
    process = sweep("hydra/launcher=ray", "hydra.launcher.workers=2", "hydra.launcher.cpus=0.5", SLOWLY=0.1)
    told = process.communicate()[0]
    assert process.returncode == 0, told
    assert "Ray: 2 workers" in told
    assert_whole(tmp_path / "outputs", reference)


# -- a real Slurm ------------------------------------------------------------------------------------------------------
needs_slurm = pytest.mark.skipif(slurm.lacking() is not None, reason=str(slurm.lacking()))
SLURM = (
    "hydra/launcher=slurm",
    "hydra.launcher.workers=2",
    "hydra.launcher.gpus_per_node=null",
    "hydra.launcher.cpus_per_task=2",
    "hydra.launcher.mem_gb=2",
    "hydra.launcher.timeout_min=30",
)


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with slurm.cluster(tmp_path_factory.mktemp("slurm")) as environment:
        yield environment


def asked(cluster: dict[str, str], *command: str) -> str:
    done = subprocess.run(command, env={**os.environ, **cluster}, capture_output=True, text=True, check=False)
    return done.stdout


@needs_slurm
def test_an_array_of_slurms_jobs_shares_a_sweep(
    sweep: Start, tmp_path: Path, reference: dict[str, bytes], cluster: dict[str, str]
) -> None:
    process = sweep(*SLURM, SLOWLY=0.1, **cluster)
    told = process.communicate()[0]
    assert process.returncode == 0, told
    assert_whole(tmp_path / "outputs", reference)
    assert re.search(r"Slurm job (\d+): 2 workers", told)
    assert sum(run["cells"] for run in document(tmp_path / "outputs")["runs"]) == 24


@needs_slurm
@pytest.mark.parametrize("how", ["requeue", "preempt"])
def test_a_worker_that_slurm_takes_away_comes_back(
    sweep: Start, tmp_path: Path, reference: dict[str, bytes], cluster: dict[str, str], how: str
) -> None:
    """Warned by USR2, as before its time is up, the worker asks to be queued again; preempted by a job of higher
    priority, it gives its leases back at SIGTERM, and Slurm queues it again."""
    root = tmp_path / "outputs"
    client = sweep(*SLURM, SLOWLY=0.5, **cluster)
    until(lambda: len(pictures(root)) > 2, 120)
    job = asked(cluster, "squeue", "-h", "-o", "%F").split()[0]
    if how == "requeue":
        asked(cluster, "scancel", "--signal=USR2", "--batch", f"{job}_0")
        asked(cluster, "scancel", "--signal=USR2", f"{job}_0")
    else:
        urgent = ("sbatch", "--partition=urgent", "--nodes=2", "--ntasks-per-node=2", "--output=/dev/null")
        asked(cluster, *urgent, "--wrap", "sleep 3")
    told = client.communicate(timeout=400)[0]
    assert client.returncode == 0, told
    assert_whole(root, reference)
    runs = document(root)["runs"]
    assert sum(run["cells"] for run in runs) >= 24


@needs_slurm
def test_srun_starts_workers_that_share_a_sweep(
    sweep: Start, tmp_path: Path, reference: dict[str, bytes], cluster: dict[str, str]
) -> None:
    process = sweep(before=("srun", "--ntasks=2", "--nodes=2", "--cpus-per-task=2"), SLOWLY=0.1, **cluster)
    told = process.communicate()[0]
    assert process.returncode == 0, told
    assert_whole(tmp_path / "outputs", reference)
    assert len(document(tmp_path / "outputs")["runs"]) == 2 and told.count("written by another worker") == 1


@needs_slurm
def test_what_slurm_refuses_is_a_mistake(sweep: Start, cluster: dict[str, str]) -> None:
    process = sweep(*SLURM, "hydra.launcher.partition=nowhere", **cluster)
    told = process.communicate()[0]
    assert process.returncode == 2 and "Traceback" not in told
    assert "hydra/launcher=slurm: sbatch refuses: " in told and "invalid partition" in told
