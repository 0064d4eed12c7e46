"""A cell's id: the same picture asked for in two ways has one id, and what changes the pixels changes the id."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file

from diffsweep.core import packages
from diffsweep.core.problems import BadInput
from diffsweep.core.types import Level
from diffsweep.input.world import World
from diffsweep.model.analytic import Analytic
from diffsweep.runner.cell import Cell
from diffsweep.runner.freeze import MAX_SEED, freeze
from diffsweep.runner.identity import cell_id

Config = Callable[..., dict[str, Any]]
BASE = {"seed": 5, "prompt": "red", "scheduler__steps": 4, "view": "permute", "mask__softness": 3.0}

# what a technique's picture depends on beside the seed, the model and its own keys
USES = {
    "text_to_image": {"prompt", "scheduler", "guidance"},
    "image_to_image": {"prompt", "scheduler", "guidance", "input"},
    "iterative_denoise": {"prompt", "scheduler", "guidance", "input"},
    "one_step_denoise": {"prompt", "guidance", "input"},
    "forward_noise": {"input"},
    "gaussian_denoise": {"input"},
    "inpaint": {"prompt", "scheduler", "guidance", "input", "mask"},
    "anagram": {"prompt", "scheduler", "guidance", "view"},
    "hybrid": {"prompt", "scheduler", "guidance"},
}

# another value for every key there is: it changes the picture where it is used
SHARED = {
    "seed": 6,
    "prompt": "something blue",
    "model__size": 12,
    "model__spread": 0.3,
    "model__reach": 2.0,
    "model__process": "flow",
    "scheduler": "ddim",
    "scheduler__steps": 5,
    "scheduler__spacing": "trailing",
    "scheduler__threshold": "clip",
    "scheduler__threshold_ratio": 0.5,
    "scheduler__threshold_max": 1.0,
    "guidance": "none",
    "guidance__scale": 3.0,
    "guidance__rescale": 0.5,
    "guidance__interval": [0.0, 0.1],
    "guidance__negative_prompt": "red",
    "view": "negate",
    "view__patches": 2,
    "view__seed": 1,
    "mask": "half",
    "mask__x0": 0.1,
    "mask__y0": 0.1,
    "mask__x1": 0.9,
    "mask__y1": 0.9,
    "mask__softness": 2.0,
    "mask__profile": "cosine",
    "mask__side": "inward",
    "mask__invert": True,
    "input": "world",
    "input__shapes": ["circle 0.5 0.5 0.3 red"],
    "input__background": "black",
}
OWN = {
    "image_to_image": {"start_index": 1, "strength": 1.0},
    "iterative_denoise": {"t": 400, "noise_sigma": 0.5},
    "one_step_denoise": {"t": 400, "noise_sigma": 0.5},
    "forward_noise": {"t": 400, "noise_sigma": 0.5},
    "gaussian_denoise": {"t": 400, "noise_sigma": 0.5, "sigma": 3.0, "kernel": 3, "rescale": True},
    "inpaint": {"blend": "change_map", "known": "clean", "start": "noise", "strength": 0.5, "jump": 2, "resamples": 3},
    "anagram": {"prompts": ["blue", "red"], "views": ["negate", "identity"]},
    "hybrid": {"prompts": ["blue", "red"], "sigma": 1.0, "kernel": 3},
}
# none of these touches a picture
AROUND = {
    "device": "auto",
    "output_dir": "elsewhere",
    "plugins": ["diffsweep"],
    "confirm": True,
    "plan": True,
    "sweep__name": "another",
    "sweep__replace": True,
    "engine__rows": 3,
    "engine__threads": 1,
    "engine__trajectory": 3,
    "engine__retries": 3,
    "engine__grace": 30.0,
    "engine__devices": "any",
    "store__format": "lots",
    "grid__rows": "seed",
    "grid__cols": "seed",
    "grid__blocks": ["seed"],
    "grid__metric": ["psnr"],
    "grid__pictures": ["image"],
    "grid__size": 64,
    "metric": "default",
    "metric__names": ["psnr"],
    "metric__missing": "skip",
    "metric__judge": "another",
    "metric__features": "inception",
    "metric__references": "world",
    "tracker": "wandb",
}
ALONE = {
    "technique__paste",
    "technique__downsample",
    "technique__space",
    "guidance__embedded",
    "scheduler__shift",
}  # of latents, FLUX and flows; others refuse them, or are the same without
# where a technique's keys are changed from, if not from their defaults
FROM = {
    "inpaint": {"technique__start": "input", "technique__jump": 1, "technique__resamples": 2},
    "gaussian_denoise": {"technique__sigma": 2.0},
}


# where a key does anything only beside another
DYNAMIC = {"scheduler__threshold": "dynamic", "scheduler__threshold_max": 3.0, "guidance__scale": 20.0}
BESIDE = {"scheduler__threshold_ratio": DYNAMIC, "scheduler__threshold_max": DYNAMIC}


@pytest.fixture
def frozen(config: Config) -> Callable[..., Cell]:
    return lambda **changes: freeze(config(**{**BASE, **changes}), {})


def leaves(node: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in node.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}__")
        elif key != "name" or prefix == "sweep__":
            yield f"{prefix}{key}"


load = lru_cache(Analytic.load)


@pytest.mark.parametrize("technique", USES)
def test_a_key_changes_the_id_exactly_where_it_changes_the_picture(
    technique: str, config: Config, frozen: Callable[..., Cell], sampled: Callable[..., list[Any]]
) -> None:
    own = {f"technique__{key}": value for key, value in OWN.get(technique, {}).items()}
    changes = {**SHARED, **own, **AROUND}
    known = {*changes} | ALONE  # a new key needs another value above
    assert {*leaves(config(technique=technique, view="permute"))} <= known

    def drawn(**changes: Any) -> tuple[Cell, torch.Tensor]:
        cell = frozen(technique=technique, **{**FROM.get(technique, {}), **changes})
        return cell, sampled([cell], load(cell.model, "cpu"), rows=4)[0].result.image

    plain = drawn()
    used = {"seed", "model", "technique", *USES[technique]}
    for key, value in changes.items():
        base, before = drawn(**BESIDE[key]) if key in BESIDE else plain
        cell, after = drawn(**{**BESIDE.get(key, {}), key: value})
        group = key.partition("__")[0]
        same_picture = before.shape == after.shape and torch.equal(before, after)
        assert (cell.id == base.id) == (group not in used), key
        if base.visited or group != "model":
            assert same_picture == (group not in used), key


def test_rows_that_an_interval_saves_are_not_counted(frozen: Callable[..., Cell], sampled: Any) -> None:
    whole = frozen(guidance__scale=3.0)
    ratios = sorted(level.ratio for level in whole.visited)
    cell = frozen(guidance__scale=3.0, guidance__interval=[ratios[1], ratios[2]])
    (end,) = sampled([cell], load(cell.model, "cpu"), rows=4)
    assert whole.evaluations == 8 and cell.evaluations == end.nfe == 6
    assert frozen(guidance__scale=3.0, guidance__interval=None).id == whole.id != cell.id


# -- one picture, one id ----------------------------------------------------------------------------------------------
EDIT = {"technique": "image_to_image", "scheduler__steps": 10}
PATCH = {"technique": "inpaint", "mask__softness": 0.0}
ANAGRAM = {"technique": "anagram", "technique__prompts": "auto"}
SAME = {
    "a strength and its start index": ({**EDIT, "technique__strength": 0.6}, {**EDIT, "technique__start_index": 4}),
    "an auto strength and 0.7": (EDIT, {**EDIT, "technique__strength": 0.7}),
    "two strengths that round alike": ({**EDIT, "technique__strength": s} for s in (0.7, 0.79)),
    "two strengths of an inpainting": (
        {**PATCH, "scheduler__steps": 10, "technique__start": "input", "technique__strength": s} for s in (0.5, 0.55)
    ),
    "a noise over signal and the timestep nearest to it": (
        {"technique": "forward_noise", "input": "world", "technique__noise_sigma": 1.0},
        {"technique": "forward_noise", "input": "world", "technique__t": 495},
    ),
    "auto steps and 50": ({"scheduler__steps": "auto"}, {"scheduler__steps": 50}),
    "a preset and its own steps": ({"scheduler__spacing": "fast27", "scheduler__steps": n} for n in ("auto", 27)),
    "the checkpoint's spacing by name": ({}, {"scheduler__spacing": "leading"}),
    "the checkpoint's thresholding by name": ({}, {"scheduler__threshold": "none"}),
    "two spacings that visit the same": (
        {"scheduler__steps": 1000, "scheduler__spacing": s} for s in ("leading", "trailing")
    ),
    "a number of either type": ({"guidance__scale": 3}, {"guidance__scale": 3.0}),
    "an auto prompt and the default": ({"prompt": "auto"}, {"prompt": "a photo of a dog"}),
    "an auto prompt and the input's caption": (
        {**EDIT, "input": "world", "prompt": "auto"},
        {**EDIT, "input": "world", "prompt": World().caption()},
    ),
    "a hard box and an ellipse over the same pixels": (PATCH, {**PATCH, "mask": "ellipse"}),
    "the profile of a hard edge": (PATCH, {**PATCH, "mask__profile": "cosine"}),
    "any scale, about the negative prompt itself": ({"prompt": "", "guidance__scale": w} for w in (1.0, 4.0)),
    "no guidance and scale 1": ({"guidance": "none"}, {"guidance__scale": 1.0, "guidance__negative_prompt": "blue"}),
    "returns that never come": (PATCH, {**PATCH, "technique__jump": 4, "technique__resamples": 3}),
    "at scale 1, any negative prompt": ({"guidance__scale": 1.0, "guidance__negative_prompt": n} for n in ("", "blue")),
    "listed timesteps and the spacing that comes to them": (
        {"scheduler__steps": "auto", "scheduler__spacing": [750, 500, 250, 0]},
        {"scheduler__spacing": "leading"},
    ),
    "an open place among the prompts": (ANAGRAM, {**ANAGRAM, "technique__prompts": ["auto"]}),
    "the first of several prompts": (
        {**ANAGRAM, "prompt": "red", "technique__prompts": ["auto", "blue"]},
        {**ANAGRAM, "prompt": "green", "technique__prompts": ["red", "blue"]},
    ),
    "the view group beside an anagram's own views": (
        {**ANAGRAM, "technique__views": ["identity", "negate"], "view": view} for view in ("flip", "negate")
    ),
    "a view by name and with its keys": (
        {**ANAGRAM, "technique__views": ["identity", view]} for view in ("flip", {"name": "flip", "axis": "vertical"})
    ),
}


@pytest.mark.parametrize("way", SAME)
def test_two_ways_to_ask_for_a_picture_have_one_id(way: str, frozen: Callable[..., Cell]) -> None:
    one, other = (frozen(**{"scheduler__steps": 4, "model__size": 8, **changes}) for changes in SAME[way])
    assert one.id == other.id
    assert one.visited == other.visited and one.prompts == other.prompts


def test_an_input_is_known_by_its_pixels(frozen: Callable[..., Cell], tmp_path: Path) -> None:
    world = World("skull/photo/1").pixels(8)
    ids = {}
    for name, pixels in (("same", world), ("other", 255 - world)):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
        ids[name] = frozen(**EDIT, input="file", input__path=str(tmp_path / f"{name}.png")).id
    assert frozen(**EDIT, input="world", input__id="skull/photo/1").id == ids["same"] != ids["other"]


def test_a_mask_is_known_by_its_pixels(frozen: Callable[..., Cell], tmp_path: Path) -> None:
    drawn = frozen(technique="inpaint")  # soft: grey values are kept
    assert drawn.mask is not None and len(np.unique(drawn.mask)) > 2
    Image.fromarray(drawn.mask).save(tmp_path / "mask.png")
    path = str(tmp_path / "mask.png")
    assert frozen(technique="inpaint", mask="file", mask__path=path, mask__softness="auto").id == drawn.id
    assert (
        frozen(technique="inpaint", mask="file", mask__path=path, mask__softness=1.0).id != drawn.id
    )  # feathered anew


def checkpoint(folder: Path, weights: bytes) -> Path:
    """What decides a checkpoint's stage and fingerprint; nothing here is loaded."""
    for part in ("unet", "text_encoder", "tokenizer", "scheduler"):
        (folder / part).mkdir(parents=True)
    (folder / "unet" / "config.json").write_text(
        json.dumps({"sample_size": 8, "in_channels": 3, "cross_attention_dim": 4})
    )
    (folder / "text_encoder" / "config.json").write_text(json.dumps({"d_model": 4}))
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps({"beta_schedule": "squaredcos_cap_v2"}))
    for part in ("unet", "text_encoder"):
        save_file({"weight": np.frombuffer(weights, np.uint8)}, folder / part / "model.safetensors")
    return folder


