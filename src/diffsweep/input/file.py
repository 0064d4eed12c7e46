"""A picture from a file: any format Pillow reads, cropped to the centre square and resized (Lanczos)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from diffsweep.input.picture import read


@dataclass(frozen=True)
class File:
    """path: the file; transparent parts are shown on white."""

    path: str = ""

    def pixels(self, size: int) -> np.ndarray:
        image = read("path", self.path)
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
        return np.asarray(ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS))

    def caption(self) -> str | None:
        return None
