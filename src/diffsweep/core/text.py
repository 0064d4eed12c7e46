"""Texts from anywhere, made fit to show in a terminal, a table or a message."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# what values of a type are called
WORDS: dict[Any, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
LABEL = 10  # columns
UNITS = {"years": 31557600.0, "days": 86400.0, "h": 3600.0, "min": 60.0}  # in seconds
# what turns the direction of the text that follows
_TURNS = {*range(0x202A, 0x202F), *range(0x2066, 0x206A)}


def visible(text: str) -> str:
    """A text whose control characters and halves of characters are written as escapes (`\\x1b`): none of them reaches
    a terminal. Line ends stay, and so does all else."""
    return "".join(c if c == "\n" or not _controls(c) else c.encode("unicode_escape").decode() for c in text)


def counted(what: str, *numbers: int, several: str | None = None) -> str:
    """`1 cell`, `4 cells`, `1 to 3 cells`. several: the plural, where it is no s more."""
    low, high = min(numbers, default=0), max(numbers, default=0)
    return f"{low if low == high else f'{low} to {high}'} {what if high == 1 else several or f'{what}s'}"


def gathered(names: Sequence[str], among: Iterable[str]) -> list[str]:
    """The names, several in one where all of that beginning are meant, of those there are: `psnr`, `psnr_*`."""
    others = {*among} - {*names}
    found: dict[str, list[str]] = {}
    for name in names:
        stem = f"{name.partition('_')[0]}_"
        whole = name.startswith(stem) and not any(other.startswith(stem) for other in others)
        found.setdefault(f"{stem}*" if whole else name, []).append(name)
    return [text if len(own) > 1 else own[0] for text, own in found.items()]


def printed(value: Any) -> str:
    """A key's value as one types it: `null`, `true`, `3`, `[a,b]`, `{name:flip}`."""
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{key}:{_item(own)}' for key, own in value.items())}}}"
    return f"[{','.join(map(_item, value))}]" if isinstance(value, list | tuple) else str(value)


def _item(value: Any) -> str:
    """A value in a list, in quotes where it could be read as something else."""
    quoted = isinstance(value, str) and (not value or value != value.strip() or any(c in "[]{}(),='\"" for c in value))
    return json.dumps(value, ensure_ascii=False) if quoted else printed(value)


def level(value: Any) -> str:
    """A text that stands for a value of an axis, one for those that are equal: 1 and 1.0, but not 1 and true."""
    whole = isinstance(value, float) and value.is_integer()
    return json.dumps(int(value) if whole else value, sort_keys=True, default=str)


def percent(share: float) -> str:
    """`25 %`; the first and the last are not rounded away."""
    return "under 1 %" if 0 < share < 0.01 else "over 99 %" if 0.99 < share < 1 else f"{100 * share:.0f} %"


def rounded(value: float) -> str:
    """A number to two digits: `0.083`, `8.3`, `42`, `1,200`."""
    digits = 1 - int(f"{value:.1e}".partition("e")[2]) if value else 0
    return f"{round(value, digits):,.{max(0, digits)}f}"


def duration(seconds: float) -> str:
    """`8.3 ms`, `42 s`, `12 min`, `39 days`."""
    for unit, size in UNITS.items():
        if seconds >= 2 * size:
            return f"{rounded(seconds / size)} {unit}"
    return f"{rounded(seconds)} s" if seconds >= 1 or not seconds else f"{rounded(1000 * seconds)} ms"


def size(number: float) -> str:
    """Bytes, as `512 bytes`, `1.2 kB`, `42 MB` or `9.6 GB`."""
    for unit, least in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= least:
            return f"{rounded(number / least)} {unit}"
    return counted("byte", int(number))


def labelled(lines: Iterable[tuple[str, str]]) -> str:
    """Lines of text, each behind its label, which has a column of its own."""
    return "\n".join(f"{label:{LABEL}}{text}" for label, text in lines)


def in_one_line(error: BaseException) -> str:
    """`ValueError: what it says`."""
    return " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")


def _controls(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cs") or ord(character) in _TURNS
