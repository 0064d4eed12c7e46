"""Where a trajectory that starts from the input begins, and what is said where it cannot."""

from __future__ import annotations

import re

import pytest
import torch
from scipy.ndimage import gaussian_filter

from diffsweep.core.problems import BadInput
from diffsweep.core.process import Flow, named_table
from diffsweep.core.types import Stage
from diffsweep.runner.parts import build
from diffsweep.technique.start import jumping

STAGE = Stage((3, 8, 8), named_table("linear"))
LEVELS = tuple(STAGE.process.level(t) for t in reversed(range(1000)))


@pytest.mark.parametrize("technique", ["image_to_image", "inpaint"])
def test_the_strength_that_is_advised_is_accepted_and_hardly_a_smaller_one(technique: str) -> None:
    """As typed, at every number of steps."""
    start = {"start": "input"} if technique == "inpaint" else {}
    for n in range(1, 1001):
        levels = LEVELS[-n:]
        with pytest.raises(BadInput) as refused:
            build("technique", {"name": technique, "strength": 0.0005, **start}).visited(levels, STAGE)
        found = re.fullmatch(
            rf"strength=0.0005: leaves no step of {n}; at least ([\d.]+) is needed", str(refused.value)
        )
        assert found is not None
        advised = float(found[1])
        assert len(build("technique", {"name": technique, "strength": advised, **start}).visited(levels, STAGE)) == 1
        assert int(n * advised * 0.98) == 0 and len(found[1]) <= 8


@pytest.mark.parametrize("t", [-1, 1000])
@pytest.mark.parametrize("technique", ["forward_noise", "gaussian_denoise", "one_step_denoise", "iterative_denoise"])
def test_a_t_that_the_model_does_not_know_is_refused(technique: str, t: int) -> None:
    with pytest.raises(BadInput, match=rf"^t={t}: must be between 0 and 999$"):
        build("technique", {"name": technique, "t": t}).visited(LEVELS[::100], STAGE)


def test_nothing_is_scaled_up_where_nothing_is_left() -> None:
    blurred = build("technique", {"name": "gaussian_denoise", "t": 1000, "rescale": True})
    with pytest.raises(BadInput, match="rescale=true: nothing of the input is left at t=1000"):
        blurred.visited((), Stage((3, 8, 8), Flow()))


@pytest.mark.parametrize("shape", [(3, 6, 40), (3, 40, 6)])
def test_the_best_sigma_is_searched_to_half_the_longer_side(shape: tuple[int, ...]) -> None:
    """The sigma of a blur, found from its result; half the shorter side is 3."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    technique = build("technique", {"name": "gaussian_denoise", "kernel": 41})
    radii = [min(20, side - 1) for side in shape[1:]]
    clean = gaussian_filter(x.double().numpy(), 8.0, mode="mirror", radius=radii, axes=(1, 2))
    assert technique.best(x, torch.tensor(clean).float(), 1) == pytest.approx(8.0, rel=0.02)


def repaint(n: int, jump: int, resamples: int) -> list[int]:
    """The schedule of RePaint's own code (`get_schedule_jump`), which goes up one level at a time, without the end."""
    jumps = dict.fromkeys(range(0, n - jump, jump), resamples - 1)
    t, ts = n, []
    while t >= 1:
        t -= 1
        ts.append(t)
        if jumps.get(t, 0) > 0:
            jumps[t] -= 1
            for _ in range(jump):
                t += 1
                ts.append(t)
    return ts


@pytest.mark.parametrize("n", [1, 2, 5, 10, 30])
@pytest.mark.parametrize("jump", [1, 2, 3, 10])
@pytest.mark.parametrize("resamples", [1, 2, 4])
def test_the_way_back_up_is_repaints(n: int, jump: int, resamples: int) -> None:
    """Which climbs by single levels; here one move does, by as much noise."""
    levels = LEVELS[-n:]
    expected = repaint(n, jump, resamples)
    turns = [
        t
        for before, t, after in zip([n, *expected], expected, [*expected[1:], -1], strict=False)
        if not before < t < after  # the levels that are only passed on the way up
    ]
    assert [int(level.t) for level in jumping(levels, jump, resamples)] == turns


def test_a_return_that_never_comes_is_the_same_picture() -> None:
    from diffsweep.technique.inpaint import Inpaint

    ten = LEVELS[-10:]
    plainest = Inpaint().settled(ten, STAGE)
    assert Inpaint(resamples=3).settled(ten, STAGE) == Inpaint(jump=4).settled(ten, STAGE) == plainest
    assert Inpaint(jump=4, resamples=3).settled(ten, STAGE) != plainest
    assert Inpaint(jump=10, resamples=3).visited(ten, STAGE) == ten
