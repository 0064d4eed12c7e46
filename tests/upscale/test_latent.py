"""The stage in latents: as diffusers draws it, and a cascade of three in one engine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionUpscalePipeline
from PIL import Image

from diffsweep.core.problems import BadInput
from diffsweep.engine import Engine, Work
from diffsweep.runner import sampling
from diffsweep.runner.freeze import freeze
from diffsweep.runner.run import run_sweep
from diffsweep.store.cells import Store


@pytest.fixture(autouse=True)
def nothing_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loaded model is kept for a process: each test here begins as a process does."""
    monkeypatch.setattr(sampling, "_models", {})


@pytest.fixture
def cascade(config: Any, checkpoint: Path, enlarging: Path, latent: Path, tmp_path: Path) -> Callable[..., Any]:
    """16 x 16, 32 x 32, 128 x 128, with what is changed."""

    def made(**changes: Any) -> dict[str, Any]:
        raw = config(model="tiny", upscale="tiny", prompt="a red dog", output_dir=str(tmp_path / "outputs"))
        raw["model"]["path"], raw["upscale"]["path"] = str(checkpoint), str(enlarging)
        raw["scheduler"]["steps"], raw["upscale"]["scheduler"]["steps"] = 2, 2
        raw["upscale"]["then"] = config(upscale="x4")["upscale"]
        then = {
            "path": str(latent),
            "variant": None,
            "dtype": "float32",
            "text": {"dtype": "float32", "device": "auto"},
        }
        raw["upscale"]["then"] |= then
        raw["upscale"]["then"]["scheduler"]["steps"] = 3
        for key, value in changes.items():
            *path, last = key.split("__")
            node = raw
            for word in path:
                node = node[word]
            node[last] = value
        return raw

    return made


def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "outputs")


def runs(outcome: Any) -> list[dict[str, Any]]:
    return json.loads((outcome.folder / "sweep.json").read_bytes())["runs"]


@pytest.mark.parametrize("scale", [pytest.param(1.0, marks=pytest.mark.slow), 6.0])
@pytest.mark.parametrize("steps", [3, pytest.param(10, marks=pytest.mark.slow)])
def test_it_is_diffusers_x4_upscaler(
    cascade: Callable[..., Any], latent: Path, tmp_path: Path, scale: float, steps: int
) -> None:
    """Same weights, seed, picture and settings: at most 1 level of 255 in at most 2 % of the values."""
    raw = cascade(seed=5, upscale__then__guidance__scale=scale, upscale__then__scheduler__steps=steps)
    cell = freeze(raw, {})
    run_sweep([(raw, {})], "mine")
    pipeline = StableDiffusionUpscalePipeline.from_pretrained(latent)
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        prompt="a red dog",
        image=Image.fromarray(store(tmp_path).pixels(cell.base.id)),
        num_inference_steps=steps,
        guidance_scale=scale,
        noise_level=20,
        generator=torch.Generator().manual_seed(5),
    ).images[0]
    ours = store(tmp_path).pixels(cell.id).astype(int)
    assert ours.shape == (128, 128, 3)
    apart = np.abs(ours - np.asarray(theirs).astype(int))
    assert apart.max() <= 1 and (apart > 0).mean() <= 0.02
    assert ours.std() > 3


@pytest.mark.parametrize("shape", [(12, 16), (16, 12)])
def test_a_picture_that_is_not_square_is_diffusers_too(
    cascade: Callable[..., Any], oblong: Callable[..., Any], latent: Path, tmp_path: Path, shape: tuple[int, int]
) -> None:
    raw = cascade(seed=5) | {key: oblong(*shape)[key] for key in ("model", "plugins")}
    raw["upscale"] = raw["upscale"]["then"]
    cell = freeze(raw, {})
    assert cell.stage.size == (4 * shape[0], 4 * shape[1])
    run_sweep([(raw, {})], "mine")
    pipeline = StableDiffusionUpscalePipeline.from_pretrained(latent)
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        prompt="a red dog",
        image=Image.fromarray(store(tmp_path).pixels(cell.base.id)),
        num_inference_steps=3,
        guidance_scale=raw["upscale"]["guidance"]["scale"],
        noise_level=20,
        generator=torch.Generator().manual_seed(5),
    ).images[0]
    apart = np.abs(store(tmp_path).pixels(cell.id).astype(int) - np.asarray(theirs).astype(int))
    assert apart.max() <= 1 and (apart > 0).mean() <= 0.02


