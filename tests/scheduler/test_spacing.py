"""Which timesteps are visited."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from diffsweep.core.schedule import named_schedule
from diffusers import DDPMScheduler
from diffusers.pipelines.deepfloyd_if import timesteps as theirs

from diffsweep.core.problems import BadInput
from diffsweep.core.types import Stage
from diffsweep.scheduler.ddpm import Ddpm
from diffsweep.scheduler.presets import PRESETS
from diffsweep.scheduler.spacing import FORMULAS, nearest, spaced
from diffsweep.sweep.parts import build

COSINE = named_schedule("squaredcos_cap_v2")
STAGE = Stage((3, 8, 8), COSINE)


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("offset", [0, 1])
def test_a_spacing_is_diffusers_own(spacing: str, offset: int) -> None:
    scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2", timestep_spacing=spacing, steps_offset=offset)
    wrong_length = 0
    for n in range(1, 1001):
        scheduler.set_timesteps(n)
        expected = scheduler.timesteps.tolist()
        if len(expected) != n:  # np.arange's rounding gives trailing one timestep too many
            wrong_length += 1
            continue
        expected = [t for t in expected if t < 1000]  # an offset may point beyond the schedule
        assert list(spaced(spacing, n, COSINE, offset)) == expected, n
    assert wrong_length == (62 if spacing == "trailing" else 0)


@pytest.mark.parametrize("spacing", FORMULAS)
@pytest.mark.parametrize("kind", ["squaredcos_cap_v2", "linear"])
def test_timesteps_fall_are_distinct_and_lie_in_the_schedule(spacing: str, kind: str) -> None:
    schedule = named_schedule(kind)
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


@pytest.mark.parametrize("spacing", ["karras", "logsnr-uniform"])
def test_sigma_is_clipped_at_80_and_reaches_the_schedules_least(spacing: str) -> None:
    t = spaced(spacing, 30, COSINE)
    assert COSINE.sigma(t[0]) == pytest.approx(80, rel=0.2)
    assert t[0] == min(range(1000), key=lambda i: abs(math.log(COSINE.sigma(i) / 80)))
    assert t[-1] == 0


def test_unclipped_the_cosine_schedule_would_collapse() -> None:
    """The reason for the clip: 30 steps over all of its noise levels would leave 17 and 24 distinct timesteps."""
    high, low = COSINE.sigma(999), COSINE.sigma(0)
    karras = {nearest(COSINE, (high ** (1 / 7) + i / 29 * (low ** (1 / 7) - high ** (1 / 7))) ** 7) for i in range(30)}
    uniform = {nearest(COSINE, high * (low / high) ** (i / 29)) for i in range(30)}
    assert (len(karras), len(uniform)) == (17, 24)
    assert len(spaced("karras", 30, COSINE)) == 30
    assert len(spaced("logsnr-uniform", 30, COSINE)) == 30


def test_karras_levels_are_evenly_spaced_in_the_seventh_root_of_sigma() -> None:
    roots = [COSINE.sigma(t) ** (1 / 7) for t in spaced("karras", 12, COSINE)]
    gaps = [a - b for a, b in itertools.pairwise(roots)]
    assert max(gaps) / min(gaps) < 1.35  # rounding to whole timesteps aside


def test_logsnr_levels_are_evenly_spaced_in_the_logarithm_of_sigma() -> None:
    logs = [math.log(COSINE.sigma(t)) for t in spaced("logsnr-uniform", 8, COSINE)]
    gaps = [a - b for a, b in itertools.pairwise(logs)]
    assert max(gaps) / min(gaps) < 1.5


def test_nearest_is_the_nearest_of_all() -> None:
    for sigma in (1e-9, 0.01, 0.3, 1.0, 7.7, 80.0, 1e9):
        best = min(abs(math.log(s / sigma)) for s in COSINE.sigmas)
        assert abs(math.log(COSINE.sigma(nearest(COSINE, sigma)) / sigma)) == pytest.approx(best)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_diffusers_list(preset: str) -> None:
    assert list(PRESETS[preset]) == getattr(theirs, f"{preset}_timesteps")
    assert Ddpm(spacing=preset).timesteps(STAGE) == PRESETS[preset]
    assert Ddpm(len(PRESETS[preset]), preset).timesteps(STAGE) == PRESETS[preset]


def test_a_presets_number_of_steps_is_fixed() -> None:
    with pytest.raises(BadInput, match="steps=30: spacing=smart50 fixes 50 steps"):
        Ddpm(30, "smart50")


def test_a_preset_needs_the_schedule_it_was_made_for() -> None:
    short = Stage((3, 8, 8), named_schedule("linear", 100))
    with pytest.raises(BadInput, match="1000"):
        Ddpm(spacing="smart50").timesteps(short)
    with pytest.raises(BadInput, match="100 training steps"):
        Ddpm(101).timesteps(short)
    assert len(Ddpm(100).timesteps(short)) == 100
    assert len(Ddpm().timesteps(Stage((3, 8, 8), named_schedule("linear", 40)))) == 40


@pytest.mark.parametrize(("key", "value", "hint"), [("spacing", "leding", "leading"), ("threshold", "clop", "clip")])
def test_a_typo_is_answered_with_the_nearest_word(key: str, value: str, hint: str) -> None:
    with pytest.raises(BadInput, match=f"{key}={value}.*did you mean '{hint}'"):
        Ddpm(**{key: value})


def test_the_checkpoints_own_spacing_is_the_default() -> None:
    own = Stage((3, 8, 8), COSINE, spacing="linspace")
    assert Ddpm(7).timesteps(own) == spaced("linspace", 7, COSINE)
    assert Ddpm(7, "leading").timesteps(own) == spaced("leading", 7, COSINE)


def test_a_list_of_timesteps_is_what_is_visited() -> None:
    own = (990, 660, 330, 0)
    assert Ddpm(spacing=own).timesteps(STAGE) == Ddpm(4, own).timesteps(STAGE) == own
    assert build("scheduler", {"name": "ddim", "spacing": [5]}).timesteps(STAGE) == (5,)


@pytest.mark.parametrize(
    "keys, message",
    [
        ({"spacing": []}, "spacing=[]: at least one timestep is needed"),
        ({"spacing": [10, 20]}, "spacing: 20 comes after 10: a list of timesteps must fall, each of them once"),
        ({"spacing": [20, 20, 10]}, "spacing: 20 comes after 20: a list of timesteps must fall, each of them once"),
        ({"spacing": [20, -1]}, "spacing: -1 is below 0, the last timestep"),
        (
            {"spacing": [20, 10], "steps": 3},
            "steps=3: the list fixes 2 steps; leave steps out, or choose another spacing, as checkpoint or leading",
        ),
        ({"spacing": [20.5, 10]}, "spacing=[20.5, 10]: must be text or a list (each entry a whole number)"),
    ],
)
def test_a_list_that_is_no_trajectory_is_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput) as refused:
        build("scheduler", {"name": "ddpm", **keys})
    assert refused.value.messages == [f"scheduler.{message}"]


def test_a_list_beyond_the_models_schedule_is_refused() -> None:
    with pytest.raises(BadInput, match=r"^spacing: 1000 is not below 1000, the training steps$"):
        Ddpm(spacing=(1000, 0)).timesteps(STAGE)
