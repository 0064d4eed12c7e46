"""The launchers `local`, `slurm` and `ray`: the fused launcher, with workers that sample in its process's place.

The process that plans leads: it shows one progress bar over all workers, and reports at the end. Where it is stopped,
the workers go on, and the last one reports.
"""

import os
import subprocess
import sys
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore

from diffsweep.core import files
from diffsweep.core.problems import BadInput
from diffsweep.core.text import in_one_line
from hydra_plugins.diffsweep_fused._crews import Actor, Actors, Jobs, Processes
from hydra_plugins.diffsweep_fused.fused import FusedLauncher

MODULE = "hydra_plugins.diffsweep_fused.workers"
AHEAD = 120  # seconds before the end of its time at which Slurm warns a worker
OFTEN = 10_000  # how often a worker whose time is up is queued again


@dataclass
class LocalConf:
    """workers: how many; auto is one a CUDA device, or one where there is none."""

    _target_: str = f"{MODULE}.LocalLauncher"
    workers: Any = "auto"


@dataclass
class SlurmConf:
    """Slurm's options by their names, as submitit takes them; null leaves one to the cluster. workers: the elements of
    the job array, each of so many nodes, tasks and cards; options: any further ones, as in `options={reservation: r}`;
    setup: lines of shell that run before each worker."""

    _target_: str = f"{MODULE}.SlurmLauncher"
    workers: int = 1
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    exclude: str | None = None
    nodes: int = 1
    tasks_per_node: int = 1
    gpus_per_node: int | None = 1
    cpus_per_task: int | None = None
    mem_gb: float | None = None
    timeout_min: int = 1440
    array_parallelism: int = 256
    setup: list[str] | None = None
    options: dict[str, Any] | None = None


@dataclass
class RayConf:
    """workers: how many, each with so many GPUs (auto: one where Ray has any) and CPUs; address: of a Ray that runs
    (auto: on this machine); null starts one for this command, which ends with it."""

    _target_: str = f"{MODULE}.RayLauncher"
    workers: int = 1
    gpus: Any = "auto"
    cpus: float = 1
    address: str | None = None


for name, node in {"local": LocalConf, "slurm": SlurmConf, "ray": RayConf}.items():
    ConfigStore.instance().store(group="hydra/launcher", name=name, node=node, provider="diffsweep")


class _Launcher(FusedLauncher):
    """Hands the cells over to workers."""

    def _run(self, cells: list[Any]) -> Sequence[Any]:
        return self.task_function.many(cells, start=self._start)  # type: ignore[union-attr]

    @abstractmethod
    def _start(self, workplace: Path) -> Any:
        """Start workers that take part in the work of this folder: a `runner.crew.Crew`."""


def _logs(workplace: Path) -> Path:
    """The folder of the workers' logs, beside the sweep's files."""
    folder = workplace.parents[1] / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class LocalLauncher(_Launcher):
    """A worker for each CUDA device of this machine, or any number that share its processor."""

    def __init__(self, workers: Any) -> None:
        super().__init__()
        if workers != "auto" and not (isinstance(workers, int) and not isinstance(workers, bool) and workers >= 1):
            raise BadInput(f"hydra.launcher.workers={workers}: must be auto, or a number of workers of at least 1")
        self.workers = workers

    def _start(self, workplace: Path) -> Processes:
        cards = _cards()
        number = self.workers if self.workers != "auto" else max(1, len(cards))
        command = [sys.executable, "-m", "diffsweep.worker", str(workplace.absolute())]
        processes, logs = [], _logs(workplace)
        for k in range(number):
            own = {"CUDA_VISIBLE_DEVICES": cards[k % len(cards)]} if cards else {}
            if number > 1 and "OMP_NUM_THREADS" not in os.environ:  # they share the processor
                own |= {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // number))}
            with files.appending(logs / f"worker-{k}.log") as log:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **own},
                    start_new_session=True,  # a signal from the terminal is for the one that leads
                )
            processes.append(process)
        return Processes(processes, logs)


