"""Metrics of a set against their formulas, and what sweep.json keeps of them."""

from __future__ import annotations

import os
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.linalg import sqrtm

from diffsweep.core.problems import BadInput
from diffsweep.metric import Batch, Options, Score, choose, score_sets
from diffsweep.metric.diversity import Diversity
from diffsweep.metric.settings import replicates
from diffsweep.model.clip import Clip
from diffsweep.store.cells import Store
from diffsweep.world import SCENES, STYLES, picture
from tests.rewriting import rewrite

IMAGES = np.stack([picture(scene, "photo", 1).pixels for scene in SCENES[:8]])
OTHERS = np.stack([picture(scene, "sketch", 3).pixels for scene in SCENES[:8]])


def embedded(pictures: np.ndarray) -> np.ndarray:
    return Clip().network().of_pictures(pictures).double().numpy()


def chosen(name: str, **options: Any) -> Any:
    (metric,) = choose([name], Options(**options)).of_sets
    return metric


def test_the_seed_and_the_input_repeat_a_setting() -> None:
    assert replicates(["guidance.scale", "seed", "input.id", "input", "inputs", "mask"]) == [
        "seed",
        "input.id",
        "input",
    ]


# -- diversity ---------------------------------------------------------------------------------------------------------
def by_hand(pictures: np.ndarray, kind: str) -> float:
    if kind == "clip":
        return float(np.mean([1 - a @ b for a, b in combinations(embedded(pictures), 2)]))
    return float(np.mean([((a - b) ** 2).mean() ** 0.5 for a, b in combinations(pictures.astype(float), 2)]))


@pytest.mark.parametrize("kind", ["pixels", "clip"])
def test_diversity_is_the_mean_of_all_pairs_of_an_input_then_of_inputs(kind: Any) -> None:
    inputs = ("a", "b", "b", "a", "b", "c", "a", "a")  # c has one seed, hence no pair
    expected = np.mean([by_hand(IMAGES[[i == name for i in inputs]], kind) for name in ("a", "b")])
    score = Diversity(kind).together(Batch(IMAGES, inputs=inputs))
    assert score.value == pytest.approx(expected, abs=1e-5)


def test_equal_pictures_have_no_diversity_and_one_has_none_to_tell() -> None:
    same = Batch(IMAGES[[0, 0, 0]], inputs=("a", "a", "a"))
    assert Diversity("pixels").together(same).value == 0
    alone = Diversity("pixels").together(Batch(IMAGES[:1], inputs=("a",)))
    assert (alone.value, alone.reason) == (None, "two seeds or more are needed")


def test_diversity_by_lpips_is_lpips_of_the_pairs(backbones: None) -> None:
    from diffsweep.metric.perceptual import Perceptual

    first, second = (np.stack(side) for side in zip(*combinations(IMAGES[:4], 2), strict=True))
    expected = np.mean([score.value for score in Perceptual("lpips_alex")(Batch(first, second))])  # type: ignore[misc]
    score = Diversity("lpips").together(Batch(IMAGES[:4], inputs=("a",) * 4))
    assert score.value == pytest.approx(expected, abs=1e-5)


# -- FID and KID -------------------------------------------------------------------------------------------------------
def fid(x: np.ndarray, y: np.ndarray) -> float:
    """Heusel et al. (6)."""
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = sqrtm(a @ b).real
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(a + b - 2 * root))


def kid(x: np.ndarray, y: np.ndarray) -> float:
    """Binkowski et al. (4): the unbiased estimate, with the kernel (x.y / d + 1)^3."""
    n, d = x.shape

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a @ b.T / d + 1) ** 3

    within = sum((k.sum() - np.trace(k)) / (n * (n - 1)) for k in (kernel(x, x), kernel(y, y)))
    return float(within - 2 * kernel(x, y).mean())


def test_fid_and_kid_against_the_inputs_are_their_formulas_on_clips_embedding() -> None:
    batch = Batch(IMAGES, OTHERS)
    assert chosen("fid").together(batch).value == pytest.approx(fid(embedded(OTHERS), embedded(IMAGES)), abs=1e-4)
    assert chosen("kid").together(batch).value == pytest.approx(kid(embedded(OTHERS), embedded(IMAGES)), abs=1e-5)