def test_a_checkpoint_is_known_by_its_weights_and_not_by_its_place(frozen: Callable[..., Cell], tmp_path: Path) -> None:
    folders = [checkpoint(tmp_path / name, name[:1].encode()) for name in ("a1", "a2", "b")]
    ids = [frozen(model="tiny", model__path=str(folder)).id for folder in folders]
    assert ids[0] == ids[1] != ids[2]
    assert frozen(model="tiny", model__path=str(folders[0]), model__dtype="bfloat16").id != ids[0]


# -- other pictures, other ids -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("spacing", ["quadratic", "karras", "logsnr_uniform"])
def test_trajectories_of_one_length_are_told_apart(spacing: str, frozen: Callable[..., Cell]) -> None:
    """Where rounding drops doubles, different numbers of steps come to trajectories of the same length."""
    ids: dict[str, tuple[Level, ...]] = {}
    for steps in range(30, 110):
        cell = frozen(scheduler__spacing=spacing, scheduler__steps=steps)
        assert ids.setdefault(cell.id, cell.levels) == cell.levels


def test_the_record_of_a_cell_leads_back_to_its_id(frozen: Callable[..., Cell]) -> None:
    for technique in USES:
        cell = frozen(technique=technique)
        stored = json.loads(json.dumps(cell.config, allow_nan=False))
        assert cell_id(stored) == cell.id
        assert stored["seed"] == 5 and stored["technique"]["name"] == technique
        assert cell_id({**stored, "seed": 6}) == frozen(technique=technique, seed=6).id


