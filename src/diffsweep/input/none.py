"""No input picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffsweep.core.problems import BadInput


@dataclass(frozen=True)
class NoInput:
    def pixels(self, size: int) -> np.ndarray:
        raise BadInput("input=none: this technique needs a picture; input=world, input=file or input=drawing")

    def caption(self) -> str | None:
        return None
