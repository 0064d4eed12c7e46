"""Metrics against their formulas in numpy, and the second pass over a store on disk."""

from __future__ import annotations

import hashlib
import json
import math
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from diffsweep.core.failures import Failures
from diffsweep.core.problems import BadInput
from diffsweep.metric import Batch, Options, Score, choose, defined, known
from diffsweep.metric import score as measure
from diffsweep.metric.batch import REGIONS
from diffsweep.metric.psnr import Psnr
from diffsweep.metric.ssim import Ssim
from diffsweep.store.cells import Store
from tests.rewriting import rewrite

SIDE = 60
RNG = np.random.default_rng(9)
REFERENCES = RNG.integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)
# three masks with all three regions, each elsewhere, and each wider than SSIM's window; and before softening
COLUMNS = np.stack([np.roll(np.repeat([0, 90, 200, 255], 15).astype(np.uint8), 9 * k) for k in range(3)])
MASKS = np.ascontiguousarray(np.broadcast_to(COLUMNS[:, None], (3, SIDE, SIDE)))
HARD_MASKS = np.where(MASKS >= 200, 255, 0).astype(np.uint8)
WHERE: dict[str | None, Callable[[np.ndarray], np.ndarray]] = {
    None: lambda m: np.full(m.shape, True),
    "inside": lambda m: m == 255,
    "outside": lambda m: m == 0,
    "edge": lambda m: (m > 0) & (m < 255),
    "masked": lambda m: m >= 200,
    "unmasked": lambda m: m < 200,
}


def disturbed(*strengths: float) -> np.ndarray:
    """The references under noise of these strengths."""
    noise = np.random.default_rng(2).normal(size=REFERENCES.shape)
    noisy = REFERENCES + noise * np.array(strengths)[:, None, None, None]
    return noisy.round().clip(0, 255).astype(np.uint8)


IMAGES = disturbed(4, 12, 40)
PROMPTS = ("a photo of a dog", "a red circle", "a sketch of an owl")
ALL_PROMPTS = tuple((prompt, "a photo of a skull") for prompt in PROMPTS)
VIEWS = np.stack([IMAGES, IMAGES[:, ::-1]], axis=1)
LOWS = np.stack([gaussian_filter(image.astype(float), (2, 2, 0)).round().astype(np.uint8) for image in IMAGES])


def rows(which: Any) -> Batch:
    """Some of the three pictures, with all that a metric may need."""
    prompts, every = (tuple(np.array(texts, dtype=object)[which]) for texts in (PROMPTS, [*map("|".join, ALL_PROMPTS)]))
    stacks = (np.ascontiguousarray(stack[which]) for stack in (IMAGES, REFERENCES, MASKS))
    several = tuple(tuple(texts.split("|")) for texts in every)
    views, lows, hard = (np.ascontiguousarray(stack[which]) for stack in (VIEWS, LOWS, HARD_MASKS))
    return Batch(*stacks, prompts, several, views, lows, hard_masks=hard)


BATCH = rows(slice(None))
# those that judge each picture, and need neither weights of others nor large pictures
PLAIN = [name for name, metric in known().items() if not hasattr(metric, "together") and not hasattr(metric, "missing")]
PLAIN.remove("ms_ssim")


def values(metric: Any, batch: Batch = BATCH) -> list[float]:
    scores = [result.value for result in metric(batch)]
    assert all(value is not None for value in scores)
    return scores


def psnr(image: np.ndarray, reference: np.ndarray, region: np.ndarray) -> float:
    difference = image[region].astype(float) - reference[region]
    return 20 * math.log10(255 / math.sqrt((difference**2).mean()))


