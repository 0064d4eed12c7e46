"""Which cells of a large sweep are shown as pictures: a page or a sheet of a hundred thousand serves nobody."""

from __future__ import annotations

from collections.abc import Sequence

from diffsweep.core.text import level
from diffsweep.store.schema import Document

MOST = 10_000  # cells


def sample(sweep: Document, most: int = MOST) -> list[int]:
    """The places of at most so many cells: of the longest axes, values at equal distances, so that the sample is a
    sweep like the whole; cells at equal distances where there is no such axis."""
    cells = sweep["cells"]
    places = list(range(len(cells)))
    values = {axis: list({level(value): None for value in those}) for axis, those in sweep["axes"].items()}
    while len(places) > most:
        axis = max(values, key=lambda axis: len(values[axis]), default=None)
        number = len(values[axis]) * most // len(places) if axis else 0
        if axis is None or not number:
            return [places[k * len(places) // most] for k in range(most)]
        own = values[axis]
        values[axis] = [own[k * len(own) // number] for k in range(number)]
        kept = {*values[axis]}
        left = [place for place in places if level(cells[place]["axes"].get(axis)) in kept]
        if not left or len(left) == len(places):
            return [places[k * len(places) // most] for k in range(most)]
        places = left
    return places


def part(sweep: Document, places: Sequence[int]) -> Document:
    """The sweep of the cells at these places alone."""
    cells = [sweep["cells"][place] for place in places]
    axes = {}
    for axis, values in sweep["axes"].items():
        there = {level(cell["axes"].get(axis)) for cell in cells}
        axes[axis] = [value for value in values if level(value) in there]
    return {**sweep, "cells": cells, "axes": axes}
