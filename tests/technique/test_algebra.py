"""Techniques that must agree: what one gives at some setting of its keys, another gives too.

On a random checkpoint of IF's component types, whose answers depend on image, timestep and prompt as no closed form
could: an identity that holds here holds for any weights. Unless a tolerance is given, pictures are equal bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from diffsweep.core.types import Estimate
from diffsweep.runner.freeze import freeze
from diffsweep.runner.ingredients import to_pixels

PROMPT = "a photo of a red dog"
OTHER = "an oil painting of a skull"
STEPS = 6  # leading: 830, 664, 498, 332, 166, 0
SCALES = [{"guidance__scale": 1.0}, {"guidance__scale": 3.0}]
BLENDS = [
    {"technique__blend": b, "technique__known": k} for b in ("each_step", "change_map") for k in ("renoised", "clean")
]
STARTS = [{"technique__start": "noise"}, {"technique__start": "input"}]
HARD = {"mask": "ellipse"}

Asked = dict[str, Any]  # what a cell differs in from the usual
schedulers = pytest.mark.parametrize("scheduler", ["ddpm", "ddim", "dpm_solver"])
thresholds = pytest.mark.parametrize("threshold", ["none", "clip", "dynamic"])


@pytest.fixture
def cells(config: Callable[..., dict[str, Any]], checkpoint: Path) -> Callable[[list[Asked]], list[Any]]:
    usual = {"model": "tiny", "model__path": str(checkpoint), "prompt": PROMPT, "seed": 3, "scheduler__steps": STEPS}
    return lambda asked: [freeze(config(**usual | changes), {}) for changes in asked]


@pytest.fixture
def outcomes(cells: Any, sampled: Any, loaded: Any) -> Callable[..., list[Any]]:
    """What the random checkpoint gives, all cells in one engine."""
    return lambda asked, model=loaded: [end.result for end in sampled(cells(asked), model, 16)]


@pytest.fixture
def assert_equal(outcomes: Any) -> Callable[..., None]:
    """Check that the pictures of each pair of cells are equal, to `tolerance`."""

    def check(pairs: list[tuple[Asked, Asked]], tolerance: float = 0.0, **model: Any) -> None:
        found = outcomes([asked for pair in pairs for asked in pair], **model)
        for pair, one, two in zip(pairs, found[::2], found[1::2], strict=True):
            assert_same(one.image, two.image, tolerance, pair)

    return check


def assert_same(got: Tensor, expected: Tensor, tolerance: float = 0.0, told: Any = "") -> None:
    """Equal to `tolerance`, a share of the picture's range where that exceeds [-1, 1]."""
    assert expected.isfinite().all() and expected.std() > 0.01, told
    scale = expected.abs().max().clamp(min=1)
    torch.testing.assert_close(
        got / scale, expected / scale, atol=tolerance, rtol=0, msg=lambda text: f"{told}\n{text}"
    )


# -- inpainting --------------------------------------------------------------------------------------------------------
@schedulers
def test_inpainting_nothing_returns_the_input(cells: Any, sampled: Any, loaded: Any, scheduler: str) -> None:
    """With a mask that is 0 everywhere, which a user's may not be."""
    asked = [
        {"technique": "inpaint", "scheduler": scheduler, **blend, **start, **scale}
        for blend in BLENDS
        for start in STARTS
        for scale in SCALES
    ]
    nothing = [replace(cell, mask=np.zeros_like(cell.mask)) for cell in cells(asked)]
    pixels = nothing[0].pixels
    for end in (end.result for end in sampled(nothing, loaded, 16)):
        assert torch.equal(end.image, torch.tensor(pixels).permute(2, 0, 1).float() / 127.5 - 1)
        assert (to_pixels(end.image) == pixels).all()


def test_inpainting_keeps_the_input_where_the_mask_is_zero_and_nowhere_else(cells: Any, outcomes: Any) -> None:
    asked = [{"technique": "inpaint", **HARD, **blend, **start} for blend in BLENDS for start in STARTS]
    pixels, mask = cells(asked)[0].pixels, cells(asked)[0].mask
    assert set(mask.ravel()) == {0, 255}
    for end in outcomes(asked):
        got = to_pixels(end.image)
        assert (got[mask == 0] == pixels[mask == 0]).all()
        assert (got[mask == 255] != pixels[mask == 255]).any(-1).mean() > 0.9