def similarity(image: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Wang et al. (13) at each pixel and channel, with moments under a Gaussian window."""

    def mean(x: np.ndarray) -> np.ndarray:
        return gaussian_filter(x, 1.5, radius=5, mode="mirror", axes=(0, 1))

    x, y = image.astype(float), reference.astype(float)
    mx, my = mean(x), mean(y)
    xx, yy, xy = mean(x * x) - mx * mx, mean(y * y) - my * my, mean(x * y) - mx * my
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    return (2 * mx * my + c1) * (2 * xy + c2) / ((mx**2 + my**2 + c1) * (xx + yy + c2))


def score(store: Store, ids: Sequence[str], names: Iterable[str], plugins: tuple[str, ...] = ()) -> int:
    return measure(store, ids, choose(names, Options(plugins=plugins)).metrics)


# -- every metric ----------------------------------------------------------------------------------------------------
@pytest.fixture(params=PLAIN)
def metric(request: pytest.FixtureRequest) -> Any:
    return known()[request.param]


@pytest.mark.parametrize("name", known())
def test_every_metric_says_what_it_is(name: str, backbones: None) -> None:
    metric = known()[name]
    definition = metric.definition()
    assert json.loads(json.dumps(definition, allow_nan=False)) == definition
    assert definition["direction"] == metric.direction in ("higher", "lower")
    assert metric.needs <= {"reference", "mask", "hard_mask", "prompt", "views", "low"}


def test_no_two_metrics_have_one_definition(backbones: None) -> None:
    definitions = [json.dumps(metric.definition(), sort_keys=True) for metric in known().values()]
    assert len(set(definitions)) == len(definitions)


def test_every_metric_scores_each_picture_for_itself(metric: Any) -> None:
    alone = [metric(rows(slice(k, k + 1)))[0] for k in range(3)]
    assert metric(BATCH) == alone
    assert metric(rows(slice(None, None, -1))) == alone[::-1]


@pytest.fixture(params=[name for name in PLAIN if "reference" in known()[name].needs])
def fidelity(request: pytest.FixtureRequest) -> Any:
    """The metrics that compare with a reference."""
    return known()[request.param]


def test_every_metrics_direction_is_that_of_less_noise(fidelity: Any) -> None:
    metric = fidelity
    ordered = sorted(values(metric), reverse=metric.direction == "higher")
    assert values(metric) == ordered and len(set(ordered)) == 3


def test_every_regions_metric_is_blind_to_the_other_regions(fidelity: Any) -> None:
    metric = fidelity
    elsewhere = ~BATCH.region(metric.region)
    changed = IMAGES.copy()
    changed[elsewhere] = 255 - changed[elsewhere]
    assert values(metric, Batch(changed, REFERENCES, MASKS, hard_masks=HARD_MASKS)) == values(metric)


# -- PSNR ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("region", WHERE)
def test_psnr_is_its_formula_for_each_picture(region: str | None) -> None:
    expected = [psnr(i, r, WHERE[region](m)) for i, r, m in zip(IMAGES, REFERENCES, MASKS, strict=True)]
    np.testing.assert_allclose(values(Psnr(region)), expected, rtol=0, atol=1e-5)  # torchmetrics' constants are float32


def test_psnr_worked_out_by_hand() -> None:
    """A difference of 5 everywhere: 20 log10(255 / 5) = 20 log10(51) = 34.1514 dB; of 255: 0 dB."""
    grey = np.full((2, 4, 4, 3), 100, np.uint8)
    other = np.stack([grey[0] + 5, grey[1]])
    grey[1], other[1] = 0, 255
    assert values(Psnr(), Batch(grey, other)) == [pytest.approx(34.151404, abs=1e-5), 0.0]


def test_the_mean_over_pictures_is_not_that_of_their_pooled_error() -> None:
    pooled = 10 * math.log10(255**2 / ((IMAGES.astype(float) - REFERENCES) ** 2).mean())
    assert np.mean(values(Psnr())) > pooled + 3


@pytest.mark.parametrize("region", WHERE)
def test_an_equal_picture_is_exact_and_has_no_number(region: str | None) -> None:
    images = np.stack([REFERENCES[0], IMAGES[1]])
    first, second = Psnr(region)(Batch(images, REFERENCES[:2], MASKS[:2], hard_masks=HARD_MASKS[:2]))
    assert first == Score(None, exact=True)
    assert second.value is not None and not second.exact
    assert first.entry({})["value"] is None and first.entry({})["exact"] is True and "exact" not in second.entry({})


def test_outside_is_exact_where_only_the_inside_changed() -> None:
    changed = REFERENCES.copy()
    changed[MASKS == 255] ^= 1
    batch = Batch(changed, REFERENCES, MASKS)
    assert Psnr("outside")(batch) == Psnr("edge")(batch) == [Score(None, exact=True)] * 3
    assert values(Psnr("inside"), batch) == [pytest.approx(20 * math.log10(255), abs=1e-5)] * 3


# -- SSIM ------------------------------------------------------------------------------------------------------------
def seen_by_windows(region: np.ndarray) -> np.ndarray:
    """The pixels around which all 11 x 11 pixels, those of the picture, lie in the region."""
    reach = range(SIDE)
    around = [[region[max(0, i - 5) : i + 6, max(0, j - 5) : j + 6].all() for j in reach] for i in reach]
    return np.array(around)


@pytest.mark.parametrize("region", WHERE)
def test_ssim_is_the_mean_of_its_map_where_the_window_lies_in_the_region(region: str | None) -> None:
    expected = [
        similarity(i, r)[seen_by_windows(WHERE[region](m))].mean()
        for i, r, m in zip(IMAGES, REFERENCES, MASKS, strict=True)
    ]
    np.testing.assert_allclose(values(Ssim(region)), expected, rtol=0, atol=1e-6)


def test_ssim_of_a_region_is_scikit_images_over_the_eroded_region() -> None:
    """Away from the picture's border, where the two reflect otherwise."""
    from scipy.ndimage import binary_erosion
    from skimage.metrics import structural_similarity

    patch = np.zeros((1, SIDE, SIDE), np.uint8)
    patch[0, 8:50, 10:40] = 255
    settings = {"channel_axis": -1, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    _, full = structural_similarity(IMAGES[2], REFERENCES[2], data_range=255, full=True, **settings)
    eroded = binary_erosion(patch[0] > 0, np.ones((11, 11)))
    assert eroded.sum() == 32 * 20
    (found,) = values(Ssim("inside"), Batch(IMAGES[2:], REFERENCES[2:], patch))
    assert found == pytest.approx(full[eroded].mean(), abs=1e-6)


@pytest.mark.parametrize("region", ["outside", "unmasked"])
def test_ssim_of_what_is_kept_bit_for_bit_is_exactly_1(region: str) -> None:
    changed = REFERENCES.copy()
    changed[~BATCH.region(region)] ^= 255
    assert values(Ssim(region), Batch(changed, REFERENCES, MASKS, hard_masks=HARD_MASKS)) == [1.0] * 3


def test_a_region_narrower_than_the_window_has_no_ssim_and_says_why() -> None:
    narrow = np.zeros((1, SIDE, SIDE), np.uint8)
    narrow[:, :, 20:30] = 255
    (score,) = Ssim("inside")(Batch(IMAGES[:1], REFERENCES[:1], narrow))
    assert (score.value, score.reason) == (None, "no window of 11 x 11 pixels lies inside alone")


def test_ssim_of_flat_pictures_worked_out_by_hand() -> None:
    """No variance: only luminance is compared. 50 and 200: (20000 + 6.5025) / (42500 + 6.5025) = 0.470669."""
    flat = [np.full((1, 8, 8, 3), level, np.uint8) for level in (50, 200)]
    assert values(Ssim(), Batch(*flat)) == [pytest.approx(0.470669, abs=1e-6)]


def test_ssim_of_equal_pictures_is_1_and_of_a_negative_below_0() -> None:
    negative = 255 - REFERENCES
    assert values(Ssim(), Batch(REFERENCES, REFERENCES)) == [1.0] * 3
    assert max(values(Ssim(), Batch(negative, REFERENCES))) < 0


@pytest.mark.parametrize("side, scored", [(4, False), (5, False), (6, True)])
def test_a_picture_smaller_than_the_window_has_no_ssim_and_says_why(side: int, scored: bool) -> None:
    small = Batch(IMAGES[:, :side, :side].copy(), REFERENCES[:, :side, :side].copy())
    for result in Ssim()(small):
        assert (result.value is not None) == scored and bool(result.reason) != scored


# -- regions ---------------------------------------------------------------------------------------------------------
def test_the_regions_share_no_pixel_and_leave_none_out() -> None:
    levels = Batch(np.zeros((1, 16, 16, 3), np.uint8), masks=np.arange(256, dtype=np.uint8).reshape(1, 16, 16))
    covered = {name: levels.region(name) for name in REGIONS}
    assert sum(region.astype(int) for region in covered.values()).tolist() == [[[1] * 16] * 16]
    assert {name: region.sum() for name, region in covered.items()} == {"inside": 1, "outside": 1, "edge": 254}


@pytest.mark.parametrize("level, region", [(0, "inside"), (255, "outside"), (255, "edge"), (128, "outside")])
@pytest.mark.parametrize("kind", [Psnr, Ssim])
def test_an_empty_region_has_no_number_and_says_why(kind: Any, level: int, region: str) -> None:
    masks = np.stack([np.full((SIDE, SIDE), level, np.uint8), MASKS[1]])
    first, second = kind(region)(Batch(IMAGES[:2], REFERENCES[:2], masks))
    assert first.value is None and not first.exact
    assert first.reason == {"inside": "no pixel has m = 1", "outside": "no pixel has m = 0"}.get(
        region, "no pixel has 0 < m < 1"
    )
    assert second.value is not None


@pytest.mark.parametrize("part", ["inward", "centred", "outward"])
@pytest.mark.parametrize("name", ["psnr_masked", "psnr_unmasked", "ssim_masked", "drift_unmasked", "seam_masked"])
def test_on_the_hard_masks_region_softness_changes_no_number(config: Callable[..., Any], name: str, part: str) -> None:
    """The masks of cells that differ in softness alone; one picture and one reference."""
    from diffsweep.runner.freeze import freeze

    own = {"model": "tiny", "technique": "inpaint", "mask": "ellipse", "mask__side": part}
    cells = [freeze(config(**own, mask__softness=softness), {}) for softness in (0.0, 3.0, 6.0)]
    masks, hard = (np.stack([np.asarray(getattr(cell, key)) for cell in cells]) for key in ("mask", "hard_mask"))
    assert len({((mask == 255).sum(), (mask == 0).sum()) for mask in masks}) == 3
    np.testing.assert_array_equal(hard, np.stack([masks[0]] * 3))
    image, reference = (np.stack([stack[0, :32, :32]] * 3) for stack in (IMAGES, REFERENCES))
    assert len(set(values(known()[name], Batch(image, reference, masks, hard_masks=hard)))) == 1
    kin = {"psnr_masked": "psnr_inside", "ssim_masked": "ssim_inside", "seam_masked": "seam"}.get(name)
    if kin:  # at softness 0 it is its kin, which then moves
        first = Batch(image[:1], reference[:1], masks[:1], hard_masks=hard[:1])
        assert values(known()[kin], first) == values(known()[name], first)


def python(code: str) -> str:
    """What a process of its own prints."""
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# -- the second pass over a store ------------------------------------------------------------------------------------
IDS = [f"{k}{k}" * 10 for k in range(3)]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Three cells: with input and mask, with an input alone, with neither."""
    store = Store(tmp_path / "outputs")
    further: list[dict[str, np.ndarray]] = [{"input": REFERENCES[0], "mask": MASKS[0]}, {"input": REFERENCES[1]}, {}]
    for cell_id, image, others in zip(IDS, IMAGES, further, strict=True):
        store.save(cell_id, {"image": image, **others}, {"metrics": {}, "config": {"seed": 0}})
    return store


def stored(store: Store, cell_id: str) -> dict[str, Any]:
    return {name: entry["value"] for name, entry in store.record(cell_id)["metrics"].items()}


def test_stored_pictures_are_scored_as_they_were_and_cells_that_lack_an_input_go_without(store: Store) -> None:
    names = ["psnr", "psnr_inside", "ssim"]
    assert score(store, IDS, names) == 2
    assert stored(store, IDS[0]) == {
        "psnr": pytest.approx(psnr(IMAGES[0], REFERENCES[0], WHERE[None](MASKS[0])), abs=1e-5),
        "psnr_inside": pytest.approx(psnr(IMAGES[0], REFERENCES[0], MASKS[0] == 255), abs=1e-5),
        "ssim": pytest.approx(similarity(IMAGES[0], REFERENCES[0]).mean(), abs=1e-6),
    }
    assert set(stored(store, IDS[1])) == {"psnr", "ssim"}
    assert stored(store, IDS[2]) == {}
    for cell_id in IDS:
        record = store.record(cell_id)
        assert record["config"] == {"seed": 0} and store.verify(cell_id) == []
        for name, entry in record["metrics"].items():
            assert entry["definition"] == known()[name].definition()


def test_a_metric_asked_for_later_scores_old_pictures_and_keeps_old_numbers(store: Store) -> None:
    score(store, IDS[:2], ["psnr"])
    before = store.record(IDS[0])["metrics"]["psnr"]
    assert score(store, IDS, ["psnr", "ssim"]) == 2
    assert store.record(IDS[0])["metrics"]["psnr"] == before
    assert set(stored(store, IDS[0])) == set(stored(store, IDS[1])) == {"psnr", "ssim"}


def forged(store: Store, cell_id: str, value: float, **definition: Any) -> None:
    """Put another number in a record, and change its definition."""
    metrics = store.record(cell_id)["metrics"]
    metrics["psnr"]["value"] = value
    metrics["psnr"]["definition"] |= definition
    rewrite(store, cell_id, metrics=metrics)


def test_a_number_of_the_same_definition_is_not_computed_again(store: Store) -> None:
    score(store, IDS, ["psnr"])
    forged(store, IDS[0], 123.0)
    assert score(store, IDS, ["psnr"]) == 0
    assert stored(store, IDS[0])["psnr"] == 123.0


@pytest.mark.parametrize("definition", [{"package": "torchmetrics 0.1"}, {"data_range": 1}, {"no longer said": True}])
def test_a_number_of_another_definition_is_computed_again(store: Store, definition: dict[str, Any]) -> None:
    score(store, IDS, ["psnr", "ssim"])
    right = stored(store, IDS[0])
    forged(store, IDS[0], 123.0, **definition)
    assert score(store, IDS, ["psnr", "ssim"]) == 1
    assert stored(store, IDS[0]) == right
    assert score(store, IDS, ["psnr", "ssim"]) == 0


def test_scoring_alone_or_together_and_in_any_order_gives_the_same_records(store: Store) -> None:
    names = PLAIN
    score(store, IDS, names)
    together = [store.record(cell_id) for cell_id in IDS]
    for cell_id in IDS:
        rewrite(store, cell_id, metrics={})
    for cell_id in reversed(IDS):
        for name in reversed(names):
            score(store, [cell_id], [name])
    assert [store.record(cell_id) for cell_id in IDS] == together


def test_exact_and_empty_are_stored_as_null_beside_the_reason(store: Store) -> None:
    cell_id = "ab" * 10
    everything = np.full((SIDE, SIDE), 255, np.uint8)
    store.save(cell_id, {"image": REFERENCES[0], "input": REFERENCES[0], "mask": everything}, {"metrics": {}})
    score(store, [cell_id], ["psnr", "psnr_outside"])
    metrics = store.record(cell_id)["metrics"]
    assert metrics["psnr"]["value"] is None and metrics["psnr"]["exact"] is True
    assert metrics["psnr_outside"]["value"] is None and metrics["psnr_outside"]["reason"] == "no pixel has m = 0"
    assert "exact" not in metrics["psnr_outside"]
    assert score(store, [cell_id], ["psnr", "psnr_outside"]) == 0


def test_pictures_of_two_sizes_are_not_compared_and_the_record_says_why(store: Store) -> None:
    cell_id = "cd" * 10
    pictures = {"image": IMAGES[0, :10, :10], "input": REFERENCES[0], "mask": MASKS[0, :10, :10]}
    store.save(cell_id, {name: np.ascontiguousarray(picture) for name, picture in pictures.items()}, {"metrics": {}})
    assert score(store, [*IDS, cell_id], ["psnr", "psnr_inside"]) == 3
    for entry in store.record(cell_id)["metrics"].values():
        assert entry["value"] is None and entry["reason"] == "the reference is 60 x 60, the picture 10 x 10"
    assert stored(store, IDS[0])["psnr"] is not None


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "broken chunk", "broken header"])
def test_a_cell_whose_pictures_cannot_be_read_is_left_as_it_is_beside_the_others(store: Store, damage: str) -> None:
    path = store.folder(IDS[0]) / "input.png"
    Image.fromarray(RNG.integers(0, 256, (200, 200, 3), dtype=np.uint8)).save(path)  # large enough for two chunks
    data = path.read_bytes()
    path.unlink()
    if damage != "missing":
        last = data.rindex(b"IDAT")
        path.write_bytes(
            {
                "empty": b"",
                "cut": data[: len(data) // 2],
                "broken chunk": data[:last] + b"\x01" + data[last + 1 :],
                "broken header": data[:8] + b"\x00\x00\x00\x05IHDR" + data[16:],
            }[damage]
        )
    before = store.record(IDS[0])
    assert score(store, IDS, ["psnr"]) == 1
    assert store.record(IDS[0]) == before
    assert stored(store, IDS[1])["psnr"] is not None


def test_torch_is_not_imported_where_nothing_is_missing(store: Store) -> None:
    """A finished sweep, run again, stays quick."""
    assert score(store, IDS, ["psnr", "ssim"]) == 2
    said = python(f"""
        import sys
        from pathlib import Path
        from diffsweep.metric import choose, score
        from diffsweep.store.cells import Store
        metrics = choose(["psnr", "ssim"]).metrics
        print(score(Store(Path({str(store.root)!r})), {IDS!r}, metrics), "torch" in sys.modules)
    """)
    assert said == "0 False"


# -- names and plugins -----------------------------------------------------------------------------------------------
def test_metrics_are_found_by_name_once_each_in_the_order_asked_for() -> None:
    assert [metric.name for metric in choose(["ssim", "psnr", "ssim"]).metrics] == ["ssim", "psnr"]
    assert {"psnr", "ssim", *(f"{m}_{region}" for m in ("psnr", "ssim") for region in REGIONS)} <= set(known())


def test_every_name_there_is_no_metric_of_is_told_with_a_hint(store: Store) -> None:
    with pytest.raises(BadInput) as refused:
        score(store, IDS, ["psnrr", "ssim", "ssim_insde"])
    first, second = refused.value.messages
    assert first.startswith("metric.names: no metric 'psnrr'; there are ") and "did you mean 'psnr'?" in first
    assert second.startswith("metric.names: no metric 'ssim_insde'") and "did you mean 'ssim_inside'?" in second
    assert all(stored(store, cell_id) == {} for cell_id in IDS)


PLUGIN = """
from dataclasses import dataclass
from typing import ClassVar

from diffsweep.metric import Score

CALLS = []


@dataclass(frozen=True)
class Brightness:
    name: ClassVar = "{name}"
    needs: ClassVar = frozenset()
    direction: ClassVar = "higher"

    def definition(self):
        return {{"metric": "mean of weighted channels", "direction": "higher", "weights": (1, 1, 1)}}

    def __call__(self, batch):
        CALLS.append(len(batch.images))
        return [Score(float(image.mean())) for image in batch.images]


METRICS = (Brightness(),)
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """A user's package with one metric, importable; its name."""
    monkeypatch.syspath_prepend(tmp_path / "site")

    def written(package: str, metric: str) -> str:
        folder = tmp_path / "site" / package / "metric"
        folder.mkdir(parents=True)
        for path in (folder.parent / "__init__.py", folder / "__init__.py"):
            path.touch()
        (folder / "brightness.py").write_text(PLUGIN.format(name=metric))
        return package

    return written


def test_a_plugins_metric_is_found_and_scores_every_cell_once(store: Store, package: Callable[..., str]) -> None:
    import importlib

    plugins = (package("measured_outside", "brightness"),)
    assert score(store, [*IDS, IDS[0]], ["brightness", "psnr"], plugins) == 3
    for cell_id, image in zip(IDS, IMAGES, strict=True):
        assert stored(store, cell_id)["brightness"] == pytest.approx(image.mean())
    assert score(store, IDS, ["brightness", "psnr"], plugins) == 0
    assert sum(importlib.import_module("measured_outside.metric.brightness").CALLS) == 3
    with pytest.raises(BadInput, match="no metric 'brightness'"):
        choose(["brightness"])


def test_a_plugins_metric_goes_before_one_of_the_same_name(package: Callable[..., str]) -> None:
    (metric,) = choose(["psnr"], Options(plugins=(package("measured_anew", "psnr"),))).metrics
    assert type(metric).__name__ == "Brightness"


def test_a_plugin_that_declares_itself_by_an_entry_point_needs_no_naming(
    package: Callable[..., str], tmp_path: Path
) -> None:
    package("measured_declared", "warmth")
    info = tmp_path / "site" / "measured_declared-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: measured-declared\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[diffsweep.plugins]\nmeasured = measured_declared\n")
    said = python(f"""
        import sys
        sys.path.insert(0, {str(tmp_path / "site")!r})
        from diffsweep.metric import choose
        print(*choose(["warmth", "psnr"]).names)
    """)
    assert said == "warmth psnr"


def test_a_cell_with_unknown_metrics_is_refused_before_anything_is_sampled(config: Callable[..., Any]) -> None:
    from diffsweep.runner.plan import plan

    with pytest.raises(BadInput, match=r"^metric\.names: no metric 'snr'; .*did you mean 'psnr'"):
        plan([(config(metric__names=["snr"]), {})])


FAILING = """
from dataclasses import dataclass
from typing import ClassVar

from diffsweep.metric import Score


@dataclass(frozen=True)
class Bad:
    name: ClassVar = "{name}"
    needs: ClassVar = frozenset()
    direction: ClassVar = "higher"

    def definition(self):
        return {{"metric": "bad", "direction": "higher"}}

    def __call__(self, batch):
        {does}


METRICS = (Bad(),)
"""


def failing(tmp_path: Path, package: str, name: str, does: str) -> tuple[str, ...]:
    folder = tmp_path / "site" / package / "metric"
    folder.mkdir(parents=True)
    (folder / "bad.py").write_text(FAILING.format(name=name, does=does))
    return (package,)


def test_a_metric_that_fails_is_told_and_the_others_are_measured(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugins = failing(tmp_path, "measured_badly", "bad", 'raise RuntimeError("out of\\n memory")')
    monkeypatch.syspath_prepend(tmp_path / "site")
    failed = Failures()
    metrics = choose(["bad", "psnr"], Options(plugins=plugins)).metrics
    assert measure(store, IDS, metrics, "cpu", failed) == 2
    assert failed == {"bad": "RuntimeError: out of memory"}
    assert set(stored(store, IDS[0])) == {"psnr"}
    with pytest.raises(RuntimeError):
        measure(store, IDS, metrics, "cpu")


IMPORTS = "import numpy as np, torch; "
NUMBERS = {
    "np.float32(1.5)": 1.5,
    "np.float64(1.5)": 1.5,
    "np.int64(-4)": -4,
    "np.bool_(True)": 1,
    "np.array([2.5])": 2.5,
    "torch.tensor(2.5)": 2.5,
    "torch.tensor([7], dtype=torch.bfloat16)": 7,
    "torch.tensor(2.0, requires_grad=True)": 2,
    "3": 3,
    "False": 0,
    "2.5": 2.5,
}
NOTHING = {"float('nan')": "nan", "np.float32('inf')": "inf", "torch.tensor(-torch.inf)": "-inf", "None": "None"}
FAILURES = {
    "'0.5'": "TypeError: a metric must give numbers, not '0.5'",
    "1j": "TypeError: a metric must give numbers, not 1j",
    "[1.0]": "TypeError: a metric must give numbers, not [1.0]",
    "{}": "TypeError: a metric must give numbers, not {}",
    "np.str_('x')": "TypeError: a metric must give numbers, not 'x'",
    "np.zeros(2)": "ValueError: can only convert an array of size 1 to a Python scalar",
}


@pytest.fixture
def giving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], tuple[str, ...]]:
    """A package with a metric `bad` whose call does this."""
    import uuid

    monkeypatch.syspath_prepend(tmp_path / "site")
    return lambda does: failing(tmp_path, f"measured_{uuid.uuid4().hex}", "bad", IMPORTS + does)


