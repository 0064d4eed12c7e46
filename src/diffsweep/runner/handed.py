"""A plan that is handed over to workers, in a file that they read: what they need of every cell to divide the work, and
the composed configuration of each, from which a worker freezes those cells alone that it samples.

Configurations of one sweep share most of their groups: each distinct one is written once.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from diffsweep.core import files
from diffsweep.core.leases import put
from diffsweep.core.problems import BadInput
from diffsweep.runner.cell import Cell
from diffsweep.runner.freeze import freeze
from diffsweep.runner.plan import Plan, Raw, plan

FILE = "plan.json"


@dataclass(frozen=True)
class Handed:
    """What a worker is given: the plan, of which those cells are to be sampled, the command that was typed, and the
    folder it was typed in, from which relative paths begin."""

    whole: Plan
    wanted: Sequence[Cell]
    command: str


class _Distinct:
    """Values by number, each distinct one once."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._texts: dict[str, int] = {}
        self._seen: dict[int, int] = {}  # by identity: jobs share their nodes, which live as long as this

    def number(self, value: Any) -> int:
        if id(value) not in self._seen:
            text = json.dumps(value)
            if text not in self._texts:
                if json.loads(text) != value:
                    raise BadInput(f"{text[:80]}: cannot be handed over to a worker: its keys must be texts")
                self._texts[text] = len(self.values)
                self.values.append(value)
            self._seen[id(value)] = self._texts[text]
        return self._seen[id(value)]


def write(workplace: Path, raw: Sequence[Raw], whole: Plan, wanted: Collection[Cell], command: str) -> None:
    """Hand a plan over to the workers that meet in this folder; BadInput for what JSON would change, Gone where the
    folder is no more. raw: the cells as they were composed, in the plan's order; wanted: those to be sampled."""
    nodes, prompts, models = _Distinct(), _Distinct(), {cell.model: None for cell in whole.cells}
    numbers = {model: number for number, model in enumerate(models)}
    asked = [list(cell.prompts) for one in whole.cells for cell in one.cascade]  # alive while numbered
    rows = iter(asked)
    cells = []
    for (config, axes), cell in zip(raw, whole.cells, strict=True):
        stages = [
            [one.id, one.rounds, one.evaluations, prompts.number(next(rows)), one.config_key, one.stage_name]
            for one in cell.cascade
        ]
        own = {key: nodes.number(value) for key, value in config.items()}
        cells.append([own, dict(axes), numbers[cell.model], stages])
    content = {
        "name": whole.name,
        "command": command,
        "place": str(Path.cwd()),
        "nodes": nodes.values,
        "prompts": prompts.values,
        "cells": cells,
        "wanted": [cell.id for cell in wanted],
    }
    put(workplace / FILE, json.dumps(content, separators=(",", ":")))


def read(workplace: Path) -> Handed:
    """What was handed over in this folder; the current folder becomes that from which its relative paths begin. OSError
    where nothing was, BadInput where it is damaged."""
    data = files.read(workplace / FILE)
    try:
        content = json.loads(data)
        raw, cells, wanted = _cells(content)
        place, name, command = content["place"], content["name"], content["command"]
    except (ValueError, LookupError, TypeError, AttributeError):
        raise BadInput(f"{workplace / FILE}: damaged; the sweep's command, run again, writes it anew") from None
    os.chdir(place)
    return Handed(replace(plan(raw[:1], name), cells=tuple(cells)), wanted, command)


def _cells(content: Any) -> tuple[list[Raw], list[Any], list[Any]]:
    """The cells as they were composed, in the plan's order and to be frozen later, and those that are to be sampled."""
    nodes = content["nodes"]
    raw: list[Raw] = [({key: nodes[k] for key, k in own.items()}, axes) for own, axes, _, _ in content["cells"]]
    known: dict[str, Later] = {}
    networks: dict[tuple[int, str], Any] = {}
    cells = []
    for one, (_, _, model, stages) in zip(raw, content["cells"], strict=True):
        base: Later | None = None
        for depth, (cell_id, rounds, rows, prompts, key, stage) in enumerate(stages):
            if cell_id not in known:
                values = cell_id, rounds, rows, tuple(content["prompts"][prompts]), key, stage, base
                known[cell_id] = Later(*values, one, depth, model, networks)
            base = known[cell_id]
        assert base is not None
        cells.append(base if base.raw is one else replace(base, raw=one, frozen=[]))
    return raw, cells, [known[cell_id] for cell_id in content["wanted"]]


@dataclass(frozen=True, eq=False)
class Later:
    """A cell that is frozen once more than this is asked of it, and let go when it has been sampled.

    networks: what the cells of a model and a stage have in common, as far as one was frozen.
    """

    id: str
    rounds: int
    evaluations: int
    prompts: tuple[str | None, ...]
    config_key: str
    stage_name: str
    base: Later | None
    raw: Raw
    depth: int
    number: int
    networks: dict[tuple[int, str], Any] = field(repr=False)
    frozen: list[Cell] = field(default_factory=list, repr=False)

    @property
    def axes(self) -> Mapping[str, Any]:
        return self.raw[1]

    @property
    def seed(self) -> int:
        return int(self.raw[0]["seed"])

    @property
    def cascade(self) -> tuple[Later, ...]:
        return (*(self.base.cascade if self.base else ()), self)

    @property
    def model(self) -> Any:
        return self._common("", lambda cell: cell.model)

    @property
    def network(self) -> Any:
        return self._common(self.stage_name, lambda cell: cell.network)

    def _common(self, stage: str, of: Any) -> Any:
        if (self.number, stage) not in self.networks:
            self.networks[self.number, stage] = of(self._cell())
        return self.networks[self.number, stage]

    def _cell(self) -> Cell:
        if not self.frozen:
            cell = freeze(*self.raw).cascade[self.depth]
            if cell.id != self.id:
                raise BadInput(
                    f"cell {self.id}: is another one here than where the sweep was planned: another version of "
                    "diffsweep or of a plugin, or other input files"
                )
            self.frozen.append(cell)
        return self.frozen[0]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._cell(), name)

    def let_go(self) -> None:
        self.frozen.clear()