def test_a_number_of_few_pictures_says_so_and_at_what_number_that_ends() -> None:
    batch = Batch(IMAGES, OTHERS)
    fault = "below 2,048 it is too high, the more so the fewer: compare equal numbers alone"
    assert chosen("fid").together(batch).note == f"of 8 pictures against 8 references; {fault}"
    assert chosen("kid").together(batch).note == "of 8 pictures against 8 references; below 2,048 it scatters widely"
    assert chosen("fid").definition()["note_below"] == 2048
    assert chosen("fid").caveat(2047).startswith("of 2047 pictures; below") and chosen("fid").caveat(2048) is None
    assert chosen("fid").caveat(5000, 24).startswith("of 5000 pictures against 24 references;")


def test_an_input_counts_once_among_the_references() -> None:
    once = chosen("fid").together(Batch(IMAGES, OTHERS))
    doubled = chosen("fid").together(Batch(IMAGES[[*range(8), 0]], OTHERS[[*range(8), 0]]))
    expected = fid(embedded(OTHERS), embedded(IMAGES[[*range(8), 0]]))
    assert doubled.value == pytest.approx(expected, abs=1e-4) and doubled.value != once.value


def test_a_folder_is_the_reference_set(tmp_path: Path) -> None:
    for number, pixels in enumerate(OTHERS):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    metric = chosen("fid", references=str(tmp_path))
    assert metric.needs == frozenset()
    assert metric.together(Batch(IMAGES)).value == pytest.approx(fid(embedded(OTHERS), embedded(IMAGES)), abs=1e-4)
    before = metric.definition()
    assert before["references"].startswith("8 pictures, SHA-256 ")
    Image.fromarray(IMAGES[0]).save(tmp_path / "0.png")
    assert metric.definition() != before


def test_the_worlds_held_out_pictures_are_a_reference_set() -> None:
    drawn = [picture(s, style, 2 * n + 1).pixels for n in range(4) for s in SCENES for style in STYLES]
    value = chosen("fid", references="world").together(Batch(IMAGES)).value
    assert value == pytest.approx(fid(embedded(np.stack(drawn)), embedded(IMAGES)), abs=1e-4)


def test_the_worlds_pictures_have_the_proportions_of_those_compared_with_them() -> None:
    """The middle of each square as large as the longer side."""
    ours = IMAGES[:, 4:28]
    drawn = [picture(s, style, 2 * n + 1).pixels[4:28] for n in range(4) for s in SCENES for style in STYLES]
    value = chosen("fid", references="world").together(Batch(ours)).value
    assert value == pytest.approx(fid(embedded(np.stack(drawn)), embedded(ours)), abs=1e-4)


def test_a_reference_set_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"^metric fid: metric\.references=nowhere: must be inputs, world or a folder"):
        choose(["fid"], Options(references="nowhere"))
    with pytest.raises(BadInput, match="two pictures or more are needed, there are 0"):
        choose(["fid"], Options(references=str(tmp_path)))


def test_a_lone_picture_has_no_distance_and_says_why() -> None:
    score = chosen("fid").together(Batch(IMAGES[:1], OTHERS[:1]))
    assert (score.value, score.reason) == (None, "two pictures and two references are needed, not 1 and 1")


# -- what sweep.json keeps ---------------------------------------------------------------------------------------------
def swept(root: Path, **more: Any) -> tuple[Store, dict[str, Any]]:
    """Two scales x two inputs x two seeds."""
    store, cells = Store(root), []
    for number, (scale, which, seed) in enumerate((g, i, s) for g in (1.0, 7.0) for i in "ab" for s in (0, 1)):
        cell_id = f"{number:020x}"
        store.save(cell_id, {"image": IMAGES[number], **more}, {"metrics": {}, "config": {}})
        axes = {"guidance.scale": scale, "input.id": which, "seed": seed}
        cells.append({"cell_id": cell_id, "axes": axes, "seed": seed})
    return store, {"axes": {"guidance.scale": [1.0, 7.0], "input.id": ["a", "b"], "seed": [0, 1]}, "cells": cells}


def test_a_set_is_a_settings_pictures(tmp_path: Path) -> None:
    store, sweep = swept(tmp_path)
    sets = score_sets(store, sweep, [Diversity("pixels")])
    first, second = sets["diversity_pixels"]["values"]
    assert first["axes"] == {"guidance.scale": 1.0} and second["axes"] == {"guidance.scale": 7.0}
    for entry, images in ((first, IMAGES[:4]), (second, IMAGES[4:])):
        expected = np.mean([by_hand(images[:2], "pixels"), by_hand(images[2:], "pixels")])
        assert (entry["cells"], entry["value"]) == (4, pytest.approx(expected, abs=1e-5))
    assert sets["diversity_pixels"]["definition"] == Diversity("pixels").definition()


