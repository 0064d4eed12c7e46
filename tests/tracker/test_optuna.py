"""An optimising sweeper is told each cell's first metric."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from diffsweep.app import Status
from diffsweep.store.cells import Store
from diffsweep.store.schema import to_json


def test_a_status_is_a_number_where_the_cell_has_one(tmp_path: Path) -> None:
    store, folder = Store(tmp_path), tmp_path / "sweeps" / "tuned"
    folder.mkdir(parents=True)
    for i, value in enumerate((27.5, None)):
        definition = {"direction": "higher"}
        metrics = {name: {"value": v, "definition": definition} for name, v in (("ssim", 0.5), ("psnr", value))}
        record = {"config": {}, "nfe": 0, "seconds": 0.0, "facts": {}, "metrics": metrics}
        store.save(f"{i:020x}", {"image": np.zeros((2, 2, 3), np.uint8)}, record)
    cells = [{"cell_id": f"{i:020x}", "axes": {}, "seed": 0, "status": "done"} for i in range(3)]
    sweep = {"name": "tuned", "command": "", "created": "", "axes": {}, "runs": [], "notes": [], "cells": cells}
    (folder / "sweep.json").write_bytes(to_json({**sweep, "metrics": ["psnr", "ssim"]}))
    assert float(Status("done", folder, f"{0:020x}")) == 27.5
    for number, text in ((0, "failed"), (1, "done"), (2, "done")):
        with pytest.raises(ValueError, match=f"cell {number:020x}: {text}, no psnr"):
            float(Status(text, folder, f"{number:020x}"))
    (folder / "sweep.json").write_bytes(to_json({**sweep, "metrics": []}))
    with pytest.raises(ValueError, match="done, no metric"):
        float(Status("done", folder, f"{0:020x}"))


@pytest.mark.slow
def test_optuna_optimises_in_batches_that_share_model_calls(tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="optuna: uv sync --extra optuna")
    words = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=8", "hydra.sweeper.n_jobs=4", "hydra.sweep.dir=outputs"]
    words += ["hydra.sweeper.direction=maximize", "technique.strength=interval(0.2,0.9)", "technique=image_to_image"]
    words += ["metric.names=[psnr]", "model=analytic", "scheduler.steps=10", "sweep.name=tuned", "device=cpu"]
    command = [str(Path(sys.executable).with_name("diffsweep")), "-m", *words]
    done = subprocess.run(command, cwd=tmp_path, env=dict(os.environ), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    best = yaml.safe_load((tmp_path / "outputs" / "optimization_results.yaml").read_text())
    folder = tmp_path / "outputs" / "sweeps" / "tuned"
    with (folder / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    winner = max(rows, key=lambda row: float(row["psnr"]))
    assert best["best_value"] == float(winner["psnr"])
    assert best["best_params"]["technique.strength"] == pytest.approx(float(winner["technique.strength"]))
    runs = json.loads((folder / "sweep.json").read_text())["runs"]
    assert sum(run["model_calls"] for run in runs) < sum(run["model_rows"] for run in runs) / 2
