"""Image files, which inputs and masks read: regular files of a bounded size, in any format that Pillow reads, and HEIC.

Whoever needs the pixels decodes them, so that a large file is in memory only as it is.
"""

from __future__ import annotations

import re
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.Image import Transpose

from diffsweep.core.files import require_regular
from diffsweep.core.problems import BadInput

UNREADABLE = (OSError, RuntimeError, SyntaxError, ValueError, EOFError, MemoryError)  # what is said of damaged files
READABLE = 178_956_970  # pixels: Pillow opens no larger picture, unless it is told to
MEGAPIXELS = 200.0  # the largest picture that is read without being asked to
PIXELS = re.compile(r"\d+")  # the first number of Pillow's message about a picture that is too large
ORIENTATION = 0x0112  # EXIF's tag, and what brings each of its values upright
UPRIGHT = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
SIDEWAYS = (5, 6, 7, 8)


def unreadable(height: int, width: int) -> str | None:
    """What is wrong with a picture's size where Pillow would not open the stored picture again."""
    if height * width <= READABLE:
        return None
    return f"{width} x {height} pixels, and a stored picture can have {READABLE:,} at most, to be read again"


@contextmanager
def opened(path: str, frame: int = 0, most: float = MEGAPIXELS, larger: str = "") -> Iterator[Image.Image]:
    """One frame of the file, its pixels still to be decoded; BadInput for whatever is wrong with it, within the block
    too. most: megapixels; larger: what the message says of a picture that has more."""
    if not path:
        raise BadInput("path: a file is needed, such as picture.png")
    try:
        file = Path(path).expanduser()
        require_regular(file)
        with _limited(most), _identified(file) as image:
            if frame >= (number := frames(image)):
                raise BadInput(f"frame={frame}: {path} has {number}, counted from 0")
            if frame:
                image.seek(frame)
                Image._decompression_bomb_check(image.size)  # a TIFF's frames have sizes of their own
            yield image
    except BadInput:
        raise
    except Image.DecompressionBombError as error:
        megapixels = int(PIXELS.findall(str(error))[0]) / 1e6
        raise BadInput(f"path={path}: {megapixels:.0f} megapixels, and {most:.0f} are allowed{larger}") from None
    except FileNotFoundError:
        raise BadInput(f"path={path}: no such file") from None
    except Exception as error:
        if not isinstance(error, UNREADABLE) and not _of_a_reader(error):
            raise
        raise BadInput(f"path={path}: not a readable image ({str(error) or type(error).__name__})") from None


def _of_a_reader(error: Exception) -> bool:
    """Whether a library that reads images raised it: of a damaged file it may say anything."""
    last = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
    return last.parent.name in ("PIL", "pillow_heif")


def frames(image: Image.Image) -> int:
    return getattr(image, "n_frames", 1)


def frame_note(image: Image.Image, frame: int, key: str) -> str | None:
    """What should be known of an animated file, as the end of a sentence that begins with its name."""
    number = frames(image)
    return f"has {number} frames, of which frame {frame} is read ({key})" if number > 1 else None


def orientation(image: Image.Image) -> int:
    return image.getexif().get(ORIENTATION, 1)


def upright(picture: Image.Image, orientation: int) -> Image.Image:
    """A picture as its file's EXIF orientation asks a viewer to show it."""
    return picture.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else picture


def size(path: str, frame: int = 0, most: float = MEGAPIXELS) -> tuple[int, int]:
    """Width and height of the upright picture."""
    with opened(path, frame, most) as image:
        return upright_size(image)


def upright_size(image: Image.Image) -> tuple[int, int]:
    return stored(*image.size, orientation(image))


def stored(width: int, height: int, orientation: int) -> tuple[int, int]:
    """The sides of an upright picture, as its file has them."""
    return (height, width) if orientation in SIDEWAYS else (width, height)


def centre(size: tuple[int, int], width: int, height: int) -> tuple[float, float, float, float]:
    """The largest rectangle of the proportions width to height in the middle of a picture, as left, top, right, bottom.
    size: the picture's width and height."""
    wide, high = size
    if wide * height > high * width:
        w, h = high * width / height, float(high)
    else:
        w, h = float(wide), wide * height / width
    left, top = (wide - w) / 2, (high - h) / 2
    return left, top, left + w, top + h


def stamp(path: str) -> tuple[int, int] | None:
    """What changes when a file does; None where it cannot be looked at."""
    try:
        state = Path(path).expanduser().stat()
    except (OSError, RuntimeError, ValueError):
        return None
    return state.st_mtime_ns, state.st_size


def is_deep(image: Image.Image) -> bool:
    """Whether a pixel is one number of more than 8 bits."""
    return image.mode == "F" or image.mode.startswith("I")


def has_16_bits(image: Image.Image) -> bool:
    """These formats have no deeper numbers, whatever Pillow holds them in."""
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))


def numbers(image: Image.Image) -> np.ndarray:
    """The pixels of a deep picture; ValueError where they are not finite."""
    values = np.asarray(image)
    if image.mode == "I" and image.format == "TIFF" and image.tag_v2.get(339, 1) in (1, (1,)):  # type: ignore[attr-defined]
        values = values.view(np.uint32)  # unsigned, which Pillow does not know
    if image.mode == "F" and not np.isfinite(values).all():
        raise ValueError("it holds NaN or infinite values")
    return values


def plain(image: Image.Image) -> Image.Image:
    """In a mode that can be resized: L, RGB, RGBA or CMYK."""
    if image.has_transparency_data:
        return image if image.mode == "RGBA" else image.convert("RGBA")
    if image.mode in ("L", "RGB", "CMYK"):
        return image
    return image.convert("L" if image.mode == "1" else "RGB")


@contextmanager
def _limited(megapixels: float) -> Iterator[None]:
    """Within, Pillow refuses larger pictures, those within an icon too, before it decodes them. Above its limit it
    warns, above twice that it refuses."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, megapixels * 1e6 / 2  # type: ignore[assignment]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _identified(file: Path) -> Image.Image:
    try:
        return Image.open(file)
    except UnidentifiedImageError:
        with file.open("rb") as data:
            head = data.read(12)
        if head[4:8] != b"ftyp":  # the container of HEIC and AVIF
            raise OSError("of no format that Pillow knows, or damaged") from None
    if find_spec("pillow_heif") is None:
        raise OSError("HEIC, which pillow-heif reads: pip install 'diffsweep[heif]'")
    import pillow_heif

    pillow_heif.register_heif_opener()
    return Image.open(file)
