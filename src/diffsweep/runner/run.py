"""Runs a sweep: keeps stored cells, samples the missing ones in shared model calls, and measures all of them.

The batch shape is chosen once a sweep and kept in its sweep.json, so that a resumed sweep gives the same bits. A run
that lacks memory goes on with fewer rows a call; the next one begins with the sweep's shape again. A complete sweep
loads no model, and no torch.
"""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from diffsweep.core.failures import Failures
from diffsweep.core.locks import Busy
from diffsweep.core.problems import BadInput
from diffsweep.core.text import counted
from diffsweep.metric import measured_sweep, score
from diffsweep.runner import preflight, shape
from diffsweep.runner.background import Background
from diffsweep.runner.cell import Cell
from diffsweep.runner.identity import as_typed
from diffsweep.runner.listener import Listener
from diffsweep.runner.plan import Plan, Raw, axes_of, plan
from diffsweep.runner.sampling import Ended, Run, Sampler
from diffsweep.runner.shape import Shape
from diffsweep.store import document
from diffsweep.store.cells import Store
from diffsweep.store.leftover import unnamed
from diffsweep.store.schema import Absent, CellEntry, Damaged, Document

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
) -> Outcome:
    """Plan, sample what is missing, measure, and write a sweep's files.

    raw: a composed configuration and its axes for each cell; before: those of earlier launches of the same sweep (an
    optimising sweeper's). joins: the cells that sweep.json lists already stay in it, for launchers that run each cell
    in a process of its own. session: that of the earlier launches. listener: hears how it goes on; without one, nobody
    does. Raises BadInput before a model is loaded.
    """
    own, listener = plan(raw, name), Listener() if listener is None else listener
    whole = plan([*before, *raw], name) if before else own
    sweep = Sweep(whole, command, joins, session, bool(before), listener)
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
    """One sweep's state while it runs."""

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
        self.earlier = self._earlier(self.listener.note)
        self.in_parts = joins or in_parts or self.earlier.get("in_parts", False)
        self.session = session
        self.unnamed = ExitStack()  # until sweep.json names this run's cells

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

    def run(self) -> None:
        try:
            with self.unnamed:
                self.unnamed.enter_context(unnamed(self.store.root))
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
        if left and not self.joins:
            others = counted("other cell", left)
            self.listener.note(f"note: {self.plan.name} had {others}, still stored, which its files no longer show")
        before = {cell.id: cell for one in missing for cell in self._before(one)}
        first = {cell_id: cell for cell_id, cell in before.items() if cell_id not in distinct}
        also = f", and {len(first)} whose pictures they enlarge" if first else ""
        told = f"{counted('cell', number)}, {kept} already stored, {len(missing)} to sample"
        self.listener.note(f"{self.plan.name}: {told}{also}")
        for line in self.store.damage_report("sampled again, damaged"):
            self.listener.note(line)
        if self.session is None and hasattr(self.plan.tracker, "begin"):
            self.session = self.plan.tracker.begin(self.store, self.folder)
        if missing:
            self._sample([*first.values(), *missing])
        self._report()

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

    def _sample(self, missing: Sequence[Cell]) -> None:
        import torch

        device = preflight.device(self.plan.device, missing)
        if self.plan.threads:
            self.threads_before = torch.get_num_threads()
            torch.set_num_threads(self.plan.threads)
        self.this.device, self.this.threads = device, torch.get_num_threads()
        earlier = [run.get("threads") for run in self.earlier["runs"] if run.get("device") == device == "cpu"]
        if earlier and earlier[-1] != self.this.threads:
            self.listener.note(
                f"note: {counted('CPU thread', self.this.threads)}, {earlier[-1]} before: pictures may differ in "
                f"rounding from those already stored; engine.threads={earlier[-1]} avoids that"
            )
        if note := preflight.slow(missing, device):
            self.listener.note(f"note: {note}")
        by_model: dict[Any, list[Cell]] = defaultdict(list)
        for cell in missing:
            by_model[cell.model].append(cell)
        preflight.disk(missing)
        most = shape.wanted(self.plan.cells)
        room = shape.fitting(most, self.plan.rows, device)
        for cells in by_model.values():
            room = preflight.memory(cells, device, room, chosen=self.plan.rows is not None)
        if (note := preflight.padding(most, self.plan.rows)) and not self.in_parts:
            self.listener.note(f"note: {note}")
        self.plan.metrics.ready()
        bound = not (self.plan.rows or self.joins)
        self.shape = shape.as_begun(room, self.earlier) if bound else Shape(room, room)
        for note in self.shape.notes:
            self.listener.note(f"note: {note}")
        self.this.note(self.shape.rows)
        written, coming = self._write(), {cell.id for cell in missing}
        try:
            with self._heard(missing), self._in_background(written, coming, device) as background:
                self._sample_each(by_model.values(), device, background)
        except KeyboardInterrupt:
            told = f"{self.this.cells} of {counted('cell', len(missing))} stored"
            self.listener.note(f"stopped: {told}; the same command resumes from there")
            raise
        finally:
            self._write()

    @contextmanager
    def _heard(self, cells: Collection[Cell]) -> Iterator[None]:
        """Within, the listener knows that these cells are sampled."""
        self.listener.samples(len(cells), sum(cell.rounds * len(cell.prompts) for cell in cells))
        try:
            yield
        finally:
            self.listener.ends()

    def _sample_each(self, groups: Iterable[Sequence[Cell]], device: str, background: Background | None) -> None:
        """Sample the cells, one model after the other."""
        asked = {cell.id for cell in self.plan.cells}
        sampler = Sampler(self.store, device, self.shape.rows, self.plan.trajectory, self.this)
        for cells in groups:
            with closing(sampler.run(cells, _Heard(self.listener, background))) as ends:
                for ended in ends:
                    self._note(ended)
                    if background and ended.error is None and ended.cell.id in asked:
                        background.add(ended.cell.id)
                    self.listener.cell(ended.cell.id, self.failures.get(ended.cell.id))

    def _note(self, ended: Ended) -> None:
        cell_id, error = ended.cell.id, ended.error
        if error is None:
            self.stored.add(cell_id)
            self.this.cells += 1
        elif isinstance(error, str):
            self.failures[cell_id] = error
        else:
            self.failures.add(cell_id, error)

    @contextmanager
    def _in_background(self, sweep: Document, coming: Collection[str], device: str) -> Iterator[Background | None]:
        """If a tracker listens, measure and log finished cells in a thread while others are sampled."""
        if not self.session or self.joins:
            yield None
            return
        session = self.session

        def each(cell_ids: list[str]) -> None:
            if preflight.beside(device):  # a metric that fails here is reported when the rest is measured
                score(self.store, cell_ids, self.plan.metrics.metrics, device, Failures(), shows=False)
                session.cells(sweep, cell_ids)

        with Background(each) as background:
            for cell in sweep["cells"]:
                if cell["status"] == "done" and cell["cell_id"] not in coming:
                    background.add(cell["cell_id"])
            yield background

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
        runs = [run for run in there["runs"] if run.get("id") != self.this.id]
        if self.this.device is not None:
            runs.append(self.this.entry)
        cells = [self._entry(cell) for cell in self.plan.cells]
        if self.joins:
            own = [cell["axes"] for cell in cells]
            others = (cell for cell in there["cells"] if cell["axes"] not in own)
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

    def _write(self) -> Document:
        written = document.renew(self.folder, self.document)
        self.unnamed.close()
        return written

    def _report(self) -> None:
        from diffsweep.report.write import write_all

        done = list(dict.fromkeys(cell.id for cell in self.plan.cells if self.status(cell) == "done"))
        metrics, device = self.plan.metrics, self.this.device or self.plan.device
        self.store.damaged.clear()  # mended by now, or found again
        with measured_sweep(self.store, self.folder, self.document, done, metrics, device) as measured:
            self.unmeasured, written = measured.failed, measured.document
            tracebacks = [failed.write(self.folder / "errors", written) for failed in (self.failures, self.unmeasured)]
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


class _Heard:
    """What the sampler reports: to the sweep's listener, and to whoever logs finished cells meanwhile."""

    def __init__(self, listener: Listener, background: Background | None) -> None:
        self.waits, self.rows = listener.waits, listener.rows
        self._listener, self._background = listener, background

    def begins(self) -> None:
        self._listener.begins()
        if self._background:
            self._background.begin()
