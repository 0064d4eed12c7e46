"""Pictures that are not square, run for real: against the same numbers in a square, and against closed forms."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from diffsweep.core.problems import BadInput
from diffsweep.core.process import named_table
from diffsweep.core.streams import MAIN, Streams
from diffsweep.runner.freeze import freeze
from diffsweep.runner.ingredients import to_pixels, to_tensor
from diffsweep.runner.plan import Raw
from diffsweep.store.cells import Store
from tests.running import run_sweep

Oblong = Callable[..., dict[str, Any]]
RNG = np.random.default_rng(5)
PICTURE = RNG.integers(0, 256, (9, 16, 3), dtype=np.uint8)
SQUARE = 12, 12  # as many pixels as 9 x 16


@pytest.fixture
def run(oblong: Oblong, tmp_path: Path) -> Callable[..., tuple[Store, list[str]]]:
    """The store and the cells' ids of a sweep over seeds."""

    def swept(name: str, seeds: tuple[int, ...] = (0,), **changes: Any) -> tuple[Store, list[str]]:
        held = {"scheduler__steps": 5, "output_dir": str(tmp_path / "outputs"), "prompt": "red", **changes}
        raw: list[Raw] = [(oblong(**held, seed=seed), {"seed": seed}) for seed in seeds]
        outcome = run_sweep(raw, name)
        cells = json.loads((outcome.folder / "sweep.json").read_text())["cells"]
        assert [cell["reason"] for cell in cells] == [None] * len(seeds)
        return Store(tmp_path / "outputs"), [cell["cell_id"] for cell in cells]

    return swept


def saved(path: Path, pixels: np.ndarray) -> str:
    Image.fromarray(pixels).save(path)
    return str(path)


def in_row(pixels: np.ndarray) -> np.ndarray:
    return pixels.reshape(144, *pixels.shape[2:])


@pytest.mark.parametrize("technique", ["text_to_image", "image_to_image", "inpaint", "iterative_denoise"])
def test_a_model_of_single_pixels_makes_the_same_ones_in_any_shape(run: Any, tmp_path: Path, technique: str) -> None:
    """Noise comes row by row: the same numbers are laid out 9 x 16, 16 x 9 and 12 x 12."""
    known = RNG.integers(0, 2, 144, dtype=np.uint8) * 255
    found = []
    for height, width in [(9, 16), (16, 9), SQUARE]:
        name = f"{technique}_{height}"
        changes: dict[str, Any] = {"technique": technique, "height": height, "width": width}
        if technique != "text_to_image":
            path = saved(tmp_path / f"{name}.png", PICTURE.reshape(height, width, 3))
            changes |= {"input": "file", "input__path": path}
        if technique == "inpaint":
            changes |= {
                "mask": "file",
                "mask__path": saved(tmp_path / f"{name}_mask.png", known.reshape(height, width)),
            }
        store, ids = run(name, (0, 1), **changes)
        pictures = [store.pixels(cell_id) for cell_id in ids]
        assert {picture.shape for picture in pictures} == {(height, width, 3)}
        found.append([in_row(picture) for picture in pictures])
        if technique == "inpaint":
            np.testing.assert_array_equal(found[-1][0][known == 0], in_row(PICTURE)[known == 0])
            assert (found[-1][0][known > 0] != in_row(PICTURE)[known > 0]).any()
    np.testing.assert_array_equal(found[0], found[2])
    np.testing.assert_array_equal(found[1], found[2])
    assert (found[0][0] != found[0][1]).any()


def test_a_softened_box_is_stored_as_its_shares_say_and_keeps_what_is_known(run: Any) -> None:
    box = {"mask__x0": 0.25, "mask__x1": 0.5, "mask__y0": 0.0, "mask__y1": 0.5}
    store, (cell_id,) = run("box", technique="inpaint", input="world", mask="box", mask__softness=2.0, **box)
    x, y = (np.arange(16) + 0.5) / 16, (np.arange(9) + 0.5) / 9
    region = np.outer(y <= 0.5, (x >= 0.25) & (x <= 0.5))  # 4 of 16 columns, the middle row among the rows
    assert region.sum() == 4 * 5
    np.testing.assert_array_equal(store.pixels(cell_id, "hard_mask"), region * np.uint8(255))
    mask, image, clean = (store.pixels(cell_id, name) for name in ("mask", "image", "input"))
    assert {64, 191} <= set(mask[2].tolist())  # half a pixel from the edge, of a band two pixels wide
    np.testing.assert_array_equal(image[mask == 0], clean[mask == 0])
    assert (mask == 0).any() and (mask == 255).any()


