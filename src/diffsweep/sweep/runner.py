"""A sweep, run: what is stored is kept, what is missing is sampled in shared model calls, all of it is measured.

The batch shape is chosen once a sweep and kept in its sweep.json, so that a resumed sweep gives the same bits. A run
that lacks memory goes on with fewer rows a call; the next one begins with the sweep's shape again. A sweep that is
complete loads no model, and no torch.
"""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

from diffsweep.core.failures import Failures
from diffsweep.core.locks import Busy
from diffsweep.core.memory import Lacking, out_of_memory
from diffsweep.core.problems import BadInput
from diffsweep.core.text import counted, in_one_line, visible
from diffsweep.metric import measured_sweep, score
from diffsweep.store import document
from diffsweep.store.cells import Store
from diffsweep.store.pictures import HARD_MASK, IMAGE, INPUT, MASK, STEP
from diffsweep.store.schema import Absent, CellEntry, Damaged, Document, RunEntry, to_json
from diffsweep.sweep import preflight, shape
from diffsweep.sweep.cell import RECIPE, Cell, as_typed
from diffsweep.sweep.following import Following
from diffsweep.sweep.plan import Plan, Raw, axes_of, plan
from diffsweep.sweep.provenance import provenance
from diffsweep.sweep.shape import Shape
from diffsweep.sweep.work import Trajectory, to_pixels, work

if TYPE_CHECKING:
    import numpy as np
    from tqdm import tqdm

    from diffsweep.core.types import Model
    from diffsweep.engine import Counts, Engine, Finished, Work
    from diffsweep.tracker.session import Session


@dataclass(frozen=True)
class Outcome:
    """How a sweep ended: each cell's id, in order, whether it is `done` or `failed`, and where the files are. session:
    what its tracker goes on with where more is to come; to be closed by whoever knows that it is not. unmeasured:
    metrics that failed, with their errors."""

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


@dataclass
class _Run:
    """One run's entry in sweep.json."""

    id: str = field(default_factory=lambda: uuid4().hex[:8])
    started: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    cells: int = 0
    model_loads: int = 0
    model_calls: int = 0
    model_rows: int = 0
    padded_rows: int = 0
    encodes: int = 0
    halvings: int = 0
    rows: int = 0
    later_rows: dict[str, int] = field(default_factory=dict)
    loading_seconds: float = 0.0
    sampling_seconds: float = 0.0
    device: str | None = None
    threads: int | None = None

    @property
    def entry(self) -> RunEntry:
        return cast("RunEntry", asdict(self))

    def add(self, counts: Counts) -> None:
        for key, value in asdict(counts).items():
            setattr(self, key, getattr(self, key) + value)


_models: dict[tuple[Any, str], Model] = {}


