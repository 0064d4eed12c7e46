"""Techniques that must agree: what one gives at some setting of its keys, another gives too.

On a random checkpoint of IF's component types, whose answers depend on image, timestep and prompt as no closed form
could: an identity that holds here holds for any weights. Unless a tolerance is given, pictures are equal bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from diffsweep.core.types import Estimate
from diffsweep.sweep.cell import freeze
from diffsweep.sweep.runner import to_pixels

PROMPT = "a photo of a red dog"
OTHER = "an oil painting of a skull"
STEPS = 6  # leading: 830, 664, 498, 332, 166, 0
Outcomes = Callable[..., Any]

scales = pytest.mark.parametrize("scale", [1.0, 3.0])
schedulers = pytest.mark.parametrize("scheduler", ["ddpm", "ddim", "dpm_solver"])
thresholds = pytest.mark.parametrize("threshold", ["none", "clip", "dynamic"])


@pytest.fixture
def outcome(config: Callable[..., dict[str, Any]], sampled: Any, checkpoint: Path, loaded: Any) -> Outcomes:
    """What a technique gives on the random checkpoint, from one seed and prompt unless told otherwise."""

    def run(technique: str, model: Any = loaded, **changes: Any) -> Any:
        usual = {"model": "tiny", "model__path": str(checkpoint), "prompt": PROMPT, "seed": 3}
        cell = freeze(config(technique=technique, **usual | {"scheduler__steps": STEPS} | changes), {})
        return sampled([cell], model)[0].result

    return run


@pytest.fixture
def image(outcome: Outcomes) -> Callable[..., Tensor]:
    return lambda technique, **changes: outcome(technique, **changes).image


def assert_same(got: Tensor, expected: Tensor, tolerance: float = 0.0) -> None:
    """Equal to `tolerance`, a share of the picture's range where that exceeds [-1, 1]."""
    assert expected.isfinite().all() and expected.std() > 0.01
    scale = expected.abs().max().clamp(min=1)
    torch.testing.assert_close(got / scale, expected / scale, atol=tolerance, rtol=0)


# -- inpainting --------------------------------------------------------------------------------------------------------
INPAINTINGS = [
    pytest.param(
        {"technique__blend": blend, "technique__known": known, "technique__start": start}, id=f"{blend}-{known}-{start}"
    )
    for blend in ("each_step", "change_map")
    for known in ("renoised", "clean")
    for start in ("noise", "input")
]
NOTHING = {"mask": "box", "mask__x0": 0.0, "mask__x1": 0.0}  # m = 0 everywhere
HARD = {"mask": "ellipse"}


@pytest.fixture
def known(config: Callable[..., dict[str, Any]], checkpoint: Path) -> tuple[Any, Any]:
    """The input's pixels, H W 3, and the hard mask's, H W."""
    cell = freeze(config(technique="inpaint", model="tiny", model__path=str(checkpoint), **HARD), {})
    return cell.pixels, cell.mask


@scales
@schedulers
@pytest.mark.parametrize("keys", INPAINTINGS)
def test_inpainting_nothing_returns_the_input(
    image: Any, known: Any, keys: dict[str, str], scheduler: str, scale: float
) -> None:
    got = image("inpaint", guidance__scale=scale, scheduler=scheduler, **NOTHING, **keys)
    pixels = torch.tensor(known[0]).permute(2, 0, 1)
    assert torch.equal(got, pixels.float() / 127.5 - 1)
    assert torch.equal(torch.tensor(to_pixels(got)).permute(2, 0, 1), pixels)


@scales
@pytest.mark.parametrize("keys", INPAINTINGS)
def test_inpainting_keeps_the_input_where_the_mask_is_zero_and_nowhere_else(
    image: Any, known: Any, keys: dict[str, str], scale: float
) -> None:
    pixels, mask = known
    got = to_pixels(image("inpaint", guidance__scale=scale, **HARD, **keys))
    assert set(mask.ravel()) == {0, 255}
    assert (got[mask == 0] == pixels[mask == 0]).all()
    assert (got[mask == 255] != pixels[mask == 255]).any(-1).mean() > 0.9


