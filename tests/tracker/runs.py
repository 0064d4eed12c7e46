"""Sweeps as the runner leaves them, and real runs of wandb's, read back with its own `wandb leet inspect`."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from wandb.util import get_core_path

from diffsweep.report.comparison import overview
from diffsweep.report.frame import results
from diffsweep.report.table import summarise
from diffsweep.report.write import Report
from diffsweep.store.cells import Store
from diffsweep.store.schema import to_json
from diffsweep.tracker import run_logs
from diffsweep.tracker.run_logs import run_id
from diffsweep.tracker.wandb import Wandb
from tests.rewriting import rewrite
from tests.tracker.server import KEY

REFUSING = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": KEY, "WANDB_INIT_TIMEOUT": "1"}
OFFLINE = Wandb(mode="offline", granularity="sweep")
CELLS = Wandb(mode="offline", granularity="cell")
BOTH = Wandb(mode="offline", granularity="both")
FILES = "results.csv", "grid.png", "grid_2.png", "figures/curve.png", "report.html"
PSNR = {"direction": "higher", "data_range": 1.0}

Finished = tuple[Store, dict[str, Any], Report]


def away(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """An empty home, which is the current folder too; no settings, no key."""
    for name in [name for name in os.environ if name.startswith(("WANDB_", "XDG_", "NETRC"))]:
        patch.delenv(name)
    folder.mkdir()
    patch.setenv("HOME", str(folder))
    patch.chdir(folder)


def swept(root: Path, scales: int = 2) -> Finished:
    """A sweep as the runner leaves it, guidance.scale = 1, 2, ... x seed = 0, 1; its last cell has failed.

    PSNR is 20, 21, ...; outside of the mask it is 30, 31, ..., but the first cell equals its reference there; the mask
    has no edge.
    """
    store = Store(root / "outputs")
    cells: list[dict[str, Any]] = []
    for i in range(2 * scales):
        scale, seed = 1.0 + i // 2, i % 2
        failed = i == 2 * scales - 1
        cells.append(
            {
                "cell_id": f"{i:020x}",
                "axes": {"guidance.scale": scale, "seed": seed},
                "seed": seed,
                "status": "failed" if failed else "done",
                "reason": "FloatingPointError: NaN" if failed else None,
            }
        )
        if failed:
            break
        outside = {"value": 30.0 + i, "definition": PSNR} if i else {"value": None, "exact": True, "definition": PSNR}
        guidance = {"name": "classifier_free", "scale": scale, "negative_prompt": ""}
        record = {
            "config": {"seed": seed, "prompt": "a skull", "guidance": guidance, "technique": {"name": "inpaint"}},
            "nfe": 30,
            "seconds": 0.5,
            "metrics": {
                "psnr": {"value": 20.0 + i, "definition": PSNR},
                "psnr_outside": outside,
                "psnr_edge": {"value": None, "reason": "no pixel has 0 < m < 1", "definition": PSNR},
            },
        }
        store.save(cells[-1]["cell_id"], {"image": np.full((4, 4, 3), i, np.uint8)}, record)
    sweep = {
        "name": "scales",
        "command": "diffsweep -m seed=0,1 guidance.scale=1,2",
        "created": "2026-11-24T12:00:00+00:00",
        "axes": {"guidance.scale": [1.0 + i for i in range(scales)], "seed": [0, 1]},
        "metrics": ["psnr", "psnr_outside", "psnr_edge"],
        "cells": cells,
        "notes": [],
        "runs": [],
    }
    folder = store.root / "sweeps" / "scales"
    folder.mkdir(parents=True)
    picture = (store.folder(cells[0]["cell_id"]) / "image.png").read_bytes()
    for name in FILES:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(picture if name.endswith("png") else b"<p>")
    (folder / "sweep.json").write_bytes(to_json(sweep))
    return store, sweep, reported(store, sweep)


def reported(store: Store, sweep: dict[str, Any]) -> Report:
    """What the runner hands over."""
    folder, frame = store.root / "sweeps" / "scales", results(store, sweep)
    return Report(frame, summarise(frame), overview(frame), folder, tuple(folder / name for name in FILES))


def meanwhile(patch: pytest.MonkeyPatch, do: Callable[[], object]) -> None:
    """Do something while the sweep's run is open, before its sheets and figures are logged."""
    shown_files = run_logs.shown_files

    def doing(report: Report) -> list[Path]:
        do()
        return shown_files(report)

    patch.setattr(run_logs, "shown_files", doing)


