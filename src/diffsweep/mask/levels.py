"""A mask file's pixels as values of 8 bits, and what was assumed to get them.

A file often holds what only its maker knows to be a mask: a label map of 0 and 1, strokes in the alpha channel, a white
of 254, the noise of JPEG. diffsweep corrects and notes what is clear, and refuses the rest with what would help.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image, ImageChops

from diffsweep.core.problems import BadInput
from diffsweep.core.text import percent
from diffsweep.imagefile import has_16_bits, is_deep, numbers, plain

LOSSY = ("JPEG", "MPO", "WEBP", "HEIF", "AVIF")  # formats whose black and white are only near them
NOISE = 16  # how near
COLOURED = 32  # between a pixel's channels
NEAR = 24  # a file's own black or white may be so far from 0 or 255
HOLDS = "holds numbers to"  # how the note begins of a file of more bits
DARK = 64  # a file whose values all lie below is no mask as it stands


@dataclass(frozen=True)
class Levels:
    """values: uint8 H W. notes: what was assumed, each the end of a sentence that begins with the file's name. labels:
    the values are a coloured palette's indices, which say nothing of black and white."""

    values: np.ndarray
    notes: tuple[str, ...] = ()
    lossy: bool = False
    labels: bool = False

    @cached_property
    def two(self) -> bool:
        """Whether it is black and white alone."""
        return not ((self.values > 0) & (self.values < 255)).any()

    def settled(self, path: str, inverted: bool, beside: str = "") -> Levels:
        """With black at 0 and white at 255, where the file means them; BadInput where it cannot be a mask. inverted:
        what is dark is regenerated. beside: what may help where all is dark."""
        values, notes = self.values, [*self.notes]
        low, high = int(values.min()), int(values.max())
        if high == 1 and low == 0:
            note = "holds the values 0 and 1: read as a label map, where 1 is regenerated"
            return Levels(values * 255, (*(one for one in notes if not one.startswith(HOLDS)), note))
        if self.labels and high:
            raise BadInput(f"path={path}: {_labelled(values)}")
        if high < DARK and not inverted:
            raise BadInput(f"path={path}: {_dark(values)}{beside}")
        snap = NOISE if self.lossy else 0
        black = values <= max(snap, low if low <= NEAR else 0)
        white = values >= min(255 - snap, high if high >= 255 - NEAR else 255)
        moved = (black & (values > 0)) | (white & (values < 255))
        if moved.any():
            values = np.where(white, 255, np.where(black, 0, values)).astype(np.uint8)
            notes.append(f"has values near black or white, {percent(moved.mean())} of it: read as black and white")
        return Levels(values, tuple(notes))


def found(image: Image.Image) -> Levels:
    """The values of an opened file."""
    if is_deep(image):
        return _deep(image)
    if image.mode == "P" and not image.has_transparency_data:
        colours = np.asarray(image.convert("RGB"))
        if (colours != colours[..., :1]).any():
            return Levels(np.asarray(image), labels=True)
    picture = plain(image)
    lossy = image.format in LOSSY
    alpha = np.asarray(picture.getchannel("A")) if picture.mode == "RGBA" else None
    grey, notes = _brightest(picture)
    if alpha is None or alpha.min() == alpha.max():
        return Levels(grey, notes, lossy)
    visible = grey[alpha > 0]
    if visible.size == 0 or visible.min() == visible.max():
        note = "has one grey and an alpha that varies: its alpha is the mask, and what is opaque is regenerated"
        return Levels(alpha, (f"{note}; mask.invert=true turns that round",), lossy)
    return Levels(grey, (*notes, "has an alpha that varies too, which is left out: its grey is the mask"), lossy)


def _brightest(picture: Image.Image) -> tuple[np.ndarray, tuple[str, ...]]:
    """Of a pixel's channels, and whether they say different things."""
    if picture.mode == "L":
        return np.asarray(picture), ()
    red, green, blue = picture.convert("RGB").split()
    light = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    dark = ImageChops.darker(ImageChops.darker(red, green), blue)
    _, spread = ImageChops.subtract(light, dark).getextrema()
    assert isinstance(spread, int | float)
    coloured = ("has colours: a pixel's brightest channel is its value",) if spread > COLOURED else ()
    return np.asarray(light), coloured


def _deep(image: Image.Image) -> Levels:
    """Numbers of more than 8 bits: those to 1 of a file of floating point numbers, to 255 of any, else to 65535."""
    values = numbers(image)
    low, high = float(values.min()), float(values.max())
    white = 1 if image.mode == "F" and high <= 1 else 255 if high <= 255 else 65535
    if low < 0 or high > white:
        raise ValueError(f"values from {low:g} to {high:g} are no mask's; save it as grey of 8 bits")
    notes = () if has_16_bits(image) and white == 65535 else (f"{HOLDS} {high:g}: read with {white} as white",)
    return Levels(np.rint(values * (255 / white)).astype(np.uint8), notes)


def _dark(values: np.ndarray) -> str:
    """Why nothing would be regenerated, and what helps."""
    different = np.unique(values)
    if different[-1] == 0:
        return "all of it is black: it regenerates nothing; white is regenerated (mask.invert=true turns it round)"
    if different.size == 1:
        return f"all of it is {different[0]}, of 255: a mask has parts, of which the white ones are regenerated"
    least = int(different[different > 0][0])
    return (
        f"its values are {_listed(different)}, of 255, and next to nothing would be regenerated; "
        f"of a label map, or a dark mask, mask.threshold={least} regenerates what is {least} or more"
    )


def _labelled(values: np.ndarray) -> str:
    """Why a coloured palette is no mask, and what helps."""
    different = np.unique(values)
    if different.size == 1:
        return "all of it is one colour of a palette: a mask has parts, of which the white ones are regenerated"
    least = int(different[different > 0][0])
    return (
        f"its colours are those of a palette, its labels {_listed(different)}; "
        f"mask.threshold={least} regenerates the labels from {least} on"
    )


def _listed(values: np.ndarray) -> str:
    return ", ".join(map(str, values[:6])) + (", ..." if len(values) > 6 else "")