@schedulers
def test_inpainting_everything_from_noise_is_text_to_image(assert_equal: Any, scheduler: str) -> None:
    everything = {"technique": "inpaint", "mask": "none", "scheduler": scheduler}
    plain = {"technique": "text_to_image", "scheduler": scheduler}
    assert_equal([(everything | blend | scale, plain | scale) for blend in BLENDS for scale in SCALES])


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_inpainting_everything_from_the_input_is_image_to_image(assert_equal: Any, strength: float) -> None:
    everything = {"technique": "inpaint", "mask": "none", "technique__start": "input", "technique__strength": strength}
    plain = {"technique": "image_to_image", "technique__strength": strength}
    assert_equal([(everything | blend | scale, plain | scale) for blend in BLENDS for scale in SCALES])


@pytest.mark.parametrize("known", ["renoised", "clean"])
def test_with_a_hard_mask_a_change_map_is_a_join_at_every_step(assert_equal: Any, known: str) -> None:
    hard = {"technique": "inpaint", "technique__known": known, **HARD}
    one, two = {"technique__blend": "change_map"}, {"technique__blend": "each_step"}
    assert_equal([(hard | one | start | scale, hard | two | start | scale) for start in STARTS for scale in SCALES])


# -- several views -----------------------------------------------------------------------------------------------------
@schedulers
def test_an_anagram_of_identity_views_of_one_prompt_is_text_to_image(assert_equal: Any, scheduler: str) -> None:
    """Exact for 2 and 4 views: sums of equal floats, and halves of them, are not rounded."""
    plain = {"technique": "text_to_image", "scheduler": scheduler}
    same = [
        {"technique": "anagram", "technique__views": [{"name": "identity"}] * n, "technique__prompts": [PROMPT] * n}
        for n in (2, 4)
    ]
    assert_equal([({**plain, **views, **scale}, plain | scale) for views in same for scale in SCALES])


@pytest.mark.parametrize("view", ["flip", "rotate", "negate", "permute", "jigsaw"])
def test_the_order_of_two_views_does_not_matter_but_which_prompt_each_has_does(outcomes: Any, view: str) -> None:
    one, two = {"name": "identity"}, {"name": view}
    for scale in SCALES:
        got, swapped, other = outcomes(
            [
                {"technique": "anagram", "technique__views": views, "technique__prompts": prompts, **scale}
                for views, prompts in (
                    ([one, two], [PROMPT, OTHER]),
                    ([two, one], [OTHER, PROMPT]),
                    ([one, two], [OTHER, PROMPT]),
                )
            ]
        )
        assert_same(got.image, swapped.image)
        assert (got.image - other.image).abs().max() > 1e-4


@thresholds
def test_the_bands_of_one_prompt_add_up_to_text_to_image(assert_equal: Any, threshold: str) -> None:
    plain = {"technique": "text_to_image", "scheduler__threshold": threshold}
    parted = [
        {"technique": "hybrid", "technique__sigma": sigma, "technique__prompts": [PROMPT] * n}
        for sigma, n in ((2.0, 2), (0.7, 2), ([4.0, 1.0], 3))
    ]
    assert_equal([({**plain, **bands, **scale}, plain | scale) for bands in parted for scale in SCALES], 1e-5)


# -- starts ------------------------------------------------------------------------------------------------------------
@schedulers
def test_image_to_image_from_a_visited_timestep_is_iterative_denoise_from_there(
    assert_equal: Any, scheduler: str
) -> None:
    edited = {"technique": "image_to_image", "scheduler": scheduler}
    denoised = {"technique": "iterative_denoise", "scheduler": scheduler}
    assert_equal(
        [
            (edited | scale | {"technique__start_index": i}, denoised | scale | {"technique__t": 830 - 166 * i})
            for scale in SCALES
            for i in range(STEPS)
        ]
    )


def test_what_starts_from_a_noised_input_shows_it_as_forward_noise_does(outcomes: Any) -> None:
    names = ("forward_noise", "one_step_denoise", "iterative_denoise", "gaussian_denoise")
    for t in (0, 500, 999):
        forward, *rest = outcomes([{"technique": name, "technique__t": t} for name in names])
        for end in rest:
            assert_same(end.pictures["noisy"], forward.image)