@pytest.mark.parametrize("wrapped", ["{}", "Score({})"])
@pytest.mark.parametrize("number", NUMBERS)
def test_a_number_of_any_library_is_taken_as_a_float(
    store: Store, giving: Callable[..., Any], number: str, wrapped: str
) -> None:
    plugins = giving(f"return [{wrapped.format(number)} for _ in batch.images]")
    assert score(store, IDS, ["bad", "psnr"], plugins) == 3
    value = stored(store, IDS[2])["bad"]
    assert type(value) is float and value == NUMBERS[number]


@pytest.mark.parametrize("number", NOTHING)
def test_what_is_no_finite_number_is_stored_as_none_with_the_reason(
    store: Store, giving: Callable[..., Any], number: str
) -> None:
    assert score(store, IDS, ["bad"], giving(f"return [{number} for _ in batch.images]")) == 3
    entry = store.record(IDS[0])["metrics"]["bad"]
    assert (entry["value"], entry["reason"]) == (None, f"the metric gave {NOTHING[number]}")


@pytest.mark.parametrize("given", [*FAILURES, "one too few"])
def test_what_is_no_number_is_that_metrics_failure_alone(store: Store, giving: Callable[..., Any], given: str) -> None:
    few = given == "one too few"
    does = "return [1.0] * (len(batch.images) - 1)" if few else f"return [{given} for _ in batch.images]"
    failed = Failures()
    metrics = choose(["bad", "psnr"], Options(plugins=giving(does))).metrics
    assert measure(store, IDS, metrics, "cpu", failed) == 2
    assert list(failed) == ["bad"] and set(stored(store, IDS[0])) == {"psnr"} and stored(store, IDS[2]) == {}
    reason = failed["bad"]
    assert re.fullmatch(r"ValueError: \d numbers? for \d pictures?", reason) if few else reason == FAILURES[given]


