"""What is noted before a sweep runs."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from diffsweep.core.problems import BadInput
from diffsweep.model.family import families
from diffsweep.paths import shipped
from diffsweep.runner.freeze import freeze
from diffsweep.runner.model_notes import model_notes
from diffsweep.runner.notes import notes, shares
from diffsweep.world.captions import ANY_PHOTO, STYLE_WORDS, SUBJECT_WORDS
from tests.checkpoints import saved

Config = Callable[..., dict[str, Any]]


def test_the_shares_of_a_mask() -> None:
    mask = np.zeros((10, 100), np.uint8)
    mask[:3] = 255
    assert shares(mask) == "30 % regenerated, 70 % kept"
    mask[3] = 128
    assert shares(mask) == "30 % regenerated, 60 % kept, 10 % soft"
    mask[4, 0] = 1
    mask[:, 4:] = 255
    assert shares(mask) == "97 % regenerated, 2 % kept, under 1 % soft"
    mask[:] = 255
    mask[0, 0] = 0
    assert shares(mask) == "over 99 % regenerated, under 1 % kept"


def test_every_distinct_mask_is_told_once_by_what_varies(config: Config) -> None:
    cells = [
        freeze(config(technique="inpaint", seed=seed, mask__x1=x1), {"seed": seed, "mask.x1": x1})
        for x1 in (0.5, 0.75, 0.76)
        for seed in (0, 1)
    ]
    # of 8 x 8 pixels, 2 x 4 and 4 x 4
    assert [note for note in notes(cells) if note.startswith("mask")] == [
        "mask.x1=0.5: 12 % regenerated, 88 % kept",
        "mask.x1=0.75: 25 % regenerated, 75 % kept",
        "mask.x1=0.75 and mask.x1=0.76 come to the same picture",
    ]
    assert notes(cells[:1]) == ("mask.x1=0.5: 12 % regenerated, 88 % kept",)
    assert notes([freeze(config(technique="inpaint"), {})]) == ("mask: 25 % regenerated, 75 % kept",)


def test_a_value_that_is_given_twice_is_told(config: Config) -> None:
    cells = [freeze(config(seed=seed), {"seed": seed}) for seed in (0, 0, 1)]
    assert notes(cells) == ("seed=0: given 2 times, sampled once",)


def test_a_folder_of_another_family_than_the_choice_is_told(config: Config, checkpoint: Path) -> None:
    """tiny_sd is of Stable Diffusion's family, tiny_flow of Stable Diffusion 3's, the folder of IF's."""

    def told(path: str, **more: Any) -> tuple[str, ...]:
        return tuple(model_notes([freeze(config(model__path=path, model__variant=None, **more), {})]))

    (note,) = told("tiny_sd", model="sdxl")
    assert note == (
        "model.path=tiny_sd: StableDiffusionPipeline; dtype=float16, default_steps=50, default_scale=5.0 suit "
        "StableDiffusionXLPipeline: model=sd15 or model=sd21 has what suits it"
    )
    (note,) = told("tiny_flow", model="if_m")
    assert "suit IFPipeline: model=sd35_large or model=sd35_medium has" in note
    for own in ({"model": "sd15"}, {"model": "sd21"}, {"model": "tiny_flow"}, {"model": "tiny"}):
        assert told("tiny_sd", **own) == ()
    with pytest.raises(
        BadInput, match="IFPipeline, and this choice is for StableDiffusionXLPipeline: choose model=if_"
    ):
        told(str(checkpoint), model="sdxl")
    with pytest.raises(BadInput) as refused:  # by a type that nobody typed
        told("tiny_flow", model="sdxl")
    assert refused.value.messages == [
        "model.path=tiny_flow: StableDiffusion3Pipeline, and this choice is for StableDiffusionXLPipeline: "
        "leave model= out, or choose one for that",
        "model.dtype=float16: a transformer's numbers overflow in it; give bfloat16 or float32",
    ]
    with pytest.raises(BadInput) as refused:  # the family's own: its message alone
        told("tiny_sd", model="sd15", model__height=3)
    assert len(refused.value.messages) == 1


