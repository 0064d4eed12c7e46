"""Lots: the cells of a sweep in portions that about fill a model call, as workers claim them.

Every worker of a sweep parts it alike, whatever is stored already: the lots depend on the plan and on the batch shape.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diffsweep.runner.cell import Cell
from diffsweep.runner.shape import Rows

MOST = 64  # cells of a lot, of a technique that hardly asks


@dataclass(frozen=True, eq=False)
class Lot:
    """Cells that a worker claims together, in the order in which they start. needs: the cells of earlier lots whose
    pictures some of these enlarge; weight: how much of a call a step of them fills."""

    key: str
    cells: tuple[Cell, ...]
    needs: frozenset[str]
    weight: float


def lots(cells: Iterable[Cell], rows: Rows) -> list[list[Lot]]:
    """The lots of each model's cells. cells: each one once, those that others enlarge too; rows: of a call."""
    groups: dict[Any, list[Cell]] = defaultdict(list)
    for cell in cells:
        groups[cell.model].append(cell)
    return [[*_parted(own, rows, f"{number}-")] for number, own in enumerate(groups.values())]


def _parted(cells: Sequence[Cell], rows: Rows, prefix: str) -> Iterator[Lot]:
    larger = enlarged(cells)
    there = {cell.id for cell in cells}
    first = [cell for cell in cells if cell.base is None or cell.base.id not in there]
    lot: list[Cell] = []
    number, weight = 0, 0.0
    for cell in _in_order(sorted(first, key=lambda cell: -chain(cell, larger)), larger):  # the longest first
        lot.append(cell)
        weight += max(len(cell.prompts) / rows[cell.config_key], 1 / MOST)
        if weight >= 1:
            yield _lot(f"{prefix}{number}", lot, there, weight)
            lot, number, weight = [], number + 1, 0.0
    if lot:
        yield _lot(f"{prefix}{number}", lot, there, weight)


def _lot(key: str, cells: Sequence[Cell], there: set[str], weight: float) -> Lot:
    bases = {cell.base.id for cell in cells if cell.base is not None}
    return Lot(key, tuple(cells), frozenset((bases & there) - {cell.id for cell in cells}), weight)


def _in_order(cells: Iterable[Cell], larger: Mapping[str, Sequence[Cell]]) -> Iterator[Cell]:
    """Each cell, followed by those that enlarge its picture."""
    for cell in cells:
        yield cell
        yield from _in_order(larger.get(cell.id, ()), larger)


def enlarged(cells: Iterable[Cell]) -> dict[str, list[Cell]]:
    """The cells that enlarge a picture, by the cell whose picture it is."""
    found: dict[str, list[Cell]] = defaultdict(list)
    for cell in cells:
        if cell.base is not None:
            found[cell.base.id].append(cell)
    return found


def chain(cell: Cell, larger: Mapping[str, Sequence[Cell]]) -> int:
    """The calls that must follow one another: a cell's steps, and those of what enlarges its picture."""
    return cell.rounds + max((chain(next, larger) for next in larger.get(cell.id, ())), default=0)