# -- what a cell says -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "changes, prompts, steps",
    [
        ({}, ("", "red"), 4),
        ({"guidance__scale": 1.0}, ("red",), 4),
        ({"guidance__scale": 0.0}, ("",), 4),
        ({"guidance__negative_prompt": "blue"}, ("blue", "red"), 4),
        ({"guidance": "none"}, ("red",), 4),
        ({"technique": "anagram", "technique__prompts": ["a", "b"]}, ("", "a", "", "b"), 4),
        ({"technique": "hybrid", "technique__prompts": ["a", "b"], "guidance": "none"}, ("a", "b"), 4),
        (
            {"technique": "hybrid", "technique__sigma": [3, 1], "technique__prompts": ["a", "b", "c"]},
            (*("", "a"), *("", "b"), *("", "c")),
            4,
        ),
        ({"technique": "image_to_image", "technique__strength": 0.5}, ("", "red"), 2),
        ({"technique": "iterative_denoise", "technique__t": 501}, ("", "red"), 4),  # 501, then 500, 250 and 0
        ({"scheduler": "heun"}, ("", "red"), 7),  # the last step asks once
        ({"technique": "inpaint", "technique__jump": 1, "technique__resamples": 2}, ("", "red"), 7),  # 3 returns
        ({"technique": "one_step_denoise"}, ("", "red"), 1),
        ({"technique": "forward_noise"}, (), 0),
        ({"technique": "gaussian_denoise"}, (), 0),
    ],
)
def test_a_cells_cost_is_known_before_it_runs(
    changes: dict[str, Any], prompts: tuple[str, ...], steps: int, frozen: Callable[..., Cell]
) -> None:
    cell = frozen(**changes)
    assert (cell.prompts, cell.rounds) == (prompts, steps)


