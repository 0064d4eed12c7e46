"""Runs a sweep: keeps stored cells, samples the missing ones in shared model calls, and measures all of them.

Every process that runs the same sweep on the same folder is a worker of it, and takes a part of the missing cells
(`runner.shared`). One of them leads: it writes sweep.json, logs to the tracker, and reports once nothing is left.

The batch shape is chosen once a sweep and kept in its sweep.json, so that a resumed sweep gives the same bits. A run
that lacks memory goes on with fewer rows a call; the next one begins with the sweep's shape again. A complete sweep
loads no model, and no torch.
"""

from __future__ import annotations

import shlex
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from diffsweep.core.failures import ERRORS, Failures, reason
from diffsweep.core.leases import POLL, Gone, Leases, clear, done_at, heard, moving, tidy
from diffsweep.core.locks import Busy
from diffsweep.core.problems import BadInput, require
from diffsweep.core.text import counted
from diffsweep.metric import measured_sweep, score
from diffsweep.runner import handed, preflight, shape
from diffsweep.runner.background import Background
from diffsweep.runner.cell import Cell
from diffsweep.runner.identity import as_typed
from diffsweep.runner.listener import Listener
from diffsweep.runner.log import Log
from diffsweep.runner.lots import lots
from diffsweep.runner.plan import Plan, Raw, axes_of, plan
from diffsweep.runner.sampling import Ended, Run, Sampler, without_base
from diffsweep.runner.shape import Agreed, Shape
from diffsweep.runner.shared import LEAD, LOGS, MEASURING, SAMPLING, SHAPE, WAITING, Shared, workplace
from diffsweep.store import document
from diffsweep.store.cells import Store
from diffsweep.store.schema import Absent, CellEntry, Damaged, Document, RunEntry

if TYPE_CHECKING:
    from diffsweep.tracker.session import Session


LOOK = 5.0  # seconds between two looks at the processes of workers


@dataclass(frozen=True)
class Outcome:
    """How a sweep ended: each cell's id, in order, whether it is `done` or `failed`, and where the files are. session:
    the tracker's, open for later launches of the sweep; the caller closes it after the last one. unmeasured: metrics
    that failed, with their errors."""

    ids: list[str]
    statuses: list[str]
    folder: Path
    session: Session | None = None
    unmeasured: Mapping[str, str] = field(default_factory=dict)
    undrawn: int = 0  # sheets and figures that an error kept from being drawn

    @property
    def failed(self) -> int:
        """How many cells failed, and metrics, sheets and figures."""
        return self.statuses.count("failed") + len(self.unmeasured) + self.undrawn


def run_sweep(
    raw: Sequence[Raw],
    name: str | None = None,
    command: str = "",
    before: Sequence[Raw] = (),
    joins: bool = False,
    session: Session | None = None,
    listener: Listener | None = None,
    start: Start | None = None,
) -> Outcome:
    """Plan, sample what is missing, measure, and write a sweep's files.

    raw: a composed configuration and its axes for each cell; before: those of earlier launches of the same sweep (an
    optimising sweeper's). joins: the cells that sweep.json lists already stay in it, for launchers that run each cell
    in a process of its own. session: that of the earlier launches. listener: hears how it goes on; without one, nobody
    does. start: starts workers that sample in place of this process. Raises BadInput before a model is loaded.
    """
    own, listener = plan(raw, name), Listener() if listener is None else listener
    whole = plan([*before, *raw], name) if before else own
    sweep = Sweep(whole, command, joins, session, bool(before), listener)
    if start:
        sweep.hands_over = Handing([*before, *raw], start)
    try:
        sweep.run()
    except BaseException:
        if sweep.session and (told := sweep.session.close()):
            listener.note(told)
        raise
    statuses = [sweep.status(cell) for cell in own.cells]
    ids = [cell.id for cell in own.cells]
    return Outcome(ids, statuses, sweep.folder, sweep.session, sweep.unmeasured, sweep.undrawn)


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


