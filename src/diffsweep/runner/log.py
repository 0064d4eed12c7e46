"""A log of how a sweep goes on: lines with their time, for a file that is read later."""

from __future__ import annotations

import time
from collections.abc import Collection
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from diffsweep.core.text import counted, visible
from diffsweep.runner.listener import Listener

if TYPE_CHECKING:
    from diffsweep.report.write import Report

EVERY = 60.0  # seconds between two lines of progress


class Log(Listener):
    """Writes what it hears, and how far the work is about once a minute."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._cells = self._of = self._rows = self._all = 0
        self._next = 0.0

    def note(self, text: str) -> None:
        now = datetime.now().isoformat(" ", "seconds")
        for line in text.splitlines():
            print(f"{now}  {visible(line)}", file=self._file, flush=True)

    def samples(self, cells: int, rows: int) -> None:
        self._of, self._all = cells, rows

    def waits(self, what: str) -> None:
        self.note(what)

    def begins(self) -> None:
        self.note(f"sampling, {counted('cell', self._of)} to do in all")
        self._next = time.monotonic() + EVERY

    def rows(self, number: int) -> None:
        self._rows += number
        if time.monotonic() > self._next:
            self._next = time.monotonic() + EVERY
            self.note(f"{self._cells}/{self._of} cells, {self._rows}/{self._all} model rows")

    def cell(self, cell_id: str, error: str | None) -> None:
        self._cells += error is None
        if error is not None:
            self.note(f"failed: {cell_id}: {error}")

    def ends(self) -> None:
        self.note(f"{self._cells}/{self._of} cells, {self._rows}/{self._all} model rows")

    def report(self, report: Report, own: Collection[str] | None) -> None:
        self.note(f"{report.folder}: report.html and all other files are written")

    def elsewhere(self, folder: Path) -> None:
        self.note(f"{folder}: another worker has written report.html and all other files")
