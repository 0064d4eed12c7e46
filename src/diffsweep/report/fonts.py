"""Which font has a character: DejaVu Sans, which matplotlib brings, or else a font of this machine.

A label may be in any script. What DejaVu Sans lacks (Chinese, Japanese, Korean, most emoji, ...) is drawn with the
first font found here that has it; what none has is drawn as a box, and `lacking` says which package would bring it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path

from diffsweep.report.text import in_line

BASE = "DejaVu Sans"
BOX = "□"  # for a character that no font has
FIRST = (  # families that are read well at a label's size, before whatever else there is
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans SC",
    "Noto Sans JP",
    "Noto Sans KR",
    "Source Han Sans SC",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "PingFang SC",
    "Hiragino Sans",
    "Apple SD Gothic Neo",
    "Microsoft YaHei",
    "Yu Gothic",
    "Malgun Gothic",
    "Noto Emoji",
    "Symbola",
    "Segoe UI Emoji",
    "Arial Unicode MS",
)
NOT_UNICODE = ("Last Resort", "STIXNon", "STIXSize", "cm")  # their characters are not what their numbers say
PACKAGES = {  # by how a character's Unicode name begins; Debian's names
    "fonts-noto-cjk": ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "FULLWIDTH", "HALFWIDTH", "IDEOGRAPHIC"),
    "fonts-noto-core": ("ARABIC", "DEVANAGARI", "BENGALI", "TAMIL", "THAI", "KHMER", "TELUGU", "ETHIOPIC", "SINHALA"),
}
OTHERWISE = "fonts-symbola"  # emoji and other symbols
NAMED = 8  # characters


@dataclass(frozen=True)
class Font:
    """A face of a font file."""

    family: str
    path: str
    index: int = 0


@lru_cache
def base() -> Font:
    """DejaVu Sans, found without importing matplotlib where that has it in its place."""
    spec = find_spec("matplotlib")
    path = Path((spec and spec.origin) or "").parent / "mpl-data/fonts/ttf/DejaVuSans.ttf"
    if path.is_file():
        return Font(BASE, str(path))
    from matplotlib.font_manager import findfont

    return Font(BASE, str(findfont(BASE)))


@lru_cache
def others() -> tuple[Font, ...]:
    """An upright, regular face of each further family on this machine, in the order in which they are tried."""
    from matplotlib.font_manager import fontManager

    faces = [face for face in fontManager.ttflist if face.style == "normal" and face.stretch == "normal"]
    faces = [face for face in faces if face.name != BASE and not face.name.startswith(NOT_UNICODE)]
    faces.sort(key=lambda face: (_rank(face.name), face.name, abs(_weight(face.weight) - 400), face.fname))
    found: dict[str, Font] = {}
    for face in faces:
        found.setdefault(face.name, Font(face.name, face.fname, getattr(face, "index", 0)))
    return tuple(found.values())


def _rank(family: str) -> tuple[int, bool]:
    return FIRST.index(family) if family in FIRST else len(FIRST), "Sans" not in family


def _weight(weight: int | str) -> int:
    return weight if isinstance(weight, int) else 400


_found: dict[str, Font | None] = {}


def fonts(text: str) -> dict[str, Font | None]:
    """The font of each character that is not ASCII; None where no font here has it."""
    left = {c for c in set(text) if not c.isascii() and c not in _found}
    for font in (base(), *others()) if left else ():
        there = _having(font, left)
        _found.update(dict.fromkeys(there, font))
        left -= there
        if not left:
            break
    _found.update(dict.fromkeys(left))
    return {c: _found[c] for c in sorted(set(text)) if not c.isascii()}


def _having(font: Font, characters: Iterable[str]) -> set[str]:
    from matplotlib.ft2font import FT2Font

    try:
        face = FT2Font(font.path, face_index=font.index) if font.index else FT2Font(font.path)
    except (OSError, RuntimeError):  # gone, or one of bitmaps
        return set()
    return {c for c in characters if face.scalable and face.get_char_index(ord(c))}


def drawable(text: str) -> str:
    """The text as it is drawn: see `in_line`; with a box for each character that no font has."""
    text = in_line(text) if text else ""
    if text.isascii():
        return text
    there = fonts(text)
    return "".join(c if c.isascii() or there[c] else BOX for c in text if not _aside(c, there))


def _aside(character: str, there: dict[str, Font | None]) -> bool:
    """Whether it says how to draw another character (a variant, an accent), in no font: it is left out."""
    return unicodedata.category(character) in ("Mn", "Me") and there[character] is None


def families(text: str) -> list[str]:
    """The families to set a text in: the first that has a character is taken for it."""
    return list(dict.fromkeys([BASE, *(font.family for font in fonts(text).values() if font)]))


def truetype(text: str) -> bool:
    """Whether all its fonts have TrueType's outlines, the only ones that matplotlib embeds soundly as such."""
    return all(font is None or font == base() or _outlined(font) for font in fonts(text).values())


@lru_cache
def _outlined(font: Font) -> bool:
    from fontTools.ttLib import TTFont  # type: ignore[import-untyped]

    with TTFont(font.path, fontNumber=font.index, lazy=True) as opened:
        return "glyf" in opened


def runs(text: str) -> list[tuple[Font, str]]:
    """A drawable text in parts of one font each."""
    if text.isascii():
        return [(base(), text)] if text else []
    there = fonts(text)
    return [(font, "".join(part)) for font, part in groupby(text, lambda c: there.get(c) or base())]


def lacking(texts: Iterable[str]) -> str | None:
    """Which characters of these texts no font here has, and which packages have them."""
    text = "".join(dict.fromkeys(in_line(text) for text in texts))
    if text.isascii():
        return None
    there = fonts(text)
    missing = [c for c, font in there.items() if font is None and not _aside(c, there)]
    if not missing:
        return None
    more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
    packages = " and ".join(dict.fromkeys(map(_package, missing)))
    return (
        f"no font here has {' '.join(missing[:NAMED])}{more}: sheets and figures show boxes; {packages} (a package of "
        "Debian and Ubuntu; elsewhere any font with these characters) brings them"
    )


def _package(character: str) -> str:
    name = unicodedata.name(character, "")
    return next((package for package, begins in PACKAGES.items() if name.startswith(begins)), OTHERWISE)
