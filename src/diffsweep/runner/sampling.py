"""Sampling: the cells of a model through one engine, in shared calls, each stored as soon as it ends.

Models stay in memory for later cells, in this launch or the next. Models that no stage needs are unloaded before others
are loaded.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, cast
from uuid import uuid4

from diffsweep.core.failures import reason
from diffsweep.core.memory import Lacking, out_of_memory
from diffsweep.core.problems import under
from diffsweep.core.text import in_one_line
from diffsweep.runner import shape
from diffsweep.runner.cell import Cell
from diffsweep.runner.identity import RECIPE
from diffsweep.runner.ingredients import Trajectory, require_finite, to_pixels, work
from diffsweep.runner.lots import chain, enlarged
from diffsweep.runner.provenance import provenance
from diffsweep.runner.translation import with_translators
from diffsweep.store.cells import Store
from diffsweep.store.pictures import HARD_MASK, IMAGE, INPUT, MASK, STEP
from diffsweep.store.schema import RunEntry, to_json

if TYPE_CHECKING:
    import numpy as np

    from diffsweep.core.types import Model
    from diffsweep.engine import Counts, Engine, Finished, Work

Once = Callable[[str, Callable[[], Any]], bool]
_models: dict[tuple[Any, str], Model] = {}  # those in memory, by their settings and their device


@dataclass
class Run:
    """One run's entry in sweep.json, while it is counted."""

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

    def note(self, rows: shape.Rows) -> None:
        """Keep the fewest rows a call that this run has had."""
        before = {"model": self.rows, **self.later_rows}
        self.rows, self.later_rows = shape.parted(shape.fewest(before, rows))


@dataclass(frozen=True)
class Ended:
    """A cell that was stored, or that failed with this error."""

    cell: Cell
    error: BaseException | str | None = None


class Heard(Protocol):
    """Hears how sampling goes on."""

    def waits(self, what: str) -> None:
        """What the run is doing before it samples: loading, encoding."""

    def begins(self) -> None:
        """Models are loaded, sampling begins."""

    def rows(self, number: int) -> None:
        """So many more model rows are computed."""

    def fewer(self, rows: shape.Rows) -> None:
        """Memory lacked: each of these models goes on with so many rows a call."""


