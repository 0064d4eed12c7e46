"""What a user should know before a sweep runs: what was assumed, what masks come to, which settings are the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from diffsweep.core.text import percent
from diffsweep.runner.cell import Cell

MOST = 5  # of a kind


def notes(cells: Sequence[Cell]) -> tuple[str, ...]:
    """Each once, and of each kind the first few."""
    assumed = dict.fromkeys(note for cell in cells for note in cell.notes)
    kinds = {
        "assumptions": list(assumed),
        "masks": _masks(cells),
        "prompts with unknown words": _unknown(cells),
        "settings that come to the same picture": _shared(cells),
        "repeats": _repeats(cells),
    }
    return tuple(note for kind, found in kinds.items() for note in _few(found, kind))


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
    """Which words the models that answer do not know."""
    asked = dict.fromkeys(
        (stage.asked, stage.key, prompt) for cell in cells for stage in cell.cascade for prompt in stage.prompts
    )
    found: dict[str, None] = {}
    for model, key, prompt in asked:
        if words := model.unknown(prompt) if hasattr(model, "unknown") else ():
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
