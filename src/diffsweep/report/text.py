"""Values as text: whole, shortened for a label, escaped for Markdown and LaTeX."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from diffsweep.core.problems import did_you_mean
from diffsweep.core.text import visible

ARROWS = {"higher": "↑", "lower": "↓"}


def shown(value: Any) -> str:
    """An axis value as a person types it: null, true, 7.5, a text as it is but for control characters, which are
    escaped, lists and mappings as JSON."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}" if abs(value) < 1e15 else str(value)
    if isinstance(value, Sequence | dict) and not isinstance(value, str):
        return visible(json.dumps(value, ensure_ascii=False))
    return visible(" ".join(str(value).split()))


def short(text: str, limit: int) -> str:
    """At most `limit` characters, the middle left out: prompts differ at either end."""
    if len(text) <= limit:
        return text
    tail = (limit - 1) // 2
    return f"{text[: limit - 1 - tail].rstrip()}…{text[len(text) - tail :].lstrip()}"


def labels(values: Iterable[Any], limit: int) -> list[str]:
    """Short labels of distinct values; two that come out alike are numbered."""
    found = [short(shown(value), limit) for value in values]
    counts, seen = Counter(found), Counter[str]()
    texts = []
    for text in found:
        seen[text] += 1
        texts.append(text if counts[text] == 1 else f"{short(text, limit - 4)} #{seen[text]}")
    return texts


def no_axis(key: str, name: str, axes: Collection[str]) -> str:
    """What is wrong with an axis that a sweep has not."""
    there = f"it has {', '.join(axes)}" if axes else "it has none"
    return f"{key}={name}: no such axis in this sweep; {there}{did_you_mean(name, axes)}"


def digits(values: Iterable[float]) -> int:
    """Decimals that suit a column: 28.31 dB, 0.853, 0.00123, 0.0000220."""
    largest = max((abs(v) for v in values if math.isfinite(v)), default=1.0)
    if 0 < largest < 0.01:
        return 2 - math.floor(math.log10(largest))
    return 0 if largest >= 1000 else 2 if largest >= 10 else 3


def fixed(value: float, places: int) -> str:
    """With so many decimals, and no -0.00."""
    return f"{value:z.{places}f}"


def markdown(text: str) -> str:
    """A text that Markdown shows as it is, also within a table's cell."""
    return re.sub(r"([\\`*_{}\[\]<>#|~&$])", r"\\\1", visible(" ".join(text.split())))