@pytest.mark.parametrize(
    "definition, told",
    [
        ('{"weights": {1, 2}}', "its definition cannot be stored (TypeError: Object of type set is not JSON"),
        ('{"mean": float("nan")}', "its definition cannot be stored (ValueError: Out of range float values"),
        ('{"bounds": [1, 0]}', "bounds=[1, 0]: must be [low, high] in its definition"),
        ('{"bounds": 5}', "bounds=5: must be [low, high]"),
        ('{"bounds": ["0", None]}', "bounds=['0', None]: must be [low, high]"),
        ("1 / 0", "its definition cannot be stored (ZeroDivisionError: division by zero)"),
    ],
)
def test_a_definition_that_cannot_be_stored_is_refused_before_anything_is_sampled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, definition: str, told: str
) -> None:
    monkeypatch.syspath_prepend(tmp_path / "site")
    (package,) = failing(tmp_path, f"defined_{abs(hash(definition))}", "bad", "return []")
    file = tmp_path / "site" / package / "metric" / "bad.py"
    file.write_text(file.read_text().replace('{"metric": "bad", "direction": "higher"}', definition))
    with pytest.raises(BadInput) as refused:
        choose(["bad"], Options(plugins=(package,)))
    assert refused.value.messages[0].startswith(f"metric bad: {told}")


