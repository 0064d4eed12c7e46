"""What a run computes with: a device, threads, and the rows of a call that fit its memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from diffsweep.core.leases import Leases
from diffsweep.core.problems import require
from diffsweep.core.text import counted
from diffsweep.runner import preflight, shape
from diffsweep.runner.cell import Cell
from diffsweep.runner.listener import Listener
from diffsweep.runner.notes import cut
from diffsweep.runner.plan import Plan
from diffsweep.runner.shape import Agreed, Rows, Shape
from diffsweep.runner.shared import SHAPE, agreed
from diffsweep.store.schema import Document


class Machine:
    """The device and the threads for these cells; room: the rows of a call that fit. BadInput where something lacks.

    in_parts: more cells are to come, with which a call may be filled.
    """

    def __init__(self, whole: Plan, cells: Sequence[Cell], listener: Listener, in_parts: bool = False) -> None:
        import torch

        self.plan, self.listener = whole, listener
        self.device = preflight.device(whole.device, cells)
        self.threads = whole.threads or torch.get_num_threads()
        for told in filter(None, (preflight.slow(cells, self.device), preflight.idle(cells, self.device))):
            listener.note(f"note: {told}")
        by_model: dict[Any, list[Cell]] = defaultdict(list)
        for cell in cells:
            by_model[cell.model].append(cell)
        preflight.disk(cells)
        preflight.weights(cells)
        most = shape.wanted(whole.cells)
        self.room: Rows = shape.fitting(most, whole.rows, self.device)
        for own in by_model.values():
            self.room = preflight.memory(own, self.device, self.room, chosen=whole.rows is not None)
        for told in cut(cells):
            listener.note(f"note: {told}")
        if (note := preflight.padding(most, whole.rows)) and not in_parts:
            listener.note(f"note: {note}")

    def shape(self, earlier: Document, bound: bool) -> Shape:
        """The batch shape, by default that which the sweep began with. bound: whether that counts. earlier: what
        sweep.json holds."""
        return shape.as_begun(self.room, earlier) if bound and not self.plan.rows else Shape(self.room, self.room)

    def agree(self, leases: Leases, earlier: Document, bound: bool) -> Shape:
        """The batch shape of all workers, on which the first one decides, as it does on the threads."""
        own = self.shape(earlier, bound)
        mine = Agreed(own.kept, own.rows, self.threads, preflight.kind(self.device))
        if leases.settle(SHAPE, mine.text):
            for note in (*own.notes, *self._other_threads(earlier)):
                self.listener.note(f"note: {note}")
            return own
        there = agreed(leases)
        require(*there.problems(mine, self.room, self.plan.devices))
        self.threads = there.threads
        return Shape(there.kept, there.rows)

    def _other_threads(self, earlier: Document) -> Iterator[str]:
        """A note where this run computes with another number of threads than the one before."""
        before = [run.get("threads") for run in earlier["runs"] if run.get("device") == self.device == "cpu"]
        if before and before[-1] != self.threads:
            yield (
                f"{counted('CPU thread', self.threads)}, {before[-1]} before: pictures may differ in rounding from "
                f"those already stored; engine.threads={before[-1]} avoids that"
            )

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Within, torch computes with the threads; those before are the program's."""
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)