def test_parts_that_are_not_used_are_not_even_read(frozen: Callable[..., Cell]) -> None:
    cell = frozen(input="file", input__path="missing.png", mask="file", mask__path="missing.png")
    assert cell.pixels is None and cell.mask is None
    assert cell.config.keys() == {"seed", "model", "technique", "prompt", "scheduler", "guidance"}


# -- mistakes ---------------------------------------------------------------------------------------------------------
def messages(frozen: Callable[..., Cell], **changes: Any) -> list[str]:
    with pytest.raises(BadInput) as caught:
        frozen(**changes)
    return caught.value.messages


def test_everything_that_is_wrong_with_a_cell_is_told_at_once(frozen: Callable[..., Cell]) -> None:
    told = messages(
        frozen,
        seed=-1,
        prompt=["a"],
        technique="inpaint",
        technique__blend="each",
        guidance__scale="high",
        scheduler__steps=0,
        mask__softness=-1,
        input__background="skyblu",
    )
    keys = [message.partition("=")[0] for message in told]
    assert sorted(keys) == [
        *("guidance.scale", "input.background", "mask.softness", "prompt", "scheduler.steps", "seed"),
        "technique.blend",
    ]


def test_what_two_parts_do_not_agree_in_is_told_with_its_key(frozen: Callable[..., Cell], tmp_path: Path) -> None:
    Image.new("L", (4, 6)).save(tmp_path / "mask.png")
    path = str(tmp_path / "mask.png")
    assert messages(frozen, technique="inpaint", mask="file", mask__path=path, scheduler__steps=2000) == [
        f"mask.path={path}: the mask is 4 x 6 pixels, the picture square; a mask is as large as the picture's file, "
        "with which it is cropped, or square",
        "scheduler.steps=2000: this model has 1000 training steps",
    ]
    assert messages(frozen, technique="inpaint", input="none", mask__x0=0.75) == [
        "input=none: this technique needs a picture; input=world, input=file or input=drawing",
        "mask=box: regenerates nothing: it is 0 at each of 8 x 8 pixels",
    ]
    assert messages(frozen, technique="anagram", view__patches=3) == [
        "view.patches=3: must divide the picture's side of 8 pixels"
    ]
    assert messages(frozen, technique="anagram", view="jigsaw", model__size=6) == [
        "view=jigsaw: needs a side divisible by 4, the picture has 6 pixels"
    ]


