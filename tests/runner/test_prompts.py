"""What stands in for a prompt that is not given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from diffsweep.core.problems import BadInput
from diffsweep.input.world import World
from diffsweep.runner.cell import Cell
from diffsweep.runner.freeze import freeze

DEFAULT = "a photo of a dog"


@pytest.fixture
def frozen(config: Callable[..., Any], tmp_path: Path) -> Callable[..., Cell]:
    """A cell on a picture of the user's."""
    Image.new("RGB", (8, 8), "red").save(tmp_path / "house.png")
    mine = {"input": "file", "input__path": str(tmp_path / "house.png"), "prompt": "auto"}
    return lambda **changes: freeze(config(**{**mine, **changes}), {})


@pytest.mark.parametrize("technique", ["one_step_denoise", "iterative_denoise"])
def test_what_restores_asks_about_no_prompt_and_guides_towards_nothing(
    technique: str, frozen: Callable[..., Cell]
) -> None:
    cell = frozen(technique=technique)
    assert set(cell.prompts) == {""} and len(cell.prompts) == 1  # one row a step
    assert cell.config["prompt"] == "" and cell.config["guidance"]["scale"] == 1
    assert cell.notes == (
        f"prompt: none is given and input=file has no caption: {technique} runs with an empty one, unguided",
    )
    # a scale that is typed counts where it does something: away from another negative prompt, or towards a prompt
    away = frozen(technique=technique, guidance__scale=7.0, guidance__negative_prompt="red")
    assert away.prompts == ("red", "") and away.config["guidance"]["scale"] == 7
    for scale in (0.0, 7.0):
        told = frozen(technique=technique, guidance__scale=scale, guidance__negative_prompt="red").notes
        assert told == (cell.notes[0].replace("unguided", "guided by 'red' alone"),)
    towards = frozen(technique=technique, guidance__scale=7.0, prompt="red")
    assert towards.prompts == ("", "red") and towards.notes == ()
    assert {frozen(technique=technique, guidance__scale=scale).id for scale in (1.0, 2.0, 7.0)} == {cell.id}


@pytest.mark.parametrize("technique", ["image_to_image", "inpaint"])
@pytest.mark.parametrize("picture", ["file", "drawing"])
def test_what_edits_asks_for_a_prompt(technique: str, picture: str, config: Any, frozen: Callable[..., Cell]) -> None:
    mine = frozen if picture == "file" else lambda **keys: freeze(config(**keys, prompt="auto"), {})
    with pytest.raises(BadInput) as refused:
        mine(technique=technique)
    assert refused.value.messages == [
        f"prompt: {technique} edits the picture towards one, and input={picture} has no caption: "
        'give prompt="a photo of ...", or prompt= for an empty one'
    ]
    assert frozen(technique=technique, prompt="").prompts == ("",)


def test_a_caption_is_the_prompt_of_both(config: Any) -> None:
    for technique in ("one_step_denoise", "iterative_denoise", "image_to_image", "inpaint"):
        cell = freeze(config(technique=technique, input="world", prompt="auto"), {})
        assert cell.prompt == World().caption() and not [note for note in cell.notes if note.startswith("prompt")]


def test_what_draws_from_noise_keeps_its_default_and_says_so(frozen: Callable[..., Cell]) -> None:
    cell = frozen(technique="text_to_image")
    assert cell.prompt == DEFAULT
    assert cell.notes == (f"prompt: none is given, text_to_image draws {DEFAULT!r}",)
    assert frozen(technique="text_to_image", prompt=DEFAULT).id == cell.id
    own = frozen(technique="anagram", technique__prompts=["red", "blue"])
    assert own.notes == ()


def test_what_asks_about_no_prompt_needs_none(frozen: Callable[..., Cell]) -> None:
    for technique in ("forward_noise", "gaussian_denoise"):
        assert frozen(technique=technique).notes == ()


def test_nothing_is_assumed_where_a_technique_has_all_its_prompts(config: Any) -> None:
    own = {"technique": "anagram", "prompt": "auto", "technique__prompts": [DEFAULT, "red"]}
    assert freeze(config(**own), {}).notes == ()
    assert freeze(config(**own | {"technique__prompts": ["auto", "red"]}), {}).notes == (
        f"prompt: none is given, anagram draws {DEFAULT!r}",
    )
