"""Noise processes, against diffusers' tables and the definition of rectified flow."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr

from diffsweep.core.problems import BadInput
from diffsweep.core.process import Flow, Table, from_betas, named_table, zero_snr
from diffsweep.core.types import CLEAN, EPSILON, FLOW, SAMPLE, VELOCITY, Estimate, Level

COSINE = named_table("squaredcos_cap_v2")


@pytest.mark.parametrize("kind", ["linear", "scaled_linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize("T", [1000, 100])
def test_a_named_table_has_diffusers_alphas(kind: str, T: int) -> None:
    theirs = DDPMScheduler(num_train_timesteps=T, beta_schedule=kind, beta_start=0.0002, beta_end=0.03)
    ours = named_table(kind, T, 0.0002, 0.03)
    np.testing.assert_allclose(ours.alphas_cumprod, theirs.alphas_cumprod.double().numpy(), rtol=2e-4)


def test_an_unknown_table_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(ValueError, match="squaredcos_cap_v2"):
        named_table("sigmoid")


def test_a_level_of_a_table_has_the_signal_and_noise_of_its_betas() -> None:
    table = from_betas([0.1, 0.2, 0.5])
    assert table.T == 3
    assert table.level(2) == Level(2, math.sqrt(table.alphas_cumprod[2]), math.sqrt(1 - table.alphas_cumprod[2]))
    assert table.alphas_cumprod[2] == pytest.approx(0.9 * 0.8 * 0.5)
    assert table.clean == Level(CLEAN, 1.0, 0.0) and table.clean.is_end and not table.level(0).is_end
    x, eps = torch.full((3, 2, 2), 0.5), torch.full((3, 2, 2), 2.0)
    torch.testing.assert_close(table.level(1).noised(x, eps), 0.72**0.5 * x + 0.28**0.5 * eps)
    torch.testing.assert_close(table.clean.noised(x, eps), x)


def test_a_table_may_end_in_a_little_noise() -> None:
    assert Table((0.8, 0.2), end=0.9).clean == Level(CLEAN, math.sqrt(0.9), math.sqrt(1 - 0.9))


@pytest.mark.parametrize("t", [-1, 1000, 4000])
def test_a_timestep_that_the_model_does_not_know_is_refused(t: int) -> None:
    with pytest.raises(BadInput, match=rf"^t={t}: must be between 0 and 999$"):
        COSINE.level(t)
    with pytest.raises(BadInput, match=rf"^t={t}: must be above 0 and at most 900$"):
        Flow(900).level(t)


def test_a_table_knows_whole_timesteps_only_and_a_flow_all_of_them() -> None:
    with pytest.raises(BadInput, match=r"^t=2\.5: must be a whole number for this model$"):
        COSINE.level(2.5)
    assert COSINE.level(2.0) == COSINE.level(2)
    assert Flow().level(2.5) == Level(2.5, 1 - 0.0025, 0.0025)


PROCESSES = {
    "cosine": COSINE,
    "linear": named_table("linear"),
    "zero": zero_snr(COSINE),
    "flow": Flow(),
    "sd3": Flow(shift=3.0),
}


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("kind", [EPSILON, SAMPLE, VELOCITY, FLOW])
def test_the_clean_estimate_of_a_perfect_answer_is_the_clean_image(name: str, kind: str) -> None:
    """Also where no signal is left, but for a network that predicts noise."""
    process = PROCESSES[name]
    clean, eps = torch.randn((2, 3, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for place in (0, 10, 500, 900, 999):
        level = process.at(place)
        answers = {
            EPSILON: eps,
            SAMPLE: clean,
            VELOCITY: level.alpha * eps - level.sigma * clean,  # Salimans and Ho 2022
            FLOW: eps - clean,  # Liu et al. 2022
        }
        if kind == VELOCITY and isinstance(process, Flow):
            continue  # it is defined on alpha^2 + sigma^2 = 1
        if kind == EPSILON and level.alpha == 0:
            continue
        found = Estimate(answers[kind], kind=kind).clean(level.noised(clean, eps), level)
        torch.testing.assert_close(found, clean, atol=1e-9, rtol=0)


def test_ratio_is_noise_over_signal() -> None:
    assert Table((0.8, 0.2)).ratios == pytest.approx((0.5, 2.0))
    assert [Table((0.8, 0.2)).level(t).ratio for t in (0, 1)] == pytest.approx([0.5, 2.0])
    assert Level(0, 0.0, 1.0).ratio == math.inf


def test_the_cosine_tables_last_ratio() -> None:
    assert COSINE.level(999).ratio == pytest.approx(20_291, rel=1e-3)


@pytest.mark.parametrize("kind", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_a_table_without_signal_at_its_end_is_diffusers(kind: str) -> None:
    theirs = DDPMScheduler(beta_schedule=kind)
    betas = rescale_zero_terminal_snr(theirs.betas.double())
    expected = (1 - betas).cumprod(0).numpy()
    ours = zero_snr(named_table(kind))
    np.testing.assert_allclose(ours.alphas_cumprod, expected, rtol=1e-4, atol=1e-12)
    assert ours.alphas_cumprod[-1] == 0 and ours.level(999) == Level(999, 0.0, 1.0)
    assert ours.alphas_cumprod[0] == pytest.approx(named_table(kind).alphas_cumprod[0])
    assert ours.nearest(1e9).t in (998, 999)


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("n", [1, 4, 28])
def test_evenly_spaced_places_of_a_flow_are_diffusers(shift: float, n: int) -> None:
    theirs = FlowMatchEulerDiscreteScheduler(shift=shift)
    theirs.set_timesteps(sigmas=[1 - i / n for i in range(n)])
    flow = Flow(shift=shift)
    ours = [flow.at(1000 - i * 1000 / n, first=1) for i in range(n)]
    np.testing.assert_allclose([level.t for level in ours], theirs.timesteps.numpy(), rtol=1e-5)
    np.testing.assert_allclose([level.sigma for level in ours], theirs.sigmas.numpy()[:-1], rtol=1e-5)
    assert all(level.alpha == 1 - level.sigma for level in ours)


@pytest.mark.parametrize("ratio", [1e-9, 0.01, 0.3, 1.0, 7.7, 80.0, 1e9])
def test_nearest_is_the_nearest_of_all(ratio: float) -> None:
    best = min(abs(math.log(r / ratio)) for r in COSINE.ratios)
    assert abs(math.log(COSINE.nearest(ratio).ratio / ratio)) == pytest.approx(best)
    assert Flow().nearest(ratio).ratio == pytest.approx(ratio)
