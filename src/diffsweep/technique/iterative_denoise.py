"""The noised input, denoised step by step: from t itself, then the visited levels below it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from diffsweep.core.types import Level, Stage
from diffsweep.technique.job import FromInput
from diffsweep.technique.start import Noised, below


@dataclass(frozen=True)
class IterativeDenoise(Noised, FromInput):
    """From the level that `Noised` says."""

    uses: ClassVar[frozenset[str]] = frozenset({"prompt", "scheduler", "guidance", "input"})
    restores: ClassVar[bool] = True

    def visited(self, levels: tuple[Level, ...], stage: Stage) -> tuple[Level, ...]:
        return below(self.level(stage), levels)
