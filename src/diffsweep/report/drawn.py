"""A mark in a picture file of what it was drawn from, so that nothing is drawn twice."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from diffsweep.core.files import read
from diffsweep.report.fonts import families

KEY = "diffsweep"  # the mark's name among a PNG's texts


def fingerprint(*parts: Any) -> str:
    """A hash of this version, of all that is shown, and of the fonts it needs."""
    text = str(parts)
    return hashlib.sha256(f"{version('diffsweep')} {text} {families(text)}".encode(errors="replace")).hexdigest()


def drawn_as(path: Path) -> str | None:
    """A PNG's mark; None where it has none or is not there."""
    try:
        with Image.open(BytesIO(read(path))) as image:
            return image.info.get(KEY)
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