@pytest.mark.parametrize(
    "before, after, told",
    [
        (
            'direction: ClassVar = "higher"',
            'direction: ClassVar = "sideways"',
            "direction='sideways': must be higher",
        ),
        ('direction: ClassVar = "higher"', "direction: ClassVar = 3", "direction=3: must be higher or lower"),
        ('direction: ClassVar = "higher"', "", "has no direction"),
        (
            "frozenset()",
            'frozenset({"refrence"})',
            "needs=frozenset({'refrence'}): must be a frozenset",
        ),
        ("frozenset()", '("reference",)', "needs=('reference',): must be a frozenset of reference, mask"),
        ("needs: ClassVar = frozenset()", "", "has no needs"),
        ('name: ClassVar = "bad"', "name: ClassVar = 3", "name=3: must be a text"),
        ('name: ClassVar = "bad"', "", "has no name"),
        ("def definition(self)", "def defined(self)", "has no definition"),
        ("def __call__(self, batch)", "def measure(self, batch)", "has neither __call__(batch) nor together(batch)"),
        ("frozen=True", "eq=True", "cannot be hashed"),
        ("METRICS = (Bad(),)", "METRICS = Bad()", "must be a tuple of metrics, as in (MyMetric(),), not metric 'bad'"),
        ("METRICS = (Bad(),)", 'METRICS = ("bad",)', "'bad': has no name"),
        ("METRICS = (Bad(),)", "METRICS = (Bad,)", "metric 'bad': is a class; METRICS holds instances"),
        ('"direction": "higher"', '"direction": "lower"', "direction='lower': must be higher in its definition too"),
    ],
)
def test_what_is_no_metric_is_refused_by_name_before_anything_is_sampled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str, after: str, told: str
) -> None:
    monkeypatch.syspath_prepend(tmp_path / "site")
    (package,) = failing(tmp_path, f"no_metric_{abs(hash(told + after))}", "bad", "return []")
    file = tmp_path / "site" / package / "metric" / "bad.py"
    assert before in file.read_text()
    file.write_text(file.read_text().replace(before, after))
    with pytest.raises(BadInput) as refused:
        choose(["bad"], Options(plugins=(package,)))
    (message,) = refused.value.messages
    assert told in message and ("bad" in message)


