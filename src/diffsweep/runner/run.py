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
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

from diffsweep.core import files
from diffsweep.core.failures import ERRORS, Failures, reason
from diffsweep.core.leases import POLL, Gone, Leases, clear, done_at, heard, moving, tidy
from diffsweep.core.locks import Busy
from diffsweep.core.problems import BadInput
from diffsweep.core.text import counted
from diffsweep.metric import measured_sweep, score
from diffsweep.runner import handed, preflight, shape
from diffsweep.runner.background import Background
from diffsweep.runner.cell import Cell
from diffsweep.runner.cost import rows_of
from diffsweep.runner.crew import Crew, Handing, Lookout, Start
from diffsweep.runner.listener import Listener
from diffsweep.runner.log import Log
from diffsweep.runner.lots import lots
from diffsweep.runner.machine import Machine
from diffsweep.runner.part import Part
from diffsweep.runner.plan import FOLDERS, Plan, Raw, axes_of, plan
from diffsweep.runner.sampling import Run, Sampler
from diffsweep.runner.shape import Shape
from diffsweep.runner.shared import AT_WORK, ENDED, LEAD, LEADING, MEASURING, SHAPE, Asked, Shared, agreed, workplace
from diffsweep.runner.stock import Stock
from diffsweep.store import document
from diffsweep.store.cells import Store
from diffsweep.store.leftover import unnamed
from diffsweep.store.lots import CELLS
from diffsweep.store.packing import pack
from diffsweep.store.schema import CellEntry, Document, RunEntry
from diffsweep.store.stored import shown_elsewhere

