"""No input picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffsweep.core.problems import BadInput
from diffsweep.input.picture import Picture


@dataclass(frozen=True)
class NoInput(Picture):
    def pixels(self, size: int) -> np.ndarray:
        raise BadInput("input=none: this technique needs a picture; input=world, input=file or input=drawing")
