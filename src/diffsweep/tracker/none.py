"""Nobody is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffsweep.sweep.store import Store


@dataclass(frozen=True)
class NoTracker:
    def log(self, store: Store, sweep: Mapping[str, Any], files: Sequence[Path]) -> str | None:
        return None