class Sampler:
    """Samples cells into a store on one device. rows: the batch shape; trajectory: how many steps of each cell are
    kept; counted: the run whose counts it raises. fewer: the rows of models for which memory lacked, here or elsewhere.
    """

    def __init__(self, store: Store, device: str, rows: shape.Rows, trajectory: int, counted: Run) -> None:
        self.store, self.device, self.rows, self.trajectory, self.counted = store, device, rows, trajectory, counted
        self.watched: dict[str, Trajectory] = {}
        self.fewer: dict[str, int] = {}

    def run(
        self,
        cells: Sequence[Cell],
        take: Callable[[], Sequence[Cell] | None],
        listener: Heard,
        once: Once = lambda key, act: False,
    ) -> Generator[Ended, None, None]:
        """Sample cells of one model, and those that enlarge their pictures, and yield each as it ends.

        cells: all that may come; take: is asked for them while the engine has room, as a `Source` is: a cell comes
        after or with the one whose picture it enlarges. once: has one of all workers act, before the others do.
        """
        from diffsweep.engine import Engine

        larger = enlarged(cells)
        coming: set[str] = set()  # given, and not ended
        later: dict[str, list[Cell]] = defaultdict(list)  # those that wait for the cell whose picture they enlarge
        by_stage: dict[str, list[Cell]] = defaultdict(list)
        for cell in cells:
            by_stage[cell.stage_name].append(cell)
        keys = {stage: own[0].config_key for stage, own in by_stage.items()}

        def source() -> list[Work] | None:
            if (given := take()) is None:
                return None
            coming.update(cell.id for cell in given)
            waiting = [cell for cell in given if cell.base and cell.base.id in coming]
            for cell in waiting:
                later[cell.base.id].append(cell)  # type: ignore[union-attr]
            return [self._work(cell, larger, models) for cell in given if cell not in waiting]

        began = time.perf_counter()
        names = {stage: _digest(own[0].network) for stage, own in by_stage.items()}
        rows = {stage: min(self.rows[key], self.fewer.get(names[stage], self.rows[key])) for stage, key in keys.items()}
        models = self._stages(by_stage)
        engine = Engine(*with_translators(models, rows))

        def heard(number: int) -> None:
            fewer = {names[stage]: engine.rows[stage] for stage, n in rows.items() if engine.rows[stage] < n}
            if fewer.items() - self.fewer.items():
                self.fewer |= fewer
                listener.fewer(self.fewer)
            listener.rows(number)

        self._load(engine, by_stage, listener, once)
        self.counted.loading_seconds += time.perf_counter() - began
        began = time.perf_counter()
        try:
            listener.begins()
            for finished in engine.run((), heard, source):
                ended = self._finish(finished, engine)
                coming.discard(ended.cell.id)
                yield ended
                if ended.error is not None:
                    for lost in failed_with(ended.cell, ended.error, later):
                        coming.discard(lost.cell.id)
                        yield lost
                for cell in later.pop(ended.cell.id, ()):
                    engine.add(self._work(cell, larger, models))
        finally:
            self.counted.sampling_seconds += time.perf_counter() - began
            self.counted.add(engine.counts)
            self.counted.note({**self.rows, **{key: engine.rows[stage] for stage, key in keys.items()}})

    def _stages(self, by_stage: Mapping[str, Sequence[Cell]]) -> dict[str, Model]:
        """The model of each stage. Models that no stage needs are dropped, but not what those have in common with them:
        a model of another size shares its networks."""
        firsts = {stage: cells[0] for stage, cells in by_stage.items()}
        for cell in firsts.values():
            if (cell.network, self.device) not in _models:
                with _of(cell):
                    _models[cell.network, self.device] = cell.network.load(self.device, self.store.root / "embeddings")
        for key in _models.keys() - {(cell.network, self.device) for cell in firsts.values()}:
            del _models[key]
        return {stage: _models[cell.network, self.device] for stage, cell in firsts.items()}

    def _load(self, engine: Engine, by_stage: Mapping[str, Sequence[Cell]], listener: Heard, once: Once) -> None:
        """Encode every prompt, then load the networks: no text encoder is in memory beside them."""
        for cells in by_stage.values():
            if hasattr(cells[0].network, "fetch") and cells[0].network.missing():
                listener.waits(f"{cells[0].config_key}: downloading")
                with _of(cells[0]):
                    cells[0].network.fetch()
        for stage, cells in by_stage.items():
            listener.waits(f"{cells[0].config_key}: encoding prompts")
            prompts = [prompt for cell in cells for prompt in cell.prompts]
            with _of(cells[0]):
                if not once(f"encoded-{_digest(cells[0].network, prompts)}", partial(engine.encode, prompts, stage)):
                    engine.encode(prompts, stage)  # another worker has, and stored them
        for stage, cells in by_stage.items():
            listener.waits(f"{cells[0].config_key}: loading")
            with _of(cells[0]):
                self.counted.model_loads += engine.models[stage].ready()

    def _work(self, cell: Cell, larger: Mapping[str, Sequence[Cell]], models: Mapping[str, Model]) -> Work:
        """A cell as work for the engine, which reads the picture it enlarges when it starts. larger: the cells that
        enlarge another's picture, by the other's id; models: by stage."""

        def watch() -> Trajectory:
            """A new watcher each time that the engine starts the cell."""
            self.watched[cell.id] = Trajectory(cell, self.trajectory)
            return self.watched[cell.id]

        watcher = watch if self.trajectory else None
        own = work(cell, self.device, self.store.pixels, watcher, models[cell.stage_name])
        return replace(own, later=chain(cell, larger) - cell.rounds)

    def _finish(self, finished: Finished, engine: Engine) -> Ended:
        """Store a finished cell."""
        cell: Cell = finished.owner
        error: BaseException | None = finished.error
        watched = self.watched.pop(cell.id, None)
        pictures: dict[str, np.ndarray] = {}
        facts: dict[str, Any] = {}
        if error is None:
            try:
                tensors = {IMAGE: finished.result.image, **finished.result.pictures}
                tensors |= watched.pictures if watched else {}
                model = engine.models[cell.stage_name]
                for tensor in tensors.values():  # before a watermark makes black of them
                    require_finite(tensor, _more_range(cell))
                pictures = {name: to_pixels(model.finish(tensor)) for name, tensor in tensors.items()}
                facts = json.loads(to_json(finished.result.facts))
            except (Exception, SystemExit) as found:  # what a technique of the user's own returns may be anything
                error = found
        if error is not None:
            return Ended(cell, error)
        if watched and self.store.is_complete(cell.id):  # stored before, without its trajectory or with another
            steps = {name: picture for name, picture in pictures.items() if name.startswith(STEP)}
            self.store.add(cell.id, steps, STEP, {"trajectory": watched.facts})
            return Ended(cell)
        if cell.pixels is not None:
            pictures[INPUT] = cell.pixels
        if cell.mask is not None and cell.hard_mask is not None:
            pictures |= {MASK: cell.mask, HARD_MASK: cell.hard_mask}
        before = self.store.record(cell.base.id) if cell.base else None
        facts |= {"base": cell.base.id} if cell.base else {}
        facts |= {"trajectory": watched.facts} if watched else {}
        self.store.save(
            cell.id,
            pictures,
            {
                "recipe": RECIPE,
                "config": cell.config,
                "nfe": finished.nfe + (before["nfe"] if before else 0),
                "seconds": round(finished.seconds + (before["seconds"] if before else 0.0), 6),
                "timesteps": [level.t for level in cell.visited],
                "facts": facts,
                "metrics": {},
                "provenance": {
                    **provenance(),
                    "device": self.device,
                    "dtype": getattr(cell.network, "dtype", "float32"),
                    "rows": engine.rows[cell.stage_name],
                    "threads": self.counted.threads,
                    "time": datetime.now(UTC).isoformat(timespec="seconds"),
                },
            },
        )
        return Ended(cell)


