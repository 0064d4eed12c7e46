"""The figure of one cell's steps, from pictures whose distances are known."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffsweep.core.problems import BadInput
from diffsweep.report.figure.trajectory import distances, write_trajectory
from diffsweep.store.cells import Store

IDS = ["a" * 20, "b" * 20]
LEVELS = (200, 130, 104, 100)  # of the clean estimates; the picture is 100, the input 90
T = (900, 600, 300, 0)


@pytest.fixture
def kept(tmp_path: Path) -> tuple[Store, dict[str, Any]]:
    """Two cells, of which the second was watched."""
    store = Store(tmp_path)
    flat = {level: np.full((6, 6, 3), level, np.uint8) for level in (*LEVELS, 90)}
    steps = {f"step_{i:03}_{kind}": flat[level] for i, level in enumerate(LEVELS) for kind in ("noisy", "clean")}
    for cell_id, pictures in zip(IDS, ({}, steps), strict=True):
        facts = {"trajectory": {"asked": 4, "t": list(T)}} if pictures else {}
        store.save(cell_id, {"image": flat[100], "input": flat[90], **pictures}, {"facts": facts})
    axes = [{"prompt": "it costs $5, or $6", "seed": seed} for seed in (0, 1)]
    cells = [{"cell_id": cell_id, "axes": own} for cell_id, own in zip(IDS, axes, strict=True)]
    return store, {"name": "mine", "cells": cells}


def test_distances_are_those_of_the_clean_estimates(kept: tuple[Store, dict[str, Any]]) -> None:
    store, _ = kept
    steps = [f"step_{i:03}" for i in range(4)]
    assert distances(store, IDS[1], steps, "image") == [100, 30, 4, 0]
    assert distances(store, IDS[1], steps, "input") == [110, 40, 14, 10]


def test_the_first_cell_that_was_watched_is_drawn_once(kept: tuple[Store, dict[str, Any]], tmp_path: Path) -> None:
    store, sweep = kept
    files = write_trajectory(tmp_path, store, sweep)
    assert files == [tmp_path / "figures" / f"trajectory_{IDS[1]}{suffix}" for suffix in (".pdf", ".png")]
    assert files[0].read_bytes().startswith(b"%PDF") and b"/FontFile2" in files[0].read_bytes()
    with Image.open(files[1]) as drawn:
        colours = {tuple(colour[:3]) for _, colour in drawn.convert("RGB").getcolors(maxcolors=10**6)}
    assert {(level,) * 3 for level in LEVELS} <= colours  # every step's own pixels are there
    first = [(file.read_bytes(), file.stat().st_mtime_ns) for file in files]
    assert write_trajectory(tmp_path, store, sweep, "bbb") == files
    assert [(file.read_bytes(), file.stat().st_mtime_ns) for file in files] == first
    shutil.rmtree(tmp_path / "figures")
    write_trajectory(tmp_path, store, sweep)
    assert [file.read_bytes() for file in files] == [content for content, _ in first]


@pytest.mark.parametrize("shape", [(6, 12), (12, 6)])
def test_pictures_that_are_not_square_keep_their_proportions(tmp_path: Path, shape: tuple[int, int]) -> None:
    """Of the one colour that no other picture has, as drawn."""
    store, (height, width) = Store(tmp_path), shape
    flat = {level: np.full((*shape, 3), (level, 40, 0), np.uint8) for level in LEVELS}
    steps = {f"step_{i:03}_{kind}": flat[level] for i, level in enumerate(LEVELS) for kind in ("noisy", "clean")}
    facts = {"trajectory": {"asked": 4, "t": list(T)}}
    store.save(IDS[0], {"image": flat[100], **steps}, {"facts": facts})
    sweep: dict[str, Any] = {"name": "mine", "cells": [{"cell_id": IDS[0], "axes": {"seed": 0}}]}
    _, file = write_trajectory(tmp_path, store, sweep)
    with Image.open(file) as drawn:
        pixels = np.asarray(drawn.convert("RGB"))
    found = [(pixels == (level, 40, 0)).all(-1) for level in LEVELS]
    wide = [np.ptp(np.nonzero(one.any(0))[0]) + 1 for one in found]
    lines = [one.any(1) for one in found]
    high = [one.sum() / 2 for one in lines]  # noisy above clean
    np.testing.assert_allclose(np.divide(high, wide), height / width, rtol=0.03)
    gap = [np.flatnonzero(np.diff(one.astype(int))) for one in lines]
    assert all(len(edges) == 4 and edges[2] - edges[1] < 0.5 * (edges[1] - edges[0]) for edges in gap)


def test_a_cell_without_steps_or_of_another_sweep_is_told(kept: tuple[Store, dict[str, Any]], tmp_path: Path) -> None:
    store, sweep = kept
    with pytest.raises(BadInput, match=r"cell=aaa: no steps are stored; .* engine\.trajectory=8"):
        write_trajectory(tmp_path, store, sweep, "aaa")
    with pytest.raises(BadInput, match="cell=c: no such cell in this sweep"):
        write_trajectory(tmp_path, store, sweep, "c")
    sweep["cells"].pop()
    assert write_trajectory(tmp_path, store, sweep) == []
