"""Nobody is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diffsweep.report.write import Report
from diffsweep.sweep.store import Store


@dataclass(frozen=True)
class NoTracker:
    def log(self, store: Store, sweep: Mapping[str, Any], report: Report) -> str | None:
        return None
