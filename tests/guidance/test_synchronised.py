"""Views of decoded pictures, on latents that are an exact mixture's pixels in another order: decoding loses nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from diffsweep.core.problems import BadInput
from diffsweep.core.process import named_table
from diffsweep.core.types import DECODER, ENCODER, SAMPLE, Estimate, Program, Query
from diffsweep.engine.execution import predicted
from diffsweep.guidance.none import Unguided
from diffsweep.guidance.rule import About
from diffsweep.guidance.synchronised import Synchronised
from diffsweep.model.analytic import COLOURS, GaussianMixture
from diffsweep.runner.freeze import freeze
from diffsweep.runner.ingredients import to_pixels
from diffsweep.scheduler.ddim import Ddim
from diffsweep.view.flip import Flip
from diffsweep.view.identity import Identity
from diffsweep.view.negate import Negate
from tests.answering import answered
from tests.checkpoints import saved

SIDE = 8
TABLE = named_table("squaredcos_cap_v2")


@pytest.fixture(scope="module")
def mixture() -> GaussianMixture:
    """A picture's left half of one colour and its right half grey: a view shows it elsewhere."""
    means = torch.tensor(list(COLOURS.values()))[:, :, None, None].repeat(1, 1, SIDE, SIDE)
    means[..., SIDE // 2 :] = 0
    latents = pixel_unshuffle(means, 2)
    spread = 0.04 * torch.eye(latents[0].numel(), dtype=torch.float64).expand(3, -1, -1)
    return GaussianMixture(latents, spread, [1 / 3] * 3, list(COLOURS), TABLE)


@pytest.fixture
def answer(mixture: GaussianMixture) -> Callable[[Query], Estimate]:
    def of(query: Query) -> Estimate:
        if query.stage.endswith(DECODER):
            return Estimate(pixel_shuffle(query.image, 2), kind=SAMPLE)
        if query.stage.endswith(ENCODER):
            return Estimate(pixel_unshuffle(query.image, 2), kind=SAMPLE)
        return predicted(mixture, [query], 1)[0]

    return of


def asks(end: str) -> Callable[[torch.Tensor], Program[torch.Tensor]]:
    def program(x: torch.Tensor) -> Program[torch.Tensor]:
        (answer,) = yield [Query(x, TABLE.clean, stage=f"base{end}")]
        return answer.output

    return program


def synchronised(*parts: tuple[Any, str]) -> Synchronised:
    abouts = tuple((view, About(Unguided(), prompt)) for view, prompt in parts)
    return Synchronised(abouts, asks(DECODER), asks(ENCODER))


def test_every_view_ends_at_the_one_picture_seen_through_it(mixture: GaussianMixture, answer: Any) -> None:
    from diffsweep.core.loop import denoise
    from diffsweep.core.streams import Streams

    views = (Identity(), Flip(), Negate())
    guidance = synchronised(*zip(views, ("red", "blue", "green"), strict=True))
    x = torch.randn(3, *mixture.stage.shape, generator=torch.Generator().manual_seed(0))
    scheduler = Ddim(steps=20)
    levels = scheduler.levels(mixture.stage)
    x = answered(denoise(x, levels, guidance, scheduler, mixture.stage, Streams(0)), answer)
    first, *others = (pixel_shuffle(own, 2) for own in x)
    for view, picture in zip(views[1:], others, strict=True):
        torch.testing.assert_close(picture, view.apply(first), atol=1e-5, rtol=0)
    assert not torch.allclose(first, first.flip(-1), atol=0.1)


def test_the_clean_estimates_are_those_of_the_views_mean_picture(mixture: GaussianMixture, answer: Any) -> None:
    level = TABLE.level(400)
    x = torch.randn(2, *mixture.stage.shape, generator=torch.Generator().manual_seed(1))
    found = answered(synchronised((Identity(), "red"), (Flip(), "blue")).estimate(x, level), answer)
    clean = [
        predicted(mixture, [Query(own, level, prompt)], 1)[0].clean(own, level)
        for own, prompt in zip(x, ("red", "blue"), strict=True)
    ]
    pictures = [pixel_shuffle(own, 2) for own in clean]
    joined = (pictures[0] + pictures[1].flip(-2)) / 2
    assert found.kind == SAMPLE
    for own, shown in zip(found.output, (joined, joined.flip(-2)), strict=True):
        torch.testing.assert_close(pixel_shuffle(own, 2), shown, atol=1e-5, rtol=0)


def test_what_a_codec_loses_is_no_correction(mixture: GaussianMixture, answer: Any) -> None:
    """Equal views of equal latents change nothing, however much encoding loses."""

    def lossy(query: Query) -> Estimate:
        found = answer(query)
        return Estimate(0.3 * found.output.square(), kind=SAMPLE) if query.stage.endswith(ENCODER) else found

    level = TABLE.level(400)
    one = torch.randn(mixture.stage.shape, generator=torch.Generator().manual_seed(1))
    found = answered(
        synchronised((Identity(), "red"), (Identity(), "red")).estimate(one.expand(2, -1, -1, -1), level), lossy
    )
    plain = predicted(mixture, [Query(one, level, "red")], 1)[0].clean(one, level)
    for own in found.output:
        torch.testing.assert_close(own, plain, atol=1e-6, rtol=0)


def test_an_anagram_of_a_latent_model_is_of_its_pictures(config: Any, sampled: Any, tmp_path: Any) -> None:
    folder = saved(tmp_path, "sd")
    usual = {"model": "tiny_sd", "model__path": str(folder), "technique": "anagram", "scheduler__steps": 3}
    cell, told = (freeze(config(**usual, technique__space=space), {}) for space in ("auto", "decoded"))
    assert cell.id == told.id
    (end,) = sampled([cell], cell.model.load("cpu"), 4)
    image, view = (to_pixels(x) for x in (end.result.image, end.result.pictures["view_1"]))
    assert (image == view[::-1]).all() and image.shape == (32, 32, 3)
    assert end.nfe == cell.evaluations == 3 * 2 * 2
    with pytest.raises(BadInput, match=r"^view=flip: a view is of pixels.*technique\.space=decoded"):
        freeze(config(**usual, technique__space="model"), {})
    with pytest.raises(BadInput, match=r"^technique\.space=decoded: of models with latents"):
        freeze(config(model="analytic", technique="anagram", technique__space="decoded"), {})
    own, pixels = (freeze(config(technique="anagram", technique__space=space), {}) for space in ("auto", "model"))
    assert own.id == pixels.id
