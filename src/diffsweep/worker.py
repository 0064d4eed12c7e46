"""A worker of a sweep that a launcher has started: `python -m diffsweep.worker FOLDER`.

It reads the plan that was handed over in the sweep's work folder, samples a part of its cells, measures what it made,
and ends when nothing is left. Where the process that started it has ended, the last worker writes the sweep's files.
"""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from typing import Any

from diffsweep import process
from diffsweep.core.problems import BadInput

SAFE = "Cells that are stored are safe"
KILLED = 3600.0  # seconds at most between Slurm's SIGTERM and its SIGKILL


def main() -> int:
    """What `python -m diffsweep.worker FOLDER` calls; returns the exit code."""
    return run(sys.argv[1])


def run(workplace: str) -> int:
    """Take part in the work of this folder; the exit code."""
    return process.run("diffsweep.worker", lambda: act(Path(workplace)), mistake, SAFE)


def act(workplace: Path) -> int:
    from diffsweep.runner import handed
    from diffsweep.runner.log import Log
    from diffsweep.runner.run import Sweep

    try:
        given = handed.read(workplace)
    except FileNotFoundError:
        print(f"{workplace}: nothing is left to do", file=sys.stderr)
        return 0
    sweep = Sweep(given.whole, given.command, listener=Log(sys.stderr.write))
    if sweep.workplace.resolve() != workplace.resolve():
        raise BadInput(f"{workplace}: its plan is not for this folder: another output_dir, or another diffsweep")
    return sweep.follow(given.wanted)


def mistake(error: Exception) -> str | None:
    return "\n".join(error.messages) if isinstance(error, BadInput) else None


class Job:
    """The worker as Slurm runs it through submitit, which requeues it when its time is up or it is preempted."""

    def __init__(self, workplace: str) -> None:
        self.workplace = workplace

    def __call__(self) -> int:
        requeue: Any = signal.getsignal(signal.SIGUSR2)  # submitit's, which ends the process
        code = run(self.workplace)
        if code == 128 + signal.SIGUSR2:
            requeue(signal.SIGUSR2, None)
        if code == 128 + signal.SIGTERM:  # preempted: a job that ends by itself now is not requeued
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(KILLED)
        if code not in (0, 128 + signal.SIGINT):  # asked to stop
            raise RuntimeError(f"the worker ended with exit code {code}; its log says why")
        return code

    def checkpoint(self) -> Any:
        """What submitit runs when the job is requeued: the same again, which finds what is left."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


if __name__ == "__main__":
    sys.exit(main())
