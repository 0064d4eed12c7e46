"""A mask from a file: white = regenerate, black = known.

The file is as large as the picture's, with which it is cropped and resized, or square where the model's picture is,
else of the proportions of that. A pixel's value is its grey, a colour's brightest channel, or, where all that is
visible has one grey, its alpha. A black and white file is a hard mask at any size. See `mask.levels` for files that
mean black and white and hold something near them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from diffsweep import imagefile
from diffsweep.core.keys import AUTO, Auto, given
from diffsweep.core.problems import BadInput, within
from diffsweep.mask.levels import Levels, found
from diffsweep.mask.mask import HALF, Seen
from diffsweep.mask.soft import Shape

SOFT = "has grey values, which are a soft mask; mask.softness=0 makes it hard, at mask.threshold=128"
FACTOR = 0.02  # by which the sides' ratio may differ from the picture's


@dataclass(frozen=True)
class MaskFile(Shape):
    """softness: auto is the file's grey values; a number for the region at or above the threshold, its edge feathered
    by so many pixels, 0 for a hard edge. threshold: a value of the file, 1 to 255, from which on a pixel belongs to the
    region; auto is 128 where a region is needed. frame: of an animated file, from 0.
    """

    softness: Auto | float = AUTO  # type: ignore[assignment]  # auto is a file's alone
    path: str = ""
    threshold: Auto | int = AUTO
    frame: int = 0

    @property
    def feather(self) -> float:
        return given(self.softness) or 0.0

    def problems(self) -> list[str | None]:
        return [within("threshold", self.threshold, 1, 255), within("frame", self.frame, 0)]

    def stamp(self) -> object:
        return imagefile.stamp(self.path)

    def fits(self, width: int, height: int) -> None:
        self.fits_cropped(width, height, (1, 1))

    def fits_cropped(self, width: int, height: int, cropped: tuple[int, int]) -> None:
        """The file has these proportions, or, to a pixel, those that are left."""
        w, h = imagefile.size(self.path, self.frame)
        left = abs(w * cropped[1] - h * cropped[0]) < max(cropped)
        if not left and abs(w * height - h * width) > FACTOR * w * height:
            picture = "square" if width == height else f"{width} x {height}"
            other = "square" if cropped[0] == cropped[1] else f"has the proportions of {cropped[0]} x {cropped[1]}"
            raise BadInput(
                f"path={self.path}: the mask is {w} x {h} pixels, the picture {picture}; "
                f"a mask is as large as the picture's file, with which it is cropped, or {other}"
            )

    def shape(self, height: int, width: int) -> np.ndarray:
        return self._read(height, width)[0] >= HALF

    def sized(self, height: int, width: int) -> Seen:
        grey, notes = self._read(height, width)
        hard = (grey >= HALF) ^ self.invert
        if self.softness == AUTO and ((grey > 0) & (grey < 255)).any():
            notes = (*notes, f"{Path(self.path).name} {SOFT}")
        if (self.softness, self.threshold) != (AUTO, AUTO):
            return Seen(self.softened(hard), hard, notes)
        return Seen(255 - grey if self.invert else grey, hard, notes)

    def values(self, size: int) -> np.ndarray:
        return self.sized(size, size).values

    def notes(self, size: int) -> tuple[str, ...]:
        return self.sized(size, size).notes

    def _read(self, height: int, width: int) -> tuple[np.ndarray, tuple[str, ...]]:
        return _centre(self.path, self.stamp(), self.frame, given(self.threshold), self.invert, height, width)


@lru_cache(maxsize=256)
def _centre(
    path: str, stamp: object, frame: int, threshold: int | None, inverted: bool, height: int, width: int
) -> tuple[np.ndarray, tuple[str, ...]]:
    """The centre's values, not inverted, and what was assumed. stamp: so that a changed file is read anew."""
    with imagefile.opened(path, frame) as image:
        frame_note = imagefile.frame_note(image, frame, "mask.frame")
        levels, number = found(image), imagefile.frames(image)
        if threshold is None:
            other = f"; mask.frame={int(frame == 0)} reads another of its {number} frames" if number > 1 else ""
            levels = levels.settled(path, inverted, other)
        else:
            levels = Levels(np.where(levels.values >= threshold, 255, 0).astype(np.uint8), levels.notes)
        turned = imagefile.orientation(image)
        size = imagefile.stored(width, height, turned)
        box = imagefile.centre(image.size, *size)
    kind = Image.Resampling.BOX if box[2] - box[0] > size[0] - 0.5 else Image.Resampling.BILINEAR
    grey = Image.fromarray(levels.values).resize(size, kind, box=box)
    values = np.asarray(imagefile.upright(grey, turned))
    if levels.two:
        values = np.where(values >= HALF, 255, 0).astype(np.uint8)
    return values, tuple(f"{Path(path).name} {note}" for note in (frame_note, *levels.notes) if note)