@schedulers
def test_one_step_is_iterative_denoise_with_no_timestep_below(assert_equal: Any, scheduler: str) -> None:
    only = {
        "scheduler": scheduler,
        "scheduler__steps": 1,
        "scheduler__spacing": "trailing",
        "scheduler__threshold": "none",
    }
    iterative, one = {"technique": "iterative_denoise", **only}, {"technique": "one_step_denoise"}
    places = [scale | {"technique__t": t} for scale in SCALES for t in (0, 300, 700)]
    assert_equal([(iterative | place, one | place) for place in places], 1e-6)


# -- guidance ----------------------------------------------------------------------------------------------------------
PLAIN: list[Asked] = [
    {"technique": "text_to_image"},
    {"technique": "image_to_image"},
    {"technique": "inpaint", "mask__softness": 2.0},
    {"technique": "anagram", "technique__prompts": [PROMPT, PROMPT]},
    {"technique": "hybrid", "technique__prompts": [PROMPT, PROMPT]},
    {"technique": "iterative_denoise"},
    {"technique": "one_step_denoise"},
]
UNGUIDED = {"guidance": "none"}


def told(asked: Asked, prompt: str) -> Asked:
    """The same cell, told another prompt wherever it is told one."""
    several = {"technique__prompts": [prompt, prompt]} if "technique__prompts" in asked else {}
    return asked | several | {"prompt": prompt}


def test_scale_1_is_no_guidance(assert_equal: Any) -> None:
    one = {"guidance__scale": 1.0, "guidance__negative_prompt": OTHER}
    assert_equal([(asked | one, asked | UNGUIDED) for asked in PLAIN])


def test_scale_0_is_the_negative_prompt_alone(assert_equal: Any) -> None:
    zero = {"guidance__scale": 0.0, "guidance__negative_prompt": OTHER}
    assert_equal([(asked | zero, told(asked, OTHER) | UNGUIDED) for asked in PLAIN])


@pytest.mark.parametrize("scale", [0.5, 7.0])
def test_a_negative_prompt_equal_to_the_prompt_is_no_guidance(assert_equal: Any, scale: float) -> None:
    same = {"guidance__scale": scale, "guidance__negative_prompt": PROMPT}
    assert_equal([(asked | same, asked | UNGUIDED) for asked in PLAIN])


def test_prompt_and_scale_count_in_every_technique(outcomes: Any) -> None:
    """Without this, the identities above would say nothing."""
    for asked in PLAIN:
        first, *rest = outcomes([told(asked, PROMPT), told(asked, OTHER), asked | SCALES[0], asked | {"seed": 4}])
        for other in rest:
            assert (first.image - other.image).abs().max() > 1e-4, asked


# -- schedulers --------------------------------------------------------------------------------------------------------
class NoVariance:
    """A model that keeps its variance to itself."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.stage, self.encode, self.ready = model.stage, model.encode, model.ready

    def predict(self, *rows: Any) -> Estimate:
        return replace(self.model.predict(*rows), variance=None)


@thresholds
def test_ddim_at_eta_1_is_ddpm_with_the_posteriors_variance(assert_equal: Any, loaded: Any, threshold: str) -> None:
    """DDIM, section 4.1; also where the clean estimate is thresholded, for the noise is computed anew from it."""
    plain = {"technique": "text_to_image", "scheduler__threshold": threshold}
    ddim, ddpm = {"scheduler": "ddim", "scheduler__eta": 1.0}, {"scheduler": "ddpm"}
    pairs = [({**ddim, **plain, **scale}, {**ddpm, **plain, **scale}) for scale in SCALES]
    assert_equal(pairs, 1e-5, model=NoVariance(loaded))


@thresholds
def test_dpm_solvers_first_step_is_ddims(assert_equal: Any, threshold: str) -> None:
    """Two steps: the first is of first order, the last gives the clean estimate (DPM-Solver++, section 4)."""
    plain = {"technique": "text_to_image", "scheduler__steps": 2, "scheduler__threshold": threshold}
    assert_equal(
        [(plain | {"scheduler": "dpm_solver"} | scale, plain | {"scheduler": "ddim"} | scale) for scale in SCALES], 1e-5
    )