def test_a_timestep_beyond_the_models_own_schedule_is_refused(frozen: Callable[..., Cell], tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "short", b"")
    config = {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 100}
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(config))
    short = {"model": "tiny", "model__path": str(folder)}
    (level,) = frozen(**short, technique="one_step_denoise", technique__t=99).visited
    assert level.t == 99
    for technique in ("one_step_denoise", "iterative_denoise", "forward_noise", "gaussian_denoise"):
        (told,) = messages(frozen, **short, technique=technique, technique__t=100)
        assert told.startswith("technique.t=100: must be between 0 and 99")


@pytest.mark.parametrize("seed", [0, MAX_SEED])
def test_every_seed_that_torch_takes_is_allowed(seed: int, frozen: Callable[..., Cell]) -> None:
    assert frozen(seed=seed).seed == torch.Generator().manual_seed(seed).initial_seed()
    assert messages(frozen, seed=MAX_SEED + 1) == [f"seed={MAX_SEED + 1}: must be between 0 and {MAX_SEED}"]


@pytest.mark.parametrize("seed", [None, "1", 1.5, True, [1]])
def test_a_seed_is_a_whole_number(seed: Any, frozen: Callable[..., Cell]) -> None:
    (told,) = messages(frozen, seed=seed)
    assert told.startswith("seed=") and told.endswith("must be a whole number")


@pytest.mark.parametrize("several", ["0,1", [0, 1]])
def test_several_values_are_told_where_a_sweep_stands(several: Any, frozen: Callable[..., Cell]) -> None:
    for key in "seed", "guidance__scale":
        (told,) = messages(frozen, **{key: several})
        assert told.endswith("hydra.sweeper.params, or in Python in a list")


