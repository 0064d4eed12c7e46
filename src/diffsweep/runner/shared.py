"""A sweep's cells, shared by its workers: whoever runs the same sweep on the same folder takes a part of them.

    sweeps/<name>/work/<digest>/     while work goes on; `core.leases` says what lies there
        claims/lead.0                who writes sweep.json, logs to W&B and reports at the end
        claims/0-7.0                 who samples a lot of cells, the eighth of the first model's
        done/0-7                     a lot whose cells are all stored, or have failed
        done/<cell>.failed0          why a cell failed the first time, and where
        done/stop.0                  a request to all workers that were there to end
        done/shape                   the batch shape, the threads and the device that all workers have in common

A worker claims lots while its engine has room for them. While others are at work it leaves them their part of what
remains, and at the end it takes over what dead workers have left, and once or more what failed elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

from diffsweep.core.leases import Gone, Leases, Worker, clear
from diffsweep.core.text import counted
from diffsweep.runner.cell import Cell
from diffsweep.runner.lots import Lot
from diffsweep.runner.shape import Agreed

LEAD, SHAPE, STOP = "lead", "shape", "stop."  # keys
LOGS = "logs"  # beside the sweep's files
# states of a worker: it leads others and samples nothing; it samples; it waits for others' cells; it has no more to do
LEADING, LOADING, SAMPLING, WAITING = "leading", "loading", "sampling", "waiting"
MEASURING, ENDED = "measuring", "ended"
AT_WORK = (LOADING, SAMPLING, WAITING, MEASURING)
LOOK = 1.0  # seconds between two looks at what others do, while this worker works
SHARE = 0.03  # of its time at most
PAUSE = 0.5  # seconds between two looks while it waits
Heard = Callable[[Sequence[str], int], None]
FAILED = re.compile(r"(?P<cell>[\w-]+)\.failed(?P<time>\d+)")


def workplace(folder: Path, *decides: Any) -> Path:
    """Where the workers of a sweep (its folder) meet that do the same, with the same version of diffsweep."""
    text = json.dumps([version("diffsweep"), *decides], sort_keys=True, default=str)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return folder / "work" / digest[:12]


def agreed(leases: Leases) -> Agreed:
    """What the first worker has decided. Gone where a disk has lost that: then all begin anew."""
    try:
        return Agreed.read(leases.text(SHAPE))
    except (ValueError, TypeError, LookupError):
        clear(leases.folder)
        raise Gone(leases.folder) from None


def stops(settled: AbstractSet[str]) -> int:
    """How often the workers of this work were asked to stop. settled: what is done of it."""
    return sum(name.startswith(STOP) for name in settled)


def stop(place: Path) -> int:
    """Ask the workers that meet in this folder to stop; how many are alive."""
    leases = Leases(place)
    alive = sum(leases.alive(name) for name in leases.workers())
    if alive:
        leases.settle(f"{STOP}{stops(leases.settled())}")
    return alive


class Asked(KeyboardInterrupt):
    """All workers were asked to end."""


class Shared:
    """This worker's part of the work.

    groups: the lots of each model; asked: the cells that were not stored when this worker began; kept: whether a cell
    is stored by now; retries: how often a failed cell is tried again, by another worker; before: the lots that were
    done before this worker looked at the store. heard: is called with the cells that others have stored or given up,
    and with the rows that they have computed, as this worker hears of it.
    """

    def __init__(
        self,
        leases: Leases,
        groups: Sequence[Sequence[Lot]],
        asked: AbstractSet[str],
        kept: Callable[[Cell], bool],
        retries: int = 0,
        before: AbstractSet[str] = frozenset(),
        heard: Heard | None = None,
    ) -> None:
        self.leases, self.groups = leases, groups
        self.failed: dict[str, list[Mapping[str, str]]] = defaultdict(list)  # each time: by which worker, and why
        self._asked, self._kept, self._retries = asked, kept, retries
        self._cells = {cell.id: cell for lot in chain(*groups) for cell in lot.cells}
        self._lot = {cell.id: lot for lot in chain(*groups) for cell in lot.cells}
        self._free = [[*reversed(lots)] for lots in groups]  # not known to be claimed; the last is next
        self._mine: dict[str, set[str]] = {}  # cells that this worker has still to end, by the key they are claimed by
        self._under: dict[str, str] = {}  # and the other way round
        self.ended: set[str] = set()  # cells, by this worker
        self._claims: dict[str, int] = {}
        self._settled: set[str] = set()
        self._stale = {*self._lacking(before)}
        self._next = 0.0  # when it looks at the others again
        self._stops = stops(self.leases.settled())  # that were meant for workers before it
        self._rows: dict[str, int] = {}  # of the others
        self._live = 1
        self._heard: Heard | None = None
        self.look()  # what they did before is in the store
        self._heard = heard

    def _lacking(self, before: AbstractSet[str]) -> Iterator[str]:
        """Lots that were done whose cells are neither stored nor have failed: somebody has removed them since."""
        failed = {found["cell"] for name in self.leases.settled() if (found := FAILED.fullmatch(name))}
        lacking = self._asked - failed
        for lot in chain(*self.groups):
            if lot.key in before and any(cell.id in lacking for cell in lot.cells):
                yield lot.key

    def _key(self, lot: Lot) -> str:
        return f"{lot.key}+" if lot.key in self._stale else lot.key

    # -- the others ----------------------------------------------------------------------------------------------------
    def look(self) -> None:
        """See what the others have done since the last look."""
        began = time.monotonic()
        settled = self.leases.settled()
        if stops(settled) > self._stops:
            raise Asked("diffsweep-results stop")
        new, self._settled = settled - self._settled, settled
        self._claims = self.leases.claims()
        for name in sorted(new):
            if found := FAILED.fullmatch(name):
                self.failed[found["cell"]].append(_entry(self.leases.text(name)))
        cells = [c.id for lot in chain(*self.groups) if self._key(lot) in new for c in lot.cells]
        rows = 0
        others = [worker for worker in self.leases.workers().values() if worker.name != self.leases.name]
        for worker in others:
            rows += worker.rows - self._rows.setdefault(worker.name, worker.rows)
            self._rows[worker.name] = worker.rows
        self._live = 1 + sum(self.leases.alive(worker.name) for worker in others)
        if self._heard:
            self._heard([c for c in cells if c in self._asked and c not in self.ended], rows)
        now = time.monotonic()
        self._next = now + max(LOOK, (now - began) / SHARE)

    def workers(self) -> Iterable[Worker]:
        """The others that are alive."""
        return [
            worker
            for worker in self.leases.workers().values()
            if worker.name != self.leases.name and self.leases.alive(worker.name)
        ]

    def wait(self) -> None:
        """Let a moment pass, and look."""
        time.sleep(max(PAUSE, self._next - LOOK - time.monotonic()))
        self.look()

    @property
    def over(self) -> bool:
        """Whether nothing is left to do, for this worker or for others."""
        if any(self._key(lot) not in self._settled for lot in chain(*self.groups)):
            return False
        again = [cell for cell in self.failed if self._may_try(cell)]
        others = self.workers() if again else ()
        names = {worker.name for worker in others if worker.state not in (LEADING, ENDED)}
        return not any(names - self._tried(cell) for cell in again)

    @property
    def lead(self) -> bool:
        """Whether this worker leads, or can: the one that did is dead, or has left."""
        return self.leases.take(LEAD, self.leases.claims().get(LEAD))

    # -- this worker ---------------------------------------------------------------------------------------------------
    def take(self, number: int) -> Sequence[Cell] | None:
        """Further cells of a model to sample: none where there are none for now, None where all are taken."""
        if time.monotonic() > self._next:
            self.look()
        if self._live > 1 and self._weight() >= max(1.0, self._remaining() / (2 * self._live)):
            return ()
        free, blocked = self._free[number], []
        cells: Sequence[Cell] = ()
        while free and not cells:
            lot = free.pop()
            if not self._ready(lot):
                blocked.append(lot)
            elif self.leases.take(self._key(lot)):
                cells = self._begun(self._key(lot), lot.cells)
        free += reversed(blocked)
        return cells or self._left(number) or (() if free else None)

    def _left(self, number: int) -> Sequence[Cell]:
        """What dead workers have left of a model's cells, and what has failed elsewhere."""
        for lot in self.groups[number]:
            key = self._key(lot)
            if key in self._settled or key in self._mine or not self._ready(lot):
                continue
            if self.leases.take(key, self._claims.get(key)) and (cells := self._begun(key, lot.cells)):
                return cells
        models = {cell.model for lot in self.groups[number][:1] for cell in lot.cells}
        for cell_id in [cell for cell in self.failed if self._may_try(cell)]:
            key, cell = self._again(cell_id), self._cells[cell_id]
            if cell.model not in models or self.leases.name in self._tried(cell_id) or key in self._mine:
                continue
            if self.leases.take(key, self._claims.get(key)) and (cells := self._begun(key, [cell])):
                return cells
        return ()

    def _begun(self, key: str, cells: Sequence[Cell]) -> list[Cell]:
        """Those of the claimed cells that are to be sampled."""
        found = [cell for cell in cells if cell.id in self._asked and not self._kept(cell)]
        self._claims.setdefault(key, 0)
        self._mine[key] = {cell.id for cell in found}
        self._under |= dict.fromkeys(self._mine[key], key)
        self._settle_if_done(key)
        return found

    def end(self, cell_id: str, reason: str | None) -> None:
        """A cell of this worker's is stored, or has failed for this reason."""
        self.ended.add(cell_id)
        if reason is not None:
            entry = {"worker": self.leases.name, "reason": reason}
            self.failed[cell_id].append(entry)
            time = len(self.failed[cell_id]) - 1
            self._settled.add(f"{cell_id}.failed{time}")
            self.leases.settle(f"{cell_id}.failed{time}", json.dumps(entry))
        key = self._under.pop(cell_id)
        self._mine[key].discard(cell_id)
        self._settle_if_done(key)

    def _settle_if_done(self, key: str) -> None:
        if not self._mine[key]:
            del self._mine[key]
            self._settled.add(key)
            self.leases.settle(key)

    def _ready(self, lot: Lot) -> bool:
        """Whether the pictures that a lot's cells enlarge are there, or will never be, or are coming here."""
        return all(
            need in self.ended or need in self._under or self._key(self._lot[need]) in self._settled
            for need in lot.needs
        )

    def _weight(self) -> float:
        """How many calls the cells fill that this worker has at hand."""
        return sum(self._lot[id].weight / len(self._lot[id].cells) for cells in self._mine.values() for id in cells)

    def _remaining(self) -> float:
        """How many calls the lots fill that nobody has claimed."""
        return sum(lot.weight for lot in chain(*self.groups) if self._key(lot) not in self._claims)

    def _tried(self, cell_id: str) -> set[str]:
        return {entry.get("worker", "") for entry in self.failed[cell_id]}

    def _may_try(self, cell_id: str) -> bool:
        """Whether a failed cell may be tried again."""
        times = len(self.failed[cell_id])
        return cell_id in self._cells and times <= self._retries and self._again(cell_id) not in self._settled

    def _again(self, cell_id: str) -> str:
        return f"{cell_id}.again{len(self.failed[cell_id])}"

    def reasons(self) -> dict[str, str]:
        """Why cells failed that are not stored."""
        return {cell_id: entries[-1].get("reason", "") for cell_id, entries in self.failed.items() if entries}

    def woken(self) -> str | None:
        """That this worker was silent for so long that others could take its cells over, in words."""
        if not self.leases.lost:
            return None
        self.leases.lost = False
        told = f"this worker was silent for longer than engine.grace={self.leases.grace:g} seconds"
        taken = sum(key in self._mine for key in self.leases.superseded())
        return (
            f"{told}: others took over {counted('lot', taken)} of its cells; each cell is stored once"
            if taken
            else None
        )

    def fewer(self) -> dict[str, int]:
        """The fewest rows a call that others have had to go on with, by the model."""
        rows: dict[str, int] = {}
        for worker in self.workers():
            for model, n in worker.told.get("fewer", {}).items():
                rows[model] = min(n, rows.get(model, n))
        return rows

    @property
    def waits_for(self) -> str:
        """What this worker waits for, in words."""
        at_work = sum(worker.state not in (WAITING, LEADING, ENDED) for worker in self.workers())
        return f"waiting for {counted('other worker', at_work)}"


def _entry(text: str) -> Mapping[str, str]:
    """Why a cell failed, as another worker noted it; nothing where a disk has lost that."""
    try:
        entry = json.loads(text)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}
