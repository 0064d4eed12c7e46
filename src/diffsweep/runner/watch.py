"""Watches the workers of a sweep from anywhere that its folder is seen, without taking part."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from diffsweep.core.leases import Gone, Leases, Worker
from diffsweep.core.text import counted


@dataclass(frozen=True)
class Seen:
    """The workers that are alive, and the cells that all workers have stored so far."""

    alive: tuple[Worker, ...]
    cells: int

    def __str__(self) -> str:
        states = dict.fromkeys(sorted(worker.state for worker in self.alive))
        each = [f"{sum(worker.state == state for worker in self.alive)} {state}" for state in states]
        return f"{counted('worker', len(self.alive))}{': ' * bool(each)}{', '.join(each)}"


def watch(folder: Path) -> Iterator[Seen]:
    """What the workers of the sweep in this folder do, a look at each step, until their work is over: none where nobody
    is at work."""
    observers: dict[Path, Leases] = {}
    while True:
        for place in (folder / "work").glob("[!.]*"):
            observers.setdefault(place, Leases(place))
        found: list[Worker] = []
        alive: list[Worker] = []
        for place, leases in [*observers.items()]:
            with suppress(Gone):
                workers = [*leases.workers().values()]
                found += workers
                alive += [worker for worker in workers if leases.alive(worker.name)]
                continue
            del observers[place]
        if not alive:
            return
        yield Seen(tuple(alive), sum(worker.cells for worker in found))
