"""No tracker."""

from __future__ import annotations

from dataclasses import dataclass

from diffsweep.report.write import Report
from diffsweep.store.cells import Store
from diffsweep.store.schema import Document


@dataclass(frozen=True)
class NoTracker:
    def log(self, store: Store, sweep: Document, report: Report) -> str | None:
        return None