def test_a_blur_is_scipys(run: Any) -> None:
    settings = {"technique__t": 40, "technique__sigma": 0.8}
    store, (cell_id,) = run("blur", technique="gaussian_denoise", input="drawing", **settings)
    level = named_table("squaredcos_cap_v2").level(40)
    clean = to_tensor(store.pixels(cell_id, "input"), "cpu")
    noisy = level.noised(clean, Streams(0, "cpu").normal(MAIN, (3, 9, 16)))
    blurred = [gaussian_filter(plane, 0.8, mode="mirror", truncate=3 / 0.8) for plane in noisy.double().numpy()]
    expected = to_pixels(torch.tensor(np.stack(blurred)).float()).astype(int)
    assert np.abs(store.pixels(cell_id) - expected).max() <= 1


def test_a_hybrids_low_band_is_its_blur_and_an_anagrams_view_its_flip(run: Any) -> None:
    hybrid = {"technique": "hybrid", "technique__sigma": 1.0, "technique__kernel": 7, "prompt": "green"}
    store, (cell_id,) = run("hybrid", **hybrid)
    image = store.pixels(cell_id).astype(float)
    low = np.stack([gaussian_filter(image[..., c], 1.0, mode="mirror", truncate=3.0) for c in range(3)], axis=-1)
    inner = (image > 0) & (image < 255)
    assert inner.mean() > 0.9 and np.abs(store.pixels(cell_id, "low") - low)[inner].mean() < 1
    for view, turned in [("flip", np.flipud), ("rotate", lambda x: x[::-1, ::-1])]:
        store, (cell_id,) = run(view, technique="anagram", view=view)
        np.testing.assert_array_equal(store.pixels(cell_id, "view_1"), turned(store.pixels(cell_id)))


@pytest.mark.parametrize("view, angle", [("jigsaw", None), ("permute", None), ("rotate", 90), ("rotate", 270)])
def test_a_view_of_squares_alone_is_refused_with_the_way_out(oblong: Oblong, view: str, angle: int | None) -> None:
    changes = {"technique": "anagram", "view": view} | ({"view__angle": angle} if angle else {})
    told = (
        rf"^view={view}: shows squares alone, and the model's picture is 16 x 8; identity, flip, .*angle=180 show any$"
    )
    with pytest.raises(BadInput, match=told):
        freeze(oblong(8, 16, **changes), {})
    assert freeze(oblong(8, 8, **changes), {}).stage.size == (8, 8)


def test_input_and_mask_have_the_pictures_size_where_the_models_own_is_smaller(oblong: Oblong) -> None:
    raw = oblong(9, 16, technique="inpaint", input="world", mask="half")
    raw["model"]["factor"] = 4
    cell = freeze(raw, {})
    assert cell.stage.size == cell.mask.shape == cell.hard_mask.shape == (36, 64)
    assert cell.pixels.shape == (36, 64, 3) and (cell.mask[:, 32:] == 255).all() and not cell.mask[:, :32].any()


def test_a_cascade_of_other_proportions_is_refused(oblong: Oblong) -> None:
    raw = oblong(12, 16, technique="text_to_image", upscale="tiny")
    with pytest.raises(
        BadInput, match=r"upscale\.path=.*gives 64 x 64, and the picture, 16 x 12, has other proportions"
    ):
        freeze(raw, {})


def test_the_metrics_sheet_and_page_of_such_a_sweep(run: Any, tmp_path: Path) -> None:
    changes = {"technique": "image_to_image", "input": "world", "metric": "default"}
    store, ids = run("shown", (0, 1), **changes)
    folder = tmp_path / "outputs/sweeps/shown"
    with (folder / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    for cell_id, row in zip(ids, rows, strict=True):
        apart = store.pixels(cell_id).astype(float) - store.pixels(cell_id, "input")
        assert float(row["psnr"]) == pytest.approx(10 * np.log10(255**2 / (apart**2).mean()), abs=1e-3)
        assert 0 < float(row["ssim"]) < 1
    with Image.open(folder / "grid.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    large = store.pixels(ids[0]).repeat(6, 0).repeat(6, 1)  # 16 pixels come to 96
    windows = np.lib.stride_tricks.sliding_window_view(pixels, large.shape)
    assert sum((window == large).all() for row in windows[..., 0, :, :, :] for window in row) == 1
    assert ids[0] in (folder / "report.html").read_text()
