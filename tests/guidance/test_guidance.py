"""Guidance, asked of a model that is a matrix: what it ought to answer is a few matrix products."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from diffsweep.core.problems import BadInput
from diffsweep.core.process import named_table
from diffsweep.core.types import CLASSIFIER_FREE, EMBEDDED, SAMPLE, Estimate, Guidance, Query, Stage
from diffsweep.guidance.band import bands
from diffsweep.guidance.classifier_free import ClassifierFree
from diffsweep.guidance.multiview import Multiview, mean, total
from diffsweep.guidance.none import Unguided
from diffsweep.guidance.rule import About
from diffsweep.runner.parts import build, names
from diffsweep.view.flip import Flip
from diffsweep.view.identity import Identity
from diffsweep.view.negate import Negate
from diffsweep.view.rotate import Rotate
from tests.answering import answered

SHAPE, D = (3, 4, 4), 48
RNG = np.random.default_rng(5)
PROMPTS = ("", "p", "q", "bad")
STAGE = Stage(SHAPE, named_table("linear"))
NOISE = {prompt: (RNG.normal(size=(D, D)) / 7, RNG.normal(size=D)) for prompt in PROMPTS}
VARIANCE = {prompt: RNG.normal(size=(D, D)) / 7 for prompt in PROMPTS}
X = RNG.normal(size=SHAPE)
LEVEL = named_table("linear").level(400)


def eps(prompt: str, x: np.ndarray = X) -> np.ndarray:
    matrix, constant = NOISE[prompt]
    return (matrix @ x.ravel() + constant).reshape(SHAPE)


def v(prompt: str, x: np.ndarray = X) -> np.ndarray:
    return (VARIANCE[prompt] @ x.ravel()).reshape(SHAPE)


def answer(query: Query) -> Estimate:
    x = query.image.numpy()
    return Estimate(torch.from_numpy(eps(query.prompt, x)), torch.from_numpy(v(query.prompt, x)))


def asked(guidance: Guidance, x: np.ndarray = X) -> Estimate:
    return answered(guidance.estimate(torch.from_numpy(x), LEVEL), answer)


def assert_equal(estimate: Estimate, noise: np.ndarray, variance: np.ndarray) -> None:
    assert estimate.variance is not None
    np.testing.assert_allclose(estimate.output, noise, atol=1e-12)
    np.testing.assert_allclose(estimate.variance, variance, atol=1e-12)


# -- every guidance --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", names("guidance"))
def test_every_guidance_asks_about_the_picture_at_its_timestep_as_it_announces(name: str) -> None:
    beside = {"noise_level": 3}
    guidance = About(build("guidance", name), "p", "large", beside)
    queries = next(guidance.estimate(torch.from_numpy(X), LEVEL))
    assert tuple(query.prompt for query in queries) == guidance.prompts
    assert "p" in guidance.prompts
    for query in queries:
        assert (query.level, query.stage, query.beside) == (LEVEL, "large", beside)
        np.testing.assert_array_equal(query.image, X)


@pytest.mark.parametrize("name", names("guidance"))
def test_every_guidance_repeats_an_answer_that_is_the_same_for_all_prompts(name: str) -> None:
    steers = frozenset({CLASSIFIER_FREE, EMBEDDED}) if name == "embedded" else STAGE.steers
    rule = build("guidance", name).on(replace(STAGE, steers=steers))
    answers = [Estimate(torch.from_numpy(eps("q")), torch.from_numpy(v("q"))) for _ in rule.branches("p")]
    assert_equal(rule.combined(answers), eps("q"), v("q"))


@pytest.mark.parametrize("name", names("guidance"))
def test_every_guidance_keeps_the_kind_of_what_it_combines(name: str) -> None:
    steers = frozenset({CLASSIFIER_FREE, EMBEDDED}) if name == "embedded" else STAGE.steers
    rule = build("guidance", name).on(replace(STAGE, steers=steers))
    assert rule.combined([Estimate(torch.zeros(1), kind=SAMPLE) for _ in rule.branches("p")]).kind == SAMPLE
    joined = Multiview(((Negate(), About(rule, "p")), (Identity(), About(rule, "q"))))
    estimate = joined.estimate(torch.zeros(1, 2, 2), LEVEL)
    assert answered(estimate, lambda query: Estimate(query.image, kind=SAMPLE)).kind == SAMPLE


@pytest.mark.parametrize("name", names("guidance"))
def test_the_prompt_is_bound_by_the_technique_and_is_no_key(name: str) -> None:
    with pytest.raises(BadInput, match=rf"^guidance\.prompt: unknown key of guidance={name}"):
        build("guidance", {"name": name, "prompt": "p"})


# -- classifier-free -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("scale", [0.5, 1.5, 3.0, 7.5, 100.0])
@pytest.mark.parametrize("negative", ["", "bad"])
def test_the_noise_is_extrapolated_and_the_variance_is_the_conditional_branchs(scale: float, negative: str) -> None:
    estimate = asked(About(ClassifierFree(scale, negative), "p"))
    assert_equal(estimate, (1 - scale) * eps(negative) + scale * eps("p"), v("p"))


def test_scale_1_asks_one_question_about_the_prompt() -> None:
    guidance = About(ClassifierFree(1, "bad"), "p")
    assert guidance.prompts == About(Unguided(), "p").prompts == ("p",)
    assert_equal(asked(guidance), eps("p"), v("p"))


def test_scale_0_asks_one_question_without_the_prompt() -> None:
    guidance = About(ClassifierFree(0, "bad"), "p")
    assert guidance.prompts == ("bad",)
    assert_equal(asked(guidance), eps("bad"), v("bad"))


def test_between_them_two_questions_are_asked() -> None:
    assert {len(ClassifierFree(scale).branches("p")) for scale in (0.001, 0.999, 1.001, 4.0)} == {2}


def test_a_model_without_a_variance_gives_none() -> None:
    noise = torch.from_numpy(X)
    guided, plain = About(ClassifierFree(3, ""), "p"), About(Unguided(), "p")
    for guidance in (guided, plain, Multiview(((Identity(), guided), (Flip(), plain)))):
        assert answered(guidance.estimate(noise, LEVEL), lambda query: Estimate(query.image)).variance is None


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"name": "classifier_free", "scale": -1.0}, "guidance.scale=-1: must be at least 0"),
        ({"name": "classifier_free", "scale": float("nan")}, "guidance.scale=nan: must be auto or a finite number"),
        ({"name": "classifier_free", "scale": "seven"}, "guidance.scale=seven: must be auto or a number"),
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
            (Identity(), About(ClassifierFree(3.0, "bad"), "p")),
            (Rotate(90), About(Unguided(), "q")),
            (Negate(), About(ClassifierFree(2.0, ""), "q")),
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
    guidance = Multiview(((low, About(Unguided(), "p")), (high, About(ClassifierFree(3.0, ""), "q"))), total)

    def blurred(image: np.ndarray) -> np.ndarray:
        return gaussian_filter(image, 1.0, mode="mirror", radius=2, axes=(1, 2))

    fine = 3 * eps("q") - 2 * eps("")
    assert_equal(asked(guidance), blurred(eps("p")) + fine - blurred(fine), (v("p") + v("q")) / 2)


def test_views_that_show_the_same_to_the_same_prompt_change_nothing() -> None:
    plain = About(ClassifierFree(3.0, ""), "p")
    alone = asked(plain)
    for guidance in (Multiview(((Identity(), plain),)), Multiview(((Identity(), plain), (Identity(), plain)))):
        assert torch.equal(asked(guidance).output, alone.output)
    halves = bands((1.0,), 5)
    joined = asked(Multiview(tuple((band, plain) for band in halves), total))
    np.testing.assert_allclose(joined.output, alone.output, atol=1e-12)


def test_an_anagram_does_not_depend_on_the_order_of_its_views() -> None:
    parts = ((Flip(), About(Unguided(), "p")), (Rotate(270), About(ClassifierFree(2.0, ""), "q")))
    one, other = asked(Multiview(parts)), asked(Multiview(parts[::-1]))
    assert one.variance is not None
    assert_equal(other, one.output.numpy(), one.variance.numpy())


def test_mean_and_total_join_any_number_of_parts() -> None:
    parts = [torch.tensor([1.0, 2.0]), torch.tensor([3.0, 5.0]), torch.tensor([5.0, 5.0])]
    assert mean(parts).tolist() == [3.0, 4.0] and total(parts).tolist() == [9.0, 12.0]
    assert mean(parts[:1]).tolist() == total(parts[:1]).tolist() == [1.0, 2.0]


def test_a_view_of_a_view_is_both() -> None:
    inner = Multiview(((Rotate(90), About(ClassifierFree(2.0, ""), "p")),))
    outer = Multiview(((Rotate(180), inner),))
    direct = Multiview(((Rotate(270), About(ClassifierFree(2.0, ""), "p")),))
    expected = asked(direct)
    assert expected.variance is not None
    assert_equal(asked(outer), expected.output.numpy(), expected.variance.numpy())


# -- programs of more than one round -----------------------------------------------------------------------------------
def test_views_of_guidances_that_ask_several_times_are_asked_side_by_side() -> None:
    """Each part asks twice, about its answer: both rounds hold one question of each view."""

    class Twice:
        prompts = ("p", "p")

        def estimate(self, x: torch.Tensor, level: Any) -> Any:
            (first,) = yield [Query(x, level, "p")]
            (second,) = yield [Query(first.output, level, "p")]
            return second

    rounds: list[int] = []
    program = Multiview(((Identity(), Twice()), (Negate(), Twice()))).estimate(torch.ones(1, 2, 2), LEVEL)
    queries = next(program)
    try:
        while True:
            rounds.append(len(queries))
            queries = program.send([Estimate(query.image * 3 + 1) for query in queries])
    except StopIteration as stop:
        estimate = stop.value
    assert rounds == [2, 2]
    assert estimate.output.unique().tolist() == [((1 * 3 + 1) * 3 + 1 - ((-1 * 3 + 1) * 3 + 1)) / 2]


# -- settled ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "rule, prompts, plainest",
    [
        (Unguided(), ("p",), ClassifierFree(1.0, "")),
        (ClassifierFree(1.0, "bad"), ("p",), ClassifierFree(1.0, "")),
        (ClassifierFree(5.0, "p"), ("p",), ClassifierFree(1.0, "")),
        (ClassifierFree(0.0, ""), ("", ""), ClassifierFree(1.0, "")),
        (ClassifierFree(5.0, "p"), ("p", "q"), ClassifierFree(5.0, "p")),
        (ClassifierFree(0.0, "bad"), ("p",), ClassifierFree(0.0, "bad")),
    ],
)
def test_guidance_that_pushes_nothing_apart_is_at_scale_1(rule: Any, prompts: tuple[str, ...], plainest: Any) -> None:
    """And asks for the same: what the settled rule answers is what the rule answers."""
    assert rule.settled(prompts) == plainest
    for prompt in prompts:
        torch.testing.assert_close(asked(About(rule, prompt)).output, asked(About(plainest, prompt)).output)


# -- rescaled, and within an interval ----------------------------------------------------------------------------------
@pytest.mark.parametrize("rescale", [0.0, 0.3, 1.0])
def test_rescaled_guidance_is_diffusers_formula(rescale: float) -> None:
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

    estimate = asked(About(ClassifierFree(6.0, "", rescale=rescale), "p"))
    guided, conditional = torch.from_numpy(eps("") + 6.0 * (eps("p") - eps(""))), torch.from_numpy(eps("p"))
    expected = rescale_noise_cfg(guided[None], conditional[None], rescale)[0]
    assert_equal(estimate, expected.numpy(), v("p"))


def test_a_guided_answer_keeps_its_patches_lengths_as_qwen_images_pipeline_has_it() -> None:
    from diffusers import QwenImagePipeline

    estimate = asked(About(ClassifierFree(6.0, "", keeps=(0, 2, 2)), "p"))
    both = torch.from_numpy(np.stack([eps("p"), eps("") + 6.0 * (eps("p") - eps(""))]))
    conditional, guided = QwenImagePipeline._pack_latents(both, 2, *SHAPE)
    lengths = torch.norm(conditional, dim=-1, keepdim=True) / torch.norm(guided, dim=-1, keepdim=True)
    got = QwenImagePipeline._pack_latents(estimate.output[None], 1, *SHAPE)[0]
    np.testing.assert_allclose(got, guided * lengths, atol=1e-12)


def test_a_guided_answer_keeps_its_rows_lengths_as_lumina_images_pipeline_has_it() -> None:
    estimate = asked(About(ClassifierFree(6.0, "", keeps=(1, 1, 0)), "p"))
    conditional, guided = torch.from_numpy(eps("p")), torch.from_numpy(eps("") + 6.0 * (eps("p") - eps("")))
    lengths = torch.norm(conditional, dim=-1, keepdim=True) / torch.norm(guided, dim=-1, keepdim=True)
    np.testing.assert_allclose(estimate.output, guided * lengths, atol=1e-12)


@pytest.mark.parametrize(
    "low, high, rows", [(0.0, 1e9, 2), (1.0, 1.0, 2), (1.01, 1e9, 1), (0.0, 0.99, 1), (1.0, None, 2), (1.01, None, 1)]
)  # in units of the level's own
def test_guidance_is_within_its_interval_alone_and_asks_one_question_outside(
    low: float, high: float | None, rows: int
) -> None:
    rule = ClassifierFree(3.0, "", interval=(low * LEVEL.ratio, high and high * LEVEL.ratio))
    expected = asked(About(ClassifierFree(3.0, "") if rows == 2 else Unguided(), "p"))
    assert torch.equal(asked(About(rule, "p")).output, expected.output)
    assert len(next(About(rule, "p").estimate(torch.from_numpy(X), LEVEL))) == rows


@pytest.mark.parametrize("interval", [[1.0], [2.0, 1.0], [-1.0, 1.0], [None, 1.0], [-1.0, None], [0.0, None, 1.0]])
def test_an_interval_that_cannot_be_is_refused(interval: list[float | None]) -> None:
    with pytest.raises(BadInput, match=r"^guidance\.interval=.*the lower first"):
        build("guidance", {"name": "classifier_free", "interval": interval})
