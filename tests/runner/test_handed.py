"""A plan that is handed over: a worker sees the cells that the plan has, and freezes those alone that it samples."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diffsweep.core.leases import Gone
from diffsweep.core.problems import BadInput
from diffsweep.runner import handed
from diffsweep.runner.lots import lots
from diffsweep.runner.plan import Raw, plan
from diffsweep.runner.shape import wanted

Config = Callable[..., dict[str, Any]]
ROWS = {"model": 4, "upscale": 4, "upscale.then": 4}


@pytest.fixture
def raw(config: Config, tmp_path: Path) -> list[Raw]:
    settings = [(seed, scale) for seed in (0, 1, 1) for scale in (1.0, 3.0)]  # two settings are given twice
    common = {"output_dir": str(tmp_path), "prompt": "red", "technique": "inpaint", "scheduler__steps": 3}
    return [
        (config(seed=seed, guidance__scale=scale, **common), {"seed": seed, "guidance.scale": scale})
        for seed, scale in settings
    ]


def seen(cell: Any) -> dict[str, Any]:
    """What divides the work, and what sweep.json holds of a cell."""
    names = ("id", "axes", "seed", "rounds", "prompts", "config_key", "stage_name", "model", "network")
    return {name: getattr(cell, name) for name in names} | {"cascade": [one.id for one in cell.cascade]}


def test_workers_see_the_same_cells(raw: list[Raw], tmp_path: Path) -> None:
    whole = plan(raw, "it")
    handed.write(tmp_path, raw, whole, whole.cells[1:3], "the command")
    given = handed.read(tmp_path)
    assert (given.command, given.whole.name, given.whole.root) == ("the command", "it", whole.root)
    assert [seen(cell) for cell in given.whole.cells] == [seen(cell) for cell in whole.cells]
    assert [cell.id for cell in given.wanted] == [cell.id for cell in whole.cells[1:3]]
    distinct = [[*{cell.id: cell for cell in cells}.values()] for cells in (whole.cells, given.whole.cells)]
    parted = [
        [[(lot.key, [c.id for c in lot.cells]) for lot in group] for group in lots(cells, ROWS)] for cells in distinct
    ]
    assert parted[0] == parted[1] and wanted(whole.cells) == wanted(given.whole.cells)


def test_a_cell_is_frozen_when_it_is_sampled(raw: list[Raw], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = plan(raw, "it")
    handed.write(tmp_path, raw, whole, whole.cells, "")
    given = handed.read(tmp_path)
    frozen: list[Any] = []
    freeze = handed.freeze
    monkeypatch.setattr(handed, "freeze", lambda *one: frozen.append(one) or freeze(*one))
    for cell in given.whole.cells:
        seen(cell)
    assert len(frozen) == 1  # whose model stands for all
    last: Any = given.whole.cells[-1]
    assert last.config == whole.cells[-1].config and last.visited == whole.cells[-1].visited
    assert len(frozen) == 2
    last.let_go()
    assert last.config == whole.cells[-1].config and len(frozen) == 3


def test_groups_that_cells_share_are_written_once(raw: list[Raw], tmp_path: Path) -> None:
    handed.write(tmp_path, raw, plan(raw, "it"), [], "")
    content = json.loads((tmp_path / handed.FILE).read_text())
    assert len(content["cells"]) == 6
    assert sum(isinstance(node, dict) and node.get("name") == "inpaint" for node in content["nodes"]) == 1


def test_another_cell_than_was_planned_is_refused(raw: list[Raw], tmp_path: Path) -> None:
    """As where a worker has another version, or another input file."""
    handed.write(tmp_path, raw, whole := plan(raw, "it"), whole.cells, "")
    file = tmp_path / handed.FILE
    file.write_text(file.read_text().replace(whole.cells[0].id, "0" * 20))
    cell: Any = handed.read(tmp_path).whole.cells[0]
    with pytest.raises(BadInput, match=r"cell 0+: is another one here than where the sweep was planned"):
        _ = cell.config


@pytest.mark.parametrize("text", ["", "{}", "[]", "3", '{"nodes": [], "cells": [[1]], "prompts": [], "wanted": []}'])
def test_a_damaged_plan_is_one_message(tmp_path: Path, text: str) -> None:
    (tmp_path / handed.FILE).write_text(text)
    with pytest.raises(BadInput, match=r"plan.json: damaged; the sweep's command, run again, writes it anew"):
        handed.read(tmp_path)


def test_what_json_would_change_is_refused(raw: list[Raw], tmp_path: Path) -> None:
    whole = plan(raw, "it")
    changed = [({**one, "vars": {1: "a"}}, axes) for one, axes in raw]
    with pytest.raises(BadInput, match="its keys must be texts"):
        handed.write(tmp_path, changed, whole, [], "")
    with pytest.raises(Gone):
        handed.write(tmp_path / "gone", raw, whole, [], "")
    with pytest.raises(FileNotFoundError):
        handed.read(tmp_path / "gone")