def test_a_metric_that_works_in_another_folder_leaves_the_others_where_they_are(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path / "site")
    plugins = failing(tmp_path, "goes_away", "bad", 'import os; os.chdir("/"); return [1.0] * len(batch.images)')
    monkeypatch.chdir(store.root)
    near = Store(Path())  # as output_dir=outputs is: relative
    assert measure(near, IDS, choose(["bad", "psnr"], Options(plugins=plugins)).metrics, "cpu") == 3
    assert Path.cwd() == store.root.resolve() and {*stored(store, IDS[0])} == {"bad", "psnr"}


def test_an_edited_metric_is_measured_again(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its file: what it says of itself is the same. A copy of the file is the same metric."""
    monkeypatch.syspath_prepend(tmp_path / "site")
    first, copy, edited = (
        failing(tmp_path, f"edited_{k}", "bad", f"return [{n}.0] * len(batch.images)")
        for k, n in (("a", 1), ("b", 1), ("c", 2))
    )
    assert score(store, IDS, ["bad"], first) == 3 and stored(store, IDS[0])["bad"] == 1
    assert score(store, IDS, ["bad"], copy) == 0
    assert score(store, IDS, ["bad"], edited) == 3 and stored(store, IDS[0])["bad"] == 2
    file = tmp_path / "site" / "edited_c" / "metric" / "bad.py"
    source = store.record(IDS[0])["metrics"]["bad"]["definition"]["source"]
    assert source == hashlib.sha256(file.read_bytes()).hexdigest()
    assert all("source" not in defined(metric) for metric in choose(PLAIN).metrics)


def test_all_is_measured_again_where_that_is_asked_for(store: Store) -> None:
    metrics = choose(["psnr", "psnr_inside"]).metrics
    measure(store, IDS, metrics)
    right = stored(store, IDS[0])
    forged(store, IDS[0], 123.0)
    assert measure(store, IDS, metrics, again=True) == 2
    assert stored(store, IDS[0]) == right


def test_what_no_cell_has_is_told_of_each_metric_that_needs_it(store: Store) -> None:
    names = ["psnr", "psnr_inside", "psnr_masked", "clip_score", "clip_low", "clip_alignment"]
    without: dict[str, str] = {}
    for _ in range(2):  # measured already or not
        measure(store, IDS, choose(names).metrics, without=without)
        assert without == {
            "psnr_masked": "no cell has a mask",
            "clip_score": "no cell has a prompt",
            "clip_low": "no cell has a prompt and bands",
            "clip_alignment": "no cell has a prompt and views",
        }
    alone: dict[str, str] = {}
    measure(store, IDS[1:], choose(["psnr", "psnr_masked"]).metrics, without=alone)
    assert alone == {"psnr_masked": "no cell has a mask"}  # the first of them has an input
    measure(store, IDS[2:], choose(["drift_unmasked"]).metrics, without=alone)
    assert alone["drift_unmasked"] == "no cell has a clean input and a mask"


def test_cells_of_which_each_has_what_another_lacks_have_no_number_together(tmp_path: Path) -> None:
    store, picture = Store(tmp_path), np.zeros((16, 16, 3), np.uint8)
    for cell_id, own in ((IDS[0], {"input": picture}), (IDS[1], {"mask": picture[..., 0]})):
        store.save(cell_id, {"image": picture, **own}, {"metrics": {}, "config": {}})
    without: dict[str, str] = {}
    measure(store, IDS[:2], choose(["psnr_inside", "psnr_masked", "psnr"]).metrics, without=without)
    assert without["psnr_inside"] == "no cell has a clean input and a mask together"
    assert "psnr" not in without


def test_a_number_that_is_none_is_stored_with_that_reason(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugins = failing(tmp_path, "measured_nan", "nan", 'return [Score(float("nan"))] * len(batch.images)')
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert score(store, IDS, ["nan"], plugins) == 3
    entry = store.record(IDS[0])["metrics"]["nan"]
    assert (entry["value"], entry["reason"]) == (None, "the metric gave nan")


def test_a_device_that_is_not_there_is_told_where_something_is_to_be_measured(store: Store) -> None:
    with pytest.raises(BadInput, match=r"^device=cuda:99: "):
        measure(store, IDS, choose(["psnr"]).metrics, "cuda:99")
    score(store, IDS, ["psnr"])
    assert measure(store, IDS, choose(["psnr"]).metrics, "cuda:99") == 0


def test_processes_that_measure_one_store_lose_nothing(store: Store) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def merged(number: int) -> None:
        for k in range(20):
            store.merge(IDS[0], "metrics", {f"m{number}_{k}": {"value": 1.0, "definition": {"direction": "higher"}}})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(merged, range(4)))
    assert len(stored(store, IDS[0])) == 80
