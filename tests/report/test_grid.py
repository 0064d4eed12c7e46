"""The contact sheet: stored pixels are found where the axes say, and layouts are refused that cannot be."""

from __future__ import annotations

import json
import random
import re
import zlib
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffsweep.core.problems import BadInput
from diffsweep.metric.settings import settings
from diffsweep.report import grid, sheet
from diffsweep.report.caption import subtitle
from diffsweep.report.frame import results
from diffsweep.report.grid import arranged, layout, write_grid
from diffsweep.report.sheet import FONT
from diffsweep.report.table import summarise
from diffsweep.report.write import write_all
from diffsweep.store.cells import Store
from tests.report.conftest import metrics, stored

Made = Callable[..., Any]
Shown = list[tuple[str, list[sheet.Block]]]


@pytest.fixture
def sheets(monkeypatch: pytest.MonkeyPatch) -> Shown:
    """The title and the blocks of all that is drawn."""
    seen: Shown = []

    class Seen(sheet.Sheets):
        def __init__(self, store: Store, title: str, blocks: list[sheet.Block], *more: Any) -> None:
            seen.append((title, blocks))
            super().__init__(store, title, blocks, *more)

    monkeypatch.setattr(grid, "Sheets", Seen)
    return seen


def places(sheet: np.ndarray, colour: tuple[int, int, int]) -> tuple[int, int, int]:
    """Top, left and number of the pixels of a colour."""
    y, x = np.nonzero((sheet == colour).all(-1))
    return (int(y.min()), int(x.min()), len(y)) if len(y) else (-1, -1, 0)


def drawn(folder: Path, store: Any, sweep: dict[str, Any], **axes: Any) -> np.ndarray:
    (file,) = write_grid(folder, store, sweep, **axes)
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"))


def records(store: Any, sweep: dict[str, Any]) -> dict[str, Any]:
    return {cell["cell_id"]: store.get(cell["cell_id"]) for cell in sweep["cells"]}


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
    pixels = drawn(tmp_path, store, sweep)
    colour = colours(sweep)
    top, left = places(pixels, colour[7.0, 0])[0], places(pixels, colour[1.0, 2])[1]
    assert (pixels[top : top + 96, left : left + 96] == 200).mean() > 0.8


def test_other_axes_become_blocks(made: Made, tmp_path: Path) -> None:
    store, sweep = made()
    sweep["axes"]["mask.softness"] = [0]
    for cell in sweep["cells"]:
        cell["axes"]["mask.softness"] = 0
    found = arranged(sweep, records(store, sweep), "guidance.scale", "seed")
    assert [block.title for block in found] == ["mask.softness = 0"]
    found = arranged(sweep, records(store, sweep), "mask.softness", "seed")
    assert [block.title for block in found] == ["guidance.scale = 1", "guidance.scale = 7"]


def test_axes_that_only_meet_on_the_diagonal_make_no_product(made: Made, tmp_path: Path) -> None:
    store, sweep = made()
    for i, cell in enumerate(sweep["cells"]):  # as an optimising sweeper varies them: every value once
        cell["axes"] = {"seed": i, **{f"axis{k}": i for k in range(40)}}
    sweep["axes"] = {name: list(range(6)) for name in sweep["cells"][0]["axes"]}  # a product of 6 ** 41
    assert sum(len(block.lines) for block in arranged(sweep, records(store, sweep), cols="seed")) == 6


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
    monkeypatch.setattr(sheet, "SIDE", 300)
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


@pytest.mark.parametrize("file", ["mine.png", "mine.pdf"])
def test_a_file_of_the_users_is_not_overwritten_and_a_sheet_is(made: Made, tmp_path: Path, file: str) -> None:
    store, sweep = made()
    Image.new("RGB", (8, 8)).save(tmp_path / file)
    theirs = (tmp_path / file).read_bytes()
    with pytest.raises(BadInput, match=rf"/{file}: exists already, and is not this sheet"):
        write_grid(tmp_path, store, sweep, file=file)
    assert (tmp_path / file).read_bytes() == theirs
    (tmp_path / file).unlink()
    write_grid(tmp_path, store, sweep, file=file)
    drawn = (tmp_path / file).read_bytes()
    write_grid(tmp_path, store, sweep, title="another", file=file)
    assert (tmp_path / file).read_bytes() != drawn


