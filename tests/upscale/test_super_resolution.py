"""The second stage: as diffusers draws it, in the same engine as the first, and true to the technique."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import IFSuperResolutionPipeline
from PIL import Image

from diffsweep.core.problems import BadInput
from diffsweep.core.streams import Streams
from diffsweep.core.types import Estimate
from diffsweep.guidance.classifier_free import ClassifierFree
from diffsweep.model import deepfloyd
from diffsweep.model.analytic import GaussianMixture
from diffsweep.model.source import Source
from diffsweep.runner import sampling
from diffsweep.runner.freeze import freeze
from diffsweep.runner.run import Outcome
from diffsweep.scheduler.ddpm import Ddpm
from diffsweep.store.cells import Store
from diffsweep.technique.anagram import Anagram
from diffsweep.technique.job import Job
from diffsweep.upscale.super_resolution import SuperResolution, shown_beside
from diffsweep.view.flip import Flip
from diffsweep.view.identity import Identity
from diffsweep.view.negate import Negate
from tests.running import run_sweep

Run = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def nothing_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loaded model is kept for a process: each test here begins as a process does."""
    monkeypatch.setattr(sampling, "_models", {})


@pytest.fixture
def settings(config: Any, enlarging: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """A configuration that enlarges the exact model's 8 x 8 to 32 x 32, but for what is changed."""
    usual = {"upscale": "tiny", "upscale__path": str(enlarging), "upscale__scheduler__steps": 3}
    usual |= {"scheduler__steps": 3, "output_dir": str(tmp_path / "outputs"), "prompt": "a red dog"}

    def made(**changes: Any) -> dict[str, Any]:
        alone = changes.get("upscale") == "none"
        return config(**{k: v for k, v in {**usual, **changes}.items() if not (alone and k.startswith("upscale__"))})

    return made


@pytest.fixture
def run(settings: Any) -> Run:
    """Every combination of the lists in `changes`, as one sweep."""

    def swept(name: str = "mine", **changes: Any) -> Outcome:
        axes = {key: value for key, value in changes.items() if isinstance(value, list)}
        held = {key: value for key, value in changes.items() if key not in axes}
        choices = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
        return run_sweep(
            [(settings(**held, **one), {k.replace("__", "."): v for k, v in one.items()}) for one in choices], name
        )

    return swept


def document(outcome: Outcome) -> dict[str, Any]:
    return json.loads((outcome.folder / "sweep.json").read_text())


def pictures(outcome: Outcome, name: str = "image") -> list[np.ndarray]:
    store = Store(outcome.folder.parents[1])
    return [store.pixels(cell["cell_id"], name) for cell in document(outcome)["cells"]]


# -- as diffusers ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("checkpoints", ["random", pytest.param("tiny", marks=pytest.mark.slow)])
def test_it_is_diffusers_super_resolution_of_the_stored_first_picture(
    run: Run, checkpoint: Path, enlarging: Path, checkpoints: str
) -> None:
    """Same weights, seed, picture and settings: at most 1 level of 255 in at most 2 % of the values."""
    first, second = (
        (checkpoint, enlarging) if checkpoints == "random" else (Source(name).root for name in ("tiny", "tiny_upscale"))
    )
    negative = "an oil painting of a skull"
    outcome = run(
        model="tiny",
        model__path=str(first),
        upscale__path=str(second),
        prompt="a photo of a dog",
        upscale__guidance__negative_prompt=negative,
        upscale__scheduler__steps=10,
        seed=[0, 5],
        upscale__noise_level=[0, 150],
        upscale__guidance__scale=[1.0, 4.0],
    )
    pipeline = IFSuperResolutionPipeline.from_pretrained(second, safety_checker=None, watermarker=None)
    pipeline.to(torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    store = Store(outcome.folder.parents[1])
    for cell, ours in zip(document(outcome)["cells"], pictures(outcome), strict=True):
        low = store.pixels(store.record(cell["cell_id"])["facts"]["base"])
        theirs = pipeline(
            "a photo of a dog",
            image=Image.fromarray(low),
            negative_prompt=negative,
            noise_level=cell["axes"]["upscale.noise_level"],
            guidance_scale=cell["axes"]["upscale.guidance.scale"],
            num_inference_steps=10,
            generator=torch.Generator().manual_seed(cell["axes"]["seed"]),
            clean_caption=False,
        ).images[0]
        apart = np.abs(ours.astype(int) - np.asarray(theirs).astype(int))
        assert apart.max() <= 1
        assert (apart > 0).mean() <= 0.02


# -- in one engine -----------------------------------------------------------------------------------------------------
@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The picture side of each model call, as they come."""
    sides: list[int] = []
    for model in (GaussianMixture, deepfloyd.LoadedDeepFloyd):
        predict = model.predict

        def counted(self: Any, x: Any, *rest: Any, predict: Any = predict) -> Estimate:
            sides.append(x.shape[-1])
            return predict(self, x, *rest)

        monkeypatch.setattr(model, "predict", counted)
    return sides


@pytest.mark.slow
def test_many_second_stages_share_one_first(run: Run) -> None:
    """Eight settings of the second stage over four seeds: four trajectories of the first."""
    levels = [0, 10, 50, 100, 150, 200, 300, 400]
    outcome = run(seed=[0, 1, 2, 3], upscale__noise_level=levels)
    (entry,) = document(outcome)["runs"]
    assert entry["model_rows"] == 4 * 3 * 2 + 32 * 3 * 1  # steps x prompts of each stage
    assert entry["model_loads"] == 2
    assert entry["cells"] == 36
    assert len(document(outcome)["cells"]) == 32
    images = {image.tobytes() for image in pictures(outcome)}
    assert len(images) == 32
    store = Store(outcome.folder.parents[1])
    bases = {store.record(cell["cell_id"])["facts"]["base"] for cell in document(outcome)["cells"]}
    assert len(bases) == 4
    assert all(store.pixels(base).shape == (8, 8, 3) for base in bases)
    assert {store.record(cell["cell_id"])["nfe"] for cell in document(outcome)["cells"]} == {3 * 2 + 3}


def test_a_stored_first_picture_is_enlarged_without_loading_its_model(run: Run, asked: list[int]) -> None:
    first = run("first", upscale="none", seed=[0, 1])
    together = run("second", upscale__noise_level=50, seed=[0, 1])
    (entry,) = document(together)["runs"]
    assert (entry["model_loads"], entry["cells"]) == (1, 2)
    assert asked == [8] * 3 + [32] * 3
    assert document(first)["runs"][0]["model_loads"] == 1


@pytest.mark.slow
def test_the_bits_do_not_depend_on_when_the_first_picture_was_drawn(run: Run, tmp_path: Path) -> None:
    at_once = run(seed=[0, 1, 2], output_dir=str(tmp_path / "a"), engine__rows=4)
    run("first", seed=[0, 1, 2], upscale="none", output_dir=str(tmp_path / "b"))
    afterwards = run(seed=[0, 1, 2], output_dir=str(tmp_path / "b"), engine__rows=4)
    assert all((a == b).all() for a, b in zip(pictures(at_once), pictures(afterwards), strict=True))


@pytest.mark.slow
def test_a_second_stage_waits_for_its_own_first_alone(run: Run, asked: list[int]) -> None:
    outcome = run(seed=list(range(20)), engine__rows=4)
    first_large, last_small = asked.index(32), len(asked) - 1 - asked[::-1].index(8)
    assert first_large < last_small / 2
    (entry,) = document(outcome)["runs"]
    assert entry["padded_rows"] <= 4  # and yet the calls are full


def test_both_stages_in_one_sweep_are_two_pictures(run: Run) -> None:
    outcome = run(upscale="none")
    both = run("both", seed=0)
    assert pictures(outcome)[0].shape[0] == 8
    assert pictures(both)[0].shape[0] == 32


def test_a_first_stage_that_fails_takes_its_second_along(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Any, x: Any, *rest: Any) -> Estimate:
        raise ValueError("a broken model")

    monkeypatch.setattr(GaussianMixture, "predict", broken)
    outcome = run()
    assert outcome.statuses == ["failed"]
    (cell,) = document(outcome)["cells"]
    assert cell["reason"] == "the picture to enlarge failed: ValueError: a broken model"


def test_an_export_names_the_first_picture_that_it_lacks(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    from diffsweep import results

    outcome = run(seed=[0, 1])
    monkeypatch.chdir(tmp_path)
    store, cell_id = Store(outcome.folder.parents[1]), document(outcome)["cells"][0]["cell_id"]
    base = store.record(cell_id)["facts"]["base"]
    shutil.rmtree(store.folder(base))
    capsys.readouterr()
    monkeypatch.setattr("sys.argv", ["diffsweep-results", "export", "mine", "to=elsewhere"])
    assert results.main() == 1
    heard = capsys.readouterr()
    assert heard.err == f"left out: {base}: not in the store; its picture is what {cell_id} was enlarged from\n"
    assert heard.out == "elsewhere: 3 cells as a store\n"


def test_an_export_and_verify_take_the_first_pictures_along(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from diffsweep import results

    outcome = run(seed=[0, 1])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["diffsweep-results", "export", "mine", "to=elsewhere"])
    assert results.main() == 0
    stored = {folder.name for folder in (tmp_path / "elsewhere" / "cells").glob("*/*")}
    assert len(stored) == 4
    base = Store(tmp_path / "elsewhere").record(document(outcome)["cells"][0]["cell_id"])["facts"]["base"]
    (Store(tmp_path / "elsewhere").folder(base) / "image.png").write_bytes(b"damaged")
    monkeypatch.setattr("sys.argv", ["diffsweep-results", "verify", "elsewhere/sweeps/mine"])
    assert results.main() == 1
    assert f"{base}/image.png: differs" in capsys.readouterr().err


# -- true to the technique ---------------------------------------------------------------------------------------------
def test_views_look_at_both_pictures(settings: Any) -> None:
    x, low, noise = torch.randn(3, 3, 4, 4)
    views = (Identity(), Flip(), Negate())
    upscale = SuperResolution(noise_level=7)
    job: Any = Job("p", (), upscale.model.stage(), Ddpm(), ClassifierFree(1.0, ""), Streams(0), stage_name=upscale.name)
    job = shown_beside(job, upscale, low, noise)
    given = upscale.model.noising().level(7).noised(low, noise)
    queries = next(Anagram(("a", "b", "c"), views).guided(job).estimate(x, job.level(5)))
    for query, view in zip(queries, views, strict=True):
        assert query.stage == upscale.name
        assert query.beside["noise_level"] == 7
        assert torch.equal(query.image, view.apply(x))
        assert torch.equal(query.beside["low"], view.apply(given))


def test_an_anagram_of_one_view_and_prompt_and_a_hybrid_of_one_prompt_are_text_to_image(run: Run) -> None:
    prompts = ["a red dog", "a red dog"]
    plain = pictures(run("plain", upscale__guidance__scale=3.0, engine__rows=4))[0].astype(int)
    anagram = run(
        "anagram",
        technique="anagram",
        technique__prompts=[prompts],
        technique__views=[["identity", "identity"]],
        upscale__guidance__scale=3.0,
        engine__rows=4,
    )
    hybrid = run(
        "hybrid", technique="hybrid", technique__prompts=[prompts], upscale__guidance__scale=3.0, engine__rows=4
    )
    assert np.abs(pictures(anagram)[0] - plain).max() == 0
    apart = np.abs(pictures(hybrid)[0] - plain)
    assert apart.max() <= 1 and (apart > 0).mean() <= 0.02
    assert pictures(hybrid, "low")[0].shape == (32, 32, 3)


def test_a_hybrids_bands_part_at_the_same_frequencies(settings: Any) -> None:
    from diffsweep.runner.ingredients import job

    cell = freeze(settings(technique="hybrid", technique__sigma=1.5, technique__kernel=9), {})
    (low, _), (high, _) = cell.technique.guided(job(cell, low=np.zeros((8, 8, 3), np.uint8))).parts
    assert (low.fine, low.coarse, high.coarse) == (6.0, None, 6.0)
    assert low.kernel == 33


def test_inpainting_keeps_what_is_known_at_the_larger_size(run: Run) -> None:
    """Outside the mask the second stage shows the input, drawn at its own size."""
    outcome = run(technique="inpaint", mask="half")
    (image,), (reference,), (mask,) = (pictures(outcome, name) for name in ("image", "input", "mask"))
    assert image.shape == reference.shape == (32, 32, 3)
    assert set(np.unique(mask)) == {0, 255}
    assert (image[mask == 0] == reference[mask == 0]).all()
    assert (image[mask == 255] != reference[mask == 255]).mean() > 0.5


@pytest.mark.slow
@pytest.mark.parametrize("technique", ["forward_noise", "one_step_denoise", "iterative_denoise", "image_to_image"])
def test_every_technique_can_be_enlarged(run: Run, technique: str) -> None:
    outcome = run(technique=technique)
    assert outcome.statuses == ["done"]
    assert pictures(outcome, "input")[0].shape == pictures(outcome)[0].shape == (32, 32, 3)


# -- bad input ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"upscale__noise_level": 1000}, r"upscale\.noise_level=1000: must be .* 999"),
        ({"upscale__noise_level": -1}, r"upscale\.noise_level=-1: must be"),
        ({"upscale__scheduler__steps": 1001}, r"upscale\.scheduler\.steps=1001: this model has 1000 training steps"),
        ({"upscale__scheduler__steps": 0}, r"upscale\.scheduler\.steps=0: must be"),
        ({"upscale__scheduler__stpes": 5}, r"upscale\.scheduler\.stpes: unknown key .* did you mean 'steps'"),
        ({"upscale__guidance__scale": "high"}, r"upscale\.guidance\.scale=high: must be auto or a number"),
        ({"upscale__path": "nowhere"}, r"upscale\.path=nowhere: no such folder"),
        ({"upscale__dtype": "float16"}, r"upscale\.dtype=float16: must be"),
        (
            {"model__size": 32, "model": "analytic"},
            r"upscale\.path=.*: gives 32 x 32, and the picture has that size",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_is_wrong_is_named(settings: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        freeze(settings(**changes), {})


def test_a_first_stage_enlarges_nothing(settings: Any, checkpoint: Path) -> None:
    with pytest.raises(
        BadInput, match=r"upscale\.path=.*not a super-resolution checkpoint of IF, image_noising_scheduler missing"
    ):
        freeze(settings(upscale__path=str(checkpoint)), {})


def test_ids_follow_what_decides_the_picture(settings: Any) -> None:
    usual = freeze(settings(), {})
    assert usual.base is not None
    assert usual.base.id == freeze(settings(upscale="none"), {}).id
    others = [
        {"upscale__noise_level": 7},
        {"upscale__scheduler__steps": 4},
        {"upscale__guidance__scale": 2.0},
        {"seed": 1},
        {"scheduler__steps": 4},
        {"upscale__dtype": "bfloat16"},
    ]
    ids = {freeze(settings(**changes), {}).id for changes in ({}, *others)}
    assert len(ids | {usual.base.id}) == len(others) + 2
