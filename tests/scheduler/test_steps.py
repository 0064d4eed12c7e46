"""Every update rule, step for step against diffusers', from the same image, model output and noise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from diffsweep.core.schedule import named_schedule
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler

from diffsweep.core.loop import steps
from diffsweep.core.types import CLEAN, Estimate, Stage
from diffsweep.scheduler.ddim import Ddim
from diffsweep.scheduler.ddpm import Ddpm
from diffsweep.scheduler.dpm_solver import DpmSolver

COSINE = "squaredcos_cap_v2"
STAGE = Stage((3, 8, 8), named_schedule(COSINE), "dynamic", 0.95, 1.5)
THEIRS: dict[str, dict[str, Any]] = {
    "dynamic": {
        "thresholding": True, "clip_sample": False, "dynamic_thresholding_ratio": 0.95, "sample_max_value": 1.5
    },
    "clip": {"clip_sample": True},
    "none": {"clip_sample": False},
}  # fmt: skip
TRAJECTORIES = [(10, "leading"), (50, "leading"), (7, "linspace"), (20, "trailing"), (27, "fast27"), (50, "smart50")]


def outputs(n: int) -> Iterator[tuple[torch.Tensor, torch.Tensor, int]]:
    """An image, a model's noise and variance for each step; the noise is near the image's, as a trained model's."""
    g = torch.Generator().manual_seed(3)
    for i in range(n):
        x, eps, v = torch.randn((3, 3, 8, 8), generator=g, dtype=torch.float64)
        yield x, torch.cat([x + 0.3 * eps, 1.5 * v]), i


def assert_same(ours: torch.Tensor, theirs: torch.Tensor, tolerance: float = 1e-9) -> None:
    scale = theirs.abs().max().clamp(min=1)
    torch.testing.assert_close(ours / scale, theirs.double() / scale, atol=tolerance, rtol=0)


def exact(scheduler: Any) -> Any:
    """A scheduler of diffusers with this schedule in double precision: single precision loses 1 - a_t / a_s."""
    scheduler.alphas_cumprod = torch.tensor(STAGE.schedule.alphas_cumprod, dtype=torch.float64)
    scheduler.one = scheduler.final_alpha_cumprod = torch.tensor(1.0, dtype=torch.float64)
    return scheduler


@pytest.mark.parametrize("kind", THEIRS)
@pytest.mark.parametrize("learned", [True, False])
@pytest.mark.parametrize(("n", "spacing"), TRAJECTORIES)
def test_ddpm_steps_as_diffusers_does(kind: str, learned: bool, n: int, spacing: str) -> None:
    ours = Ddpm(None if n == 27 else n, spacing, kind)
    variance = "learned_range" if learned else "fixed_small"
    theirs = exact(DDPMScheduler(beta_schedule=COSINE, variance_type=variance, **THEIRS[kind]))
    timesteps = ours.timesteps(STAGE)
    theirs.set_timesteps(timesteps=list(timesteps))
    for (t, s), (x, out, i) in zip(steps(timesteps), outputs(n), strict=True):
        if s == CLEAN and t > 0:
            break  # diffusers still adds noise there
        noise = torch.randn((1, 3, 8, 8), generator=torch.Generator().manual_seed(i), dtype=torch.float64)[0]
        answer = out[None] if learned else out[None, :3]
        expected = theirs.step(answer, t, x[None], generator=torch.Generator().manual_seed(i)).prev_sample[0]
        estimate = Estimate(out[:3], out[3:] if learned else None)
        got, _ = ours.step(x, estimate, t, s, noise if ours.draws(s) else None, None, STAGE)
        assert_same(got, expected)


