"""What every input gives: pixels of the size asked for, and a caption where it knows one. Needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image, ImageOps

from diffsweep.core.problems import BadInput


class Picture(Protocol):
    def pixels(self, size: int) -> np.ndarray:
        """uint8, size x size x 3."""
        ...

    def caption(self) -> str | None: ...


def read(key: str, path: str) -> Image.Image:
    """An image file, RGBA, turned upright; BadInput naming the key where it is missing or damaged."""
    if not path:
        raise BadInput(f"{key}: a file is needed, such as picture.png")
    try:
        with Image.open(Path(path).expanduser()) as image:
            return eight_bit(ImageOps.exif_transpose(image)).convert("RGBA")
    except FileNotFoundError:
        raise BadInput(f"{key}={path}: no such file") from None
    except (OSError, RuntimeError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BadInput(f"{key}={path}: not a readable image ({error})") from None


def eight_bit(image: Image.Image) -> Image.Image:
    """16-bit grey scaled to 8 bits, which Pillow's own conversion would clip at 255."""
    if image.mode == "F":
        raise ValueError("floating point pixels have no known range")
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray(np.rint(np.asarray(image) / 257).clip(0, 255).astype(np.uint8))
