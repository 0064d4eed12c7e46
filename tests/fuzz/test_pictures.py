"""Whatever bytes a picture or a mask file holds, they are pixels in range, or refused in words."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Callable
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from diffsweep.core.problems import BadInput
from diffsweep.input.file import PictureFile
from diffsweep.mask.file import MaskFile
from tests.fuzz.cases import cases
from tests.fuzz.values import said

SIZE = 8
FORMATS = (
    "PNG",
    "JPEG",
    "GIF",
    "BMP",
    "TIFF",
    "WEBP",
    "PPM",
    "TGA",
    "ICO",
    "ICNS",
    "JPEG2000",
    "AVIF",
    "PCX",
    "SGI",
    "DDS",
)
MODES = {"L": np.uint8, "RGB": np.uint8, "RGBA": np.uint8, "I;16": np.uint16, "F": np.float32, "P": np.uint8, "1": bool}


@cache
def pictures() -> list[bytes]:
    """Small files of many formats and modes, with an orientation, a profile or several frames."""
    rng, found = np.random.default_rng(0), []
    for mode, kind in MODES.items():
        channels = {"RGB": (3,), "RGBA": (4,)}.get(mode, ())
        values = rng.integers(0, 2 if kind is bool else 256, (9, 12, *channels)).astype(kind)
        image = Image.fromarray(values).convert(mode) if mode in ("P", "1") else Image.fromarray(values)
        exif = Image.Exif()
        exif[0x0112] = 6
        for form in FORMATS:
            for more in ({}, {"exif": exif}, {"icc_profile": b"none"}, {"save_all": True, "append_images": [image]}):
                try:
                    image.save(file := BytesIO(), form, **more)
                except (OSError, ValueError, KeyError, TypeError, AttributeError):  # a format that has no such
                    continue
                found.append(file.getvalue())
    np.save(file := BytesIO(), rng.integers(0, 256, (9, 9)))
    return sorted({*found, file.getvalue()})


def cut(data: bytes, at: int, value: int) -> bytes:
    return data[: at % (len(data) + 1)]


def flipped(data: bytes, at: int, value: int) -> bytes:
    at %= len(data)
    return data[:at] + bytes([data[at] ^ (value % 255 + 1)]) + data[at + 1 :]


def early(data: bytes, at: int, value: int) -> bytes:
    """Changed where sizes stand."""
    return flipped(data, at % min(len(data), 64), value)


def inserted(data: bytes, at: int, value: int) -> bytes:
    at %= len(data)
    return data[:at] + bytes([value % 256]) * (value % 40) + data[at:]


def sized(data: bytes, at: int, value: int) -> bytes:
    """A PNG, within an icon too, that says that it is huge, its checksum right."""
    start = data.find(b"\x89PNG")
    if start < 0:
        return early(data, at, value)
    before, data = data[:start], data[start:]
    head = data[12:16] + at.to_bytes(4, "big") + value.to_bytes(4, "big") + data[24:29]
    return before + data[:12] + head + zlib.crc32(head).to_bytes(4, "big") + data[33:]


def joined(data: bytes, at: int, value: int) -> bytes:
    """The beginning of one file and the end of another."""
    other = pictures()[value % len(pictures())]
    return data[: at % len(data)] + other[at % len(other) :]


@st.composite
def spoilt(draw: st.DrawFn) -> bytes:
    data = draw(st.sampled_from(pictures()))
    for _ in range(draw(st.integers(1, 3))):
        change = draw(st.sampled_from([cut, flipped, early, inserted, sized, joined]))
        data = change(data, draw(st.integers(0, 2**32 - 1)), draw(st.integers(0, 2**32 - 1))) or b"x"
    return data


parts = st.sampled_from(
    [
        *(PictureFile, lambda path: PictureFile(path, frame=1), lambda path: PictureFile(path, white=255.0)),
        *(lambda path: MaskFile(path=path), lambda path: MaskFile(path=path, threshold=9, softness=2.0, invert=True)),
    ]
)


@cases(250)
@given(data=st.binary(max_size=80) | spoilt(), part=parts)
def test_a_picture_of_any_bytes_is_pixels_or_refused(data: bytes, part: Callable[..., Any], alone: Path) -> None:
    (alone / "picture").write_bytes(data)
    made = part(path="picture")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of files that it reads all the same
            made.proportions() if isinstance(made, PictureFile) else made.fits(1, 1)
            values = made.pixels(SIZE) if isinstance(made, PictureFile) else made.values(SIZE)
            notes = made.notes(SIZE)
    except BadInput as error:
        return said(error)
    finally:
        (alone / "picture").unlink()
    channels = (3,) if isinstance(made, PictureFile) else ()
    assert values.shape == (SIZE, SIZE, *channels) and values.dtype == np.uint8
    assert all(map(str.strip, notes))
