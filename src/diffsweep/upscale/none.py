"""The first stage's picture as it is."""

from __future__ import annotations

from dataclasses import dataclass

from diffsweep.core.types import Stage


@dataclass(frozen=True)
class NoUpscale:
    def larger(self, low: Stage) -> None:
        return None
