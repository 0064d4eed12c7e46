"""The workers of a sweep under faults, as scripts/chaos.py has them in a shorter form; and what its checker sees."""

from __future__ import annotations

import csv
import hashlib
import importlib
import json
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

SCRIPTS = Path(__file__).parent.parent / "scripts"
CELL = "0123456789abcdef0123"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("chaos")


@pytest.fixture
def chaos(script: Any, tmp_path: Path) -> Iterator[Any]:
    chaos = script.Chaos(tmp_path)
    chaos.begin()
    yield chaos
    assert chaos.wrong == []
    assert all(row.runs and not row.broken for row in chaos.rows), chaos.rows
    assert max(row.lost for row in chaos.rows) <= 8  # an engine's window: four calls of two cells


@pytest.mark.slow
def test_workers_that_are_killed_lose_no_more_than_they_have_at_hand(chaos: Any) -> None:
    chaos.kill(20)
    assert sum(row.runs for row in chaos.rows) == 20


@pytest.mark.slow
@pytest.mark.parametrize("faults", ["stop signals clocks nan", "memory disk removed"])
def test_no_other_fault_loses_more(script: Any, chaos: Any, faults: str) -> None:
    for fault in faults.split():
        script.FAULTS[fault](chaos, 1)


# -- the checker -------------------------------------------------------------------------------------------------------
@pytest.fixture
def place(script: Any, tmp_path: Path) -> Any:
    """A sweep of one cell, written by hand."""
    place = script.Place(tmp_path, tmp_path)
    cell, sweep = place.root / f"cells/01/{CELL}", place.root / "sweeps/it"
    for folder in (cell, sweep):
        folder.mkdir(parents=True)
    file = BytesIO()
    Image.new("RGB", (3, 2)).save(file, format="PNG")
    (cell / "image.png").write_bytes(file.getvalue())
    record = {"cell_id": CELL, "files": {"image.png": hashlib.sha256(file.getvalue()).hexdigest()}}
    (cell / "record.json").write_text(json.dumps(record))
    (sweep / "sweep.json").write_text(json.dumps({"cells": [{"cell_id": CELL, "status": "done"}]}))
    with (sweep / "results.csv").open("w", newline="") as csv_file:
        csv.writer(csv_file).writerows([["cell_id", "status"], [CELL, "done"]])
    (sweep / "report.html").write_text("<html></html>\n")
    return place


def test_the_checker_finds_nothing_wrong_with_a_whole_sweep(script: Any, place: Any) -> None:
    there, _ = script.whole(place.root)
    script.check_end(place, there)
    assert place.wrong == [] and there.keys() == {CELL}


def cut(root: Path) -> None:
    file = root / f"cells/01/{CELL}/image.png"
    file.write_bytes(file.read_bytes()[:-1])


def listing(root: Path) -> None:
    with (root / "sweeps/it/results.csv").open("a") as file:
        file.write("ffffffffffffffffffff,done\n")


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "image.png differs": cut,
    "No such file": lambda root: (root / f"cells/01/{CELL}/image.png").unlink(),
    "0 cells, not 1": lambda root: (root / f"cells/01/{CELL}/record.json").unlink(),
    "is listed and not stored": listing,
    "report.html is cut": lambda root: (root / "sweeps/it/report.html").write_text("<html>"),
    "sweep.json": lambda root: (root / "sweeps/it/sweep.json").write_text("{"),
    "left: ": lambda root: (root / "sweeps/it/work").mkdir(),
    "left: ['outputs/cells/01/.": lambda root: (root / "cells/01/.it.lock").touch(),
    "left: ['.diffsweep": lambda root: (root.parent / ".diffsweep-x").mkdir(),
    "pictures differ": lambda root: None,
}


@pytest.mark.parametrize("told", DAMAGE)
def test_the_checker_sees_damage(script: Any, place: Any, told: str) -> None:
    there, _ = script.whole(place.root)
    DAMAGE[told](place.root)
    other = {CELL: {"image.png": b"other"}} if told == "pictures differ" else there
    script.check_end(place, other)
    assert any(told in text for text in place.wrong), place.wrong


def test_points_are_named_alike_from_run_to_run(script: Any) -> None:
    work = "sweeps/it/work/0123456789ab"
    names = {
        f"cells/01/.{CELL}.0a1b2c3d-17-0a1b2c3d/record.json": "cells/XX/.CELL.SCRATCH/record.json",
        f"{work}/claims/0-17.3": "sweeps/it/work/DIGEST/claims/LOT.3",
        f"{work}/done/.0123456789abcdef": "sweeps/it/work/DIGEST/done/.WRITTEN",
        f"{work}/workers/host-17-abc.json": "sweeps/it/work/DIGEST/workers/NAME.json",
        "sweeps/it/.sweep.json.0a1b2c3d-17-0a1b2c3d": "sweeps/it/.sweep.json.SCRATCH",
    }
    assert {path: script.general(path) for path in names} == names
