"""A log of how a sweep goes on: lines with their time, to be read later."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from diffsweep.core.text import counted, visible
from diffsweep.runner.listener import Listener

if TYPE_CHECKING:
    from diffsweep.report.write import Report

EVERY = 60.0  # seconds between two lines of progress


class Log(Listener):
    """Writes what it hears, and about once a minute how far the work is. write: takes a line; also: another listener,
    which hears the same."""

    def __init__(self, write: Callable[[str], object], also: Listener | None = None) -> None:
        self._write, self._also = write, also or Listener()
        self._cells = self._of = self._rows = self._all = 0
        self._next = 0.0

    def line(self, text: str) -> None:
        """Write a line that nobody else hears."""
        now = datetime.now().isoformat(" ", "seconds")
        for part in text.splitlines():
            self._write(f"{now}  {visible(part)}\n")

    def note(self, text: str) -> None:
        self.line(text)
        self._also.note(text)

    def samples(self, cells: int, rows: int) -> None:
        self._cells, self._of, self._rows, self._all = 0, cells, 0, rows
        self._also.samples(cells, rows)

    def waits(self, what: str) -> None:
        self.line(what)
        self._also.waits(what)

    def begins(self) -> None:
        self.line(f"sampling: {counted('cell', self._of)}, {counted('model row', self._all)}")
        self._next = time.monotonic() + EVERY
        self._also.begins()

    def rows(self, number: int) -> None:
        self._rows += number
        if time.monotonic() > self._next:
            self._next = time.monotonic() + EVERY
            self._progress()
        self._also.rows(number)

    def cell(self, cell_id: str, error: str | None) -> None:
        self._cells += error is None
        if error is not None:
            self.line(f"failed: {cell_id}: {error}")
        self._also.cell(cell_id, error)

    def ends(self) -> None:
        self._progress()
        self._also.ends()

    def _progress(self) -> None:
        self.line(f"{self._cells}/{self._of} cells, {self._rows}/{self._all} model rows")

    def report(self, report: Report, own: Collection[str] | None) -> None:
        self.line("report.html and all other files are written")
        self._also.report(report, own)

    def elsewhere(self, folder: Path) -> None:
        self.line("another worker has written report.html and all other files")
        self._also.elsewhere(folder)
