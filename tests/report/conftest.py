"""A stored sweep made by hand: every number in it is chosen, so that every number shown can be worked out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffsweep.store.cells import Store

PSNR = {"metric": "PSNR", "direction": "higher", "package": "torchmetrics 1.9.0"}
ERROR = {"metric": "an error", "direction": "lower", "package": "by hand"}


def metrics(psnr: float | None, error: float) -> dict[str, Any]:
    first = {"value": psnr, "definition": PSNR} | ({"exact": True} if psnr is None else {})
    return {"psnr": first, "error": {"value": error, "definition": ERROR}}


def stored(root: Path, axes: dict[str, list[Any]], cells: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """Store cells (axes, seed, colour, and metrics or None for a failed one) and return what sweep.json holds."""
    store = Store(root)
    entries = []
    for number, cell in enumerate(cells):
        cell_id = f"{number:020x}"
        if cell["metrics"] is not None:
            pictures = {"image": np.full((8, 8, 3), cell["colour"], np.uint8), **cell.get("pictures", {})}
            record = {"metrics": cell["metrics"], "nfe": 10, "seconds": 0.5, "config": {"seed": cell["seed"]}}
            store.save(cell_id, pictures, record)
        reason = None if cell["metrics"] is not None else cell.get("reason", "ValueError: <broken>")
        status = "failed" if reason else "done"
        entry = {"cell_id": cell_id, "axes": cell["axes"], "seed": cell["seed"], "status": status, "reason": reason}
        entries.append(entry)
    run = dict.fromkeys(("cells", "model_loads", "model_calls", "model_rows", "padded_rows", "encodes", "rows"), 3)
    sweep = {"name": "made", "command": "diffsweep -m 'a=1'", "created": "2026-01-01T00:00:00+00:00", "axes": axes}
    sweep |= {"cells": entries, "metrics": ["psnr", "error"], "notes": [], "grid": {"rows": None, "cols": None}}
    return sweep | {"runs": [{"started": "2026-01-01", "sampling_seconds": 1.25, **run}], **more}


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., tuple[Store, dict[str, Any]]]:
    """Two scales x three seeds: one cell failed, one picture equal to its reference."""

    def make(**more: Any) -> tuple[Store, dict[str, Any]]:
        numbers = {(1.0, 0): (20.0, 0.3), (1.0, 1): (22.0, 0.1), (1.0, 2): (27.0, 0.2)}
        numbers |= {(7.0, 0): (30.0, 0.5), (7.0, 1): (None, 0.25)}
        cells = [
            {
                "axes": {"guidance.scale": scale, "seed": seed},
                "seed": seed,
                "colour": (int(scale) * 20, seed * 50, 90),
                "metrics": metrics(*numbers[scale, seed]) if (scale, seed) in numbers else None,
            }
            for scale in (1.0, 7.0)
            for seed in (0, 1, 2)
        ]
        return Store(tmp_path), stored(tmp_path, {"guidance.scale": [1.0, 7.0], "seed": [0, 1, 2]}, cells, **more)

    return make