class Sweep:
    """One sweep's state while it runs. hands_over: where other processes sample; follows: whether this process is one
    of these, and leads them only where nobody else does."""

    def __init__(
        self,
        whole: Plan,
        command: str,
        joins: bool = False,
        session: Session | None = None,
        in_parts: bool = False,
        listener: Listener | None = None,
    ) -> None:
        self.plan = whole
        self.listener = Listener() if listener is None else listener
        self.command = command
        self.joins = joins
        self.store = Store(whole.root)
        self.folder = whole.root / "sweeps" / whole.name
        self.failures = Failures()
        self.stored: set[str] = set()  # cells that this run has found finished, or has finished
        self.shape = Shape({}, {})
        self.threads_before: int | None = None
        self.unmeasured = Failures()  # metrics
        self.undrawn = 0
        self.this = Run()
        self.planned = {cell.id for cell in whole.cells}
        decides = ([cell.id for cell in whole.cells], whole.metrics.names, whole.trajectory, whole.rows, whole.threads)
        self.workplace = workplace(self.folder, *decides)
        self.before = done_at(self.workplace)  # before this run looks at the store
        self.shared: Shared | None = None
        self.leads = True
        self.hands_over: Handing | None = None
        self.follows = False
        self.next_look = 0.0  # at the workers that were started
        self.background: Background | None = None
        self.earlier = self._earlier(self.listener.note)
        self.in_parts = joins or in_parts or self.earlier.get("in_parts", False)
        self.session = session

    def _earlier(self, tell: Callable[[str], None] = lambda text: None) -> Document:
        """What sweep.json holds; no cells where it is missing or damaged."""
        try:
            return {**document.read(self.folder), "name": self.plan.name}
        except Absent:
            pass
        except Damaged as error:
            tell(f"note: {error}; it is written anew")
        return document.empty(self.plan.name, self.command, self.this.started)

    def status(self, cell: Cell) -> str:
        """`done` if the cell was stored at the beginning, or has been since: its files are not read again."""
        wrong = cell.id in self.failures or cell.id in self.store.damaged
        return "done" if cell.id in self.stored and not wrong else "failed"

    def _refuse_to_replace(self, others: Collection[str]) -> None:
        """BadInput where the sweep's tables would lose stored cells, without sweep.replace=true. Cells whose content
        alone changed (an edited input, an edited plugin) are not lost, nor are those still to come of a sweep in parts
        (an optimiser's trials, batches, processes)."""
        if self.plan.replace or self.in_parts:
            return
        renewed = {as_typed(cell.config) for cell in self.plan.cells}
        records = filter(None, map(self.store.finished, sorted(others)))
        if finished := sum(as_typed(record["config"]) not in renewed for record in records):
            raise BadInput(
                f"sweep.name={self.plan.name}: this sweep has {counted('other cell', finished)}, which its tables and "
                "sheets would not show any more; give another sweep.name, or sweep.replace=true (stored cells stay)"
            )

    def follow(self) -> int:
        """Take part in a sweep that another process leads; the exit code."""
        self.follows = True
        missing = [cell for cell in {cell.id: cell for cell in self.plan.cells}.values() if not self._kept(cell)]
        if missing:
            before = {cell.id: cell for one in missing for cell in self._before(one)} | {c.id: c for c in missing}
            self._share([*before.values()])
        return 1 if self.failures else 0

    def run(self) -> None:
        try:
            self._run()
        except Busy as error:
            stored = sum(self.status(cell) == "done" for cell in self.plan.cells)
            told = f"{stored} of {counted('cell', len(self.plan.cells))} stored"
            later = f"diffsweep-results report {shlex.quote(self.plan.name)} writes their tables and sheets later"
            raise Busy(f"{error}; gave up waiting. {told}; {later}") from None
        finally:
            if self.threads_before:  # they are the program's
                import torch

                torch.set_num_threads(self.threads_before)

    def _run(self) -> None:
        gone = {cell["cell_id"] for cell in self.earlier["cells"]} - {cell.id for cell in self.plan.cells}
        self._refuse_to_replace(gone)
        left = sum(self.store.finished(cell_id) is not None for cell_id in gone)
        self.store.damaged.clear()  # of those that are left behind
        for note in self.plan.notes:
            self.listener.note(f"note: {note}")
        distinct = {cell.id: cell for cell in self.plan.cells}
        self.store.tidy(distinct)
        missing = [cell for cell in distinct.values() if not self._kept(cell)]
        kept = len(distinct) - len(missing)
        number = len(self.plan.cells)
        if left and not self.joins and not self.follows:
            others = counted("other cell", left)
            self.listener.note(f"note: {self.plan.name} had {others}, still stored, which its files no longer show")
        before = {cell.id: cell for one in missing for cell in self._before(one)}
        first = {cell_id: cell for cell_id, cell in before.items() if cell_id not in distinct}
        also = f", and {len(first)} whose pictures they enlarge" if first else ""
        told = f"{counted('cell', number)}, {kept} already stored, {len(missing)} to sample"
        self.listener.note(f"{self.plan.name}: {told}{also}")
        for line in self.store.damage_report("sampled again, damaged"):
            self.listener.note(line)
        if missing:
            self._share([*first.values(), *missing])
        elif self.workplace.is_dir():
            self._take_over()
        else:
            self._begin_tracking()
            self._report()
        tidy(self.workplace.parent)

    def _share(self, wanted: Sequence[Cell]) -> None:
        """Sample these cells, with whatever other workers are at them."""
        ready = None if self.hands_over or self.follows else self._ready(wanted)
        if not self.follows:  # whose own log is what it prints
            self.listener = log = Log(self._append_to_log, self.listener)
            log.line(self.command)
        reasons: dict[str, str] = {}
        while wanted:
            try:
                leases = Leases(self.workplace, self.plan.grace)
                leases.more["in_parts"] = self.in_parts
                with leases, _telling(leases):
                    if not self.follows:
                        self._require_alone()
                    if self.hands_over:
                        self._direct(leases, wanted)
                    else:
                        self._take_part(leases, wanted, *(ready or self._ready(wanted)))
                return
            except Gone:  # another worker has finished the sweep, or the work folder was removed
                reasons = self._reasons()
                wanted = [cell for cell in wanted if not self._kept(cell) and cell.id not in reasons]
        self._ended_elsewhere(reasons)

    def _take_over(self) -> None:
        """Report, where all cells are stored and nobody else is about to."""
        self.leads = False
        try:
            with Leases(self.workplace, self.plan.grace) as leases:
                shared = self.shared = Shared(leases, (), frozenset(), self._kept)
                if self._leads_at_the_end():
                    self._begin_tracking()
                    self._finish(shared, ())
        except Gone:
            self._ended_elsewhere({})

    def _require_alone(self) -> None:
        """BadInput where workers of other cells are at this sweep: whoever ended last would write its own alone into
        the sweep's files. Processes that each run a part of one sweep know of one another."""
        for place in self.workplace.parent.glob("[!.]*"):
            others = [worker for worker in heard(place) if not worker.left] if place != self.workplace else []
            in_parts = self.in_parts and all(worker.told.get("in_parts") for worker in others)
            if others and not in_parts and moving(place, self.plan.grace):
                raise BadInput(
                    f"sweep.name={self.plan.name}: another command works on other cells of this sweep now; give "
                    f"another sweep.name, or run this again once that has ended (diffsweep-results watch {self.plan.name})"
                )

    def _append_to_log(self, line: str) -> None:
        with suppress(OSError), (self.folder / "sweep.log").open("a", encoding="utf-8") as file:
            file.write(line)

    def _begin_tracking(self) -> None:
        if self.session is None and hasattr(self.plan.tracker, "begin"):
            self.session = self.plan.tracker.begin(self.store, self.folder)

    def _reasons(self) -> dict[str, str]:
        """Why cells have failed, as sweep.json has it."""
        return {c["cell_id"]: c.get("reason") or "" for c in self._earlier()["cells"] if c["status"] == "failed"}

    def _ended_elsewhere(self, reasons: Mapping[str, str]) -> None:
        """Note what became of the cells, which another worker has reported on."""
        for cell in {cell.id: cell for cell in self.plan.cells}.values():
            if not self._kept(cell):
                self.failures[cell.id] = reasons.get(cell.id, "")
        self.listener.elsewhere(self.folder)

    def _kept(self, cell: Cell) -> bool:
        """Whether the cell is stored with all that this run wants of it."""
        record = self.store.finished(cell.id)
        if record is None:
            return False
        self.stored.add(cell.id)
        return not self.plan.trajectory or record["facts"].get("trajectory", {}).get("asked") == self.plan.trajectory

    def _before(self, cell: Cell) -> Iterator[Cell]:
        """The cells that must be sampled before this one, from the last back."""
        for base in cell.cascade[-2::-1]:
            if self.store.is_complete(base.id):
                return
            yield base

    def _take_part(self, leases: Leases, wanted: Sequence[Cell], device: str, room: shape.Rows) -> None:
        """Sample what other workers do not, and lead them where nobody else does."""
        self.shape = self._agreed(leases, room, device)
        self.this.note(self.shape.rows)
        asked = {cell.id: cell for cell in wanted}
        shared = self.shared = self._lots(leases, asked.keys())
        self.leads = not self.follows and shared.lead
        written = None
        if self.leads:
            self._begin_tracking()
            written = self._write()
        try:
            with self._heard(wanted), self._in_background(written, asked.keys(), device) as self.background:
                self._sample_all(shared, asked, device)
        except KeyboardInterrupt:
            told = f"{self.this.cells} of {counted('cell', len(wanted))} stored"
            self.listener.note(f"stopped: {told}; the same command resumes from there")
            raise
        finally:
            self._tell_run()
            if self.leads:
                self._write()
            else:
                self.failures.write(self.folder / ERRORS, None)
        if not self.leads:
            self._measure_own(device)
        if self._leads_at_the_end():
            self._finish(shared, asked.values())

    def _lots(self, leases: Leases, asked: AbstractSet[str]) -> Shared:
        cells = {cell.id: cell for one in self.plan.cells for cell in one.cascade}
        groups = lots(cells.values(), self.shape.kept)
        return Shared(leases, groups, asked, self._kept, self.plan.retries, self.before, self._hear)

    def _finish(self, shared: Shared, asked: Iterable[Cell]) -> None:
        self._learn(shared, asked)
        self._report()
        self.store.tidy(self.planned)  # after workers that were killed meanwhile
        clear(shared.leases.folder)

    def _direct(self, leases: Leases, wanted: Sequence[Cell]) -> None:
        """Have workers that are started for it sample these cells, and lead them."""
        assert self.hands_over is not None
        leases.state = WAITING
        self.leads = leases.take(LEAD, leases.claims().get(LEAD))
        if self.leads:
            self._begin_tracking()
            written = self._write()
        handed.write(leases.folder, self.hands_over.raw, self.plan.name, self.command)
        asked = {cell.id: cell for cell in wanted}
        crew = self.hands_over.start(leases.folder)
        self.listener.note(crew.told)
        try:
            with self._heard(wanted), self._in_background(written if self.leads else None, asked, None) as background:
                self.background = background
                self.listener.waits("waiting for the first worker")
                while SHAPE not in leases.settled():
                    self._require_workers(leases, crew)
                    time.sleep(POLL)
                there = _agreed(leases)
                self.shape = Shape(there.kept, there.rows)
                shared = self.shared = self._lots(leases, asked.keys())
                self.listener.begins()
                while not shared.over:
                    self._require_workers(leases, crew)
                    shared.wait()
        except KeyboardInterrupt:
            name = shlex.quote(self.plan.name)
            self.listener.note("the workers go on, and the last one reports")
            self.listener.note(f"diffsweep-results watch {name} shows how far they are, stop {name} stops them")
            raise
        finally:
            if self.leads:
                self._write()
        if self._leads_at_the_end():
            self._finish(shared, asked.values())

    def _require_workers(self, leases: Leases, crew: Crew) -> None:
        """Raise what ended the workers, where none is left. Looks every few seconds: it may cost a command."""
        if time.monotonic() < self.next_look:
            return
        self.next_look = time.monotonic() + LOOK
        if crew.alive():
            return
        if self.shared:
            self.shared.look()
            if self.shared.over:
                return
        workers = [worker for worker in leases.workers().values() if worker.name != leases.name]
        if any(leases.alive(worker.name) for worker in workers):
            return
        ended = [worker.told["error"] for worker in workers if worker.told.get("error")]
        mistakes = dict.fromkeys(message for error in ended if error["code"] == 2 for message in error["messages"])
        if mistakes:
            raise BadInput(mistakes)
        reasons = dict.fromkeys(message for error in ended for message in error["messages"])
        raise Busy("; ".join([f"no worker is left; their logs are in {self.folder / LOGS}", *reasons]))

    def _ready(self, wanted: Sequence[Cell]) -> tuple[str, dict[str, int]]:
        """The device, and the rows of a call that fit it; BadInput where something lacks."""
        import torch

        device = preflight.device(self.plan.device, wanted)
        if self.plan.threads:
            self._compute_with(self.plan.threads)
        self.this.device, self.this.threads = device, torch.get_num_threads()
        if note := preflight.slow(wanted, device):
            self.listener.note(f"note: {note}")
        by_model: dict[Any, list[Cell]] = defaultdict(list)
        for cell in wanted:
            by_model[cell.model].append(cell)
        preflight.disk(wanted)
        most = shape.wanted(self.plan.cells)
        room = shape.fitting(most, self.plan.rows, device)
        for cells in by_model.values():
            room = preflight.memory(cells, device, room, chosen=self.plan.rows is not None)
        if (note := preflight.padding(most, self.plan.rows)) and not self.in_parts:
            self.listener.note(f"note: {note}")
        self.plan.metrics.ready()
        return device, room

    def _compute_with(self, threads: int) -> None:
        import torch

        self.threads_before = self.threads_before or torch.get_num_threads()
        torch.set_num_threads(threads)

    def _agreed(self, leases: Leases, room: shape.Rows, device: str) -> Shape:
        """The batch shape of all workers, on which the first one decides, as it does on the threads."""
        bound = not (self.plan.rows or self.joins)
        own = shape.as_begun(room, self.earlier) if bound else Shape(room, room)
        assert self.this.threads is not None
        mine = Agreed(own.kept, own.rows, self.this.threads, preflight.kind(device))
        if leases.settle(SHAPE, mine.text):
            for note in (*own.notes, *self._other_threads(device)):
                self.listener.note(note if note in own.notes else f"note: {note}")
            return own
        there = _agreed(leases)
        require(*there.problems(mine, room, self.plan.devices))
        if there.threads != self.this.threads:
            self._compute_with(there.threads)
            self.this.threads = there.threads
        return Shape(there.kept, there.rows)

    def _other_threads(self, device: str) -> Iterator[str]:
        """A note where this run computes with another number of threads than the one before."""
        earlier = [run.get("threads") for run in self.earlier["runs"] if run.get("device") == device == "cpu"]
        if earlier and earlier[-1] != self.this.threads:
            yield (
                f"{counted('CPU thread', self.this.threads or 0)}, {earlier[-1]} before: pictures may differ in "
                f"rounding from those already stored; engine.threads={earlier[-1]} avoids that"
            )

    @contextmanager
    def _heard(self, cells: Collection[Cell]) -> Iterator[None]:
        """Within, the listener knows that these cells are sampled."""
        self.listener.samples(len(cells), sum(cell.rounds * len(cell.prompts) for cell in cells))
        try:
            yield
        finally:
            self.listener.ends()

    def _hear(self, cell_ids: Sequence[str], rows: int) -> None:
        """Other workers have ended these cells, and computed so many rows."""
        if rows:
            self.listener.rows(rows)
        for cell_id in cell_ids:
            if self.background:
                self.background.add(cell_id)
            self.listener.cell(cell_id, None)

    def _sample_all(self, shared: Shared, asked: Mapping[str, Cell], device: str) -> None:
        """Sample with the other workers until nothing is left, one model after the other."""
        sampler = Sampler(self.store, device, self.shape.rows, self.plan.trajectory, self.this)
        first = len(shared.leases.workers()) - 1  # each worker begins with another model
        numbers = [(first + number) % len(shared.groups) for number in range(len(shared.groups))]
        waits = ""
        while True:
            shared.leases.state = SAMPLING
            for number in numbers:
                self._sample_group(shared, number, asked, sampler)
            if shared.over:
                return
            shared.leases.state = WAITING
            if shared.waits_for != waits:
                self.listener.waits(waits := shared.waits_for)
            shared.wait()

    def _sample_group(self, shared: Shared, number: int, asked: Mapping[str, Cell], sampler: Sampler) -> None:
        """Sample what can be had of a model's cells."""
        if not (given := [*(self._taken(shared, number) or ())]):
            return
        cells = [asked[cell.id] for lot in shared.groups[number] for cell in lot.cells if cell.id in asked]
        for model, n in shared.fewer().items():
            sampler.fewer[model] = min(n, sampler.fewer.get(model, n))

        def take() -> Sequence[Cell] | None:
            if not given:
                return self._taken(shared, number)
            taken = [*given]
            given.clear()
            return taken

        with closing(sampler.run(cells, take, _Heard(self), shared.leases.once)) as ends:
            for ended in ends:
                self._note(shared, ended)

    def _taken(self, shared: Shared, number: int) -> Sequence[Cell] | None:
        """Cells to sample now, but for those whose picture to enlarge has failed."""
        while cells := shared.take(number):
            reasons = shared.reasons()
            lost = [cell for cell in cells if cell.base and cell.base.id in reasons and not self._stored(cell.base)]
            for cell in lost:
                self._note(shared, without_base(cell, reasons[cell.base.id]))  # type: ignore[union-attr]
            if left := [cell for cell in cells if cell not in lost]:
                return left
        return cells

    def _stored(self, cell: Cell) -> bool:
        return cell.id in self.stored or self.store.is_complete(cell.id)

    def _note(self, shared: Shared, ended: Ended) -> None:
        cell_id, error = ended.cell.id, ended.error
        if error is None:
            self.stored.add(cell_id)
            self.failures.forget(cell_id)
            self.this.cells += 1
        elif isinstance(error, str):
            self.failures[cell_id] = error
        else:
            self.failures.add(cell_id, error)
        shared.leases.cells = self.this.cells
        shared.end(cell_id, self.failures.get(cell_id))
        if self.background and error is None and cell_id in self.planned:
            self.background.add(cell_id)
        self.listener.cell(cell_id, self.failures.get(cell_id))

    @contextmanager
    def _in_background(
        self, sweep: Document | None, coming: Collection[str], device: str | None
    ) -> Iterator[Background | None]:
        """Measure finished cells in a thread while others are sampled: where a tracker logs them, and where another
        worker leads, who then finds them measured. sweep: what the leader has written; device: of this worker, None
        where others measure."""
        session = self.session if self.leads else None
        if self.joins or (self.leads and not session):
            yield None
            return

        def each(cell_ids: list[str]) -> None:
            if device is not None and preflight.beside(device):  # a metric that fails is reported at the end
                score(self.store, cell_ids, self.plan.metrics.metrics, device, Failures(), shows=False)
            if session and sweep and (device is None or preflight.beside(device)):
                session.cells(sweep, cell_ids)

        with Background(each) as background:
            for cell in sweep["cells"] if sweep else ():
                if cell["status"] == "done" and cell["cell_id"] not in coming:
                    background.add(cell["cell_id"])
            yield background

    def _measure_own(self, device: str) -> None:
        """Measure the cells of this worker that are not yet: its device is at hand."""
        assert self.shared is not None
        self.shared.leases.state = MEASURING
        self.shared.leases.tell()
        own = [cell_id for cell_id in self.stored & self.shared.ended if cell_id in self.planned]
        score(self.store, own, self.plan.metrics.metrics, device, Failures(), shows=False)

    def _leads_at_the_end(self) -> bool:
        """Whether this worker is to report, once no other is at work. Who does not lead waits for the leader, who
        removes the work folder (Gone), and leads where that one is dead; a worker that was started for it just ends."""
        assert self.shared is not None
        leases = self.shared.leases
        leases.state = WAITING
        leases.tell()
        while not (self.leads or self.shared.lead):
            if self.follows:
                return False
            self.shared.wait()
        self.leads = True
        while any(worker.state in (SAMPLING, MEASURING) for worker in self.shared.workers()):
            self.shared.wait()
        return True

    def _learn(self, shared: Shared, asked: Iterable[Cell]) -> None:
        """Find what other workers have stored, and why others' cells have failed."""
        shared.look()
        reasons = shared.reasons()
        for cell in asked:
            if cell.id not in shared.ended and self._kept(cell):
                self.failures.forget(cell.id)
            elif cell.id not in self.stored:
                self.failures.setdefault(cell.id, reasons.get(cell.id, ""))

    def _tell_run(self) -> None:
        """Leave this run's counts for whoever writes sweep.json."""
        assert self.shared is not None
        self.shared.leases.more["run"] = self.this.entry
        self.shared.leases.rows = self.this.model_rows
        with suppress(OSError, Gone):
            self.shared.leases.tell()

    def _entry(self, cell: Cell) -> CellEntry:
        entry: CellEntry = {
            "cell_id": cell.id,
            "axes": dict(cell.axes),
            "seed": cell.seed,
            "status": self.status(cell),
            "reason": self.failures.get(cell.id),
        }
        return {**entry, "config": dict(cell.config)} if cell.id in self.failures else entry

    def document(self) -> Document:
        """What sweep.json holds."""
        rows, later = shape.parted(self.shape.kept)
        there = self._earlier()  # by now, perhaps, another process's
        own = [*self._runs()]
        runs = [*(run for run in there["runs"] if run.get("id") not in {one["id"] for one in own}), *own]
        cells = [self._entry(cell) for cell in self.plan.cells]
        if self.joins:
            mine = [cell["axes"] for cell in cells]
            others = (cell for cell in there["cells"] if cell["axes"] not in mine)
            cells = [*others, *cells]
        axes = axes_of(cell["axes"] for cell in cells)
        if self.joins:  # each typed key counts as one: those that all cells have alike vary nothing
            alike = [
                axis for axis, values in axes.items() if len(values) == 1 and all(axis in c["axes"] for c in cells)
            ]
            axes = {axis: values for axis, values in axes.items() if axis not in alike}
        return {
            "name": self.plan.name,
            "command": self.command,
            "created": there["created"],
            "axes": axes,
            "rows": rows or self.earlier.get("rows"),
            "later_rows": later or self.earlier.get("later_rows", {}),
            "grid": dict(self.plan.grid),
            "chosen": there.get("chosen", {}),
            "in_parts": self.in_parts,
            "metrics": list(dict.fromkeys([*self.plan.metrics.names, *there.get("metrics", ())])),
            "unavailable": dict(self.plan.metrics.unavailable),
            "sets": there.get("sets", {}),
            "notes": list(self.plan.notes),
            "runs": runs,
            "cells": cells,
        }

    def _runs(self) -> Iterator[RunEntry]:
        """What the workers of this sweep have counted."""
        others = self.shared.leases.workers().values() if self.shared and not self.joins else ()
        for run in sorted((w.told["run"] for w in others if "run" in w.told), key=lambda run: str(run["started"])):
            if run["id"] != self.this.id:
                yield run
        if self.this.device is not None:
            yield self.this.entry

    def _write(self) -> Document:
        return document.renew(self.folder, self.document)

    def _report(self) -> None:
        from diffsweep.report.write import write_all

        done = list(dict.fromkeys(cell.id for cell in self.plan.cells if self.status(cell) == "done"))
        metrics, device = self.plan.metrics, self.this.device or self.plan.device
        self.store.damaged.clear()  # mended by now, or found again
        with measured_sweep(self.store, self.folder, self.document, done, metrics, device) as measured:
            self.unmeasured, written = measured.failed, measured.document
            errors = self.folder / ERRORS
            tracebacks = [failed.write(errors, written) for failed in (self.failures, self.unmeasured)]
            if tracebacks[0] is None and self.failures and errors.is_dir():  # of other workers
                tracebacks[0] = errors
            report = write_all(self.store, written)
        self.listener.report(report, {cell.id for cell in self.plan.cells} if self.joins else None)
        for line in self.store.damage_report(mend=True):
            self.listener.note(line)
        for name, error in self.unmeasured.items():
            self.listener.note(
                f"metric {name} failed: {error}; all cells are stored, the command run again measures them"
            )
        for traceback in filter(None, tracebacks):
            self.listener.note(f"traceback{'s' * traceback.is_dir()}: {traceback}")
        self.undrawn = len(report.failures)
        if self.session:
            self.session.report(written, report)
        elif told := self.plan.tracker.log(self.store, written, report):
            self.listener.note(told)