if TYPE_CHECKING:
    from diffsweep.store.schema import Look
    from diffsweep.tracker.session import Session


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
        self.store = Store(whole.root).looking_once()
        self.stock = Stock(whole, self.store)
        self.folder = self.stock.folder
        self.failures = Failures()
        self.shape = Shape({}, {})
        self.unmeasured = Failures()  # metrics
        self.undrawn = 0
        self.unpacked: list[str] = []  # cells of this worker that are to be packed
        self.this = Run()
        decides = ([cell.id for cell in whole.cells], whole.metrics.names, whole.trajectory, whole.rows, whole.threads)
        self.workplace = workplace(self.folder, *decides)
        self.before = done_at(self.workplace)  # before this run looks at the store
        self.shared: Shared | None = None
        self.leads = True
        self.hands_over: Handing | None = None
        self.crew: Crew | None = None  # that was started
        self.follows = False
        self.background: Background | None = None
        self.earlier = self._earlier(self.listener.note)
        self.in_parts = joins or in_parts or self.earlier.get("in_parts", False)
        self.session = session
        self.unnamed = ExitStack()  # until sweep.json names this run's cells

    def _earlier(self, tell: Callable[[str], None] = lambda text: None) -> Document:
        """What sweep.json holds by now."""
        return self.stock.document(self.command, self.this.started, tell)

    def status(self, cell: Cell) -> str:
        """`done` if the cell was stored at the beginning, or has been since: its files are not read again."""
        wrong = cell.id in self.failures or cell.id in self.store.damaged
        return "done" if cell.id in self.stock.stored and not wrong else "failed"

    def follow(self, wanted: Sequence[Cell]) -> int:
        """Take part in a sweep that another process leads, which lacks these cells; the exit code."""
        self.follows = True
        self._share(wanted)
        return 1 if self.failures else 0

    def run(self) -> None:
        """Sample what is missing, measure and report."""
        try:
            with self.unnamed:
                self.unnamed.enter_context(unnamed(self.store.root))
                self._run()
        except Busy as error:
            stored = sum(self.status(cell) == "done" for cell in self.plan.cells)
            told = f"{stored} of {counted('cell', len(self.plan.cells))} stored"
            later = f"diffsweep-results report {shlex.quote(self.plan.name)} writes their tables and sheets later"
            raise Busy(f"{error}; gave up waiting. {told}; {later}") from None

    def _run(self) -> None:
        gone = {cell["cell_id"] for cell in self.earlier["cells"]} - self.stock.cells.keys()
        if not (self.plan.replace or self.in_parts):
            self.stock.refuse_to_replace(gone, self.command)
        left = sum(self.store.finished(cell_id) is not None for cell_id in gone)
        self.store.damaged.clear()  # of those that are left behind
        for note in self.plan.notes:
            self.listener.note(f"note: {note}")
        self.store.tidy(self.stock.cells)
        missing = self.stock.missing()
        if left and not self.joins:
            others = counted("other cell", left)
            self.listener.note(f"note: {self.plan.name} had {others}, still stored, which its files no longer show")
        first = self.stock.bases(missing)
        kept = len(self.stock.cells) - len(missing)
        also = f", and {len(first)} whose pictures they enlarge" if first else ""
        told = f"{counted('cell', len(self.plan.cells))}, {kept} already stored, {len(missing)} to sample"
        self.listener.note(f"{self.plan.name}: {told}{also}")
        for line in self.store.damage_report("sampled again, damaged"):
            self.listener.note(line)
        for line in self.store.lots.report(self.plan.name):
            self.listener.note(line)
        if missing:
            self._share([*first, *missing])
        elif self.workplace.is_dir():
            self._take_over()
        else:
            self._begin_tracking()
            self._report()
        tidy(self.workplace.parent)

    def _share(self, wanted: Sequence[Cell]) -> None:
        """Sample these cells, with whatever other workers are at them."""
        machine = None if self.hands_over or self.follows else self._machine(wanted)
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
                        self._direct(leases, wanted, self.hands_over)
                    else:
                        machine = machine or self._machine(wanted)
                        self.shape = machine.agree(leases, self.earlier, bound=not self.joins)
                        with machine.computing():
                            self._take_part(leases, wanted, machine)
                return
            except Gone:  # another worker has finished the sweep, or the work folder was removed
                self.store.root.absolute()  # OSError where the current folder is no more: nothing can be begun anew
                reasons = self._reasons()
                wanted = [cell for cell in wanted if not self.stock.kept(cell) and cell.id not in reasons]
        self._ended_elsewhere(reasons)

    def _machine(self, wanted: Sequence[Cell]) -> Machine:
        """What this process computes with, and that the metrics can be measured."""
        machine = Machine(self.plan, wanted, self.listener, self.in_parts)
        self.plan.metrics.ready()
        return machine

    def _take_over(self) -> None:
        """Report, where all cells are stored and nobody else is about to."""
        try:
            with Leases(self.workplace, self.plan.grace) as leases:
                shared = self.shared = Shared(leases, (), frozenset(), self.stock.kept)
                self._end(shared, ())
        except Gone:
            self._ended_elsewhere({})

    def _require_alone(self) -> None:
        """BadInput where workers with other cells or settings are at this sweep: whoever ended last would write its own
        alone into the sweep's files. Processes that each run a part of one sweep know of one another."""
        for place in self.workplace.parent.glob("[!.]*"):
            others = [worker for worker in heard(place) if not worker.left] if place != self.workplace else []
            in_parts = self.in_parts and all(worker.told.get("in_parts") for worker in others)
            if not others or in_parts:
                continue
            name, grace = self.plan.name, self.plan.grace
            self.listener.note(
                f"note: another command was at {name}; seeing for {grace:g} seconds at most if it still is"
            )
            if moving(place, grace):
                raise BadInput(
                    f"sweep.name={name}: another command is at this sweep now, with other cells or settings; give "
                    f"another sweep.name, or run this again once that has ended (diffsweep-results watch {name})"
                )

    def _append_to_log(self, line: str) -> None:
        with suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            with files.appending(self.folder / "sweep.log") as file:
                file.write(line)

    def _begin_tracking(self) -> None:
        if self.session is None and hasattr(self.plan.tracker, "begin"):
            self.session = self.plan.tracker.begin(self.store, self.folder)

    def _reasons(self) -> dict[str, str]:
        """Why cells have failed, as sweep.json has it; those that nobody came to have no reason there."""
        cells = self._earlier()["cells"]
        return {c["cell_id"]: c["reason"] for c in cells if c["status"] == "failed" and c.get("reason")}  # type: ignore[misc]

    def _ended_elsewhere(self, reasons: Mapping[str, str]) -> None:
        """Note what became of the cells, which another worker has reported on."""
        for cell in self.stock.missing():
            self.failures[cell.id] = reasons.get(cell.id, "")
        self.listener.elsewhere(self.folder)

    def _take_part(self, leases: Leases, wanted: Sequence[Cell], machine: Machine) -> None:
        """Sample what other workers do not, and lead them where nobody else does."""
        self.this.device, self.this.threads = machine.device, machine.threads
        self.this.note(self.shape.rows)
        asked = {cell.id: cell for cell in wanted}
        shared = self.shared = self._lots(leases, asked.keys())
        self.leads = not self.follows and shared.lead
        written = self._begin() if self.leads else None
        sampler = Sampler(self.store, machine.device, self.shape.rows, self.plan.trajectory, self.this)
        try:
            with (
                self._heard(wanted),
                self._in_background(written, asked.keys(), machine.device) as self.background,
            ):
                Part(shared, asked, self.stock, sampler, self.failures, self.listener, self.background).sample()
        except KeyboardInterrupt:
            told = f"{self.this.cells} of {counted('cell', len(wanted))} stored"
            told += " by this worker" if len(leases.workers()) > 1 else ""
            self.listener.note(f"stopped: {told}; the same command resumes from there")
            raise
        finally:
            self._tell_run(leases)
            if self.leads and leases.holds(LEAD):
                self._write()
            else:
                self.failures.write(self.folder / ERRORS, None)
        if not self.leads:
            self._measure_own(shared, machine.device)
        self._end(shared, asked.values())

    def _direct(self, leases: Leases, wanted: Sequence[Cell], handing: Handing) -> None:
        """Have workers that are started for it sample these cells, and lead them."""
        leases.become(LEADING)
        self.leads = leases.take(LEAD, leases.claims().get(LEAD))
        written = self._begin() if self.leads else None
        handed.write(leases.folder, handing.raw, self.plan, wanted, self.command)
        asked = {cell.id: cell for cell in wanted}
        if self.crew is None or not self.crew.alive():  # else it goes on, in a work folder that was made anew
            self.crew = handing.start(leases.folder)
            self.listener.note(self.crew.told)
        lookout = Lookout(self.crew, leases)
        try:
            with self._heard(wanted), self._in_background(written, asked, None) as self.background:
                self.listener.waits("waiting for the first worker")
                while SHAPE not in leases.settled():
                    lookout.look(None)
                    time.sleep(POLL)
                there = agreed(leases)
                self.shape = Shape(there.kept, there.rows)
                shared = self.shared = self._lots(leases, asked.keys())
                self.listener.begins()
                while not shared.over:
                    lookout.look(shared)
                    shared.wait()
        except Asked:
            self.listener.note("the workers end; the same command resumes from what is stored")
            raise
        except KeyboardInterrupt:
            name = shlex.quote(self.plan.name)
            self.listener.note("the workers go on, and the last one reports")
            self.listener.note(f"diffsweep-results watch {name} shows how far they are, stop {name} stops them")
            raise
        finally:
            if self.leads and leases.holds(LEAD):
                self._write()
        self._end(shared, asked.values())

    def _begin(self) -> Document:
        """Begin as the one who leads."""
        self._begin_tracking()
        return self._write()

    def _lots(self, leases: Leases, asked: AbstractSet[str]) -> Shared:
        cells = {cell.id: cell for one in self.plan.cells for cell in one.cascade}
        groups = lots(cells.values(), self.shape.kept)
        return Shared(leases, groups, asked, self.stock.kept, self.plan.retries, self.before, self._hear)

    def _end(self, shared: Shared, asked: Iterable[Cell]) -> None:
        """Report as the one who leads, once no other worker is at work. Who does not lead waits for the leader, who
        removes the work folder (Gone), and leads where that one is dead; a worker that was started for it just ends."""
        shared.leases.become(ENDED)
        while not shared.lead:
            if self.follows:
                return
            shared.wait()
        self.leads = True
        while any(worker.state in AT_WORK for worker in shared.workers()):
            shared.wait()
        shared.look()
        reasons = shared.reasons()
        for cell in asked:  # what became of those of others
            if cell.id not in shared.ended and self.stock.kept(cell):
                self.failures.forget(cell.id)
            elif cell.id not in self.stock.stored:
                self.failures.setdefault(cell.id, reasons.get(cell.id, ""))
        self._begin_tracking()
        self._report()
        self.store.tidy(self.stock.cells)  # after workers that were killed meanwhile
        clear(shared.leases.folder)

    @contextmanager
    def _heard(self, cells: Collection[Cell]) -> Iterator[None]:
        """Within, the listener knows that these cells are sampled."""
        self.listener.samples(len(cells), sum(map(rows_of, cells)))
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

    @contextmanager
    def _in_background(
        self, sweep: Document | None, coming: Collection[str], device: str | None
    ) -> Iterator[Background | None]:
        """Measure finished cells in a thread while others are sampled: where a tracker logs them, and where another
        worker leads, who then finds them measured. sweep: what the leader has written; device: of this worker, None
        where others measure."""
        session = self.session if self.leads else None
        packs = self.plan.packs and device is not None
        if self.joins or (self.leads and not session and not packs):
            yield None
            return

        def each(cell_ids: list[str]) -> None:
            if device is not None and preflight.beside(device):  # a metric that fails is reported at the end
                score(self.store, cell_ids, self.plan.metrics.metrics, device, Failures(), shows=False)
                if packs:
                    self._pack_own(cell_ids)
            if session and sweep and (device is None or preflight.beside(device)):
                session.cells(sweep, cell_ids)

        with Background(each) as background:
            for cell in sweep["cells"] if sweep else ():
                if cell["status"] == "done" and cell["cell_id"] not in coming:
                    background.add(cell["cell_id"])
            yield background

    def _pack_own(self, cell_ids: Iterable[str]) -> None:
        """Pack what this worker has sampled, as soon as it fills a lot."""
        self.unpacked += [cell_id for cell_id in cell_ids if self.shared and cell_id in self.shared.ended]
        if len(self.unpacked) >= CELLS:
            pack(self.store, self.unpacked)
            self.unpacked.clear()

    def _measure_own(self, shared: Shared, device: str) -> None:
        """Measure the cells of this worker that are not yet: its device is at hand."""
        shared.leases.become(MEASURING)
        own = [cell_id for cell_id in self.stock.stored & shared.ended if cell_id in self.stock.cells]
        score(self.store, own, self.plan.metrics.metrics, device, Failures(), shows=False)

    def _tell_run(self, leases: Leases) -> None:
        """Leave this run's counts for whoever writes sweep.json."""
        leases.more["run"] = self.this.entry
        leases.rows = self.this.model_rows
        with suppress(OSError, Gone):
            leases.tell()

    @property
    def _bases(self) -> dict[str, str]:
        """Each cell's that enlarges another's picture, of all stages."""
        stages = (stage for cell in self.plan.cells for stage in cell.cascade)
        return {stage.id: stage.base.id for stage in stages if stage.base}

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
            "grid": cast("Look", dict(self.plan.grid)),
            "chosen": there.get("chosen", {}),
            "in_parts": self.in_parts,
            "metrics": list(dict.fromkeys([*self.plan.metrics.names, *there.get("metrics", ())])),
            "unavailable": dict(self.plan.metrics.unavailable),
            "sets": there.get("sets", {}),
            "notes": list(self.plan.notes),
            "bases": {**(there.get("bases", {}) if self.joins else {}), **self._bases},
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
        written = document.renew(self.folder, self.document)
        self.unnamed.close()
        return written

    def _report(self) -> None:
        from diffsweep.report.write import write_all

        done = list(dict.fromkeys(cell.id for cell in self.plan.cells if self.status(cell) == "done"))
        metrics, device = self.plan.metrics, self.this.device or self.plan.device
        self.store.damaged.clear()  # mended by now, or found again
        packed = [*filter(self.store.packed, done)]
        with measured_sweep(self.store, self.folder, self.document, done, metrics, device) as measured:
            self.unmeasured, written = measured.failed, measured.document
            errors = self.folder / ERRORS
            tracebacks = [failed.write(errors, written) for failed in (self.failures, self.unmeasured)]
            if tracebacks[0] is None and self.failures and errors.is_dir():  # of other workers
                tracebacks[0] = errors
            self._pack(done, packed)
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

    def _pack(self, done: Sequence[str], packed: Sequence[str]) -> None:
        """Pack what the sweep's format asks for, and again those that were packed before they were measured."""
        if self.plan.packs and not self.joins:  # each job of one cell would write a lot of its own
            packed = [*done, *self._bases.values()]
        if self.plan.format == FOLDERS:
            return
        moving = {cell_id for cell_id in packed if not self.store.packed(cell_id)}
        if number := pack(self.store, packed, shows=True):
            self.listener.note(f"{counted('cell', number)} packed under {self.store.lots.folder}")
            for note in shown_elsewhere(self.store.root, self.plan.name, moving):
                self.listener.note(note)


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
