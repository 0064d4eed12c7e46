"""Values as text: whole, shortened for a label, escaped for Markdown and LaTeX."""

from __future__ import annotations

import hashlib
import json
import math
import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from diffsweep.core.problems import did_you_mean
from diffsweep.core.text import visible

ROUNDS = 8  # in which labels that became alike are told apart once more: two may turn each other back for ever
EMPTY = '""'  # a text of which there is nothing to see
NOTHING = "none"  # an empty list
ADDED = re.compile(r"(?:.*/)?([^/]+?)\.safetensors(:[^:/]+)?|(?:\S*/)?([^/\s]+)(:[-+.\deE]+)")  # a LoRA, its strength
DECIBELS = "in dB"  # how the definition of a metric in decibels ends
ARROWS = {"higher": "↑", "lower": "↓"}


def shown(value: Any) -> str:
    """An axis value as a person types it: null, true, 7.5, a text as it is but for control characters, which are
    escaped, an empty one as `""`, lists and mappings as JSON."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}" if abs(value) < 1e15 else str(value)
    if isinstance(value, Sequence | dict) and not isinstance(value, str):
        return visible(json.dumps(value, ensure_ascii=False))
    return visible(" ".join(str(value).split())) or EMPTY


def brief(value: Any) -> str:
    """An axis value in short: of a list its items with commas, `none` where there are none, and of LoRAs their files'
    names and strengths, `style:0.5`. Else as `shown`."""
    items = value
    if isinstance(value, str) and value.startswith("[") and value.endswith("]"):  # a list, as a frame holds it
        with suppress(ValueError):
            items = json.loads(value)
    if isinstance(items, str) or not isinstance(items, Sequence):
        return shown(value)
    return ", ".join(map(_item, items)) or NOTHING


def _item(item: Any) -> str:
    added = ADDED.fullmatch(item) if isinstance(item, str) else None
    return shown("".join(filter(None, added.groups())) if added else item)


def briefs(values: Iterable[Any]) -> list[str]:
    """Each of an axis's values in short; whole, as `shown`, where two would be alike."""
    given = [(brief(value), shown(value)) for value in values]
    wholes = defaultdict(set)
    for text, whole in given:
        wholes[text].add(whole)
    return [text if len(wholes[text]) == 1 else whole for text, whole in given]


def short(text: str, limit: int) -> str:
    """At most `limit` characters, the middle left out: prompts differ at either end."""
    if len(text) <= limit:
        return text
    if limit < 2:
        return "…"[: max(limit, 0)]
    tail = (limit - 1) // 2
    return f"{text[: limit - 1 - tail].rstrip()}…{text[len(text) - tail :].lstrip()}"


def in_line(text: str) -> str:
    """The text as it can be drawn in a line: characters without a shape (a byte order mark, joiners, directions) are
    left out, controls are escapes as in `visible`, and a text of which nothing is left is `""`."""
    drawn = "".join(c for c in " ".join(text.split()) if unicodedata.category(c) != "Cf")
    drawn = visible(drawn.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    return drawn if drawn.strip() else EMPTY


def labels(values: Iterable[Any], limit: int) -> list[str]:
    """A label of at most `limit` characters (8 or more) for each distinct value, no two alike: long texts with equal
    ends show where they differ, and labels that still look alike are numbered."""
    texts = [in_line(text) for text in briefs(values)]
    found = [short(text, limit) for text in texts]
    for _ in range(ROUNDS):
        for places in _alike(found):
            letters = enumerate(zip(*(texts[i] for i in places), strict=False))
            begin = next(
                (at for at, them in letters if len({*them}) > 1), len(min((texts[i] for i in places), key=len))
            )
            for i in places:
                found[i] = _from(begin, texts[i], limit)
    taken = set(found)
    for places in _alike(found):
        number = 0
        for i in places:
            text = found[i]
            while text in taken:
                number += 1
                text = f"{short(found[i], limit - len(f' #{number}'))} #{number}"
            taken.add(text)
            found[i] = text
    return found


def _alike(texts: Sequence[str]) -> list[list[int]]:
    """The places of each text that stands several times."""
    places: dict[str, list[int]] = defaultdict(list)
    for i, text in enumerate(texts):
        places[text].append(i)
    return [found for found in places.values() if len(found) > 1]


def _from(begin: int, text: str, limit: int) -> str:
    """A long text's beginning, and what stands around the place `begin`: `a photo…a red hat…night`."""
    side = limit // 4
    cut = begin - side // 2
    if len(text) <= limit or cut <= side:
        return short(text, limit)
    head = f"{text[:side].rstrip()}…"
    return head + short(text[cut:].lstrip(), limit - len(head))


def stem(words: Iterable[str], most: int = 120) -> str:
    """A file's name for these words; a long one is cut, and ends with a hash of them all."""
    text = re.sub(r"[^\w.,-]", "-", "_".join(words))
    return text if len(text) <= most else f"{text[: most - 9]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


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


def decimals(definition: Mapping[str, Any], values: Iterable[float]) -> int:
    """Those of a metric's numbers: two in decibels, whatever the numbers, else as many as suit them."""
    return 2 if str(definition.get("metric", "")).endswith(DECIBELS) else digits(values)


def evaluations(number: float) -> str:
    """Model evaluations, a mean of them perhaps: `10`, `6.3`."""
    return "–" if math.isnan(number) else fixed(number, 1).removesuffix(".0")


def fixed(value: float, places: int) -> str:
    """With so many decimals, and no -0.00."""
    return f"{value:z.{places}f}"


def markdown(text: str) -> str:
    """A text that Markdown shows as it is, also within a table's cell."""
    return re.sub(r"([\\`*_{}\[\]<>#|~&$])", r"\\\1", visible(" ".join(text.split())))
