"""Guidance, asked of a model that is a matrix: what it ought to answer is a few matrix products."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from diffsweep.core.problems import BadInput
from diffsweep.core.types import Estimate, Guidance, Query
from diffsweep.guidance.band import bands
from diffsweep.guidance.classifier_free import ClassifierFree
from diffsweep.guidance.multiview import Multiview, mean, total
from diffsweep.guidance.none import Unguided
from diffsweep.sweep.parts import build, names
from diffsweep.view.flip import Flip
from diffsweep.view.identity import Identity
from diffsweep.view.negate import Negate
from diffsweep.view.rotate import Rotate

SHAPE, D = (3, 4, 4), 48
RNG = np.random.default_rng(5)
PROMPTS = ("", "p", "q", "bad")
NOISE = {prompt: (RNG.normal(size=(D, D)) / 7, RNG.normal(size=D)) for prompt in PROMPTS}
VARIANCE = {prompt: RNG.normal(size=(D, D)) / 7 for prompt in PROMPTS}
X = RNG.normal(size=SHAPE)
T = 400


def eps(prompt: str, x: np.ndarray = X) -> np.ndarray:
    matrix, constant = NOISE[prompt]
    return (matrix @ x.ravel() + constant).reshape(SHAPE)


def v(prompt: str, x: np.ndarray = X) -> np.ndarray:
    return (VARIANCE[prompt] @ x.ravel()).reshape(SHAPE)


def answered(query: Query) -> Estimate:
    x = query.image.numpy()
    return Estimate(torch.from_numpy(eps(query.prompt, x)), torch.from_numpy(v(query.prompt, x)))


def asked(guidance: Guidance, x: np.ndarray = X) -> Estimate:
    image = torch.from_numpy(x)
    return guidance.merge(image, T, [answered(query) for query in guidance.queries(image, T)])


def assert_equal(estimate: Estimate, noise: np.ndarray, variance: np.ndarray) -> None:
    assert estimate.variance is not None
    np.testing.assert_allclose(estimate.noise, noise, atol=1e-12)
    np.testing.assert_allclose(estimate.variance, variance, atol=1e-12)


# -- every guidance --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", names("guidance"))
def test_every_guidance_asks_about_the_picture_at_its_timestep_as_it_announces(name: str) -> None:
    guidance = build("guidance", name).about("p")
    queries = guidance.queries(torch.from_numpy(X), T)
    assert tuple(query.prompt for query in queries) == guidance.prompts
    assert "p" in guidance.prompts
    for query in queries:
        assert query.t == T and query.stage == "base"
        np.testing.assert_array_equal(query.image, X)


@pytest.mark.parametrize("name", names("guidance"))
def test_every_guidance_repeats_an_answer_that_is_the_same_for_all_prompts(name: str) -> None:
    guidance = build("guidance", name).about("p")
    answers = [Estimate(torch.from_numpy(eps("q")), torch.from_numpy(v("q"))) for _ in guidance.prompts]
    assert_equal(guidance.merge(torch.from_numpy(X), T, answers), eps("q"), v("q"))


@pytest.mark.parametrize("name", names("guidance"))
def test_the_prompt_is_bound_by_the_technique_and_is_no_key(name: str) -> None:
    with pytest.raises(BadInput, match=rf"^guidance\.prompt: unknown key of guidance={name}"):
        build("guidance", {"name": name, "prompt": "p"})


# -- classifier-free -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("scale", [0.5, 1.5, 3.0, 7.5, 100.0])
@pytest.mark.parametrize("negative", ["", "bad"])
def test_the_noise_is_extrapolated_and_the_variance_is_the_conditional_branchs(scale: float, negative: str) -> None:
    estimate = asked(ClassifierFree(scale, negative).about("p"))
    assert_equal(estimate, (1 - scale) * eps(negative) + scale * eps("p"), v("p"))


def test_scale_1_asks_one_question_about_the_prompt() -> None:
    guidance = ClassifierFree(1, "bad").about("p")
    assert guidance.prompts == Unguided("p").prompts == ("p",)
    assert_equal(asked(guidance), eps("p"), v("p"))


def test_scale_0_asks_one_question_without_the_prompt() -> None:
    guidance = ClassifierFree(0, "bad").about("p")
    assert guidance.prompts == ("bad",)
    assert_equal(asked(guidance), eps("bad"), v("bad"))


def test_between_them_two_questions_are_asked() -> None:
    assert {len(ClassifierFree(scale).about("p").prompts) for scale in (0.001, 0.999, 1.001, 4.0)} == {2}


def test_a_model_without_a_variance_gives_none() -> None:
    noise = torch.from_numpy(X)
    for guidance in (ClassifierFree(3), Unguided(), Multiview(((Identity(), ClassifierFree(3)), (Flip(), Unguided())))):
        merged = guidance.merge(noise, T, [Estimate(noise) for _ in guidance.prompts])
        assert merged.variance is None


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"name": "classifier_free", "scale": -1.0}, "guidance.scale=-1.0: must be at least 0"),
        ({"name": "classifier_free", "scale": float("nan")}, "guidance.scale=nan: must be a finite number"),
        ({"name": "classifier_free", "scale": "seven"}, "guidance.scale=seven: must be a number"),
        ({"name": "classifier_free", "scal": 7.0}, "guidance.scal: unknown key .*did you mean 'scale'"),
        ({"name": "classifier_fre"}, "guidance=classifier_fre: not known; .*did you mean 'classifier_free'"),
        ({"name": "multiview"}, "guidance=multiview: not known"),  # a technique makes it
    ],
)
def test_a_guidance_that_cannot_be_names_the_key(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=f"^{message}"):
        build("guidance", settings)


# -- several views ---------------------------------------------------------------------------------------------------
def test_an_anagram_is_the_mean_over_its_views_noise_and_variance() -> None:
    """Guided, unguided and negated parts side by side: five questions, each answered through its own view."""
    guidance = Multiview(
        (
            (Identity(), ClassifierFree(3.0, "bad").about("p")),
            (Rotate(90), Unguided("q")),
            (Negate(), ClassifierFree(2.0).about("q")),
        )
    )
    assert guidance.prompts == ("bad", "p", "q", "", "q")
    turned = np.rot90(X, 1, (1, 2))
    upright = 3 * eps("p") - 2 * eps("bad")
    rotated = np.rot90(eps("q", turned), -1, (1, 2))
    negated = -(2 * eps("q", -X) - eps("", -X))
    variance = (v("p") + np.rot90(v("q", turned), -1, (1, 2)) + v("q", -X)) / 3
    assert_equal(asked(guidance), (upright + rotated + negated) / 3, variance)


def test_a_hybrid_is_the_sum_of_its_bands_and_the_mean_of_their_variances() -> None:
    low, high = bands((1.0,), 5)
    guidance = Multiview(((low, Unguided("p")), (high, ClassifierFree(3.0).about("q"))), total)

    def blurred(image: np.ndarray) -> np.ndarray:
        return gaussian_filter(image, 1.0, mode="mirror", radius=2, axes=(1, 2))

    fine = 3 * eps("q") - 2 * eps("")
    assert_equal(asked(guidance), blurred(eps("p")) + fine - blurred(fine), (v("p") + v("q")) / 2)


def test_views_that_show_the_same_to_the_same_prompt_change_nothing() -> None:
    plain = ClassifierFree(3.0).about("p")
    alone = asked(plain)
    for guidance in (Multiview(((Identity(), plain),)), Multiview(((Identity(), plain), (Identity(), plain)))):
        assert torch.equal(asked(guidance).noise, alone.noise)
    halves = bands((1.0,), 5)
    joined = asked(Multiview(tuple((band, plain) for band in halves), total))
    np.testing.assert_allclose(joined.noise, alone.noise, atol=1e-12)


def test_an_anagram_does_not_depend_on_the_order_of_its_views() -> None:
    parts = ((Flip(), Unguided("p")), (Rotate(270), ClassifierFree(2.0).about("q")))
    one, other = asked(Multiview(parts)), asked(Multiview(parts[::-1]))
    assert one.variance is not None
    assert_equal(other, one.noise.numpy(), one.variance.numpy())


def test_mean_and_total_join_any_number_of_parts() -> None:
    parts = [torch.tensor([1.0, 2.0]), torch.tensor([3.0, 5.0]), torch.tensor([5.0, 5.0])]
    assert mean(parts).tolist() == [3.0, 4.0] and total(parts).tolist() == [9.0, 12.0]
    assert mean(parts[:1]).tolist() == total(parts[:1]).tolist() == [1.0, 2.0]


def test_a_view_of_a_view_is_both() -> None:
    inner = Multiview(((Rotate(90), ClassifierFree(2.0).about("p")),))
    outer = Multiview(((Rotate(180), inner),))
    direct = Multiview(((Rotate(270), ClassifierFree(2.0).about("p")),))
    expected = asked(direct)
    assert expected.variance is not None
    assert_equal(asked(outer), expected.noise.numpy(), expected.variance.numpy())
