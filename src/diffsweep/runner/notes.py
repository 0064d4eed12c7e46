"""Notes before a sweep runs: what diffsweep assumed, what masks come to, which settings give the same picture."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from diffsweep.core.text import counted, percent
from diffsweep.core.types import AGAINST
from diffsweep.model.text import Cut
from diffsweep.runner.cell import Cell

MOST = 5  # of a kind
SHARED = "settings that come to the same picture"


def notes(cells: Sequence[Cell]) -> tuple[str, ...]:
    """Each note once, and the first few of each kind."""
    assumed = dict.fromkeys(note for cell in cells for note in cell.notes)
    kinds = {
        "assumptions": list(assumed),
        "masks": _masks(cells),
        "prompts with unknown words": _unknown(cells),
        SHARED: _shared(cells),
        "repeats": _repeats(cells),
    }
    return tuple(note for kind, found in kinds.items() for note in _few(found, kind))


def about_shared(cells: Sequence[Cell]) -> frozenset[str]:
    """Of the notes on these cells, those on settings that come to the same picture."""
    return frozenset(_few(_shared(cells), SHARED))


def cut(cells: Sequence[Cell]) -> tuple[str, ...]:
    """Which prompts are too long for their text encoders, by the tokenizers' own count. It loads these: a sweep whose
    pictures are all stored does without."""
    able = [cell for cell in cells if hasattr(cell.network, "cuts")]
    asked = dict.fromkeys((cell.network, cell.config_key, prompt) for cell in able for prompt in cell.prompts if prompt)
    found = [_cut(key, prompt.removeprefix(AGAINST), one) for model, key, prompt in asked for one in model.cuts(prompt)]
    return tuple(_few(list(dict.fromkeys(found)), "prompts that are cut"))


def _cut(key: str, prompt: str, one: Cut) -> str:
    told, whole = f"prompt={_short(prompt)}: its last {counted('token', one.tokens)}", one.kept + one.tokens
    told += " is cut" if one.tokens == 1 else " are cut"
    if one.most is None:
        return f"{told}, the {key}'s {' and '.join(one.tokenizers)} keep{'s' * (len(one.tokenizers) == 1)} {one.kept}"
    mend = f"{whole} keeps all" if whole <= one.most else f"it can be {one.most} at most"
    return f"{told} by {key}.text.max_length={one.kept}; {mend}"


def aliases(cells: Sequence[Cell]) -> dict[str, int]:
    """All settings that come to the same picture, by what differs among them, and the number of such pictures:
    `guidance.scale=1, 3` where the technique asks no model."""
    settings: dict[str, dict[str, Mapping[str, Any]]] = defaultdict(dict)
    for cell in cells:
        settings[cell.id].setdefault(json.dumps(dict(cell.axes), sort_keys=True, default=str), cell.axes)
    return dict(Counter(_differing([*own.values()]) for own in settings.values() if len(own) > 1))


def _differing(settings: Sequence[Mapping[str, Any]]) -> str:
    """What differs among settings; of a single axis, its values alone."""
    axes = dict.fromkeys(axis for setting in settings for axis in setting)
    values = {axis: [_short(setting[axis]) if axis in setting else "-" for setting in settings] for axis in axes}
    varied = {axis: own for axis, own in values.items() if len({*own}) > 1}
    if len(varied) == 1:
        ((axis, own),) = varied.items()
        return f"{axis}={_listed(own)}"
    each = zip(*varied.values(), strict=True)
    return _listed(" ".join(f"{axis}={value}" for axis, value in zip(varied, one, strict=True)) for one in each)


def _listed(texts: Iterable[str]) -> str:
    """The first few of several."""
    own = [*texts]
    return ", ".join(own[:MOST]) + (f" and {len(own) - MOST} more" if len(own) > MOST else "")


def _few(found: Sequence[str], kind: str) -> Iterator[str]:
    yield from found[:MOST]
    if (more := len(found) - MOST) > 0:
        yield f"and {more} more {kind}"


def _masks(cells: Sequence[Cell]) -> list[str]:
    """The shares of each distinct mask, called by what its sweep varies of it."""
    found: dict[str, str] = {}
    for cell in (cell.cascade[0] for cell in cells):
        if cell.mask is not None and (digest := cell.config["mask"]["sha256"]) not in found:
            varied = [f"{axis}={_short(v)}" for axis, v in cell.axes.items() if axis.partition(".")[0] == "mask"]
            found[digest] = f"{' '.join(varied) or 'mask'}: {shares(cell.mask)}"
    return list(found.values())


def shares(mask: np.ndarray) -> str:
    """How much of a mask (uint8) is regenerated, kept, and in between."""
    parts = {"regenerated": mask == 255, "kept": mask == 0, "soft": (mask > 0) & (mask < 255)}
    return ", ".join(f"{percent(part.mean())} {name}" for name, part in parts.items() if name != "soft" or part.any())


def _unknown(cells: Sequence[Cell]) -> list[str]:
    """Words of prompts that the models do not know."""
    asked = dict.fromkeys(
        (stage.network, stage.config_key, prompt)
        for cell in cells
        for stage in cell.cascade
        for prompt in stage.prompts
    )
    found: dict[str, None] = {}
    for model, key, prompt in asked:
        if words := model.unknown(prompt) if prompt and hasattr(model, "unknown") else ():
            listed = ", ".join(map(repr, words))
            found[f"prompt={_short(prompt)}: the {key} does not know {listed}, and draws something else"] = None
    return list(found)


def _shared(cells: Sequence[Cell]) -> list[str]:
    """Which settings come to the same picture, such as two strengths that round to one start."""
    first: dict[str, Cell] = {}
    found: dict[str, None] = {}
    for cell in cells:
        other = first.setdefault(cell.id, cell)
        differing = [axis for axis, value in cell.axes.items() if other.axes.get(axis) != value]
        if len(differing) != 1:
            continue
        (axis,) = differing
        same = f"{axis}={_short(other.axes.get(axis))} and {axis}={_short(cell.axes[axis])} come to the same picture"
        below = cell.cascade[0]
        start = next((below.levels.index(level) for level in below.visited[:1] if level in below.levels), 0)
        if start and axis.startswith("technique."):
            same += f": both start at index {start} (t = {below.visited[0].t:g})"
        found[same] = None
    return list(found)


def _repeats(cells: Sequence[Cell]) -> list[str]:
    """Which cells have the settings of one before them."""
    asked = Counter((cell.id, tuple((axis, _short(value)) for axis, value in cell.axes.items())) for cell in cells)
    return [
        f"{' '.join(f'{axis}={value}' for axis, value in axes) or 'the same'}: given {n} times, sampled once"
        for (_, axes), n in asked.items()
        if n > 1
    ]


def _short(value: Any) -> str:
    text = "null" if value is None else str(value)
    return text if len(text) < 40 else text[:39] + "…"
