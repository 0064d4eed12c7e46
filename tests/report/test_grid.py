"""The contact sheet: stored pixels are found where the axes say, and layouts are refused that cannot be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffsweep.core.problems import BadInput
from diffsweep.report import grid
from diffsweep.report.grid import layout, write_grid

Made = Callable[..., Any]


def places(sheet: np.ndarray, colour: tuple[int, int, int]) -> tuple[int, int, int]:
    """Top, left and number of the pixels of a colour."""
    y, x = np.nonzero((sheet == colour).all(-1))
    return (int(y.min()), int(x.min()), len(y)) if len(y) else (-1, -1, 0)


def drawn(folder: Path, store: Any, sweep: dict[str, Any], **axes: str) -> np.ndarray:
    (file,) = write_grid(folder, store, sweep, **axes)
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"))


def colours(sweep: dict[str, Any]) -> dict[tuple[float, int], tuple[int, int, int]]:
    keys = [(cell["axes"]["guidance.scale"], cell["seed"]) for cell in sweep["cells"] if cell["status"] == "done"]
    return {(scale, seed): (int(scale) * 20, seed * 50, 90) for scale, seed in keys}


@pytest.mark.parametrize("rows, cols", [("guidance.scale", "seed"), ("seed", "guidance.scale")])
def test_every_picture_stands_in_its_row_and_column(made: Made, tmp_path: Path, rows: str, cols: str) -> None:
    store, sweep = made()
    sheet = drawn(tmp_path, store, sweep, rows=rows, cols=cols)
    where = {key: places(sheet, colour) for key, colour in colours(sweep).items()}
    assert all(n == 96 * 96 for _, _, n in where.values())  # 8 pixels, enlarged 12 times
    for index in (0, 1):
        axis = "guidance.scale" if index == 0 else "seed"
        for value in {key[index] for key in where}:
            line = {place[0 if axis == rows else 1] for key, place in where.items() if key[index] == value}
            assert len(line) == 1, (axis, value)
    assert where[1.0, 0][0 if rows == "seed" else 1] < where[1.0, 1][0 if rows == "seed" else 1]


def test_a_failed_cells_place_is_grey(made: Made, tmp_path: Path) -> None:
    store, sweep = made()
    sheet = drawn(tmp_path, store, sweep)
    top, left, n = places(sheet, (200, 200, 200))
    colour = colours(sweep)
    assert n > 96 * 96 * 0.8
    assert (top, left) == (places(sheet, colour[7.0, 0])[0], places(sheet, colour[1.0, 2])[1])


def test_other_axes_become_blocks(made: Made, tmp_path: Path) -> None:
    store, sweep = made()
    sweep["axes"]["mask.softness"] = [0]
    for cell in sweep["cells"]:
        cell["axes"]["mask.softness"] = 0
    found = grid.blocks(store, sweep, "guidance.scale", "seed")
    assert [block.title for block in found] == ["mask.softness = 0"]
    found = grid.blocks(store, sweep, "mask.softness", "seed")
    assert [block.title for block in found] == ["guidance.scale = 1", "guidance.scale = 7"]


def test_axes_that_only_meet_on_the_diagonal_make_no_product(made: Made, tmp_path: Path) -> None:
    store, sweep = made()
    for i, cell in enumerate(sweep["cells"]):  # as an optimising sweeper varies them: every value once
        cell["axes"] = {"seed": i, **{f"axis{k}": i for k in range(40)}}
    sweep["axes"] = {name: list(range(6)) for name in sweep["cells"][0]["axes"]}  # a product of 6 ** 41
    assert sum(len(block.lines) for block in grid.blocks(store, sweep, cols="seed")) == 6


@pytest.mark.parametrize(
    "axes, expected",
    [
        (["seed"], (None, "seed", [])),
        (["guidance.scale", "seed"], ("guidance.scale", "seed", [])),
        (["seed", "guidance.scale"], ("guidance.scale", "seed", [])),
        (["a", "b", "c"], ("a", "b", ["c"])),
        (["a", "b", "seed"], ("a", "seed", ["b"])),
        ([], (None, None, [])),
    ],
)
def test_the_default_layout(axes: list[str], expected: tuple[Any, ...]) -> None:
    assert layout({axis: [0] for axis in axes}) == expected


def test_an_axis_that_is_not_there_is_named(made: Made, tmp_path: Path) -> None:
    store, sweep = made()
    with pytest.raises(BadInput, match=r"rows=sed: no such axis in this sweep; it has .*did you mean 'seed'\?"):
        write_grid(tmp_path, store, sweep, rows="sed")
    with pytest.raises(BadInput, match="one axis cannot be both"):
        write_grid(tmp_path, store, sweep, rows="seed", cols="seed")


def test_the_input_stands_before_its_row(made: Made, tmp_path: Path) -> None:
    store, sweep = made()
    picture = np.full((8, 8, 3), (3, 7, 11), np.uint8)
    for cell in sweep["cells"][:5]:
        record, pixels = store.record(cell["cell_id"]), store.pixels(cell["cell_id"])
        record.pop("files")
        new = cell["cell_id"].replace("0000", "1111", 1)
        store.save(new, {"image": pixels, "input": picture}, record)
        cell["cell_id"] = new
    sheet = drawn(tmp_path, store, sweep)
    top, left, n = places(sheet, (3, 7, 11))
    first = places(sheet, colours(sweep)[1.0, 0])
    assert n == 96 * 96  # shown once: both rows have the same
    assert top == first[0] and left < first[1]


def test_a_sheet_that_shows_the_same_is_left_alone_and_another_is_drawn(made: Made, tmp_path: Path) -> None:
    store, sweep = made()
    (file,) = write_grid(tmp_path, store, sweep)
    before = file.stat().st_mtime_ns
    write_grid(tmp_path, store, sweep)
    assert file.stat().st_mtime_ns == before
    write_grid(tmp_path, store, sweep, rows="seed")
    assert file.stat().st_mtime_ns != before


def test_what_does_not_fit_follows_on_further_sheets(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, sweep = made()
    monkeypatch.setattr(grid, "SIDE", 300)
    files = write_grid(tmp_path, store, sweep, rows="seed", cols="guidance.scale")
    assert [file.name for file in files] == ["grid.png", "grid_2.png", "grid_3.png"]
    found = set()
    for file in files:
        with Image.open(file) as image:
            assert image.height <= 300
            pixels = np.asarray(image.convert("RGB"))
        found |= {key for key, colour in colours(sweep).items() if places(pixels, colour)[2] == 96 * 96}
    assert found == set(colours(sweep))
    monkeypatch.undo()
    assert [file.name for file in write_grid(tmp_path, store, sweep)] == ["grid.png"]
    assert not (tmp_path / "grid_2.png").exists()


def test_a_sheet_is_drawn_again_when_its_picture_is_mended(made: Made, tmp_path: Path) -> None:
    store, sweep = made()
    before = drawn(tmp_path, store, sweep)
    picture = store.folder(sweep["cells"][0]["cell_id"]) / "image.png"
    whole = picture.read_bytes()
    picture.write_bytes(b"damaged")
    assert (drawn(tmp_path, store, sweep) != before).any()
    picture.write_bytes(whole)
    assert (drawn(tmp_path, store, sweep) == before).all()
