"""A picture from noise and a prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from diffsweep.technique.job import Plain


@dataclass(frozen=True)
class TextToImage(Plain):
    uses: ClassVar[frozenset[str]] = frozenset({"prompt", "scheduler", "guidance"})
