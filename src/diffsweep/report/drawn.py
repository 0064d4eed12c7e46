"""A mark in a picture file of what it was drawn from, so that nothing is drawn twice."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any
from zlib import crc32

from PIL import Image

from diffsweep.core.files import read
from diffsweep.report.fonts import families

KEY = "diffsweep"  # the mark's name among a PNG's texts
PNG = b"\x89PNG\r\n\x1a\n"  # as every one begins
UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)  # what Pillow raises


def fingerprint(*parts: Any) -> str:
    """A hash of this version, of all that is shown, and of the fonts it needs."""
    text = str(parts)
    return hashlib.sha256(f"{version('diffsweep')} {text} {families(text)}".encode(errors="replace")).hexdigest()


def drawn_as(path: Path) -> str | None:
    """A PNG's mark; None where it has none, is not there, or is damaged."""
    return mark_of(path) if whole(path) else None


def mark_of(path: Path) -> str | None:
    """A PNG's mark, whatever became of its pixels; None where it has none or is not there."""
    try:
        with Image.open(BytesIO(read(path))) as image:
            return image.info.get(KEY)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def whole(path: Path) -> bool:
    """Whether a picture file is there as it was written, as far as its format tells: a PNG by its checksums, a PDF by
    its ends."""
    try:
        data = read(path)
    except OSError:
        return False
    if path.suffix.lower() == ".pdf":
        return data.startswith(b"%PDF-") and data.rstrip().endswith(b"%%EOF")
    return data.startswith(PNG) and _chunks_agree(memoryview(data)[len(PNG) :])


def _chunks_agree(data: memoryview) -> bool:
    """Whether each chunk of a PNG has its checksum (PNG 5.3), down to the last one."""
    while len(data) >= 12:
        end = 8 + int.from_bytes(data[:4])
        if crc32(data[4:end]) != int.from_bytes(data[end : end + 4]):
            return False
        if bytes(data[4:8]) == b"IEND":
            return True
        data = data[end + 4 :]
    return False