def test_a_sweeps_own_sheet_is_drawn_again_whatever_has_become_of_it(made: Made) -> None:
    store, sweep = made()
    folder = store.root / "sweeps" / sweep["name"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "grid.png").write_bytes(b"damaged")
    assert write_grid(folder, store, sweep) == [folder / "grid.png"]
    with Image.open(folder / "grid.png") as image:
        image.load()


def test_no_sheet_is_written_where_a_later_one_would_overwrite(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, sweep = made()
    (tmp_path / "a_3.png").write_bytes(b"of the user's")
    with monkeypatch.context() as patch:
        patch.setattr(sheet, "SIDE", 300)
        with pytest.raises(BadInput, match=r"a_3\.png: exists already"):
            write_grid(tmp_path, store, sweep, rows="seed", cols="guidance.scale", file="a.png")
    assert [file.name for file in tmp_path.glob("a*.png")] == ["a_3.png"]
    assert [file.name for file in write_grid(tmp_path, store, sweep, file="a.png")] == ["a.png"]
    assert (tmp_path / "a_3.png").read_bytes() == b"of the user's"  # no sheet that is left over


def test_a_sheet_and_anothers_second_do_not_overwrite_each_other(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, sweep = made()
    look = {"rows": "seed", "cols": "guidance.scale"}
    write_grid(tmp_path, store, sweep, file="grid_2.png")
    write_grid(tmp_path, store, sweep)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.glob("*.png")}
    assert {file.name for file in before} == {"grid.png", "grid_2.png"}
    write_grid(tmp_path, store, sweep)
    write_grid(tmp_path, store, sweep, file="grid_2.png")
    assert {file: file.stat().st_mtime_ns for file in before} == before  # both are settled
    with monkeypatch.context() as patch:
        patch.setattr(sheet, "SIDE", 300)
        with pytest.raises(BadInput, match=r"grid_2\.png: exists already, and is not this sheet"):
            write_grid(tmp_path, store, sweep, **look)
        (tmp_path / "grid_2.png").unlink()
        assert len(write_grid(tmp_path, store, sweep, **look)) == 3
    with pytest.raises(BadInput, match=r"grid_2\.png: exists already, and is not this sheet"):
        write_grid(tmp_path, store, sweep, file="grid_2.png")


@pytest.mark.parametrize("pictures", [["image"], ["input"], ["input", "mask"]])
def test_a_sheet_of_inputs_alone_is_as_large_as_one_of_pictures(tmp_path: Path, pictures: list[str]) -> None:
    sweep, store = numbered(a=[1]), Store(tmp_path)
    own = {"image": np.full((64, 64, 3), 9, np.uint8), "input": np.full((64, 64, 3), (1, 2, 3), np.uint8)}
    store.save(sweep["cells"][0]["cell_id"], own | {"mask": np.zeros((64, 64), np.uint8)}, {})
    pixels = drawn(tmp_path, store, sweep, pictures=pictures)
    # the input stands before each line, and is asked for
    assert places(pixels, (1, 2, 3))[2] == 128 * 128 * (1 + ("input" in pictures))


def test_numbers_are_taken_from_the_table_that_is_given(
    made: Made, tmp_path: Path, sheets: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, sweep = made()
    frame = results(store, sweep)
    monkeypatch.delattr(grid, "results")
    write_grid(tmp_path, store, sweep, metric=["psnr"], frame=frame)
    assert any(tile.below == ("psnr ↑ 20.00",) for block in sheets[0][1] for tile in block.tiles())


def test_a_sheet_is_drawn_again_when_its_picture_is_mended(made: Made, tmp_path: Path) -> None:
    store, sweep = made()
    before = drawn(tmp_path, store, sweep)
    picture = store.folder(sweep["cells"][0]["cell_id"]) / "image.png"
    whole = picture.read_bytes()
    picture.write_bytes(b"damaged")
    assert (drawn(tmp_path, store, sweep) != before).any()
    picture.write_bytes(whole)
    assert (drawn(tmp_path, store, sweep) == before).all()


def test_values_stand_below_their_pictures(made: Made, tmp_path: Path) -> None:
    store, sweep = made()
    plain = drawn(tmp_path, store, sweep)
    sheet_pixels = drawn(tmp_path, store, sweep, metric=["psnr", "error"])
    assert sheet_pixels.shape[0] >= plain.shape[0] + 2 * 2 * FONT  # two rows, two texts below each
    where = {key: places(sheet_pixels, colour) for key, colour in colours(sweep).items()}
    assert all(n == 96 * 96 for _, _, n in where.values())  # and hide none of them
    for top, left, _ in where.values():
        assert (sheet_pixels[top + 97 : top + 97 + 2 * FONT, left : left + 96] < 128).any()


def test_values_are_written_with_direction_or_as_exact(made: Made, tmp_path: Path, sheets: Shown) -> None:
    store, sweep = made()
    write_grid(tmp_path, store, sweep, metric=["psnr", "error"])
    seen = {tile.cell_id: tile.below for block in sheets[0][1] for tile in block.tiles()}
    below = {(cell["axes"]["guidance.scale"], cell["seed"]): seen[cell["cell_id"]] for cell in sweep["cells"]}
    assert below[1.0, 0] == ("psnr ↑ 20.00", "error ↓ 0.300")
    assert below[7.0, 1] == ("psnr exact", "error ↓ 0.250")
    assert below[7.0, 2] == ()  # it failed


@pytest.mark.parametrize(
    "pictures, below", [(["noisy", "image"], "image"), (["image", "noisy"], "image"), (["noisy", "low"], "noisy")]
)
def test_a_value_stands_below_the_picture_that_it_is_of(
    tmp_path: Path, sheets: Shown, pictures: list[str], below: str
) -> None:
    sweep, store = numbered(a=[1, 2]), Store(tmp_path)
    for cell in sweep["cells"]:
        own = {name: np.full((8, 8, 3), i, np.uint8) for i, name in enumerate(("image", "noisy", "low"))}
        entry = {"value": 20.0, "definition": {"metric": "PSNR", "direction": "higher"}}
        store.save(cell["cell_id"], own, {"metrics": {"psnr": entry}})
    write_grid(tmp_path, store, sweep | {"metrics": ["psnr"]}, pictures=pictures, metric=["psnr"])
    tiles = [tile for block in sheets[0][1] for tile in block.tiles()]
    assert [tile.picture for tile in tiles] == pictures * 2
    assert [tile.picture for tile in tiles if tile.below == ("psnr ↑ 20.00",)] == [below] * 2
    assert sum(map(len, (tile.below for tile in tiles))) == 2


def test_equal_numbers_share_a_place_and_other_values_do_not(made: Made) -> None:
    values = [1, 1.0, True, "1", None, 2.5]
    store, sweep = made()
    sweep = listed({"a": values}, [{"a": value} for value in values])
    (block,) = arranged(sweep, {cell["cell_id"]: None for cell in sweep["cells"]})
    assert [column[0] for column in block.columns] == ["1", "t", "1", "n", "2"]
    store, sweep = made()
    for cell in sweep["cells"][:2]:
        cell["axes"]["guidance.scale"] = 1  # an int beside a float: one line of the table
    sweep["axes"]["guidance.scale"] = [1, 1.0, 7.0]
    assert len(summarise(results(store, sweep)).rows) == 2
    assert len({setting.mark for setting in settings(sweep, store.finished)}) == 2
    page = write_all(store, sweep).folder / "report.html"
    data = json.loads(re.findall(r"<script[^>]*>(.*?)</script>", page.read_text(), re.DOTALL)[0])
    assert data["axes"][0]["values"] == ["1", "7"] and data["axes"][0]["at"] == [0, 0, 0, 1, 1, 1]
    assert [line.label for line in arranged(sweep, records(store, sweep))[0].lines] == ["1", "7"]


def test_a_metric_that_is_not_there_is_named(made: Made, tmp_path: Path) -> None:
    store, sweep = made()
    with pytest.raises(BadInput, match=r"metric=pnsr: no such numbers; its pictures have .*did you mean 'psnr'\?"):
        write_grid(tmp_path, store, sweep, metric=["pnsr"])
    with pytest.raises(BadInput, match=r"blocks=sed: no such axis"):
        write_grid(tmp_path, store, sweep, blocks=["sed"])
    with pytest.raises(BadInput, match=r"rows=seed blocks=seed: one axis cannot be both"):
        write_grid(tmp_path, store, sweep, rows="seed", blocks=["seed"])


def numbered(**axes: list[Any]) -> dict[str, Any]:
    """A sweep over every combination of these axes."""
    cells = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
    return listed(axes, cells)


def listed(axes: dict[str, list[Any]], cells: list[dict[str, Any]]) -> dict[str, Any]:
    entries = [{"cell_id": f"{i:020x}", "axes": cell, "seed": 0} for i, cell in enumerate(cells)]
    return {"name": "numbered", "axes": axes, "cells": entries, "metrics": []}


def test_blocks_are_of_any_axes_in_the_order_asked_for() -> None:
    sweep = numbered(a=[1, 2], b=[3, 10], c=["x", "y"], seed=[0, 1])
    none = {cell["cell_id"]: None for cell in sweep["cells"]}
    found = arranged(sweep, none, blocks=["seed", "b"])
    assert [block.title for block in found] == [f"seed = {s}, b = {b}" for s in (0, 1) for b in (3, 10)]
    for block, (seed, b) in zip(found, product((0, 1), (3, 10)), strict=True):
        assert (block.rows, block.cols, block.columns) == ("a", "c", ("x", "y"))
        for a, line in zip((1, 2), block.lines, strict=True):
            for c, tile in line.tiles.items():
                own = next(cell for cell in sweep["cells"] if cell["cell_id"] == tile.cell_id)
                assert own["axes"] == {"a": a, "b": b, "c": "xy"[c], "seed": seed}


def scattered(number: int) -> dict[str, Any]:
    """A random search over three axes."""
    rng = random.Random(0)
    cells = [{axis: rng.random() for axis in ("guidance.scale", "mask.softness", "b")} for _ in range(number)]
    return listed({axis: [cell[axis] for cell in cells] for axis in cells[0]}, cells)


def test_a_random_search_is_laid_out_in_its_order_each_picture_above_its_setting(tmp_path: Path) -> None:
    sweep, store = scattered(37), Store(tmp_path)
    look = [(200, 5 * i + 2, 10) for i in range(37)]
    for cell, colour in zip(sweep["cells"], look, strict=True):
        store.save(cell["cell_id"], {"image": np.full((8, 8, 3), colour, np.uint8)}, {"config": {}, "metrics": {}})
    where = [places(pixels, colour) for pixels in [drawn(tmp_path, store, sweep)] for colour in look]
    assert all(n == 96 * 96 for _, _, n in where)
    assert [place[:2] for place in where] == sorted(place[:2] for place in where)  # from left to right, then below
    assert len({top for top, _, _ in where}) == 3
    (block,) = arranged(sweep, {cell["cell_id"]: None for cell in sweep["cells"]})
    assert block.title == "below each picture: guidance.scale, mask.softness, b"
    for cell, tile in zip(sweep["cells"], block.lines[0].tiles.values(), strict=True):
        scale, softness, b = cell["axes"].values()
        assert tile.below == (f"scale {scale:g}", f"softness {softness:g}", f"b {b:g}")


@pytest.mark.slow
@pytest.mark.parametrize("asked", [{}, {"rows": "b"}, {"rows": "b", "cols": "mask.softness"}, {"blocks": ["b"]}])
def test_a_large_random_search_is_laid_out_without_its_product(asked: dict[str, Any], tmp_path: Path) -> None:
    sweep = scattered(10_000)  # a product of 10 ** 12
    found = arranged(sweep, {cell["cell_id"]: None for cell in sweep["cells"]}, **asked)
    laid = sheet.Sheets(Store(tmp_path), "a large one", found)
    drawn = [tile for page in laid.pages for _, _, line in page if line for tile in line.tiles.values()]
    assert sorted(tile.cell_id for tile in drawn) == sorted(cell["cell_id"] for cell in sweep["cells"])
    assert max(laid.heights) + sheet.MARGIN <= sheet.SIDE and laid.width <= sheet.SIDE


def test_a_sheet_is_no_wider_than_it_may_be(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, sweep = made()
    monkeypatch.setattr(sheet, "SIDE", 360)
    found = set()
    for file in write_grid(tmp_path, store, sweep, rows="guidance.scale", cols="seed"):
        with Image.open(file) as image:
            assert max(image.size) <= 360
            pixels = np.asarray(image.convert("RGB"))
        found |= {key for key, colour in colours(sweep).items() if places(pixels, colour)[2] == 96 * 96}
    assert found == set(colours(sweep))


def test_pictures_larger_than_a_sheet_and_labels_without_end_do_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sheet, "SIDE", 200)
    sweep, store = numbered(prompt=["long " * 500, "words" * 500, "雪 $x$"], a=["w" * 300, "v"]), Store(tmp_path)
    for i, cell in enumerate(sweep["cells"]):
        picture = np.full((700, 300 + i, 3), (40 * i, 1, 2), np.uint8)
        store.save(cell["cell_id"], {"image": picture}, {"config": {}, "metrics": {}})
    seen = 0
    for file in write_grid(tmp_path, store, sweep):
        with Image.open(file) as image:
            pixels = np.asarray(image.convert("RGB"))
        seen += sum(places(pixels, (40 * i, 1, 2))[2] > 0 for i in range(6))
    assert seen == 6


def test_the_title_says_which_stage_made_the_pictures(tmp_path: Path, sheets: Shown) -> None:
    for number, upscales in enumerate(([None], [{"name": "a"}], [None, {"name": "b", "of": {"name": "a"}}])):
        sweep, store = numbered(a=list(range(len(upscales)))), Store(tmp_path / str(number))
        for cell, upscale in zip(sweep["cells"], upscales, strict=True):
            picture = np.zeros((16, 8, 3), np.uint8)
            store.save(cell["cell_id"], {"image": picture}, {"config": {"upscale": upscale}, "metrics": {}})
        write_grid(store.root, store, sweep)
    expected = ["", ", stage II, 8 x 16", ", stage I, 8 x 16 and stage III, 8 x 16"]
    assert [title for title, _ in sheets] == [f"numbered{end}" for end in expected]


def several(root: Path, prompts: tuple[str, str] = ("an old man", "a campfire")) -> tuple[Store, dict[str, Any]]:
    """An anagram's pictures: the first view is the picture itself."""
    sweep, store = numbered(guidance=[1, 2], seed=[0, 1]), Store(root)
    for i, cell in enumerate(sweep["cells"]):
        image, other = (np.full((8, 8, 3), (40 * i + k, 9, 9), np.uint8) for k in (10, 20))
        config = {"model": {"name": "deepfloyd", "path": "a/tiny"}, "technique": {"name": "anagram"}}
        config |= {"prompt": list(prompts), "guidance": {"scale": 1 + i}, "scheduler": {"steps": 20}}
        pictures = {"image": image, "view_0": image, "view_1": other, "step_000_noisy": other}
        store.save(cell["cell_id"], pictures, {"config": config, "metrics": {}})
    return store, sweep


def test_what_was_made_beside_the_picture_stands_beside_it(tmp_path: Path) -> None:
    store, sweep = several(tmp_path)
    pixels = drawn(tmp_path, store, sweep)
    for i in range(4):
        image, other = (places(pixels, (40 * i + k, 9, 9)) for k in (10, 20))
        assert image[2] == other[2] == 96 * 96
        assert image[0] == other[0] and image[1] + 96 < other[1] < image[1] + 96 + 10


def test_pictures_are_chosen_by_name(tmp_path: Path) -> None:
    store, sweep = several(tmp_path)
    pixels = drawn(tmp_path, store, sweep, pictures=["view_1"])
    assert [places(pixels, (10 + k, 9, 9))[2] for k in (0, 10)] == [0, 96 * 96]
    with pytest.raises(BadInput, match=r"pictures=veiw_1: .* have image, view_0, view_1; did you mean 'view_1'\?"):
        write_grid(tmp_path, store, sweep, pictures=["veiw_1"])


def test_a_hole_is_the_input_but_for_the_mask(tmp_path: Path) -> None:
    sweep, store = numbered(a=[1]), Store(tmp_path)
    mask = np.zeros((32, 32), np.uint8)
    mask[8:24, 8:24] = 255
    known = np.full((32, 32, 3), (1, 2, 3), np.uint8)
    pictures = {"image": np.full((32, 32, 3), 7, np.uint8), "input": known, "mask": mask}
    store.save(sweep["cells"][0]["cell_id"], pictures, {"config": {}, "metrics": {}})
    pixels = drawn(tmp_path, store, sweep, pictures=["hole", "image"])
    assert (pixels == (1, 2, 3)).all(-1).sum() == 9 * (2 * 32 * 32 - 16 * 16)  # the input, and the hole's surroundings


@pytest.mark.parametrize("size, side", [(8, 8), (100, 96), (300, 296)])
def test_a_pictures_size_is_a_multiple_of_its_own(made: Made, tmp_path: Path, size: int, side: int) -> None:
    store, sweep = made()
    pixels = drawn(tmp_path, store, sweep, size=size)
    assert {places(pixels, colour)[2] for colour in colours(sweep).values()} == {side * side}


def test_what_all_cells_share_is_told_below_the_title(tmp_path: Path, sheets: Shown) -> None:
    store, sweep = several(tmp_path)
    records = [store.record(cell["cell_id"])["config"] for cell in sweep["cells"]]
    told = "model tiny, technique anagram, steps 20, prompt an old man, a campfire"
    assert subtitle(records) == told
    assert subtitle(records, ["technique", "prompt"]) == "model tiny, steps 20"
    model = {"name": "checkpoint", "path": "some/where/sdxl/", "height": 512, "width": 768}
    file = {"model": model, "input": {"name": "file", "path": "photos/a dog.png"}, "scheduler": {"name": "euler"}}
    assert subtitle([file]) == "model sdxl 768 x 512, input a dog.png, scheduler euler"
    assert (
        subtitle([file, {**file, "model": {**model, "width": 512}}]) == "model sdxl, input a dog.png, scheduler euler"
    )
    assert subtitle([{**file, "input": {"name": "world", "id": "dog/photo/0"}}], ["model"]).startswith(
        "input dog/photo/0"
    )
    assert subtitle([]) == ""
    assert subtitle([{"prompt": empty} for empty in ("", "")]) == 'prompt ""'
    full, named, bare = (drawn(tmp_path, store, sweep, title=title) for title in (None, "mine", ""))
    assert full.shape[0] == named.shape[0] > bare.shape[0] + 2 * FONT
    assert [title for title, _ in sheets] == ["numbered", "mine", ""]


def test_a_pdf_has_a_page_a_sheet_and_its_pixels_unchanged(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, sweep = made()
    monkeypatch.setattr(sheet, "SIDE", 300)
    look = {"rows": "seed", "cols": "guidance.scale"}
    (file,) = write_grid(tmp_path, store, sweep, **look, file="a.pdf")
    data = file.read_bytes()
    images = [
        zlib.decompress(part)
        for part in re.findall(rb"/Subtype /Image.*?stream\r?\n(.*?)\r?\nendstream", data, re.DOTALL)
    ]
    assert len(re.findall(rb"/Type /Page\b", data)) == 3 and b"CreationDate" not in data and b"/DCTDecode" not in data
    assert len(images) == 3
    before = file.stat().st_mtime_ns
    assert write_grid(tmp_path, store, sweep, **look, file="a.pdf") == [file] and file.stat().st_mtime_ns == before
    with pytest.raises(BadInput, match=r"to=a.jpg: must end with .png or .pdf"):
        write_grid(tmp_path, store, sweep, file="a.jpg")


def test_a_picture_has_an_edge_on_the_paper(tmp_path: Path) -> None:
    sweep, store = numbered(a=[1]), Store(tmp_path)
    white = np.full((8, 8, 3), 255, np.uint8)
    store.save(sweep["cells"][0]["cell_id"], {"image": white}, {"config": {}, "metrics": {}})
    edge = (drawn(tmp_path, store, sweep) == tuple(bytes.fromhex(sheet.EDGE[1:]))).all(-1)
    assert [(edge.sum(side) >= 98).sum() for side in (0, 1)] == [2, 2]  # two lines across, two down


def test_prompts_that_differ_in_the_middle_have_labels_of_their_own(tmp_path: Path) -> None:
    prompts = [
        f"{'a very long prompt about a ' * 9}{word}{' seen by night from far away' * 9}" for word in ("cat", "dog")
    ]
    sweep = numbered(prompt=prompts, seed=[0])
    laid = sheet.Sheets(Store(tmp_path), "s", arranged(sweep, {cell["cell_id"]: None for cell in sweep["cells"]}))
    assert [word for word, label in zip(("cat", "dog"), laid.rows.values(), strict=True) if word in label] == [
        "cat",
        "dog",
    ]


# -- pictures that are not square --------------------------------------------------------------------------------------
@pytest.mark.parametrize("shape", [(6, 8), (8, 6)])
@pytest.mark.parametrize("size, by", [(None, 12), (64, 8)])
def test_a_tile_is_as_wide_and_as_high_as_its_picture(
    tmp_path: Path, shape: tuple[int, int], size: int | None, by: int
) -> None:
    """Two rows and two columns of one colour each: rectangles of the pictures' proportions, one gap apart."""
    tints = {(scale, seed): (10 + int(scale) * 20, seed * 50, 90) for scale in (1.0, 7.0) for seed in (0, 1)}
    cells = [
        {
            "axes": {"guidance.scale": scale, "seed": seed},
            "seed": seed,
            "colour": tint,
            "metrics": metrics(20.0, 0.1) if (scale, seed) != (7.0, 1) else None,
            "pictures": {"image": np.full((*shape, 3), tint, np.uint8)},
        }
        for (scale, seed), tint in tints.items()
    ]
    sweep = stored(tmp_path, {"guidance.scale": [1.0, 7.0], "seed": [0, 1]}, cells)
    seen = drawn(tmp_path, Store(tmp_path), sweep, size=size)
    height, width = (side * by for side in shape)
    where = {key: places(seen, tint) for key, tint in tints.items()}
    for key in [(1.0, 0), (1.0, 1), (7.0, 0)]:
        top, left, number = where[key]
        assert number == height * width
        assert (seen[top : top + height, left : left + width] == tints[key]).all()
    assert where[7.0, 0][0] - where[1.0, 0][0] == height + sheet.GAP
    assert where[1.0, 1][1] - where[1.0, 0][1] == width + sheet.GAP
    grey = tuple(int(sheet.GREY[i : i + 2], 16) for i in (1, 3, 5))
    top, left = where[7.0, 0][0], where[1.0, 1][1]  # the failed one
    assert (seen[top, left : left + width] == grey).all() and (seen[top : top + height, left] == grey).all()
    assert (seen[top + height, left] != grey).any() and (seen[top, left + width] != grey).any()


def test_pictures_of_two_proportions_share_a_sheet_undistorted(tmp_path: Path) -> None:
    tints = {0: (30, 60, 90), 1: (90, 60, 30)}
    shapes = {0: (6, 8), 1: (8, 4)}
    cells = [
        {
            "axes": {"seed": seed},
            "seed": seed,
            "colour": tint,
            "metrics": metrics(20.0, 0.1),
            "pictures": {"image": np.full((*shapes[seed], 3), tint, np.uint8)},
        }
        for seed, tint in tints.items()
    ]
    seen = drawn(tmp_path, Store(tmp_path), stored(tmp_path, {"seed": [0, 1]}, cells))
    for seed, (height, width) in shapes.items():
        top, left, number = places(seen, tints[seed])
        assert number == 144 * height * width
        assert (seen[top : top + 12 * height, left : left + 12 * width] == tints[seed]).all()