@scales
@schedulers
@pytest.mark.parametrize("keys", [p for p in INPAINTINGS if p.values[0]["technique__start"] == "noise"])
def test_inpainting_everything_from_noise_is_text_to_image(
    image: Any, keys: dict[str, str], scheduler: str, scale: float
) -> None:
    settings = {"guidance__scale": scale, "scheduler": scheduler}
    assert_same(image("inpaint", mask="none", **keys, **settings), image("text_to_image", **settings))


@scales
@pytest.mark.parametrize("strength", [1.0, 0.5])
@pytest.mark.parametrize("keys", [p for p in INPAINTINGS if p.values[0]["technique__start"] == "input"])
def test_inpainting_everything_from_the_input_is_image_to_image(
    image: Any, keys: dict[str, str], strength: float, scale: float
) -> None:
    settings = {"guidance__scale": scale, "technique__strength": strength}
    assert_same(image("inpaint", mask="none", **keys, **settings), image("image_to_image", **settings))


@scales
@pytest.mark.parametrize("known", ["renoised", "clean"])
@pytest.mark.parametrize("start", ["noise", "input"])
def test_with_a_hard_mask_a_change_map_is_a_join_at_every_step(
    image: Any, known: str, start: str, scale: float
) -> None:
    settings = {"technique__known": known, "technique__start": start, "guidance__scale": scale, **HARD}
    change_map = image("inpaint", technique__blend="change_map", **settings)
    assert_same(change_map, image("inpaint", technique__blend="each_step", **settings))


# -- several views -----------------------------------------------------------------------------------------------------
@scales
@schedulers
@pytest.mark.parametrize("number", [2, 4])
def test_an_anagram_of_identity_views_of_one_prompt_is_text_to_image(
    image: Any, scheduler: str, number: int, scale: float
) -> None:
    """Exact for 2 and 4 views: sums of equal floats, and halves of them, are not rounded."""
    views = [{"name": "identity"}] * number
    settings = {"guidance__scale": scale, "scheduler": scheduler}
    got = image("anagram", technique__views=views, technique__prompts=[PROMPT] * number, **settings)
    assert_same(got, image("text_to_image", **settings))


@scales
@pytest.mark.parametrize("view", ["flip", "rotate", "negate", "permute", "jigsaw"])
def test_the_order_of_two_views_does_not_matter(image: Any, view: str, scale: float) -> None:
    one, two = {"name": "identity"}, {"name": view}
    settings = {"guidance__scale": scale}
    got = image("anagram", technique__views=[one, two], technique__prompts=[PROMPT, OTHER], **settings)
    swapped = image("anagram", technique__views=[two, one], technique__prompts=[OTHER, PROMPT], **settings)
    assert_same(got, swapped)
    other = image("anagram", technique__views=[one, two], technique__prompts=[OTHER, PROMPT], **settings)
    assert (got - other).abs().max() > 1e-4  # which prompt goes with which view does


@scales
@thresholds
@pytest.mark.parametrize("sigma", [2.0, 0.7, [4.0, 1.0]], ids=str)
def test_the_bands_of_one_prompt_add_up_to_text_to_image(image: Any, sigma: Any, threshold: str, scale: float) -> None:
    number = 3 if isinstance(sigma, list) else 2
    settings = {"guidance__scale": scale, "scheduler__threshold": threshold}
    got = image("hybrid", technique__sigma=sigma, technique__prompts=[PROMPT] * number, **settings)
    assert_same(got, image("text_to_image", **settings), 1e-5)


# -- starts ------------------------------------------------------------------------------------------------------------
@scales
@schedulers
@pytest.mark.parametrize("index", range(STEPS))
def test_image_to_image_from_a_visited_timestep_is_iterative_denoise_from_there(
    outcome: Outcomes, index: int, scheduler: str, scale: float
) -> None:
    settings = {"guidance__scale": scale, "scheduler": scheduler}
    edited = outcome("image_to_image", technique__start_index=index, **settings)
    denoised = outcome("iterative_denoise", technique__t=830 - 166 * index, **settings)
    assert_same(edited.image, denoised.image)
    assert_same(edited.pictures["noisy"], denoised.pictures["noisy"])