def test_a_sets_number_is_kept_until_its_pictures_or_its_definition_change(tmp_path: Path) -> None:
    store, sweep = swept(tmp_path)
    sweep["sets"] = score_sets(store, sweep, [Diversity("pixels")])
    for entry in sweep["sets"]["diversity_pixels"]["values"]:
        entry["value"] = 999.0
    again = score_sets(store, sweep, [Diversity("pixels")])
    assert [entry["value"] for entry in again["diversity_pixels"]["values"]] == [999.0, 999.0]
    assert score_sets(store, sweep, []) == sweep["sets"]
    sweep["cells"].pop()
    values = [entry["value"] for entry in score_sets(store, sweep, [Diversity("pixels")])["diversity_pixels"]["values"]]
    assert values[0] == 999.0 and values[1] < 999.0
    sweep["sets"]["diversity_pixels"]["definition"]["metric"] = "another"
    assert score_sets(store, sweep, [Diversity("pixels")])["diversity_pixels"]["values"][0]["value"] < 999.0


def test_a_set_that_lacks_what_is_needed_has_no_number_and_says_why(tmp_path: Path) -> None:
    store, sweep = swept(tmp_path)
    (entry, _) = score_sets(store, sweep, [chosen("fid")])["fid"]["values"]
    assert entry["value"] is None and entry["reason"] == "pictures without a clean input"


def test_numbers_of_pictures_that_are_no_more_are_dropped(tmp_path: Path) -> None:
    """Also of metrics that are not asked for again: seeds that came or went, pictures that are others."""
    store, sweep = swept(tmp_path)
    sweep["sets"] = score_sets(store, sweep, [Diversity("pixels")])
    fewer = sweep | {"cells": sweep["cells"][1:]}
    (left,) = score_sets(store, fewer, [])["diversity_pixels"]["values"]
    assert left["axes"] == {"guidance.scale": 7.0}
    other = store.record(sweep["cells"][0]["cell_id"])["files"] | {"image.png": "0" * 64}
    rewrite(store, sweep["cells"][0]["cell_id"], files=other)
    (left,) = score_sets(store, sweep, [])["diversity_pixels"]["values"]
    assert left["axes"] == {"guidance.scale": 7.0}
    assert len(score_sets(store, sweep, [Diversity("pixels")])["diversity_pixels"]["values"]) == 2


def test_two_settings_of_the_same_pictures_have_both_their_number(tmp_path: Path) -> None:
    store, sweep = swept(tmp_path)
    for first, second in zip(sweep["cells"][:4], sweep["cells"][4:], strict=True):
        second["cell_id"] = first["cell_id"]
    sets = score_sets(store, sweep, [Diversity("pixels")])
    for found in (sets, score_sets(store, {**sweep, "sets": sets}, [])):
        first, second = found["diversity_pixels"]["values"]
        assert first["value"] == second["value"] and first["axes"] != second["axes"]


def test_what_had_no_number_is_tried_again(tmp_path: Path) -> None:
    store, sweep = swept(tmp_path)
    file = store.folder(sweep["cells"][0]["cell_id"]) / "image.png"
    content, state = file.read_bytes(), file.stat()
    file.write_bytes(content[:-20] + b"damage" + content[-14:])
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))  # nothing but reading it shows the damage
    sweep["sets"] = score_sets(store, sweep, [Diversity("pixels")])
    (entry, _) = sweep["sets"]["diversity_pixels"]["values"]
    assert (entry["value"], entry["reason"]) == (None, "pictures that cannot be read")
    file.write_bytes(content)
    (entry, _) = score_sets(store, sweep, [Diversity("pixels")])["diversity_pixels"]["values"]
    assert entry["value"] > 0 and "reason" not in entry


def test_an_axis_that_a_cell_lacks_is_none(tmp_path: Path) -> None:
    store, sweep = swept(tmp_path)
    sweep["axes"]["prompt"] = ["a dog"]
    (entry, _) = score_sets(store, sweep, [Diversity("pixels")])["diversity_pixels"]["values"]
    assert entry["axes"] == {"guidance.scale": 1.0, "prompt": None}