@pytest.mark.slow
def test_a_cascade_of_three_shares_its_first_stages(cascade: Callable[..., Any], tmp_path: Path) -> None:
    """Two noise levels of stage II, two of stage III, two seeds: 2, 4 and 8 trajectories of 2, 2 and 3 steps."""
    raw = [
        (
            cascade(seed=seed, upscale__noise_level=second, upscale__then__noise_level=third, guidance__scale=1.0)
            | {"sweep": {"name": "auto"}},
            {"seed": seed, "upscale.noise_level": second, "upscale.then.noise_level": third},
        )
        for seed in (0, 1)
        for second in (0, 100)
        for third in (0, 100)
    ]
    for config, _ in raw:
        config["upscale"]["then"]["guidance"]["scale"] = 1.0
    outcome = run_sweep(raw, "mine")
    (run,) = runs(outcome)
    assert outcome.failed == 0
    assert run["model_rows"] == 2 * 2 + 4 * 2 + 8 * 3
    assert run["cells"] == 2 + 4 + 8
    assert run["model_loads"] == 3
    assert run["encodes"] == 2  # T5 of both stages is one here; CLIP's is another
    assert "Pictures of stage III." in (outcome.folder / "table.md").read_text()
    assert "Pictures of stage III." in (outcome.folder / "table.tex").read_text()
    ids = {cell["cell_id"] for cell in json.loads((outcome.folder / "sweep.json").read_bytes())["cells"]}
    assert len(ids) == 8
    for cell_id in ids:
        record = store(tmp_path).record(cell_id)
        base = store(tmp_path).record(record["facts"]["base"])
        assert record["nfe"] == 3 + base["nfe"] == 3 + 2 + 2
        assert store(tmp_path).pixels(record["facts"]["base"]).shape == (32, 32, 3)


