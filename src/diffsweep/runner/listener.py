"""Who hears how a sweep goes on: a terminal, a notebook, a program of one's own, or nobody."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffsweep.report.write import Report
    from diffsweep.runner.forecast import Forecast


class Listener:
    """Hears how a sweep goes on, and does nothing about it: a subclass overrides what it wants to hear.

    `samples`, then for each model `waits`, `begins`, and in any order `rows` and `cell`; `ends` also where an error or
    an interrupt ends it. A finished sweep has none of these, and only `note` and `report`.
    """

    def note(self, text: str) -> None:
        """A line for whoever runs the sweep."""

    def samples(self, cells: int, rows: int) -> None:
        """diffsweep is about to sample so many cells, which take so many model rows."""

    def waits(self, what: str) -> None:
        """What diffsweep does before it samples: `model: loading`."""

    def begins(self) -> None:
        """The models are loaded, and sampling begins."""

    def rows(self, number: int) -> None:
        """The model has computed so many more rows."""

    def cell(self, cell_id: str, error: str | None) -> None:
        """A cell is stored, or failed with this error."""

    def ends(self) -> None:
        """Sampling has ended."""

    def report(self, report: Report, own: Collection[str] | None) -> None:
        """The sweep's files are written. own: this process's cells, where other processes make the rest."""

    def elsewhere(self, folder: Path) -> None:
        """Another worker has written the sweep's files, in this folder."""

    def forecast(self, forecast: Forecast) -> None:
        """What a sweep with `plan=true` would run and take. Nothing of it has run, and nothing will."""