@pytest.mark.parametrize("kind", THEIRS)
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("n", "spacing"), [(10, "leading"), (50, "leading"), (20, "trailing")])
def test_ddim_steps_as_diffusers_does_with_clipped_model_output(kind: str, eta: float, n: int, spacing: str) -> None:
    ours = Ddim(n, spacing, kind, eta=eta)
    theirs = exact(DDIMScheduler(beta_schedule=COSINE, timestep_spacing=spacing, **THEIRS[kind]))
    theirs.set_timesteps(n)
    timesteps = ours.timesteps(STAGE)
    assert list(timesteps) == theirs.timesteps.tolist()
    for (t, s), (x, out, i) in zip(steps(timesteps), outputs(n), strict=True):
        noise = torch.randn((1, 3, 8, 8), generator=torch.Generator().manual_seed(i), dtype=torch.float64)
        expected = theirs.step(
            out[None, :3], t, x[None], eta=eta, use_clipped_model_output=True, variance_noise=noise
        ).prev_sample[0]
        assert ours.draws(s) == (eta > 0 and s != CLEAN)
        got, _ = ours.step(x, Estimate(out[:3]), t, s, noise[0] if ours.draws(s) else None, None, STAGE)
        assert_same(got, expected)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers and numpy 2
@pytest.mark.parametrize("kind", ["dynamic", "none"])
@pytest.mark.parametrize(("n", "spacing"), [*TRAJECTORIES, (15, "karras"), (2, "leading"), (1, "trailing")])
def test_dpm_solver_steps_as_diffusers_does(kind: str, n: int, spacing: str) -> None:
    ours = DpmSolver(None if n == 27 else n, spacing, kind)
    settings = {key: value for key, value in THEIRS[kind].items() if key != "clip_sample"}
    theirs = DPMSolverMultistepScheduler(
        beta_schedule=COSINE,
        algorithm_type="dpmsolver++",
        solver_order=2,
        solver_type="midpoint",
        final_sigmas_type="zero",
        **settings,
    )
    timesteps = ours.timesteps(STAGE)
    theirs.set_timesteps(timesteps=list(timesteps))
    theirs.sigmas = torch.tensor([STAGE.schedule.sigma(t) for t in (*timesteps, CLEAN)], dtype=torch.float64)
    memory: object = None
    for (t, s), (x, out, _) in zip(steps(timesteps), outputs(len(timesteps)), strict=True):
        expected = theirs.step(out[None, :3], t, x[None]).prev_sample[0]
        got, memory = ours.step(x, Estimate(out[:3]), t, s, None, memory, STAGE)
        assert_same(got, expected, 1e-6)  # diffusers computes in single precision here


@pytest.mark.parametrize("kind", ["none", "clip", "dynamic", "checkpoint"])
@pytest.mark.parametrize("rule", [Ddpm, Ddim, DpmSolver])
def test_a_step_broadcasts_over_leading_dimensions_or_is_told_one_image(rule: type, kind: str) -> None:
    x, out, _ = next(outputs(1))
    alone, _ = rule(threshold=kind).step(x, Estimate(out[:3]), 500, 400, None, None, STAGE)
    again, _ = rule(threshold=kind).step(x.clone(), Estimate(out[:3].clone()), 500, 400, None, None, STAGE)
    assert torch.equal(alone, again)
    assert alone.shape == x.shape


def test_dynamic_thresholding_divides_by_the_quantile_between_one_and_the_maximum() -> None:
    kept = Ddim(threshold="dynamic").thresholded
    small, large = torch.linspace(-0.5, 0.5, 48).view(3, 4, 4), torch.linspace(-8, 8, 48).view(3, 4, 4)
    torch.testing.assert_close(kept(small, STAGE), small)
    torch.testing.assert_close(kept(large, STAGE), large.clamp(-1.5, 1.5) / 1.5)
    middle = torch.linspace(-1.3, 1.3, 48).view(3, 4, 4)
    s = middle.abs().flatten().sort().values.numpy()
    import numpy as np

    quantile = float(np.quantile(s, 0.95))
    torch.testing.assert_close(kept(middle, STAGE), middle.clamp(-quantile, quantile) / quantile)
    other = Ddim(threshold="dynamic", threshold_ratio=0.5, threshold_max=1.1).thresholded
    median = float(np.quantile(s, 0.5))
    assert median < 1
    torch.testing.assert_close(other(middle, STAGE), middle.clamp(-1, 1))
    torch.testing.assert_close(other(large, STAGE), large.clamp(-1.1, 1.1) / 1.1)