def test_a_first_stage_knows_the_steps_of_both_that_follow(
    cascade: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the engine begins the longest chain first: stages of 2, 2 and 3 steps."""
    chains: list[int] = []
    add = Engine.add

    def heard(self: Engine, work: Work) -> None:
        chains.append(work.chain)
        add(self, work)

    monkeypatch.setattr(Engine, "add", heard)
    assert run_sweep([(cascade(), {})], "mine").failed == 0
    assert chains == [2 + 2 + 3, 2 + 3, 3]


@pytest.mark.slow
def test_a_third_stage_begins_from_a_stored_second(
    cascade: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_sweep([(cascade(), {})], "mine")
    monkeypatch.setattr(sampling, "_models", {})  # as in another process
    (run,) = runs(run_sweep([(cascade(upscale__then__noise_level=50), {})], "other"))
    assert (run["cells"], run["model_loads"]) == (1, 1)


@pytest.mark.slow
def test_a_failure_below_is_told_above(cascade: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from diffsweep.technique.text_to_image import TextToImage

    def broken(self: Any, job: Any) -> Any:
        raise RuntimeError("broken")
        yield

    monkeypatch.setattr(TextToImage, "program", broken)
    outcome = run_sweep([(cascade(), {})], "mine")
    (cell,) = json.loads((outcome.folder / "sweep.json").read_bytes())["cells"]
    assert (cell["status"], cell["reason"]) == ("failed", "the picture to enlarge failed: RuntimeError: broken")


@pytest.mark.slow
def test_views_do_their_work_below(cascade: Callable[..., Any], tmp_path: Path, config: Any) -> None:
    """An anagram's third stage is guided by its first prompt: as diffusers' would be, one question a step."""
    raw = cascade(technique=config(technique="anagram")["technique"])
    raw["technique"]["prompts"] = ["a red dog", "a skull"]
    raw["upscale"]["then"]["guidance"]["scale"] = 1.0
    outcome = run_sweep([(raw, {})], "mine")
    assert outcome.failed == 0
    cell = freeze(raw, {})
    record = store(tmp_path).record(cell.id)
    assert record["facts"]["prompts"] == ["a red dog"]
    assert record["nfe"] - store(tmp_path).record(cell.base.id)["nfe"] == 3


def test_a_picture_is_named_by_all_that_made_it(cascade: Callable[..., Any]) -> None:
    usual = freeze(cascade(), {})
    assert usual.id == freeze(cascade(), {}).id
    changes = [
        {"scheduler__steps": 3},
        {"upscale__noise_level": 3},
        {"upscale__then__noise_level": 3},
        {"upscale__then__scheduler__steps": 4},
        {"upscale__then__dtype": "bfloat16"},
        {"upscale__then__text": {"dtype": "bfloat16", "device": "auto"}},
    ]
    ids = [freeze(cascade(**change), {}).id for change in changes]
    assert len({usual.id, usual.base.id, usual.base.base.id, *ids}) == 3 + len(changes)
    assert freeze(cascade(upscale__then__text={"dtype": "float32", "device": "cpu"}), {}).id == usual.id


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"upscale__then__path": "nowhere"}, r"^upscale\.then\.path=nowhere: no such folder"),
        ({"upscale__then__noise_level": 351}, r"^upscale\.then\.noise_level=351: must be between 0 and 350"),
        ({"upscale__then__scheduler__steps": 2000}, r"^upscale\.then\.scheduler\.steps=2000"),
        ({"upscale__then__dtype": "float16"}, r"^upscale\.then\.dtype=float16: must be one of"),
        (
            {"upscale__then__text": {"dtype": "float16", "device": "auto"}},
            r"^upscale\.then\.text\.dtype=float16: must be",
        ),
    ],
)
def test_what_is_wrong_is_named(cascade: Callable[..., Any], changes: dict[str, Any], told: str) -> None:
    with pytest.raises(BadInput, match=told):
        freeze(cascade(**changes), {})


def test_a_checkpoint_of_another_kind_is_refused(cascade: Callable[..., Any], enlarging: Path) -> None:
    with pytest.raises(BadInput, match=r"^upscale\.then\.path=.*: not a Stable Diffusion x4 upscaler, vae, low_res"):
        freeze(cascade(upscale__then__path=str(enlarging)), {})


@pytest.mark.slow
def test_tables_say_which_stage_a_picture_is_from(cascade: Callable[..., Any], config: Any) -> None:
    """Three cells, of which two enlarge the first's picture, and two the second's."""
    import pandas as pd

    whole = cascade()
    second = cascade() | {"upscale": {**whole["upscale"], "then": {"name": "none"}}}
    first = cascade() | {"upscale": {"name": "none"}}
    outcome = run_sweep([(raw, {"case": i}) for i, raw in enumerate([first, second, whole])], "mine")
    assert list(pd.read_csv(outcome.folder / "results.csv")["stage"]) == [1, 2, 3]
    assert "Pictures of stage I and II and III." in (outcome.folder / "table.md").read_text()
    assert [run["cells"] for run in runs(outcome)] == [3]


def test_an_enlarging_stage_without_its_weights_is_told(cascade: Callable[..., Any], latent: Path) -> None:
    with pytest.raises(BadInput, match=r"^upscale\.then\.path=.*: no \.safetensors file of variant fp16 in unet/"):
        freeze(cascade(upscale__then__variant="fp16"), {})


@pytest.mark.slow
def test_an_export_takes_every_stage_along(cascade: Callable[..., Any], tmp_path: Path) -> None:
    from diffsweep import results

    run_sweep([(cascade(), {})], "mine")
    assert results.run(["export", "mine", f"to={tmp_path / 'copy'}", f"output_dir={tmp_path / 'outputs'}"]) == 0
    assert len(list((tmp_path / "copy" / "cells").rglob("image.png"))) == 3
