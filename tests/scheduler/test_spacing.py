"""Which timesteps are visited."""

from __future__ import annotations

import itertools
import math
from typing import Any, ClassVar

import pytest
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler
from diffusers.pipelines.deepfloyd_if import timesteps as theirs

from diffsweep.core.problems import BadInput
from diffsweep.core.process import Flow, StepsShift, Table, named_table, tokens_shift
from diffsweep.core.types import Level, Process, Stage
from diffsweep.runner.parts import build
from diffsweep.scheduler.ddpm import Ddpm
from diffsweep.scheduler.euler import Euler
from diffsweep.scheduler.presets import PRESETS
from diffsweep.scheduler.spacing import FORMULAS
from diffsweep.scheduler.spacing import spaced as spaced_levels

COSINE = named_table("squaredcos_cap_v2")
STAGE = Stage((3, 8, 8), COSINE)
FLOW = Stage((3, 8, 8), Flow())


class Remembering(Table):
    """The cosine table, whose levels are made once."""

    made: ClassVar[dict[float, Level]] = {t: COSINE.level(t) for t in range(COSINE.T)}

    def level(self, t: float) -> Level:
        return self.made[t]


def spaced(spacing: str, n: int, process: Process, offset: int = 0) -> tuple[float, ...]:
    return tuple(level.t for level in spaced_levels(spacing, n, process, offset))


def timesteps(scheduler: Any, stage: Stage) -> tuple[float, ...]:
    return tuple(level.t for level in scheduler.levels(stage))


def nearest(process: Process, ratio: float) -> float:
    return process.nearest(ratio).t


def sigma(t: float) -> float:
    return COSINE.level(t).ratio


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("offset", [0, 1])
def test_a_spacing_is_diffusers_own(spacing: str, offset: int) -> None:
    scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2", timestep_spacing=spacing, steps_offset=offset)
    process, wrong_length = Remembering(COSINE.alphas_cumprod, COSINE.end), 0
    for n in range(1, 1001):
        scheduler.set_timesteps(n)
        expected = scheduler.timesteps.tolist()
        if len(expected) != n:  # np.arange's rounding gives trailing one timestep too many
            wrong_length += 1
            continue
        expected = [t for t in expected if t < 1000]  # an offset may point beyond the schedule
        assert list(spaced(spacing, n, process, offset)) == expected, n
    assert wrong_length == (62 if spacing == "trailing" else 0)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("spacing", ["leading", "linspace"])
@pytest.mark.parametrize("offset", [0, 1])
def test_a_spacing_above_the_cleanest_is_that_of_diffusers_dpm_solver(spacing: str, offset: int) -> None:
    process = named_table("linear")
    scheduler = DPMSolverMultistepScheduler(timestep_spacing=spacing, steps_offset=offset)
    for n in (1, 2, 3, 7, 20, 50, 99, 333, 499):
        scheduler.set_timesteps(n)
        assert list(spaced(f"{spacing}_above", n, process, offset)) == scheduler.timesteps.tolist(), n


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_flows_spacing_above_the_cleanest_is_that_of_diffusers_flow_sigmas() -> None:
    scheduler = DPMSolverMultistepScheduler(use_flow_sigmas=True, flow_shift=3.0, prediction_type="flow_prediction")
    for n in (1, 2, 7, 20, 50):
        scheduler.set_timesteps(n)
        sigmas = [level.sigma for level in spaced_levels("linspace_above", n, Flow(shift=3.0))]
        assert sigmas == pytest.approx(scheduler.sigmas.tolist()[:-1], rel=1e-6), n


@pytest.mark.parametrize("spacing", FORMULAS)
@pytest.mark.parametrize("kind", ["squaredcos_cap_v2", "linear"])
def test_timesteps_fall_are_distinct_and_lie_in_the_schedule(spacing: str, kind: str) -> None:
    schedule = named_table(kind)
    for n in (1, 2, 3, 10, 30, 50, 100, 999, 1000):
        t = spaced(spacing, n, schedule)
        assert 1 <= len(t) <= n
        assert all(999 >= a > b >= 0 for a, b in itertools.pairwise(t))


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_a_uniform_spacing_never_collapses(spacing: str) -> None:
    assert all(len(spaced(spacing, n, COSINE)) == n for n in range(1, 1001, 3))


@pytest.mark.parametrize("spacing", ["linspace", "quadratic"])
def test_a_spacing_over_the_whole_schedule_has_both_ends(spacing: str) -> None:
    for n in (2, 5, 50, 100):
        t = spaced(spacing, n, COSINE)
        assert (t[0], t[-1]) == (999, 0)


def test_quadratic_gaps_grow_towards_the_noise() -> None:
    t = spaced("quadratic", 20, COSINE)
    gaps = [a - b for a, b in itertools.pairwise(t)]
    assert all(a >= b - 1 for a, b in itertools.pairwise(gaps))
    assert gaps[0] > 5 * gaps[-1]


@pytest.mark.parametrize("spacing", ["karras", "logsnr_uniform"])
def test_sigma_is_clipped_at_80_and_reaches_the_schedules_least(spacing: str) -> None:
    t = spaced(spacing, 30, COSINE)
    assert sigma(t[0]) == pytest.approx(80, rel=0.2)
    assert t[0] == min(range(1000), key=lambda i: abs(math.log(sigma(i) / 80)))
    assert t[-1] == 0


def test_unclipped_the_cosine_schedule_would_collapse() -> None:
    """The reason for the clip: 30 steps over all of its noise levels would leave 17 and 24 distinct timesteps."""
    high, low = sigma(999), sigma(0)
    karras = {nearest(COSINE, (high ** (1 / 7) + i / 29 * (low ** (1 / 7) - high ** (1 / 7))) ** 7) for i in range(30)}
    uniform = {nearest(COSINE, high * (low / high) ** (i / 29)) for i in range(30)}
    assert (len(karras), len(uniform)) == (17, 24)
    assert len(spaced("karras", 30, COSINE)) == 30
    assert len(spaced("logsnr_uniform", 30, COSINE)) == 30


def test_karras_levels_are_evenly_spaced_in_the_seventh_root_of_sigma() -> None:
    roots = [sigma(t) ** (1 / 7) for t in spaced("karras", 12, COSINE)]
    gaps = [a - b for a, b in itertools.pairwise(roots)]
    assert max(gaps) / min(gaps) < 1.35  # rounding to whole timesteps aside


def test_logsnr_levels_are_evenly_spaced_in_the_logarithm_of_sigma() -> None:
    logs = [math.log(sigma(t)) for t in spaced("logsnr_uniform", 8, COSINE)]
    gaps = [a - b for a, b in itertools.pairwise(logs)]
    assert max(gaps) / min(gaps) < 1.5


def test_nearest_is_the_nearest_of_all() -> None:
    for ratio in (1e-9, 0.01, 0.3, 1.0, 7.7, 80.0, 1e9):
        best = min(abs(math.log(s / ratio)) for s in COSINE.ratios)
        assert abs(math.log(sigma(nearest(COSINE, ratio)) / ratio)) == pytest.approx(best)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_diffusers_list(preset: str) -> None:
    assert list(PRESETS[preset]) == getattr(theirs, f"{preset}_timesteps")
    assert timesteps(Ddpm(spacing=preset), STAGE) == PRESETS[preset]
    assert timesteps(Ddpm(len(PRESETS[preset]), preset), STAGE) == PRESETS[preset]


def test_a_presets_number_of_steps_is_fixed() -> None:
    with pytest.raises(BadInput, match="steps=30: spacing=smart50 fixes 50 steps"):
        Ddpm(30, "smart50")


def test_a_preset_needs_the_schedule_it_was_made_for() -> None:
    short = Stage((3, 8, 8), named_table("linear", 100))
    with pytest.raises(BadInput, match="1000"):
        timesteps(Ddpm(spacing="smart50"), short)
    with pytest.raises(BadInput, match="100 training steps"):
        timesteps(Ddpm(101), short)
    assert len(timesteps(Ddpm(100), short)) == 100
    assert len(timesteps(Ddpm(), Stage((3, 8, 8), named_table("linear", 40)))) == 40


@pytest.mark.parametrize(("key", "value", "hint"), [("spacing", "leding", "leading"), ("threshold", "clop", "clip")])
def test_a_typo_is_answered_with_the_nearest_word(key: str, value: str, hint: str) -> None:
    with pytest.raises(BadInput, match=f"{key}={value}.*did you mean '{hint}'"):
        Ddpm(**{key: value})


def test_the_checkpoints_own_spacing_is_the_default() -> None:
    own = Stage((3, 8, 8), COSINE, spacing="linspace")
    assert timesteps(Ddpm(7), own) == spaced("linspace", 7, COSINE)
    assert timesteps(Ddpm(7, "leading"), own) == spaced("leading", 7, COSINE)


def test_a_list_of_timesteps_is_what_is_visited() -> None:
    own = (990, 660, 330, 0)
    assert timesteps(Ddpm(spacing=own), STAGE) == timesteps(Ddpm(4, own), STAGE) == own
    assert timesteps(build("scheduler", {"name": "ddim", "spacing": [5]}), STAGE) == (5,)


@pytest.mark.parametrize(
    "keys, message",
    [
        ({"spacing": []}, "spacing=[]: at least one timestep is needed"),
        ({"spacing": [10, 20]}, "spacing: 20 comes after 10: a list of timesteps must fall, each of them once"),
        ({"spacing": [20, 20, 10]}, "spacing: 20 comes after 20: a list of timesteps must fall, each of them once"),
        ({"spacing": [20, -1]}, "spacing: -1 is below 0, the last timestep"),
        (
            {"spacing": [20, 10], "steps": 3},
            "steps=3: the list fixes 2 steps; set steps=auto, or choose another spacing, such as leading",
        ),
        ({"spacing": [20, "x"]}, "spacing=[20,x]: must be auto, text or a list (each entry a number)"),
    ],
)
def test_a_list_that_is_no_trajectory_is_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput) as refused:
        build("scheduler", {"name": "ddpm", **keys})
    assert refused.value.messages == [f"scheduler.{message}"]


def test_a_list_beyond_the_models_schedule_is_refused() -> None:
    with pytest.raises(BadInput, match=r"^spacing: t=1000: must be between 0 and 999$"):
        timesteps(Ddpm(spacing=(1000, 0)), STAGE)
    with pytest.raises(BadInput, match=r"^spacing: t=20\.5: must be a whole number for this model$"):
        timesteps(Ddpm(spacing=(20.5, 0)), STAGE)
    with pytest.raises(BadInput, match=r"^spacing: t=0: must be above 0 and at most 1000$"):
        timesteps(Ddpm(spacing=(1000, 0)), FLOW)


def test_a_checkpoints_spacing_that_is_not_known_is_refused() -> None:
    """And not taken for another."""
    other = Stage((3, 8, 8), COSINE, spacing="exponential")
    with pytest.raises(BadInput, match=r"^spacing=auto: .*timestep_spacing=exponential: must be one of leading"):
        Ddpm(7).levels(other)
    assert timesteps(Ddpm(7, "leading"), other) == spaced("leading", 7, COSINE)


# -- flows -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("spacing", FORMULAS)
@pytest.mark.parametrize("n", [1, 2, 7, 50, 999])
def test_a_flow_has_as_many_levels_as_asked_for(spacing: str, n: int) -> None:
    levels = spaced_levels(spacing, n, Flow())
    assert len(levels) == n
    assert all(1 >= a.sigma > b.sigma > 0 for a, b in itertools.pairwise(levels))


def test_trailing_levels_of_a_flow_are_even_down_to_one_step_from_the_end() -> None:
    assert [level.sigma for level in spaced_levels("trailing", 4, Flow())] == pytest.approx([1, 0.75, 0.5, 0.25])
    assert [level.sigma for level in spaced_levels("trailing", 2, Flow(shift=3.0))] == pytest.approx([1, 0.75])


def test_karras_levels_of_a_flow_are_karras_formula_itself() -> None:
    """Without rounding to timesteps: sigma over alpha from 80 to the least, evenly spaced in its seventh root."""
    ratios = [level.ratio for level in spaced_levels("karras", 9, Flow())]
    assert (ratios[0], ratios[-1]) == (pytest.approx(80), pytest.approx(Flow().at(0).ratio))
    gaps = [a ** (1 / 7) - b ** (1 / 7) for a, b in itertools.pairwise(ratios)]
    assert max(gaps) == pytest.approx(min(gaps))


def test_a_list_of_a_flows_timesteps_need_not_be_whole() -> None:
    assert timesteps(build("scheduler", {"name": "ddim", "spacing": [1000, 250.5]}), FLOW) == (1000, 250.5)


@pytest.mark.parametrize("shift", [1.0, 3.0, 0.5])
@pytest.mark.parametrize("n", [1, 2, 7, 28, 100])
def test_sd3s_levels_are_those_that_diffusers_finds_for_itself(shift: float, n: int) -> None:
    """Which takes its lowest sigma, already shifted, for one to shift."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    theirs = FlowMatchEulerDiscreteScheduler(shift=shift)
    theirs.set_timesteps(n)
    assert [level.t for level in spaced_levels("sd3", n, Flow(shift=shift))] == pytest.approx(theirs.timesteps.tolist())


@pytest.mark.parametrize("n", [1, 4, 50, 200])
@pytest.mark.parametrize("tokens", [64, 4096, 4300, 4301, 16384])
def test_a_shift_of_tokens_and_steps_is_flux2s(tokens: int, n: int) -> None:
    from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu

    assert StepsShift(tokens).of(n) == pytest.approx(math.exp(compute_empirical_mu(tokens, n)))
    stage = Stage((16, 8, 8), Flow(shift=StepsShift(tokens)), spacing="trailing")
    assert Euler(n).levels(stage) == spaced_levels("trailing", n, Flow(shift=StepsShift(tokens).of(n)))


@pytest.mark.parametrize("tokens", [64, 256, 4096, 9216])
def test_a_shift_of_tokens_is_flux1s(tokens: int) -> None:
    from diffusers.pipelines.flux.pipeline_flux import calculate_shift

    expected = math.exp(calculate_shift(tokens, 256, 4096, 0.5, 1.15))
    assert tokens_shift(tokens, 0.5, 1.15, 256, 4096) == pytest.approx(expected)


def test_a_shift_that_is_asked_for_stands_for_the_checkpoints() -> None:
    for own in (3.0, StepsShift(4096)):
        asked = Euler(7, shift=2.0).levels(Stage((16, 8, 8), Flow(shift=own), spacing="trailing"))
        assert asked == spaced_levels("trailing", 7, Flow(shift=2.0))


@pytest.mark.parametrize(
    "keys, message",
    [
        ({"shift": 0.0}, r"shift=0: must be above 0"),
        ({"shift": 2.0, "spacing": (900, 100)}, r"shift=2: the list fixes the timesteps"),
        ({"shift": 2.0, "spacing": "smart50"}, r"shift=2: spacing=smart50 fixes the timesteps"),
    ],
)
def test_a_shift_that_shifts_nothing_is_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        Euler(**keys)
    with pytest.raises(BadInput, match=r"^shift=2: of flows alone"):
        Euler(7, shift=2.0).levels(STAGE)
