"""Notes before a sweep runs: what diffsweep assumed, what masks come to, which settings give the same picture."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from diffsweep.core.problems import under
from diffsweep.core.text import counted, percent
from diffsweep.core.types import AGAINST
from diffsweep.model.text import Cut
from diffsweep.runner.cell import Cell

MOST = 5  # of a kind
SHARED = "settings that come to the same picture"
Setting = Mapping[str, Any]
Values = tuple[str, ...]


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
    found = []
    for model, key, prompt in asked:
        with under(key):
            found += [_cut(key, prompt.removeprefix(AGAINST), one) for one in model.cuts(prompt)]
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
    settings: dict[str, dict[str, Setting]] = defaultdict(dict)
    for cell in cells:
        settings[cell.id].setdefault(json.dumps(dict(cell.axes), sort_keys=True, default=str), cell.axes)
    places = _Places(cells)
    alike: dict[tuple[Values, tuple[Values, ...]], list[str]] = defaultdict(list)
    for picture, own in settings.items():
        if len(own) > 1:
            alike[_differing([*own.values()])].append(picture)
    found: Counter[str] = Counter()
    for (axes, values), pictures in alike.items():
        found[_told(axes, values) + places.where(axes, values, frozenset(pictures))] += len(pictures)
    return dict(found)


def _differing(settings: Sequence[Setting]) -> tuple[Values, tuple[Values, ...]]:
    """The axes that differ among settings, and what each has there."""
    axes = dict.fromkeys(axis for setting in settings for axis in setting)
    varied = tuple(axis for axis in axes if len({_value(setting, axis) for setting in settings}) > 1)
    return varied, tuple(_values(setting, varied) for setting in settings)


def _value(setting: Setting, axis: str) -> str:
    return _text(setting[axis]) if axis in setting else "-"


def _values(setting: Setting, axes: Iterable[str]) -> Values:
    return tuple(_value(setting, axis) for axis in axes)


def _told(axes: Values, values: Iterable[Values]) -> str:
    """Values that axes have together; of a single axis, its name once."""
    if len(axes) == 1:
        return f"{axes[0]}={_listed(_short(value) for (value,) in values)}"
    return _listed(" ".join(f"{axis}={_short(value)}" for axis, value in zip(axes, one, strict=True)) for one in values)


class _Places:
    """Where in a sweep some settings come to one picture: what its other axes have there."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        self.cells = cells
        self.axes = tuple(dict.fromkeys(axis for cell in cells for axis in cell.axes))
        self._by: dict[Values, dict[Values, list[tuple[Values, str]]]] = {}

    def where(self, axes: Values, values: Iterable[Values], own: frozenset[str] = frozenset()) -> str:
        """` at guidance.scale=1`, where these values of the axes make one picture there and several elsewhere; nothing
        where they make one everywhere. own: the pictures to speak of, all of those that they make where there are
        none."""
        others = tuple(axis for axis in self.axes if axis not in axes)
        pictures: dict[Values, dict[Values, str]] = defaultdict(dict)
        for value in values:
            for place, picture in self._made(axes, others).get(value, ()):
                pictures[place][value] = picture
        alike: list[Setting] = []
        apart: list[Setting] = []
        for place, made in pictures.items():
            if len({*made.values()}) > 1:
                apart.append(dict(zip(others, place, strict=True)))
            elif len(made) > 1 and (not own or own.intersection(made.values())):
                alike.append(dict(zip(others, place, strict=True)))
        kept = others if apart else ()
        for axis in reversed(kept):  # those that tell the ones from the others without it
            fewer = tuple(one for one in kept if one != axis)
            if not {_values(place, fewer) for place in alike} & {_values(place, fewer) for place in apart}:
                kept = fewer
        return f" at {_told(kept, dict.fromkeys(_values(place, kept) for place in alike))}" if kept else ""

    def _made(self, axes: Values, others: Values) -> Mapping[Values, Sequence[tuple[Values, str]]]:
        """The pictures, by what these axes have, each with what the others have."""
        if axes not in self._by:
            found = self._by[axes] = defaultdict(list)
            for cell in self.cells:
                found[_values(cell.axes, axes)].append((_values(cell.axes, others), cell.id))
        return self._by[axes]


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
    where = cache(_Places(cells).where)
    for cell in cells:
        other = first.setdefault(cell.id, cell)
        differing = [axis for axis, value in cell.axes.items() if other.axes.get(axis) != value]
        if len(differing) != 1:
            continue
        (axis,) = differing
        one, two = _value(other.axes, axis), _value(cell.axes, axis)
        same = f"{axis}={_short(one)} and {axis}={_short(two)} come to the same picture"
        same += where((axis,), ((one,), (two,)))
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


def _text(value: Any) -> str:
    return "null" if value is None else str(value)


def _short(value: Any) -> str:
    text = _text(value)
    return text if len(text) < 40 else text[:39] + "…"
