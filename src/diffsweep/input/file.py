"""A picture from a file, its centre of the picture's proportions cropped and resized (Lanczos), as 8-bit sRGB.

Any format that Pillow reads, and HEIC. Of a JPEG no more is decoded than the size asked for needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from diffsweep import imagefile
from diffsweep.core.keys import AUTO, Auto, given
from diffsweep.core.problems import BadInput, require, within
from diffsweep.core.text import printed
from diffsweep.input.colour import scaled, srgb
from diffsweep.input.picture import Picture, Seen

SPARE = 4  # a JPEG is decoded at this many times the size asked for, or more


@dataclass(frozen=True)
class PictureFile(Picture):
    """path: the file; transparent parts are shown on white. frame: of an animated file, from 0. white: the value that
    is white, of 32-bit and floating point files, or of fewer bits in a file of 16; auto is 65535 in one of 16 bits.
    max_megapixels: larger ones are refused.
    """

    path: str = ""
    frame: int = 0
    white: Auto | float = AUTO
    max_megapixels: float = imagefile.MEGAPIXELS

    def __post_init__(self) -> None:
        require(
            within("frame", self.frame, 0),
            f"white={printed(self.white)}: must be above 0" if self.white != AUTO and self.white <= 0 else None,
            within("max_megapixels", self.max_megapixels, 0),
        )

    def stamp(self) -> object:
        return imagefile.stamp(self.path)

    def sized(self, height: int, width: int) -> Seen:
        return _read(self, self.stamp(), height, width)

    def pixels(self, size: int) -> np.ndarray:
        return self.sized(size, size).pixels

    def notes(self, size: int) -> tuple[str, ...]:
        return self.sized(size, size).notes

    def proportions(self) -> tuple[int, int]:
        return imagefile.size(self.path, self.frame, self.max_megapixels)


@lru_cache(maxsize=256)
def _read(file: PictureFile, stamp: object, height: int, width: int) -> Seen:
    """stamp: so that a changed file is read anew."""
    allow = "; input.max_megapixels=N allows more"
    with imagefile.opened(file.path, file.frame, file.max_megapixels, allow) as image:
        found = [imagefile.frame_note(image, file.frame, "input.frame")]
        found.append(_cropped(imagefile.upright_size(image), width, height))
        turned, profile = imagefile.orientation(image), image.info.get("icc_profile")
        size = imagefile.stored(width, height, turned)
        image.draft(None, (SPARE * size[0], SPARE * size[1]))
        box = imagefile.centre(image.size, *size)
        if imagefile.is_deep(image):
            picture, note = scaled(image, size, box, given(file.white))
        else:
            if file.white != AUTO:
                raise BadInput(
                    f"white={file.white:g}: {file.path} has 8 bits a channel, whose white is 255; leave white out"
                )
            small = imagefile.plain(image).resize(size, Image.Resampling.LANCZOS, box=box)
            picture, note = srgb(small, profile)
            if small.mode == "RGBA" and not np.asarray(small.getchannel("A")).any():
                found.append("is transparent all over: it is read as white")
        found.append(note)
    pixels = np.asarray(imagefile.upright(picture.convert("RGB"), turned))
    return Seen(pixels, tuple(f"{Path(file.path).name} {note}" for note in found if note))


def _cropped(size: tuple[int, int], width: int, height: int) -> str | None:
    """What should be known of a file of this width and height, of which only the centre is taken."""
    left, top, right, bottom = imagefile.centre(size, width, height)
    taken = round(right - left), round(bottom - top)
    if taken == size:
        return None
    what, which = f", {taken[0]} x {taken[1]},", f"pictures of {width} x {height}"
    if width == height:
        what, which = " square", "square pictures"
    return f"is {size[0]} x {size[1]}: its centre{what} is taken for {which}"
