"""A worker's part of a sweep: it samples what it claims, until nothing is left for anybody."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing, suppress

from diffsweep.core.failures import Failures
from diffsweep.core.leases import Gone
from diffsweep.runner.background import Background
from diffsweep.runner.cell import Cell
from diffsweep.runner.handed import Later
from diffsweep.runner.listener import Listener
from diffsweep.runner.sampling import Ended, Sampler, without_base
from diffsweep.runner.shape import Rows
from diffsweep.runner.shared import LOADING, SAMPLING, WAITING, Shared
from diffsweep.runner.stock import Stock


class Part:
    """shared: what the workers share; asked: the cells that were missing when this one began, by id; failures: takes
    the reasons of cells that fail here; background: takes the cells that are stored."""

    def __init__(
        self,
        shared: Shared,
        asked: Mapping[str, Cell],
        stock: Stock,
        sampler: Sampler,
        failures: Failures,
        listener: Listener,
        background: Background | None,
    ) -> None:
        self.shared, self.asked, self.stock, self.sampler = shared, asked, stock, sampler
        self.failures, self.listener, self.background = failures, listener, background
        self.waits = listener.waits

    def sample(self) -> None:
        """Sample with the other workers until nothing is left, one model after the other."""
        first = len(self.shared.leases.workers()) - 1  # each worker begins with another model
        numbers = [(first + number) % len(self.shared.groups) for number in range(len(self.shared.groups))]
        waits = ""
        while True:
            for number in numbers:
                self._sample_model(number)
            if self.shared.over:
                return
            self.shared.leases.become(WAITING)
            if (told := self.shared.waits_for) != waits:
                self.listener.waits(waits := told)
            self.shared.wait()

    def _sample_model(self, number: int) -> None:
        """Sample what can be had of a model's cells."""
        if not (given := [*(self._taken(number) or ())]):
            return
        for model, n in self.shared.fewer().items():
            self.sampler.fewer[model] = min(n, self.sampler.fewer.get(model, n))
        self.shared.leases.become(LOADING)
        own = [cell for lot in self.shared.groups[number] for cell in lot.cells if cell.id in self.asked]

        def take() -> Sequence[Cell] | None:
            if not given:
                return self._taken(number)
            taken = [*given]
            given.clear()
            return taken

        with closing(self.sampler.run(own, take, self, self.shared.leases.once)) as ends:
            for ended in ends:
                self._end(ended)

    def _taken(self, number: int) -> Sequence[Cell] | None:
        """Cells to sample now, but for those whose picture to enlarge has failed."""
        while cells := self.shared.take(number):
            reasons = self.shared.reasons()
            lost = [cell for cell in cells if cell.base and cell.base.id in reasons and not self.stock.has(cell.base)]
            for cell in lost:
                self._end(without_base(cell, reasons[cell.base.id]))  # type: ignore[union-attr]
            if left := [cell for cell in cells if cell not in lost]:
                return left
        return cells

    def _end(self, ended: Ended) -> None:
        cell_id, error = ended.cell.id, ended.error
        if error is None:
            self.stock.stored.add(cell_id)
            self.failures.forget(cell_id)
            self.sampler.counted.cells += 1
        elif isinstance(error, str):
            self.failures[cell_id] = error
        else:
            self.failures.add(cell_id, error)
        self.shared.leases.cells = self.sampler.counted.cells
        self.shared.end(cell_id, self.failures.get(cell_id))
        if self.background and error is None and cell_id in self.stock.cells:
            self.background.add(cell_id)
        self.listener.cell(cell_id, self.failures.get(cell_id))
        if isinstance(ended.cell, Later):
            ended.cell.let_go()

    # -- what the sampler reports --------------------------------------------------------------------------------------
    def begins(self) -> None:
        self.shared.leases.become(SAMPLING)
        self.listener.begins()
        if self.background:
            self.background.begin()

    def rows(self, number: int) -> None:
        self.shared.leases.rows += number
        self.listener.rows(number)
        if note := self.shared.woken():
            self.listener.note(f"note: {note}")

    def fewer(self, rows: Rows) -> None:
        self.shared.leases.more["fewer"] = {**rows}  # for those that join later
        with suppress(OSError, Gone):
            self.shared.leases.tell()