@pytest.mark.parametrize("model, sigma, kernel", [("analytic", 2.0, 33), ("tiny", 2.0, 33), ("tiny_sd", 8.0, 129)])
def test_the_bands_of_a_hybrid_part_where_the_model_can_show_both(
    frozen: Callable[..., Cell], model: str, sigma: float, kernel: int
) -> None:
    """In pixels where the paper has it; in latents of 8 pixels at one of them, a sixteenth of 128 pixels."""
    own = {"technique": "hybrid", "model": model}
    cell, told = frozen(**own), frozen(**own, technique__sigma=sigma, technique__kernel=kernel)
    assert cell.id == told.id and (cell.technique.sigma, cell.technique.kernel) == (sigma, kernel)
    assert frozen(**own, technique__sigma=1.0).technique.kernel == (17 if model == "tiny_sd" else 33)


def test_an_unknown_key_at_the_root_is_refused_with_the_nearest(frozen: Callable[..., Cell], config: Config) -> None:
    with pytest.raises(BadInput) as caught:
        freeze({**config(), "sed": 3, "cascade": 2}, {})
    first, second = caught.value.messages
    assert first.startswith("sed: unknown key; there are seed, prompt") and first.endswith("did you mean 'seed'?")
    assert second.startswith("cascade: unknown key; there are ") and "did you mean" not in second


def test_an_edited_plugin_gives_another_id(
    frozen: Callable[..., Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name and keys stay the same, its pictures need not; a shipped part's id knows nothing of plugins."""
    folder = tmp_path / "edited_mine" / "view"
    folder.mkdir(parents=True)
    (tmp_path / "edited_mine" / "__init__.py").touch()
    (folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    ids = []
    for turns in (1, 2):
        monkeypatch.setattr(packages, "_digests", {})  # as in a process of its own
        (folder / "quarter.py").write_text(QUARTER.format(turns=turns))
        changes = {"technique": "anagram", "technique__views": ["identity", "quarter"], "plugins": ["edited_mine"]}
        ids.append(frozen(**changes).id)
    assert ids[0] != ids[1]
    assert frozen(technique="anagram", plugins=["edited_mine"]).id == frozen(technique="anagram").id


QUARTER = """
from dataclasses import dataclass


@dataclass(frozen=True)
class Quarter:
    def apply(self, x):
        return x.rot90({turns}, (-2, -1))

    def invert(self, estimate):
        return estimate
"""


def test_a_techniques_mistake_hides_no_missing_file(frozen: Callable[..., Cell]) -> None:
    changes = {"input": "file", "input__path": "no.png", "mask": "file", "mask__path": "nor.png"}
    told = "\n".join(messages(frozen, technique="inpaint", technique__blend="foo", **changes))
    assert "technique.blend=foo" in told and "input.path=no.png" in told and "mask.path=nor.png" in told


def test_a_technique_named_alone_is_the_same_as_one_with_its_keys(config: Any) -> None:
    """A sweeps file may say `technique: text_to_image`: what decides the picture is no less."""
    raw = [config(prompt=prompt) for prompt in ("red", "green")]
    named = [config(prompt=prompt) | {"technique": "text_to_image"} for prompt in ("red", "green")]
    assert [freeze(one, {}).id for one in named] == [freeze(one, {}).id for one in raw]
    assert freeze(named[0], {}).id != freeze(named[1], {}).id


def test_a_changed_file_is_read_anew(config: Config, tmp_path: Path) -> None:
    """Pixels, mask, hard mask, notes and id are of the same file."""
    picture, mask = tmp_path / "picture.png", tmp_path / "mask.png"
    files = {"input": "file", "input__path": str(picture), "mask": "file", "mask__path": str(mask)}
    ask = config(technique="inpaint", model__size=16, **files)
    ids = set()
    for grey, (low, high) in ((10, (0, 255)), (200, (0, 1)), (10, (255, 0))):
        Image.new("RGB", (16, 16), (grey,) * 3).save(picture)
        values = np.full((16, 16), low, np.uint8)
        values[:4] = high
        Image.fromarray(values).save(mask)
        os.utime(picture, ns=(grey, grey))
        os.utime(mask, ns=(low + 1, high + 2))
        cell = freeze(ask, {})
        assert (cell.pixels == grey).all()
        np.testing.assert_array_equal(cell.mask, np.where(values == max(low, high), 255, 0))
        np.testing.assert_array_equal(cell.hard_mask, cell.mask)
        assert any("label map" in note for note in cell.notes) == (high == 1)
        ids.add(cell.id)
    assert len(ids) == 3
