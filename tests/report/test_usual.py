"""What a sheet shows of each cell unless asked: of every shipped technique, as the runner stores it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from diffsweep.report.grid import usual
from diffsweep.runner.run import run_sweep
from diffsweep.store.cells import Store

SEVERAL = {"anagram": ["image", "view_1"], "hybrid": ["image", "low"]}


def test_nothing_that_was_given_stands_beside_a_picture(config: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    names = sorted(file.stem for file in Path("conf/technique").glob("*.yaml"))
    held = {"model__size": 16, "scheduler__steps": 3, "prompt": "red", "output_dir": str(tmp_path)}
    held |= {"engine__trajectory": 2, "mask__softness": 2.0, "metric": "none"}
    cells = [(config(technique=name, **held), {"technique": name}) for name in names]
    run_sweep(cells, "all")
    store = Store(tmp_path)
    found = {}
    for file in tmp_path.glob("cells/*/*"):
        record = store.record(file.name)
        found[record["config"]["technique"]["name"]] = usual({file.name: record})
    assert found == {name: SEVERAL.get(name, ["image"]) for name in names}
