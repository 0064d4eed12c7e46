"""Workers that a launcher starts, in place of the process that plans."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from diffsweep.core.leases import Leases
from diffsweep.core.locks import Busy
from diffsweep.core.problems import BadInput
from diffsweep.runner.plan import Raw
from diffsweep.runner.shared import LOGS, Shared

LOOK = 5.0  # seconds between two looks at the processes, which may cost a command


class Crew(Protocol):
    """Workers that were started."""

    @property
    def told(self) -> str:
        """What they are, in words."""
        ...

    def alive(self) -> bool:
        """Whether one of them runs, or is still to."""
        ...


Start = Callable[[Path], Crew]
"""Starts workers that take part in the work of a folder."""


@dataclass(frozen=True)
class Handing:
    """What is handed over to workers, and how they are started."""

    raw: Sequence[Raw]
    start: Start


class Lookout:
    """Sees whether workers are left."""

    def __init__(self, crew: Crew, leases: Leases) -> None:
        self._crew, self._leases = crew, leases
        self._next = 0.0

    def look(self, shared: Shared | None) -> None:
        """Raise what ended the workers, where none is left and their work is not over."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + LOOK
        if self._crew.alive():
            return
        if shared:
            shared.look()
            if shared.over:
                return
        workers = [worker for worker in self._leases.workers().values() if worker.name != self._leases.name]
        if any(self._leases.alive(worker.name) for worker in workers):
            return
        ended = [worker.told["error"] for worker in workers if worker.told.get("error")]
        mistakes = dict.fromkeys(message for error in ended if error["code"] == 2 for message in error["messages"])
        if mistakes:
            raise BadInput(mistakes)
        reasons = dict.fromkeys(message for error in ended for message in error["messages"])
        logs = self._leases.folder.parents[1] / LOGS
        raise Busy("; ".join([f"no worker is left; their logs are in {logs}", *reasons]))
