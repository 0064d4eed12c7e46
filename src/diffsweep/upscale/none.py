"""The picture as it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from diffsweep.core.types import Stage


@dataclass(frozen=True)
class NoUpscale:
    def on(self, model: Any, low: Stage) -> NoUpscale:
        return self

    def larger(self, low: Stage) -> None:
        return None