def _more_range(cell: Cell) -> str:
    """What may be wrong with a picture that is not finite: of a model's files, which types may hold what the network's
    own could not, and in the widest one the weights."""
    network, key = cell.network, f"{cell.config_key}.dtype"
    wider = {"float16": f"{key}=bfloat16 or float32", "bfloat16": f"{key}=float32"}
    dtype = getattr(network, "dtype", "float32")
    told = hasattr(network, "check")
    if dtype in wider:
        return f": {network.path} in {dtype}; try {wider[dtype]}"
    return f": the weights of {network.path} may be damaged, or a key's number far too large" if told else ""


def without_base(cell: Cell, error: BaseException | str) -> Ended:
    """A cell that would have enlarged the picture of one that failed, itself or for want of its own base."""
    below = "the picture to enlarge failed: "
    return Ended(cell, below + reason(error).removeprefix(below))


def failed_with(base: Cell, error: BaseException | str, later: dict[str, list[Cell]]) -> Iterator[Ended]:
    """The cells that would have enlarged a failed one's picture, and those that would have enlarged theirs."""
    for cell in later.pop(base.id, ()):
        yield without_base(cell, error)
        yield from failed_with(cell, error, later)


def _digest(network: Any, prompts: Sequence[str | None] = ()) -> str:
    return hashlib.sha256(repr((network, sorted(set(prompts), key=repr))).encode()).hexdigest()[:12]


@contextmanager
def _of(cell: Cell) -> Iterator[None]:
    """Report an error of a cell's model, or a lack of memory for it, under the model's key."""
    try:
        with under(cell.config_key):
            yield
    except Exception as error:
        if not out_of_memory(error):
            raise
        raise Lacking(
            f"{cell.config_key}: not enough memory to load it ({in_one_line(error)}): free some, or choose a smaller "
            "model; stored cells stay, and the same command resumes from them"
        ) from error
