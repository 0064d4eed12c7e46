"""The history of a sweep's run: a step for each finished cell, in the order of logging."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from typing import TYPE_CHECKING, Any

from PIL import Image as Pixels

from diffsweep.report.selection import plain
from diffsweep.report.text import brief, short
from diffsweep.store.pictures import IMAGE
from diffsweep.store.schema import CellEntry, Document

if TYPE_CHECKING:
    import pandas as pd
    from wandb import Image, Run

    from diffsweep.store.cells import Store

MOST_PICTURES = 100  # wandb itself keeps 108 of a list, and 10,000 rows of a table
MOST_ROWS = 10_000


class Steps:
    """One step for each cell, however often it is logged."""

    def __init__(self) -> None:
        self.logged: set[str] = set()
        self.sums: dict[str, tuple[float, int]] = {}

    def log(self, run: Run, store: Store, sweep: Document, frame: pd.DataFrame) -> None:
        """Log a step for each finished cell that has none yet. frame: `report.frame.results` of them, or of all
        cells."""
        if not self.logged:
            run.define_metric(step_key("*"), step_metric=step_key("number"), summary="none")
        cells = {cell["cell_id"]: (i, cell) for i, cell in reversed([*enumerate(sweep["cells"])])}
        pictured = thinned(len(sweep["cells"]))
        for cell_id, step in self._of(frame):
            place, cell = cells[cell_id]
            if place < MOST_ROWS:
                if place in pictured:
                    step[step_key(IMAGE)] = picture(store, cell)
                run.log({step_key("number"): place, **step})

    def _of(self, frame: pd.DataFrame) -> Iterator[tuple[str, dict[str, Any]]]:
        """For each cell its axes, metrics and cost, and each metric's mean so far."""
        metrics = frame.attrs["metrics"]
        names = [*frame.attrs["axes"], *metrics, "nfe", "seconds"]
        columns = {name: [plain(value) for value in frame[name]] for name in names}
        for i, (cell_id, status) in enumerate(zip(frame["cell_id"], frame["status"], strict=True)):
            if status != "done" or cell_id in self.logged:
                continue
            self.logged.add(cell_id)
            numbers = {name: column[i] for name, column in columns.items() if isinstance(column[i], int | float)}
            for name in metrics:
                total, n = self.sums.get(name, (0.0, 0))
                self.sums[name] = (total + numbers[name], n + 1) if name in numbers else (total, n)
            numbers |= {mean_name(name): total / n for name, (total, n) in self.sums.items() if n}
            yield cell_id, {step_key(name): value for name, value in numbers.items()}


def step_key(name: str) -> str:
    return f"cells/{name.replace('.', '_')}"  # a dot would be a nested key


def mean_name(metric: str) -> str:
    """The name of a metric's mean so far. Not the metric's own name: an agent counts and compares every value of
    that."""
    return f"{metric}_mean"


def thinned(number: int) -> list[int]:
    """The places of at most `MOST_PICTURES` of so many cells, evenly spread."""
    n = min(number, MOST_PICTURES)
    return [i * number // n for i in range(n)]


def picture(store: Store, cell: CellEntry, file: str = f"{IMAGE}.png", caption: str | None = None) -> Image:
    """A stored picture of a cell, as W&B logs it; Damaged."""
    import wandb

    with Pixels.open(BytesIO(store.read(cell["cell_id"], file))) as pixels:
        return wandb.Image(pixels, caption=caption_of(cell) if caption is None else caption)


def caption_of(cell: CellEntry) -> str:
    values = {**cell["axes"], "seed": cell["seed"]}
    return ", ".join(f"{axis} = {short(brief(value), 60)}" for axis, value in values.items())
