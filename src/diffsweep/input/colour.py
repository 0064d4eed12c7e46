"""Pixels of any kind as 8-bit sRGB: deep greys by the value that is white, colours by their ICC profile, transparent
parts on white."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageCms

from diffsweep.imagefile import has_16_bits, numbers

DIM = 1 / 8  # a picture of 16 bits whose brightest value is below this share of them holds fewer, probably
ROUNDED = 1  # by which the profile of a picture that is sRGB already may move a value
SPACES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # of ICC profiles, as Pillow's modes


def scaled(
    image: Image.Image, size: tuple[int, int], box: tuple[float, float, float, float], white: float | None
) -> tuple[Image.Image, str | None]:
    """A deep picture's part within the box, resized, as grey of 8 bits; and what should be known of it. size: width and
    height."""
    values = numbers(image)
    top, note = float(values.max()), None
    if top <= 0:
        raise ValueError(f"no value is above 0, the largest is {top:g}")
    if white is None and not has_16_bits(image):
        kind = "floating point numbers" if image.mode == "F" else "32-bit numbers"
        raise ValueError(
            f"{kind} from {values.min():.10g} to {top:.10g} have no known white; input.white={_full(top):.10g} says it"
        )
    if white is None:
        white = 65535.0
        if top < DIM * white:
            note = (
                f"is nearly black, its brightest value {top:g} of {white:g}; input.white={_full(top):.10g} brightens it"
            )
    picture = Image.fromarray(values.astype(np.float32))
    small = picture.resize(size, Image.Resampling.LANCZOS, box=box)
    return Image.fromarray(np.rint(np.asarray(small) * (255 / white)).clip(0, 255).astype(np.uint8)), note


def _full(top: float) -> float:
    """The white that a picture of this brightest value probably has: 1, or that of the least number of bits."""
    return 1.0 if top <= 1 else float(2 ** max(8, int(np.ceil(np.log2(top + 1)))) - 1)


def srgb(picture: Image.Image, profile: bytes | None) -> tuple[Image.Image, str | None]:
    """RGB, on white, by the ICC profile of the file; and what should be known of it."""
    alpha = picture.getchannel("A") if picture.mode == "RGBA" else None
    colours, note = _converted(picture.convert("RGB") if alpha else picture, profile)
    if alpha:
        colours = Image.composite(colours, Image.new("RGB", colours.size, "white"), alpha)
    return colours, note


def _converted(picture: Image.Image, profile: bytes | None) -> tuple[Image.Image, str | None]:
    stored = picture.convert("RGB")
    if not profile:
        return stored, None
    try:
        source = ImageCms.getOpenProfile(io.BytesIO(profile))
        name = ImageCms.getProfileDescription(source).strip()
        mode = SPACES.get(source.profile.xcolor_space.strip())
        if mode is None or (mode == "CMYK") != (picture.mode == "CMYK"):
            raise ImageCms.PyCMSError(f"{name} is not for {picture.mode}")
        target = ImageCms.createProfile("sRGB")
        made = ImageCms.profileToProfile(picture.convert(mode), source, target, outputMode="RGB")
        assert made is not None
        moved = np.asarray(made).astype(int) - np.asarray(stored)
        return stored if np.abs(moved).max() <= ROUNDED else made, None
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        return stored, f"has a colour profile that cannot be used ({error}); its colours are as stored"
