"""Lots: every cell once, about a call each, the longest first, no picture before the one that it enlarges."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any

import pytest

from diffsweep.runner.lots import MOST, enlarged, lots
from diffsweep.runner.lots import chain as calls


@dataclass(frozen=True, eq=False)
class Cell:
    """What lots see of a cell."""

    id: str
    rounds: int = 1
    rows: int = 1
    base: Cell | None = None
    model: str = "a"

    @property
    def prompts(self) -> tuple[str, ...]:
        return ("",) * self.rows

    @property
    def config_key(self) -> str:
        return "upscale" if self.base else "model"


def drawn(seed: int) -> list[Any]:
    """Cells of two models, some of which enlarge others' pictures."""
    rng, cells = random.Random(seed), []
    for number in range(rng.randint(1, 120)):
        of = [cell for cell in cells if cell.base is None]
        base = rng.choice(of) if of and rng.random() < 0.4 else None
        model = base.model if base else rng.choice("ab")
        cells.append(Cell(f"c{number}", rng.randint(1, 30), rng.randint(0, 3), base, model))
    return cells


@pytest.mark.parametrize("seed", range(25))
def test_lots_part_all_cells_into_calls_and_keep_their_order(seed: int) -> None:
    cells, rows = drawn(seed), {"model": 8, "upscale": 4}
    groups = lots(cells, rows)
    assert [cell.model for cell in dict.fromkeys(chain(*(lot.cells for group in groups for lot in group)))].count(
        "a"
    ) == sum(cell.model == "a" for cell in cells)
    all_lots = [*chain(*groups)]
    placed = [cell.id for lot in all_lots for cell in lot.cells]
    assert sorted(placed) == sorted(cell.id for cell in cells) and len({lot.key for lot in all_lots}) == len(all_lots)
    for group in groups:
        seen: set[str] = set()
        for lot in group:
            own = sum(max(cell.rows / rows[cell.config_key], 1 / MOST) for cell in lot.cells)
            last = lot.cells[-1].rows / rows[lot.cells[-1].config_key]
            assert own == pytest.approx(lot.weight) and own - max(last, 1 / MOST) < 1  # no lot could be parted more
            assert own >= 1 or lot is group[-1]
            before = {*seen}
            for cell in lot.cells:
                assert cell.base is None or cell.base.id in seen
                seen.add(cell.id)
            needed = {cell.base.id for cell in lot.cells if cell.base}
            assert lot.needs == needed & before
        first = [cell for lot in group for cell in lot.cells if cell.base is None]
        larger = enlarged(cells)
        lengths = [calls(cell, larger) for cell in first]
        assert all(one >= next for one, next in pairwise(lengths))


def test_a_chain_is_the_longest_way_to_an_enlarged_picture() -> None:
    base = Cell("base", 10)
    cells: Any = [
        base,
        Cell("small", 3, base=base),
        large := Cell("large", 5, base=base),
        Cell("larger", 7, base=large),
    ]
    assert calls(cells[0], enlarged(cells)) == 10 + 5 + 7


def test_lots_do_not_depend_on_the_process() -> None:
    first, second = (lots(drawn(3), {"model": 8, "upscale": 4}) for _ in range(2))
    names = [[[(lot.key, [c.id for c in lot.cells]) for lot in group] for group in all] for all in (first, second)]
    assert names[0] == names[1]
