"""Brush strokes scribbled from a seed: random walks with a round brush, as free-form inpainting masks are drawn.

The walks fill a picture of any proportions: their steps are shares of its width and its height.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from diffsweep.core.problems import within
from diffsweep.mask.soft import Shape

SCALE = 8  # drawn larger, then reduced


@dataclass(frozen=True)
class Strokes(Shape):
    """seed: of the scribble, apart from the cell's; count: strokes; width: of the brush, as a share of the shorter
    side."""

    seed: int = 0
    count: int = 4
    width: float = 0.1

    def problems(self) -> list[str | None]:
        return [within("count", self.count, 1, 1000), within("width", self.width, 0.001, 1)]

    def shape(self, height: int, width: int) -> np.ndarray:
        rng = random.Random(self.seed)
        image = Image.new("L", (width * SCALE, height * SCALE))
        draw = ImageDraw.Draw(image)
        brush = self.width * min(width, height) * SCALE
        for _ in range(self.count):
            x, y, angle = rng.random(), rng.random(), rng.uniform(0, 2 * math.pi)
            for _ in range(rng.randint(3, 6)):
                angle += rng.uniform(-1, 1)
                step = rng.uniform(0.1, 0.25)
                x_next = min(max(x + step * math.cos(angle), 0), 1)
                y_next = min(max(y + step * math.sin(angle), 0), 1)
                ends = [(u * width * SCALE, v * height * SCALE) for u, v in ((x, y), (x_next, y_next))]
                draw.line(ends, fill=255, width=max(1, round(brush)))
                for end in ends:
                    draw.circle(end, brush / 2, fill=255)
                x, y = x_next, y_next
        return np.asarray(image.resize((width, height), Image.Resampling.BOX)) >= 128
