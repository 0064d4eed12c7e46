"""The training schedule, against diffusers'."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffsweep.core.schedule import NoiseSchedule, from_betas, named_schedule
from diffusers import DDPMScheduler

from diffsweep.core.loop import steps
from diffsweep.core.types import CLEAN


@pytest.mark.parametrize("kind", ["linear", "scaled_linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize("T", [1000, 100])
def test_a_named_schedule_has_diffusers_alphas(kind: str, T: int) -> None:
    theirs = DDPMScheduler(num_train_timesteps=T, beta_schedule=kind, beta_start=0.0002, beta_end=0.03)
    ours = named_schedule(kind, T, 0.0002, 0.03)
    np.testing.assert_allclose(ours.alphas_cumprod, theirs.alphas_cumprod.double().numpy(), rtol=2e-4)


def test_an_unknown_schedule_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(ValueError, match="squaredcos_cap_v2"):
        named_schedule("sigmoid")


def test_noising_has_the_schedules_signal_and_noise() -> None:
    schedule = from_betas([0.1, 0.2, 0.5])
    assert schedule.a(2) == pytest.approx(0.9 * 0.8 * 0.5)
    assert schedule.a(CLEAN) == 1
    x, eps = torch.full((3, 2, 2), 0.5), torch.full((3, 2, 2), 2.0)
    torch.testing.assert_close(schedule.noised(x, eps, 1), 0.72**0.5 * x + 0.28**0.5 * eps)
    torch.testing.assert_close(schedule.noised(x, eps, CLEAN), x)


def test_clean_undoes_noised() -> None:
    schedule = named_schedule("squaredcos_cap_v2")
    x, eps = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    for t in (0, 10, 500, 900):
        torch.testing.assert_close(schedule.clean(schedule.noised(x, eps, t), eps, t), x, atol=1e-4, rtol=0)


def test_sigma_is_noise_over_signal() -> None:
    assert NoiseSchedule((0.8, 0.2)).sigmas == pytest.approx((0.5, 2.0))


def test_the_cosine_schedules_last_sigma() -> None:
    assert named_schedule("squaredcos_cap_v2").sigma(999) == pytest.approx(20_291, rel=1e-3)


def test_steps_lead_from_each_timestep_to_the_next_and_to_clean() -> None:
    assert list(steps((900, 500, 700, 0))) == [(900, 500), (500, 700), (700, 0), (0, CLEAN)]