@pytest.mark.parametrize("t", [0, 500, 999])
def test_every_denoiser_starts_from_what_forward_noise_shows(outcome: Outcomes, t: int) -> None:
    expected = outcome("forward_noise", technique__t=t).image
    for technique in ("one_step_denoise", "iterative_denoise", "gaussian_denoise"):
        assert_same(outcome(technique, technique__t=t).pictures["noisy"], expected)


@scales
@schedulers
@pytest.mark.parametrize("t", [0, 300, 700])
def test_one_step_is_iterative_denoise_with_no_timestep_below(image: Any, t: int, scheduler: str, scale: float) -> None:
    settings = {"technique__t": t, "guidance__scale": scale}
    alone = {
        "scheduler": scheduler,
        "scheduler__steps": 1,
        "scheduler__spacing": "trailing",
        "scheduler__threshold": "none",
    }
    assert_same(image("iterative_denoise", **settings, **alone), image("one_step_denoise", **settings), 1e-5)


# -- guidance ----------------------------------------------------------------------------------------------------------
PLAIN = [
    ("text_to_image", {}),
    ("image_to_image", {}),
    ("inpaint", {"mask__softness": 2.0}),
    ("anagram", {"technique__prompts": [PROMPT, PROMPT]}),
    ("hybrid", {"technique__prompts": [PROMPT, PROMPT]}),
    ("iterative_denoise", {}),
    ("one_step_denoise", {}),
]
techniques = pytest.mark.parametrize(("technique", "keys"), PLAIN, ids=[name for name, _ in PLAIN])


@techniques
def test_scale_1_is_no_guidance(image: Any, technique: str, keys: dict[str, Any]) -> None:
    got = image(technique, guidance__scale=1.0, guidance__negative_prompt=OTHER, **keys)
    assert_same(got, image(technique, guidance="none", **keys))


@techniques
def test_scale_0_is_the_negative_prompt_alone(image: Any, technique: str, keys: dict[str, Any]) -> None:
    got = image(technique, guidance__scale=0.0, guidance__negative_prompt=OTHER, **keys)
    told = {key: [OTHER, OTHER] if key == "technique__prompts" else value for key, value in keys.items()}
    assert_same(got, image(technique, guidance="none", prompt=OTHER, **told))
    assert (got - image(technique, guidance="none", **keys)).abs().max() > 1e-4  # and the prompt counts


@techniques
@pytest.mark.parametrize("scale", [0.5, 7.0])
def test_a_negative_prompt_equal_to_the_prompt_is_no_guidance(
    image: Any, technique: str, keys: dict[str, Any], scale: float
) -> None:
    got = image(technique, guidance__scale=scale, guidance__negative_prompt=PROMPT, **keys)
    assert_same(got, image(technique, guidance="none", **keys))


# -- schedulers --------------------------------------------------------------------------------------------------------
class NoVariance:
    """A model that keeps its variance to itself."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.stages, self.encode = model.stages, model.encode

    def predict(self, *row: Any) -> Estimate:
        return replace(self.model.predict(*row), variance=None)


@scales
@thresholds
def test_ddim_at_eta_1_is_ddpm_with_the_posteriors_variance(
    image: Any, loaded: Any, threshold: str, scale: float
) -> None:
    """DDIM, section 4.1; also where the clean estimate is thresholded, for the noise is computed anew from it."""
    settings = {"model": NoVariance(loaded), "guidance__scale": scale, "scheduler__threshold": threshold}
    got = image("text_to_image", scheduler="ddim", scheduler__eta=1.0, **settings)
    assert_same(got, image("text_to_image", scheduler="ddpm", **settings), 1e-5)


@scales
@thresholds
def test_dpm_solvers_first_step_is_ddims(image: Any, threshold: str, scale: float) -> None:
    """Two steps: the first is of first order, the last gives the clean estimate (DPM-Solver++, section 4)."""
    settings = {"scheduler__steps": 2, "guidance__scale": scale, "scheduler__threshold": threshold}
    got = image("text_to_image", scheduler="dpm_solver", **settings)
    assert_same(got, image("text_to_image", scheduler="ddim", **settings), 1e-5)