def runs(store: Store) -> list[Path]:
    folder = store.root / "sweeps" / "scales" / "wandb"
    return [path for path in folder.glob("*run-*") if path.is_dir() and not path.is_symlink()]


def inspected(run: Path, *options: str) -> str:
    """What wandb reads in a run's folder: its records as lines, or with --summary what they come to.

    This is `wandb leet inspect`, without the second or two that the command takes to import wandb.
    """
    (log,) = run.glob("*.wandb")
    command = [get_core_path(), "leet", "inspect", "--no-observability", "--json", *options]
    command += ["--run-file", str(log), str(run.parent)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def summary(run: Path) -> dict[str, Any]:
    return json.loads(inspected(run, "--summary"))


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def kill_service() -> bool:
    """wandb's service, killed where it runs."""
    running = [thing for thing in gc.get_objects() if type(thing) is subprocess.Popen and "wandb" in str(thing.args)]
    for process in [process for process in running if process.poll() is None]:
        process.kill()
        process.wait()
        return True
    return False


def inpainted(root: Path) -> Finished:
    """As `swept`, with inputs, masks and two steps of the first cell's way from noise."""
    store, sweep, _ = swept(root)
    rng = np.random.default_rng(0)
    steps = {f"step_{i:03}_{kind}": rng.integers(255, size=(4, 4, 3)) for i in (0, 1) for kind in ("noisy", "clean")}
    others = {"input": rng.integers(255, size=(4, 4, 3)), "mask": np.zeros((4, 4))}
    pictures = {name: pixels.astype(np.uint8) for name, pixels in (steps | others).items()}
    rewrite(store, "0" * 20, facts={})
    store.add("0" * 20, pictures, "step_", {"trajectory": {"asked": 2, "t": [750, 0]}})
    return store, sweep, reported(store, sweep)


@dataclass(frozen=True)
class Many:
    """A sweep of three finished cells, each of which has a run, as the sweep has: by their ids."""

    store: Store
    sweep: dict[str, Any]
    line: str | None
    folders: dict[str, Path]
    summaries: dict[str, dict[str, Any]]
    run: dict[str, dict[str, Any]]
    steps: dict[str, list[dict[str, Any]]]

    @property
    def own(self) -> str:
        return run_id(self.sweep)

    @property
    def cells(self) -> list[str]:
        return sorted(self.folders.keys() - {self.own})


def read(store: Store, sweep: dict[str, Any], line: str | None) -> Many:
    folders = {summary(run)["run_id"]: run for run in runs(store)}
    assert len(folders) == len(runs(store))
    records = {name: [json.loads(text) for text in inspected(run).splitlines()] for name, run in folders.items()}
    return Many(
        store,
        sweep,
        line,
        folders,
        {name: summary(run) for name, run in folders.items()},
        {name: next(r["run"] for r in found if r["type"] == "run") for name, found in records.items()},
        {name: [r["history"]["item"] for r in found if r["type"] == "history"] for name, found in records.items()},
    )


def command(*words: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """A program of this Python's."""
    line, env = [str(Path(sys.executable).with_name(words[0])), *words[1:]], os.environ | environment
    return subprocess.run(line, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)


def synced(*words: str, cwd: Path | None = None) -> str:
    done = command("wandb", "sync", *words, cwd=cwd, WANDB_ERROR_REPORTING="false")
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr
