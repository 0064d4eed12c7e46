"""Every update rule, step for step against diffusers', from the same image, model output and noise."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
)

from diffsweep.core.loop import asked as asked_at
from diffsweep.core.loop import stepped, steps
from diffsweep.core.process import Flow, named_table, zero_snr
from diffsweep.core.threshold import threshold
from diffsweep.core.types import Estimate, Level, Process, Stage
from diffsweep.scheduler.ddim import Ddim
from diffsweep.scheduler.ddpm import Ddpm
from diffsweep.scheduler.dpm_solver import DpmSolver
from diffsweep.scheduler.heun import Heun

COSINE = "squaredcos_cap_v2"
TABLE = named_table(COSINE)
STAGE = Stage((3, 8, 8), TABLE, "dynamic", 0.95, 1.5)
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
    scheduler.alphas_cumprod = torch.tensor(TABLE.alphas_cumprod, dtype=torch.float64)
    scheduler.one = scheduler.final_alpha_cumprod = torch.tensor(1.0, dtype=torch.float64)
    return scheduler


def step(
    rule: Any, x: torch.Tensor, estimate: Estimate, t: Level, s: Level, noise: Any = None, before: Any = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The next x, and the clean estimate. before: the level and the clean estimate of the step before."""
    clean = threshold(estimate.clean(x, t), rule.on(STAGE))
    weights = rule.weights(t, s, before[0] if before else None)
    drawn = noise if weights.noise else None
    return stepped(weights, x, clean, before[1] if before else None, drawn, estimate.variance), clean


@pytest.mark.parametrize("kind", THEIRS)
@pytest.mark.parametrize("learned", [True, False])
@pytest.mark.parametrize(("n", "spacing"), TRAJECTORIES)
def test_ddpm_steps_as_diffusers_does(kind: str, learned: bool, n: int, spacing: str) -> None:
    ours = Ddpm("auto" if n == 27 else n, spacing, kind)
    variance = "learned_range" if learned else "fixed_small"
    theirs = exact(DDPMScheduler(beta_schedule=COSINE, variance_type=variance, **THEIRS[kind]))
    levels = ours.levels(STAGE)
    theirs.set_timesteps(timesteps=[level.t for level in levels])
    for (t, s), (x, out, i) in zip(steps(levels, TABLE), outputs(n), strict=True):
        if s.is_end and t.t > 0:
            break  # diffusers still adds noise there
        noise = torch.randn((1, 3, 8, 8), generator=torch.Generator().manual_seed(i), dtype=torch.float64)[0]
        answer = out[None] if learned else out[None, :3]
        expected = theirs.step(answer, t.t, x[None], generator=torch.Generator().manual_seed(i)).prev_sample[0]
        estimate = Estimate(out[:3], out[3:] if learned else None)
        got, _ = step(ours, x, estimate, t, s, noise)
        assert_same(got, expected)


@pytest.mark.parametrize("kind", THEIRS)
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("n", "spacing"), [(10, "leading"), (50, "leading"), (20, "trailing")])
def test_ddim_steps_as_diffusers_does_with_clipped_model_output(kind: str, eta: float, n: int, spacing: str) -> None:
    ours = Ddim(n, spacing, kind, eta=eta)
    theirs = exact(DDIMScheduler(beta_schedule=COSINE, timestep_spacing=spacing, **THEIRS[kind]))
    theirs.set_timesteps(n)
    levels = ours.levels(STAGE)
    assert [level.t for level in levels] == theirs.timesteps.tolist()
    for (t, s), (x, out, i) in zip(steps(levels, TABLE), outputs(n), strict=True):
        noise = torch.randn((1, 3, 8, 8), generator=torch.Generator().manual_seed(i), dtype=torch.float64)
        expected = theirs.step(
            out[None, :3], t.t, x[None], eta=eta, use_clipped_model_output=True, variance_noise=noise
        ).prev_sample[0]
        assert bool(ours.weights(t, s, None).noise) == (eta > 0 and not s.is_end)
        got, _ = step(ours, x, Estimate(out[:3]), t, s, noise[0])
        assert_same(got, expected)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers and numpy 2
@pytest.mark.parametrize("kind", ["dynamic", "none"])
@pytest.mark.parametrize(("n", "spacing"), [*TRAJECTORIES, (15, "karras"), (2, "leading"), (1, "trailing")])
def test_dpm_solver_steps_as_diffusers_does(kind: str, n: int, spacing: str) -> None:
    ours = DpmSolver("auto" if n == 27 else n, spacing, kind)
    settings = {key: value for key, value in THEIRS[kind].items() if key != "clip_sample"}
    theirs = DPMSolverMultistepScheduler(
        beta_schedule=COSINE,
        algorithm_type="dpmsolver++",
        solver_order=2,
        solver_type="midpoint",
        final_sigmas_type="zero",
        **settings,
    )
    levels = ours.levels(STAGE)
    theirs.set_timesteps(timesteps=[level.t for level in levels])
    theirs.sigmas = torch.tensor([level.ratio for level in (*levels, TABLE.clean)], dtype=torch.float64)
    before: Any = None
    for (t, s), (x, out, _) in zip(steps(levels, TABLE), outputs(len(levels)), strict=True):
        expected = theirs.step(out[None, :3], t.t, x[None]).prev_sample[0]
        got, clean = step(ours, x, Estimate(out[:3]), t, s, before=before)
        before = (t, clean)
        assert_same(got, expected, 1e-6)  # diffusers computes in single precision here


class Heuns:
    """diffusers' HeunDiscreteScheduler over given levels, in double precision."""

    def __init__(self, levels: tuple[Level, ...]) -> None:
        self.scheduler: Any = HeunDiscreteScheduler(beta_schedule=COSINE)
        self.scheduler.set_timesteps(len(levels))
        ratios = torch.tensor([level.ratio for level in levels], dtype=torch.float64)
        self.scheduler.sigmas = torch.cat([ratios[:1], ratios[1:].repeat_interleave(2), torch.zeros(1)])
        asked = torch.tensor([level.t for level in levels])
        self.scheduler.timesteps = torch.cat([asked[:1], asked[1:].repeat_interleave(2)])

    def step(self, eps: torch.Tensor, i: int, y: torch.Tensor) -> torch.Tensor:
        """y = x / alpha, as k-diffusion scales it."""
        return self.scheduler.step(eps, self.scheduler.timesteps[i], y).prev_sample


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers and numpy 2
@pytest.mark.parametrize(("n", "spacing"), [(10, "leading"), (20, "trailing"), (12, "karras")])
def test_heun_steps_as_diffusers_does(n: int, spacing: str) -> None:
    """Both questions of each step, in the scaling of EDM."""
    ours = Heun(n, spacing, "none")
    levels = ours.levels(STAGE)
    theirs = Heuns(levels)
    answers = outputs(2 * len(levels))
    y, _, _ = next(answers)
    asked = 0
    for t, s in steps(levels, TABLE):
        x, (_, out, _) = y * t.alpha, next(answers)
        first = Estimate(out[:3])
        y = theirs.step(out[:3], asked, y)
        asked += 1
        x_next = stepped(ours.weights(t, s, None), x, first.clean(x, t))
        assert_same(x_next / s.alpha, y, 1e-6)
        corrected = ours.corrected(t, s)
        assert (corrected is None) == s.is_end
        if corrected:
            _, out, _ = next(answers)
            y = theirs.step(out[:3], asked, y)
            asked += 1
            x_next = stepped(corrected, x, first.clean(x, t), Estimate(out[:3]).clean(x_next, s))
            assert_same(x_next / s.alpha, y, 1e-6)
    assert asked == len(theirs.scheduler.timesteps) == len(asked_at(levels, ours, TABLE))


@pytest.mark.parametrize("churn", [0.0, 3.0, 40.0])
def test_churn_raises_the_noise_as_edm_does(churn: float) -> None:
    """Karras et al. 2022, algorithm 2, on a flow, whose levels are not rounded."""
    ours = Heun(10, "karras", "none", churn=churn, churn_min=0.05, churn_max=50.0)
    for level in ours.levels(Stage((3, 8, 8), Flow())):
        gamma = min(churn / 10, math.sqrt(2) - 1) if 0.05 <= level.ratio <= 50 else 0
        raised = ours.raised(level, 10, Flow())
        assert raised.ratio == pytest.approx(level.ratio * (1 + gamma))
        assert churn or raised == level
    rounded = Heun(10, churn=churn).raised(TABLE.level(500), 10, TABLE)
    assert rounded.t >= 500 and rounded.t == int(rounded.t)


def test_heun_from_pure_noise_begins_with_eulers_step() -> None:
    t, s = Flow().level(1000), Flow().level(800)
    assert Heun().corrected(t, s) is None and Heun().corrected(s, Flow().level(600)) is not None
    assert Heun(churn=9.0).raised(t, 4, Flow()) == t


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_ddim_without_eta_is_eulers_step_of_a_flow(shift: float) -> None:
    """diffusers' FlowMatchEulerDiscreteScheduler, step for step, from the velocity."""
    theirs = FlowMatchEulerDiscreteScheduler(shift=shift)
    theirs.set_timesteps(sigmas=[1 - i / 8 for i in range(8)])
    theirs.sigmas = theirs.sigmas.double()
    flow = Flow(shift=shift)
    levels = Ddim(8, "trailing").levels(Stage((3, 8, 8), flow))
    for (t, s), (x, out, i) in zip(steps(levels, flow), outputs(8), strict=True):
        clean = Estimate(out[:3], kind="flow_prediction").clean(x, t)
        got = stepped(Ddim().weights(t, s, None), x, clean)
        assert_same(got, theirs.step(out[:3], theirs.timesteps[i], x).prev_sample, 1e-6)
        assert_same(got, x + (s.sigma - t.sigma) * out[:3])


RULES = [Ddpm(), Ddim(), Ddim(eta=1.0), DpmSolver(), Heun()]


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("process", [TABLE, Flow(), zero_snr(TABLE)], ids=["table", "flow", "zero snr"])
def test_a_step_keeps_a_perfect_pictures_moments(rule: Any, process: Process) -> None:
    """Where the clean estimate is the clean image itself: x_s has the signal alpha_s and the noise sigma_s, from any
    level, of pure noise too, to the end."""
    levels = [process.at(place) for place in (999, 700, 300, 0)]
    before = None
    for t, s in steps(levels, process):
        weights = rule.weights(t, s, before)
        before = t
        signal = weights.x * t.alpha + weights.clean + weights.other  # all clean estimates are the same image
        assert signal == pytest.approx(s.alpha, abs=1e-9)
        if isinstance(rule, Ddpm):
            # what is left of x's noise and the step's own: the posterior of x_s, of which x is known
            assert weights.noise <= s.sigma
        else:
            assert math.hypot(weights.x * t.sigma, weights.noise) == pytest.approx(s.sigma, abs=1e-9)
        if corrected := rule.corrected(t, s):
            assert corrected.x * t.alpha + corrected.clean + corrected.other == pytest.approx(s.alpha, abs=1e-9)
            assert corrected.x * t.sigma == pytest.approx(s.sigma, abs=1e-9)


def thresholded(clean: torch.Tensor, **keys: Any) -> torch.Tensor:
    return threshold(clean, Ddim(threshold="dynamic", **keys).on(STAGE))


def test_dynamic_thresholding_divides_by_the_quantile_between_one_and_the_maximum() -> None:
    small, large = torch.linspace(-0.5, 0.5, 48).view(3, 4, 4), torch.linspace(-8, 8, 48).view(3, 4, 4)
    torch.testing.assert_close(thresholded(small), small)
    torch.testing.assert_close(thresholded(large), large.clamp(-1.5, 1.5) / 1.5)
    middle = torch.linspace(-1.3, 1.3, 48).view(3, 4, 4)
    s = middle.abs().flatten().sort().values.numpy()
    quantile = float(np.quantile(s, 0.95))
    torch.testing.assert_close(thresholded(middle), middle.clamp(-quantile, quantile) / quantile)
    other = {"threshold_ratio": 0.5, "threshold_max": 1.1}
    assert float(np.quantile(s, 0.5)) < 1
    torch.testing.assert_close(thresholded(middle, **other), middle.clamp(-1, 1))
    torch.testing.assert_close(thresholded(large, **other), large.clamp(-1.1, 1.1) / 1.1)