@pytest.mark.parametrize(("n", "m", "d"), [(8, 5, 40), (30, 12, 6), (5, 60, 24)])
def test_fid_and_kid_at_any_numbers_and_widths(n: int, m: int, d: int) -> None:
    """Against scipy's matrix root and, for equal numbers, torchmetrics' own."""
    import torch
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import poly_mmd

    from diffsweep.metric import distribution

    rng = np.random.default_rng(n)
    x, y = rng.normal(size=(n, d)), rng.normal(0.3, 1.4, size=(m, d))
    a, b = torch.from_numpy(x), torch.from_numpy(y)
    assert distribution.fid(a, b) == pytest.approx(fid(x, y), rel=1e-5, abs=1e-5)
    features: Any = torch.nn.Identity()
    features.num_features = d
    theirs = FrechetInceptionDistance(features).set_dtype(torch.float64)
    theirs.update(a, real=True)
    theirs.update(b, real=False)
    assert distribution.fid(a, b) == pytest.approx(theirs.compute().item(), rel=1e-4, abs=1e-4)

    def kernel(p: np.ndarray, q: np.ndarray) -> np.ndarray:
        return (p @ q.T / d + 1) ** 3

    terms = [(kernel(z, z).sum() - np.trace(kernel(z, z))) / (len(z) * (len(z) - 1)) for z in (x, y)]
    assert distribution.kid(a, b) == pytest.approx(sum(terms) - 2 * kernel(x, y).mean())
    few = min(n, m)
    assert distribution.kid(a[:few], b[:few]) == pytest.approx(poly_mmd(a[:few], b[:few]).item())


def test_a_folder_that_changed_is_read_again(tmp_path: Path) -> None:
    for number, pixels in enumerate(OTHERS):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    before = chosen("fid", references=str(tmp_path)).together(Batch(IMAGES))
    Image.fromarray(IMAGES[0]).save(tmp_path / "0.png")
    after = chosen("fid", references=str(tmp_path)).together(Batch(IMAGES))
    expected = fid(embedded(np.stack([IMAGES[0], *OTHERS[1:]])), embedded(IMAGES))
    assert before.value != after.value == pytest.approx(expected, abs=1e-4)
    (tmp_path / "1.png").write_bytes(b"no picture")
    with pytest.raises(BadInput, match=r"metric\.references: .*1\.png cannot be read"):
        choose(["fid"], Options(references=str(tmp_path)))


# -- what a set metric of a user's is given ----------------------------------------------------------------------------
class Covered:
    """The share of each picture that its masks cover, and what else it was given."""

    name, direction = "covered", "lower"
    needs = frozenset({"mask", "hard_mask", "low", "views", "prompt"})

    def __init__(self) -> None:
        self.given: list[Batch] = []

    def definition(self) -> dict[str, Any]:
        return {"metric": "covered", "direction": self.direction}

    def together(self, batch: Batch) -> Score:
        self.given.append(batch)
        assert batch.masks is not None
        return Score(float(batch.masks.mean() / 255))


def test_a_set_metric_gets_all_that_it_needs_and_is_asked_again_where_that_changed(tmp_path: Path) -> None:
    store, metric = Store(tmp_path), Covered()
    mask = np.zeros((8, 8), np.uint8)
    mask[:2] = 255
    pictures = {name: np.full((8, 8, 3), k, np.uint8) for k, name in enumerate(("image", "low", "view_0", "view_1"))}
    cells = []
    for seed in (0, 1):
        record = {"metrics": {}, "config": {"prompt": [f"a {seed}", "b"]}}
        store.save(f"{seed:020x}", {**pictures, "mask": mask, "hard_mask": mask}, record)
        cells.append({"cell_id": f"{seed:020x}", "axes": {"seed": seed}, "seed": seed})
    sweep: dict[str, Any] = {"axes": {"seed": [0, 1]}, "cells": cells}
    sweep["sets"] = score_sets(store, sweep, [metric])  # type: ignore[list-item]
    (entry,) = sweep["sets"]["covered"]["values"]
    assert entry["value"] == 0.25
    (batch,) = metric.given
    assert batch.prompts == ("a 0", "a 1") and batch.all_prompts == (("a 0", "b"), ("a 1", "b"))
    assert batch.views is not None and batch.views.shape == (2, 2, 8, 8, 3) and (batch.views[:, 1] == 3).all()
    assert batch.lows is not None and (batch.lows == 1).all() and batch.references is None
    assert batch.hard_masks is not None and (batch.hard_masks == mask).all()
    score_sets(store, sweep, [metric])  # type: ignore[list-item]
    assert len(metric.given) == 1
    for cell in cells:
        place = store.folder(cell["cell_id"])
        (place / "record.json").unlink()
        record = {"metrics": {}, "config": {"prompt": ["a", "b"]}}
        store.save(cell["cell_id"], {**pictures, "mask": 255 - mask, "hard_mask": mask}, record)
    (entry,) = score_sets(store, sweep, [metric])["covered"]["values"]  # type: ignore[list-item]
    assert entry["value"] == 0.75