def run_sweep(
    raw: Sequence[Raw],
    name: str | None = None,
    command: str = "",
    before: Sequence[Raw] = (),
    joins: bool = False,
    session: Session | None = None,
) -> Outcome:
    """Plan, sample what is missing, measure, and write a sweep's files.

    raw: a composed configuration and its axes for each cell; before: those of earlier launches of the same sweep (an
    optimising sweeper's). joins: the cells that sweep.json lists already stay in it, for launchers that run each cell
    in a process of its own. session: that of the earlier launches. Raises BadInput before a model is loaded.
    """
    own = plan(raw, name)
    sweep = Sweep(plan([*before, *raw], name) if before else own, command, joins, session, in_parts=bool(before))
    try:
        sweep.run()
    except BaseException:
        if sweep.session and (told := sweep.session.close()):
            say(told)
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
    ) -> None:
        self.plan = whole
        self.command = command
        self.joins = joins
        self.store = Store(whole.root)
        self.folder = whole.root / "sweeps" / whole.name
        self.failures = Failures()
        self.stored: set[str] = set()  # cells that this run has found finished, or has finished
        self.shape = Shape({}, {})
        self.watched: dict[str, Trajectory] = {}
        self.unmeasured = Failures()  # metrics
        self.undrawn = 0
        self.this = _Run()
        self.earlier = self._earlier(say)
        self.in_parts = joins or in_parts or self.earlier.get("in_parts", False)
        self.session = session
        self.following: Following | None = None

    def _earlier(self, tell: Callable[[str], None] = lambda text: None) -> Document:
        """What sweep.json holds, no cells where it is not there or damaged."""
        try:
            return {**document.read(self.folder), "name": self.plan.name}
        except Absent:
            pass
        except Damaged as error:
            tell(f"note: {error}; it is written anew")
        return document.empty(self.plan.name, self.command, self.this.started)

    def status(self, cell: Cell) -> str:
        """As it was found at the beginning, or stored since: its files are not looked at again."""
        wrong = cell.id in self.failures or cell.id in self.store.damaged
        return "done" if cell.id in self.stored and not wrong else "failed"

    def _refuse_to_replace(self, others: Collection[str]) -> None:
        """A sweep shows no fewer cells than before under its name, unless that is asked for: those of which the content
        alone has changed (an edited input, an edited plugin) are no fewer. One that comes in parts (an optimiser's
        trials, batches, processes) has its other cells still to come."""
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
            self._run()
        except Busy as error:
            stored = sum(self.status(cell) == "done" for cell in self.plan.cells)
            told = f"{stored} of {counted('cell', len(self.plan.cells))} stored"
            later = f"diffsweep-results report {shlex.quote(self.plan.name)} writes their tables and sheets later"
            raise Busy(f"{error}; gave up waiting. {told}; {later}") from None

    def _run(self) -> None:
        gone = {cell["cell_id"] for cell in self.earlier["cells"]} - {cell.id for cell in self.plan.cells}
        self._refuse_to_replace(gone)
        self.store.damaged.clear()  # of those that are left behind
        for note in self.plan.notes:
            say(f"note: {note}")
        distinct = {cell.id: cell for cell in self.plan.cells}
        self.store.tidy(distinct)
        missing = [cell for cell in distinct.values() if not self._kept(cell)]
        kept = len(distinct) - len(missing)
        number = len(self.plan.cells)
        if gone and not self.joins:
            others = counted("other cell", len(gone))
            say(f"note: {self.plan.name} had {others}, still stored, which its files show no more")
        before = {cell.id: cell for one in missing for cell in self._before(one)}
        first = {cell_id: cell for cell_id, cell in before.items() if cell_id not in distinct}
        also = f", and {len(first)} whose pictures they enlarge" if first else ""
        told = f"{counted('cell', number)}, {kept} already stored, {len(missing)} to sample"
        say(f"{self.plan.name}: {told}{also}")
        for line in self.store.told("sampled again, damaged"):
            say(line)
        if self.session is None and hasattr(self.plan.tracker, "begin"):
            self.session = self.plan.tracker.begin(self.store, self.folder)
        if missing:
            self._sample([*first.values(), *missing])
        self._report()

    def _kept(self, cell: Cell) -> bool:
        """Whether all that is asked for is stored."""
        record = self.store.finished(cell.id)
        if record is None:
            return False
        self.stored.add(cell.id)
        return not self.plan.trajectory or record["facts"].get("trajectory", {}).get("asked") == self.plan.trajectory

    def _before(self, cell: Cell) -> Iterator[Cell]:
        """The cells that must be sampled before this one, from the last back."""
        for base in cell.cascade[-2::-1]:
            if self.store.whole(base.id):
                return
            yield base

    def _sample(self, missing: Sequence[Cell]) -> None:
        import torch

        device = preflight.device(self.plan.device, missing)
        if self.plan.threads:
            torch.set_num_threads(self.plan.threads)
        self.this.device, self.this.threads = device, torch.get_num_threads()
        earlier = [run.get("threads") for run in self.earlier["runs"] if run.get("device") == device == "cpu"]
        if earlier and earlier[-1] != self.this.threads:
            say(
                f"note: {counted('CPU thread', self.this.threads)}, {earlier[-1]} before: bits may differ from those "
                f"of the cells stored; engine.threads={earlier[-1]} keeps them"
            )
        if note := preflight.slow(missing, device):
            say(f"note: {note}")
        by_model: dict[Any, list[Cell]] = defaultdict(list)
        for cell in missing:
            by_model[cell.model].append(cell)
        preflight.disk(missing)
        most = shape.wanted(self.plan.cells)
        room = shape.fitting(most, self.plan.rows, device)
        for cells in by_model.values():
            room = preflight.memory(cells, device, room, chosen=self.plan.rows is not None)
        if (note := preflight.padding(most, self.plan.rows)) and not self.in_parts:
            say(f"note: {note}")
        self.plan.metrics.ready()
        bound = not (self.plan.rows or self.joins)
        self.shape = shape.as_begun(room, self.earlier) if bound else Shape(room, room)
        for note in self.shape.notes:
            say(f"note: {note}")
        self._note_rows(self.shape.rows)
        written = self._write()
        from tqdm import tqdm

        planned = sum(cell.rounds * len(cell.prompts) for cell in missing)
        interactive = sys.stderr.isatty()
        bar: tqdm[None] = tqdm(
            total=planned,
            unit="row",
            dynamic_ncols=True,
            mininterval=0.2 if interactive else 15,
            bar_format="{desc} {percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt} model rows, {elapsed} < {remaining}",
        )
        try:
            with bar, self._followed(written, {cell.id for cell in missing}, device):
                for cells in by_model.values():
                    self._sample_together(cells, device, bar, len(missing))
        except KeyboardInterrupt:
            told = f"{self.this.cells} of {counted('cell', len(missing))} stored"
            say(f"stopped: {told}; the same command goes on from there")
            raise
        finally:
            self._write()

    @contextmanager
    def _followed(self, sweep: Document, coming: Collection[str], device: str) -> Iterator[None]:
        """Where somebody is to be told, cells are measured and told of beside the sampling of others."""
        if not self.session or self.joins:
            yield
            return
        session = self.session

        def each(cell_ids: list[str]) -> None:
            if preflight.beside(device):  # a metric that fails here is told by those who measure the rest
                score(self.store, cell_ids, self.plan.metrics.metrics, device, Failures(), shows=False)
                session.cells(sweep, cell_ids)

        with Following(each) as self.following:
            for cell in sweep["cells"]:
                if cell["status"] == "done" and cell["cell_id"] not in coming:
                    self.following.add(cell["cell_id"])
            yield

    def _note_rows(self, rows: Mapping[str, int]) -> None:
        """The fewest rows a call of this run, for its entry in sweep.json."""
        before = {"model": self.this.rows, **self.this.later_rows}
        self.this.rows, self.this.later_rows = shape.parted(shape.fewest(before, rows))

    def _sample_together(self, cells: list[Cell], device: str, bar: tqdm[None], total: int) -> None:
        from diffsweep.engine import Engine

        coming, asked = {cell.id for cell in cells}, {cell.id for cell in self.plan.cells}
        ready: list[Cell] = []
        later: dict[str, list[Cell]] = defaultdict(list)  # by the cell whose picture they enlarge
        by_stage: dict[str, list[Cell]] = defaultdict(list)
        for cell in cells:
            base = cell.base
            (later[base.id] if base and base.id in coming else ready).append(cell)
            by_stage[cell.asks].append(cell)
        keys = {stage: own[0].key for stage, own in by_stage.items()}
        rows = {stage: self.shape.rows[key] for stage, key in keys.items()}
        began = time.perf_counter()
        engine = Engine(self._stages(by_stage, device), rows)
        self._load(engine, by_stage, bar)
        self.this.loading_seconds += time.perf_counter() - began
        began = time.perf_counter()
        try:
            bar.set_description_str(f"{self.this.cells}/{total} cells", refresh=False)
            bar.unpause()  # time left is told by sampling, not by loading
            if self.following:
                self.following.begin()
            works = (self.work(cell, device, later) for cell in ready)
            for finished in engine.run(works, bar.update):
                self._finish(finished, engine, device)
                if self.following and finished.key.id in asked and finished.key.id not in self.failures:
                    self.following.add(finished.key.id)
                for cell in later.pop(finished.key.id, ()):
                    if finished.key.id in self.failures:
                        self._fail_with(finished.key, cell, later)
                    else:
                        engine.add(self.work(cell, device, later))
                bar.set_description_str(f"{self.this.cells}/{total} cells", refresh=False)
        finally:
            self.this.sampling_seconds += time.perf_counter() - began
            self.this.add(engine.counts)
            self._note_rows({**self.shape.rows, **{key: engine.rows[stage] for stage, key in keys.items()}})

    def _stages(self, by_stage: Mapping[str, Sequence[Cell]], device: str) -> dict[str, Model]:
        """The model of each stage; those of no stage leave the memory."""
        firsts = {stage: cells[0] for stage, cells in by_stage.items()}
        for key in _models.keys() - {(cell.asked, device) for cell in firsts.values()}:
            del _models[key]
        for cell in firsts.values():
            if (cell.asked, device) not in _models:
                with _of(cell):
                    _models[cell.asked, device] = cell.asked.load(device, self.plan.root / "embeddings")
        return {stage: _models[cell.asked, device] for stage, cell in firsts.items()}

    def _load(self, engine: Engine, by_stage: Mapping[str, Sequence[Cell]], bar: tqdm[None]) -> None:
        """Every prompt encoded first, so that no text encoder is in memory beside the networks loaded here."""
        for stage, cells in by_stage.items():
            bar.set_description_str(f"{cells[0].key}: encoding prompts")
            with _of(cells[0]):
                engine.encode((prompt for cell in cells for prompt in cell.prompts), stage)
        for stage, cells in by_stage.items():
            bar.set_description_str(f"{cells[0].key}: loading")
            with _of(cells[0]):
                self.this.model_loads += engine.models[stage].ready()

    def work(self, cell: Cell, device: str, later: Mapping[str, Sequence[Cell]] = {}) -> Work:
        """A cell as work for the engine, which reads the picture it enlarges when it starts. later: the cells that
        enlarge another's picture, by the other's id."""

        def watch() -> Trajectory:
            """A new one each time that the engine starts the cell."""
            self.watched[cell.id] = Trajectory(cell, self.plan.trajectory)
            return self.watched[cell.id]

        own = work(cell, device, self.store.pixels, watch if self.plan.trajectory else None)

        def following(cell: Cell) -> int:
            """The steps of what enlarges a cell's picture, one stage after another."""
            return max((next.rounds + following(next) for next in later.get(cell.id, ())), default=0)

        return replace(own, later=following(cell))

    def _fail_with(self, base: Cell, cell: Cell, later: dict[str, list[Cell]]) -> None:
        """A cell whose picture to enlarge failed fails too, and those that would enlarge its own."""
        self.failures[cell.id] = f"the picture to enlarge failed: {self.failures[base.id]}"
        for following in later.pop(cell.id, ()):
            self._fail_with(base, following, later)

    def _finish(self, finished: Finished, engine: Engine, device: str) -> None:
        cell: Cell = finished.key
        error: BaseException | None = finished.error
        watched = self.watched.pop(cell.id, None)
        pictures: dict[str, np.ndarray] = {}
        facts: dict[str, Any] = {}
        if error is None:
            try:
                tensors = {IMAGE: finished.result.image, **finished.result.pictures}
                tensors |= watched.pictures if watched else {}
                model = engine.models[cell.asks]
                pictures = {name: to_pixels(model.finish(tensor)) for name, tensor in tensors.items()}
                facts = json.loads(to_json(finished.result.facts))
            except (Exception, SystemExit) as found:  # what a technique of the user's own returns may be anything
                error = found
        if error is not None:
            self.failures.add(cell.id, error)
            return
        if cell.pixels is not None:
            pictures[INPUT] = cell.pixels
        if cell.mask is not None and cell.hard_mask is not None:
            pictures |= {MASK: cell.mask, HARD_MASK: cell.hard_mask}
        if watched and self.store.whole(cell.id):  # stored before, without its trajectory or with another
            steps = {name: picture for name, picture in pictures.items() if name.startswith(STEP)}
            self.store.add(cell.id, steps, STEP, {"trajectory": watched.facts})
            self._count(cell)
            return
        base = self.store.record(cell.base.id) if cell.base else {"nfe": 0, "seconds": 0.0}
        facts |= {"base": cell.base.id} if cell.base else {}
        facts |= {"trajectory": watched.facts} if watched else {}
        self.store.save(
            cell.id,
            pictures,
            {
                "recipe": RECIPE,
                "config": cell.config,
                "nfe": base["nfe"] + finished.nfe,
                "seconds": round(base["seconds"] + finished.seconds, 6),
                "timesteps": [level.t for level in cell.visited],
                "facts": facts,
                "metrics": {},
                "provenance": {
                    **provenance(),
                    "device": device,
                    "dtype": getattr(cell.asked, "dtype", "float32"),
                    "rows": engine.rows[cell.asks],
                    "threads": self.this.threads,
                    "time": datetime.now(UTC).isoformat(timespec="seconds"),
                },
            },
        )
        self._count(cell)

    def _count(self, cell: Cell) -> None:
        self.stored.add(cell.id)
        self.this.cells += 1

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

    def _write(self) -> Document:
        return document.renew(self.folder, self.document)

    def _report(self) -> None:
        from diffsweep.report.write import show, write_all

        done = list(dict.fromkeys(cell.id for cell in self.plan.cells if self.status(cell) == "done"))
        metrics, device = self.plan.metrics, self.this.device or self.plan.device
        self.store.damaged.clear()  # mended by now, or found again
        with measured_sweep(self.store, self.folder, self.document, done, metrics, device) as measured:
            self.unmeasured, written = measured.failed, measured.document
            tracebacks = [failed.write(self.folder / "errors", written) for failed in (self.failures, self.unmeasured)]
            report = write_all(self.store, written)
        show(report, own={cell.id for cell in self.plan.cells} if self.joins else None)
        for line in self.store.told(mend=True):
            say(line)
        for name, error in self.unmeasured.items():
            say(f"metric {name} failed: {error}; all cells are stored, the command run again measures them")
        for traceback in filter(None, tracebacks):
            say(f"traceback{'s' * traceback.is_dir()}: {traceback}")
        self.undrawn = len(report.failures)
        if self.session:
            self.session.report(written, report)
        elif told := self.plan.tracker.log(self.store, written, report):
            say(told)


@contextmanager
def _of(cell: Cell) -> Iterator[None]:
    """What is wrong with a cell's model, or that memory does not suffice for it, is reported under its key."""
    try:
        yield
    except BadInput as error:
        raise BadInput(f"{cell.key}.{message}" for message in error.messages) from error
    except Exception as error:
        if not out_of_memory(error):
            raise
        raise Lacking(
            f"{cell.key}: memory does not suffice to load it ({in_one_line(error)}): end what else takes memory, or "
            "choose a smaller model; stored cells stay, and the same command goes on from them"
        ) from error


def say(text: str) -> None:
    print(visible(text), file=sys.stderr, flush=True)
