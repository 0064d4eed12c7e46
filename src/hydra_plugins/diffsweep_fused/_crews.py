"""Workers that the launchers have started: processes, jobs of Slurm's, actors of Ray's."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffsweep.core import files
from diffsweep.core.text import counted


@dataclass(frozen=True)
class Processes:
    """Workers on this machine."""

    processes: Sequence[subprocess.Popen[bytes]]
    logs: Path

    @property
    def told(self) -> str:
        return f"{counted('worker', len(self.processes))} on this machine; logs: {self.logs}/worker-*.log"

    def alive(self) -> bool:
        return any(process.poll() is None for process in self.processes)


@dataclass(frozen=True)
class Jobs:
    """Workers in a Slurm job array."""

    jobs: Sequence[Any]
    logs: Path

    @property
    def _array(self) -> str:
        return str(self.jobs[0].job_id).partition("_")[0]

    @property
    def told(self) -> str:
        return f"Slurm job {self._array}: {counted('worker', len(self.jobs))}; logs: {self.logs}/{self._array}_*"

    def alive(self) -> bool:
        """Whether Slurm has one queued or running: asked of squeue, which needs no accounting."""
        command = ["squeue", "--noheader", "--jobs", self._array, "--format", "%T"]
        asked = subprocess.run(command, capture_output=True, text=True, check=False)
        if asked.returncode:  # a job that Slurm has forgotten, or a Slurm that does not answer
            return "Invalid job id" not in asked.stderr
        return bool(asked.stdout.split())


class Actor:
    """A worker's process, on the node and the cards that Ray chose."""

    def run(self, workplace: str, log: str, path: str) -> int:
        """path: PYTHONPATH of the process that plans, where a user's own parts may lie; Ray sets one of its own."""
        with files.appending(Path(log)) as file:
            command = [sys.executable, "-m", "diffsweep.worker", workplace]
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": path},
                preexec_fn=_ends_with_its_parent,
                check=False,
            )
        return done.returncode


def _ends_with_its_parent() -> None:
    """Have Linux send this process SIGTERM when its parent ends (PR_SET_PDEATHSIG)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


@dataclass(frozen=True)
class Actors:
    """Workers that Ray runs."""

    running: Sequence[tuple[Any, Any]]
    logs: Path

    @property
    def told(self) -> str:
        return f"Ray: {counted('worker', len(self.running))}; logs: {self.logs}/worker-*.log"

    def alive(self) -> bool:
        """Whether one of them runs, or waits for its place."""
        import ray

        return bool(ray.wait([task for _, task in self.running], num_returns=len(self.running), timeout=0)[1])