def test_a_choice_is_for_a_pipeline_of_a_family_that_there_is() -> None:
    named = [yaml.safe_load(file.read_text()) for file in Path(shipped("conf"), "model").glob("*.yaml")]
    own = {one["default_for"] for one in named if one["name"] == "checkpoint"}
    assert own - {"auto"} <= families().keys() and len(own) > 10


def test_many_masks_are_cut_short(config: Config) -> None:
    held = {"technique": "inpaint", "mask": "strokes", "model__size": 16}
    cells = [freeze(config(**held, mask__seed=seed), {"mask.seed": seed}) for seed in range(8)]
    found = notes(cells)
    assert len(found) == 6 and found[-1] == "and 3 more masks"


def test_what_was_assumed_of_files_is_told_once(config: Config, tmp_path: Path) -> None:
    first, second = Image.new("L", (8, 8)), Image.new("L", (8, 8), 255)
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    labels = np.zeros((8, 8), np.uint8)
    labels[2:6, 2:6] = 1
    Image.fromarray(labels).save(tmp_path / "m.png")
    files = {"input": "file", "input__path": str(tmp_path / "a.gif")}
    files |= {"mask": "file", "mask__path": str(tmp_path / "m.png")}
    cells = [freeze(config(technique="inpaint", seed=seed, **files), {"seed": seed}) for seed in (0, 1)]
    assert notes(cells) == (
        "input: a.gif has 2 frames, of which frame 0 is read (input.frame)",
        "mask: m.png holds the values 0 and 1: read as a label map, where 1 is regenerated",
        "mask: 25 % regenerated, 75 % kept",
    )


def test_words_that_the_model_does_not_know_are_told(config: Config) -> None:
    prompts = ("a photo of an astronaut, riding a horse", "a photo of a dog")
    for model, prompt in itertools.product(("tiny", "tiny_sd"), prompts):
        found = notes([freeze(config(model=model, prompt=prompt), {})])
        told = "the model does not know 'astronaut', 'riding', 'horse', and draws something else"
        assert found == (
            (f"prompt={prompt[:39]}{'…' if len(prompt) > 39 else ''}: {told}",) if "horse" in prompt else ()
        )


def test_a_model_of_the_drawn_world_knows_every_caption_and_no_other_checkpoint_is_asked(
    config: Config, tmp_path: Path
) -> None:
    words = [
        style.format(subject) for style in chain(*STYLE_WORDS.values()) for subject in chain(*SUBJECT_WORDS.values())
    ]
    model = freeze(config(model="tiny_sd"), {}).model
    assert not any(map(model.unknown, [*words, ANY_PHOTO, "", "red circles, 3 dogs?"]))
    assert model.unknown("a Car and a car; a dog") == ("car", "and")
    assert freeze(config(model="tiny_sd", model__path=str(saved(tmp_path, "sd"))), {}).model.unknown("a car") == ()


def test_what_the_autoencoder_does_to_the_known_part_is_told(config: Config) -> None:
    own = {"technique": "inpaint", "model": "tiny_sd", "mask": "box"}
    told = (
        "technique=inpaint: what is kept passes through the autoencoder, too; technique.paste=true keeps its own pixels"
    )
    assert told in notes([freeze(config(**own), {})])
    for other in ({"technique__paste": True}, {"model": "analytic"}):
        assert not any("autoencoder" in note for note in notes([freeze(config(**{**own, **other}), {})]))


def test_two_strengths_that_come_to_one_start_are_told_with_it_also_where_levels_rise(config: Config) -> None:
    own = {"technique": "inpaint", "technique__start": "input", "scheduler__steps": 10}
    own |= {"technique__jump": 2, "technique__resamples": 3}
    cells = [freeze(config(**own, technique__strength=s), {"technique.strength": s}) for s in (0.5, 0.55)]
    same = "technique.strength=0.5 and technique.strength=0.55 come to the same picture"
    assert f"{same}: both start at index 5 (t = 400)" in notes(cells)  # of 900, 800, ..., 0