def _agreed(leases: Leases) -> Agreed:
    """What the first worker has decided. Gone where a disk has lost that: then all begin anew."""
    try:
        return Agreed.read(leases.text(SHAPE))
    except (ValueError, TypeError, LookupError):
        clear(leases.folder)
        raise Gone(leases.folder) from None


@contextmanager
def _telling(leases: Leases) -> Iterator[None]:
    """Within, an error is shown to those who wait for this worker."""
    try:
        yield
    except Gone:
        raise
    except Exception as error:
        messages = list(error.messages) if isinstance(error, BadInput) else [reason(error)]
        leases.more["error"] = {"code": 2 if isinstance(error, BadInput) else 1, "messages": messages}
        raise


class _Heard:
    """What the sampler reports: to the sweep's listener, to other workers, and to whoever logs finished cells."""

    def __init__(self, sweep: Sweep) -> None:
        self._sweep = sweep
        self.waits = sweep.listener.waits

    def begins(self) -> None:
        self._sweep.listener.begins()
        if self._sweep.background:
            self._sweep.background.begin()

    def rows(self, number: int) -> None:
        assert self._sweep.shared is not None
        self._sweep.shared.leases.rows += number
        self._sweep.listener.rows(number)
        if note := self._sweep.shared.woken():
            self._sweep.listener.note(f"note: {note}")

    def fewer(self, rows: Mapping[str, int]) -> None:
        assert self._sweep.shared is not None
        self._sweep.shared.leases.more["fewer"] = {**rows}
        with suppress(OSError, Gone):
            self._sweep.shared.leases.tell()
