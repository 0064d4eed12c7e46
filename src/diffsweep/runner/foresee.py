"""Foresees a sweep (`plan=true`): what of it is stored, what would run, which model calls that takes, and how long.

It plans and checks as a run does, and refuses what that refuses. How long a row takes, stored cells of the same model
tell; where there are none, a few calls are timed. It samples and stores nothing. A complete sweep needs no torch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from diffsweep.core.failures import reason
from diffsweep.core.problems import BadInput
from diffsweep.core.text import size
from diffsweep.runner import shape
from diffsweep.runner.calibrate import timed
from diffsweep.runner.cell import Cell
from diffsweep.runner.cost import MOST, On, Speed, fewest_calls, recorded, rows_of, some_records
from diffsweep.runner.forecast import Asked, Forecast, Together
from diffsweep.runner.listener import Listener
from diffsweep.runner.machine import Machine
from diffsweep.runner.notes import about_shared, aliases
from diffsweep.runner.plan import Raw, plan
from diffsweep.runner.stock import Stock
from diffsweep.store.cells import Store
from diffsweep.store.schema import Record


def foresee(
    raw: Sequence[Raw], name: str | None = None, command: str = "", listener: Listener | None = None
) -> Forecast:
    """What a sweep would run and take. raw, name, command, listener: as of `run_sweep`. Raises BadInput for what that
    refuses before it loads a model."""
    listener = Listener() if listener is None else listener
    whole = plan(raw, name)
    store = Store(whole.root)
    stock = Stock(whole, store)
    earlier = stock.document(command, "", listener.note)
    if not (whole.replace or earlier.get("in_parts", False)):
        stock.refuse_to_replace({cell["cell_id"] for cell in earlier["cells"]} - stock.cells.keys(), command)
    store.damaged.clear()  # of other cells
    shared = about_shared(whole.cells)
    for note in (note for note in whole.notes if note not in shared):
        listener.note(f"note: {note}")
    missing = {cell.id: cell for cell in stock.missing()}
    for line in store.damage_report("to sample again, damaged"):
        listener.note(line)
    bases = {cell.id: cell for cell in stock.bases(missing.values())}
    distinct = stock.cells
    found = Forecast(
        name=whole.name,
        cells=len(whole.cells),
        pictures=len(distinct),
        stored=len(distinct) - len(missing),
        missing=len(missing),
        bases=len(bases),
        aliases=aliases(whole.cells),
    )
    if not missing:
        return found
    coming = {**bases, **missing}
    machine = Machine(whole, [*coming.values()], listener)
    known = _Known(store, [cell_id for cell_id in distinct if cell_id not in missing], machine.threads)
    began = machine.shape(earlier, bound=True)
    for note in began.notes:
        listener.note(f"note: {note}")
    with machine.computing():
        return _with_costs(found, machine.device, began.rows, coming, known, listener)


@dataclass
class _Known:
    """What stored cells tell: those of the sweep, then others. threads: with which torch computes."""

    store: Store
    kept: Sequence[str]
    threads: int

    @cached_property
    def own(self) -> list[Record]:
        return [record for cell_id in self.kept[:MOST] if (record := self.store.get(cell_id))]

    @cached_property
    def others(self) -> list[Record]:
        return [*some_records(self.store)]

    def speed(self, cell: Cell, on: On) -> Speed | None:
        return recorded(self.store, self.own, cell, on) or recorded(self.store, self.others, cell, on)


def _with_costs(
    found: Forecast, device: str, rows: shape.Rows, coming: Mapping[str, Cell], known: _Known, listener: Listener
) -> Forecast:
    """The forecast of a sweep of which these cells are to sample, with their costs. rows: of a call, as a run would
    begin with them."""
    by_model: dict[Any, list[Cell]] = defaultdict(list)
    for cell in coming.values():
        by_model[cell.model].append(cell)

    def asked(cells: Sequence[Cell]) -> Asked:
        """Of the cells of one stage."""
        first, n = max(cells, key=lambda cell: cell.rounds), rows[cells[0].config_key]
        network, number = first.network, sum(map(rows_of, cells))
        speed, untold = _speed(first, n, device, known, listener) if number else (None, "")
        return Asked(
            key=first.config_key,
            name=str(getattr(network, "path", None) or first.config["model"]["name"]),
            dtype=getattr(network, "dtype", "float32"),
            cells=len(cells),
            rows=number,
            calls=fewest_calls(cells, n),
            shape=n,
            prompts=len({prompt for cell in cells for prompt in cell.prompts}),
            speed=speed,
            untold=untold,
            needs=network.needs(device) if hasattr(network, "needs") else None,
        )

    models: list[Together] = []
    calls: dict[Any, float | None] = {}
    for cells in by_model.values():
        by_stage: dict[Any, list[Cell]] = defaultdict(list)
        for cell in cells:
            by_stage[cell.network].append(cell)
        stages = {network: asked(own) for network, own in by_stage.items()}
        calls |= {network: one.call for network, one in stages.items()}
        models.append(Together(tuple(stages.values())))
    chain = max((_chain(cell, coming, calls) for cell in coming.values()), key=lambda chain: (chain[1] or 0, chain[0]))
    return replace(found, device=device, models=tuple(models), chain=chain)


def _speed(cell: Cell, rows: int, device: str, known: _Known, listener: Listener) -> tuple[Speed | None, str]:
    """How long the model of a cell's own stage takes, or why that is not known."""
    if speed := known.speed(cell, On(device.partition(":")[0], rows, known.threads)):
        return speed, ""
    missing = cell.network.missing() if hasattr(cell.network, "missing") else {}
    if missing:
        return None, f"{size(sum(missing.values()))} of its weights are to be downloaded first"
    listener.note(f"{cell.config_key}: no stored cell tells how long a call takes; timing a few")
    try:
        return timed(cell, rows, device), ""
    except BadInput:
        raise
    except Exception as error:  # of a model or a technique of the user's own it may be any
        return None, f"a call failed: {reason(error)}"


def _chain(cell: Cell, coming: Mapping[str, Cell], calls: Mapping[Any, float | None]) -> tuple[int, float | None]:
    """The calls of a cell and of those before it that are to sample, one after another, and their seconds. calls:
    seconds of a call, by the model."""
    stages = [one for one in cell.cascade if one.id in coming]
    seconds = [
        one.rounds * each for one in stages if (each := calls[one.network] or (None if one.rounds else 0.0)) is not None
    ]
    return sum(one.rounds for one in stages), sum(seconds) if len(seconds) == len(stages) else None