def _cards() -> list[str]:
    """The CUDA devices that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return named[:there] if len(named) >= there else [str(k) for k in range(there)]


class SlurmLauncher(_Launcher):
    """An array of workers, each a job of Slurm's, which is queued again when it is preempted or its time is up."""

    def __init__(self, workers: Any, setup: Any, options: Any, **asked: Any) -> None:
        super().__init__()
        self.workers, self.setup_lines, self.options, self.asked = _number(workers), setup, options, asked

    def _start(self, workplace: Path) -> Jobs:
        try:
            import submitit
        except ImportError:
            raise BadInput("hydra/launcher=slurm: needs submitit: pip install 'diffsweep[slurm]'") from None
        from diffsweep.worker import Job

        logs = _logs(workplace)
        try:
            executor = submitit.SlurmExecutor(folder=logs, max_num_timeout=OFTEN)
        except RuntimeError as error:
            raise BadInput(f"hydra/launcher=slurm: {error}") from None
        executor.update_parameters(**self._parameters())
        try:
            with executor.batch():
                jobs = [executor.submit(Job(str(workplace.absolute()))) for _ in range(self.workers)]
        except submitit.core.utils.FailedJobError as error:
            raise BadInput(f"hydra/launcher=slurm: sbatch refuses: {in_one_line(error)}") from None
        return Jobs(jobs, logs)

    def _parameters(self) -> dict[str, Any]:
        """In Slurm's words."""
        asked: dict[str, Any] = {key: value for key, value in self.asked.items() if value is not None}
        memory = {"mem": f"{round(asked.pop('mem_gb') * 1024)}M"} if "mem_gb" in asked else {}
        words: Mapping[str, Any] = {
            "job_name": "diffsweep",
            "time": asked.pop("timeout_min"),
            "ntasks_per_node": asked.pop("tasks_per_node"),
            "signal_delay_s": AHEAD,
            "setup": list(self.setup_lines) if self.setup_lines else None,
            "additional_parameters": {str(key): value for key, value in (self.options or {}).items()},
        }
        return {**asked, **memory, **words}


class RayLauncher(_Launcher):
    """Workers as actors of Ray, which places them, and starts one again whose node is lost."""

    def __init__(self, workers: Any, gpus: Any, cpus: float, address: str | None) -> None:
        super().__init__()
        if gpus != "auto" and not (isinstance(gpus, int | float) and gpus >= 0):
            raise BadInput(f"hydra.launcher.gpus={gpus}: must be auto, or a number of GPUs of at least 0")
        self.workers, self.gpus, self.cpus, self.address = _number(workers), gpus, cpus, address

    def _start(self, workplace: Path) -> Actors:
        try:
            import ray
        except ImportError:
            raise BadInput("hydra/launcher=ray: needs Ray: pip install 'diffsweep[ray]'") from None
        if not ray.is_initialized():
            try:
                ray.init(self.address, namespace="diffsweep", include_dashboard=False, log_to_driver=False)
            except ConnectionError as error:
                raise BadInput(f"hydra.launcher.address={self.address}: {error}") from None
        logs = _logs(workplace)
        there: Any = ray
        gpus = min(1, there.cluster_resources().get("GPU", 0)) if self.gpus == "auto" else self.gpus
        kind: Any = ray.remote(num_gpus=gpus, num_cpus=self.cpus, max_restarts=-1, max_task_retries=-1)(Actor)
        lasting = {"lifetime": "detached"} if self.address else {}
        running = []
        for k in range(self.workers):
            actor = kind.options(**lasting).remote()
            log = str((logs / f"worker-{k}.log").absolute())
            running.append((actor, actor.run.remote(str(workplace.absolute()), log, os.environ.get("PYTHONPATH", ""))))
        return Actors(running, logs)


def _number(workers: Any) -> int:
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise BadInput(f"hydra.launcher.workers={workers}: must be a number of workers of at least 1")
    return workers
