"""Keeping the known region: what is joined in, with which noise, and for how long."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
import torch

from diffsweep.constraint.keep import keep
from diffsweep.core.loop import denoise, steps
from diffsweep.core.process import named_table
from diffsweep.core.streams import MAIN, Streams
from diffsweep.core.types import Constraint, Estimate, Level, Stage
from diffsweep.guidance.none import Unguided
from diffsweep.guidance.rule import About
from diffsweep.scheduler.ddim import Ddim
from diffsweep.scheduler.ddpm import Ddpm
from tests.answering import answered

SHAPE = (3, 4, 4)
TABLE = named_table("squaredcos_cap_v2")
STAGE = Stage(SHAPE, TABLE)
SEED = 11
TIMESTEPS = (800, 600, 400, 200, 0)
BLENDS = ("each_step", "change_map")


def randn(seed: int) -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


KNOWN, X = randn(1).clamp(-1, 1), randn(2)
VALUES = torch.arange(256).reshape(1, 16, 16).float() / 255  # every mask value there is
MASK = VALUES[:, ::5, ::5]


def at(*timesteps: int) -> tuple[Level, ...]:
    return tuple(TABLE.level(t) for t in timesteps)


def after(*timesteps: int) -> list[Level]:
    """The levels to which the steps from these lead."""
    return [s for _, s in steps(at(*timesteps), TABLE)]


def pinned(blend: str, mask: torch.Tensor = MASK, timesteps: tuple[int, ...] = TIMESTEPS, **others: Any) -> Constraint:
    given = {"known": KNOWN, "streams": Streams(SEED), "renoise": True, **others}
    return keep(blend, mask=mask, levels=at(*timesteps), **given)


def known_noise() -> torch.Generator:
    """The stream that belongs to the known region, from its definition."""
    digest = hashlib.blake2b(f"{SEED}/known".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big"))


def noised(s: float, noise: torch.Tensor) -> torch.Tensor:
    a = TABLE.alphas_cumprod[int(s)]
    return math.sqrt(a) * KNOWN + math.sqrt(1 - a) * noise


def crooked(x: torch.Tensor) -> Estimate:
    return Estimate(torch.tanh(3 * x) + 0.1, torch.sin(x))


def smearing(x: torch.Tensor) -> Estimate:
    """A network in which each pixel sees all others."""
    return Estimate(x.mean().expand(SHAPE), torch.zeros(SHAPE))


def inpainted(
    pin: Constraint | None,
    streams: Streams,
    scheduler: Any = Ddpm(),  # noqa: B008, it is frozen
    timesteps: tuple[int, ...] = TIMESTEPS,
    network: Callable[[torch.Tensor], Estimate] = crooked,
) -> torch.Tensor:
    x, guidance = streams.normal(MAIN, SHAPE), About(Unguided(), "p")
    program = denoise(x, at(*timesteps), guidance, scheduler, STAGE, streams, pin)
    return answered(program, lambda query: network(query.image))


# -- what is joined in -----------------------------------------------------------------------------------------------
def test_each_step_joins_the_known_region_by_the_mask_with_fresh_noise_of_its_level() -> None:
    pin, generator = pinned("each_step"), known_noise()
    for s in at(*TIMESTEPS[1:]):
        expected = MASK * X + (1 - MASK) * noised(s.t, torch.randn(SHAPE, generator=generator))
        torch.testing.assert_close(pin.noisy(X, s), expected)
    torch.testing.assert_close(pin.noisy(X, TABLE.clean), MASK * X + (1 - MASK) * KNOWN)


@pytest.mark.parametrize("blend", BLENDS)
def test_the_clean_estimate_is_left_as_it_is(blend: str) -> None:
    assert pinned(blend).clean(KNOWN, X, TABLE.level(400)) is KNOWN


def test_a_change_map_joins_the_same_noised_known_region_but_each_pixel_whole() -> None:
    pin, generator = pinned("change_map"), known_noise()
    for s in after(*TIMESTEPS):
        there = KNOWN if s.is_end else noised(s.t, torch.randn(SHAPE, generator=generator))
        joined = pin.noisy(X, s)
        held = (joined == there).all(0, keepdim=True)
        torch.testing.assert_close(joined, there.where(held, X), rtol=0, atol=1e-6)
        assert held.any() and not held.all()


@pytest.mark.parametrize("blend", BLENDS)
def test_a_clean_known_region_is_joined_as_it_is_and_draws_nothing(blend: str) -> None:
    pin = pinned(blend, mask=torch.zeros(1, 4, 4), streams=None, renoise=False)
    for s in after(*TIMESTEPS):
        assert torch.equal(pin.noisy(X, s), KNOWN)


@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize("renoise", [True, False])
def test_the_constraint_does_not_shift_the_samplers_noise(blend: str, renoise: bool) -> None:
    """With nothing known the picture is what it is without a constraint, bit for bit, and so are later draws."""
    beside, alone = Streams(SEED), Streams(SEED)
    pin = pinned(blend, mask=torch.ones(1, 4, 4), streams=beside, renoise=renoise)
    assert torch.equal(inpainted(pin, beside), inpainted(None, alone))
    assert torch.equal(beside.normal(MAIN, SHAPE), alone.normal(MAIN, SHAPE))


@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize("renoise", [True, False])
@pytest.mark.parametrize("scheduler", [Ddpm(), Ddim()])
@pytest.mark.parametrize("timesteps", [TIMESTEPS, (500, 30), (7,)])
def test_where_the_mask_is_0_the_known_picture_comes_out_exactly(
    blend: str, renoise: bool, scheduler: Any, timesteps: tuple[int, ...]
) -> None:
    mask = (torch.arange(16).reshape(1, 4, 4) % 2).float()
    streams = Streams(SEED)
    pin = pinned(blend, mask=mask, timesteps=timesteps, streams=streams, renoise=renoise)
    image = inpainted(pin, streams, scheduler, timesteps)
    outside = (mask == 0).expand(SHAPE)
    assert torch.equal(image[outside], KNOWN[outside])
    assert not torch.isclose(image[~outside], KNOWN[~outside], atol=1e-3).any()


def test_the_known_region_decides_what_is_drawn_beside_it() -> None:
    mask = (torch.arange(16).reshape(1, 4, 4) % 2).float()
    images = []
    for known in (KNOWN, KNOWN - 0.5):
        streams = Streams(SEED)
        pin = pinned("each_step", mask=mask, streams=streams, known=known)
        images.append(inpainted(pin, streams, network=smearing))
    inside = (mask == 1).expand(SHAPE)
    assert not torch.isclose(images[0][inside], images[1][inside], atol=1e-2).any()


# -- for how long ----------------------------------------------------------------------------------------------------
def held_steps(timesteps: tuple[int, ...], mask: torch.Tensor) -> torch.Tensor:
    """Whether a change map holds each pixel, step by step."""
    known, x = torch.zeros(1, *mask.shape[1:]), torch.ones(1, *mask.shape[1:])
    pin = keep("change_map", known, mask, at(*timesteps), Streams(0), False)
    return torch.stack([pin.noisy(x, s)[0] == 0 for s in after(*timesteps)])


def test_a_change_map_worked_out_by_hand() -> None:
    """Before the four steps, 4/4, 3/4, 2/4 and 1/4 of them remain; a pixel is held while that exceeds its m."""
    m = torch.tensor([0, 0.2, 0.25, 0.3, 0.5, 0.7, 0.75, 0.9, 1]).reshape(1, 3, 3)
    held = held_steps((90, 60, 30, 0), m).flatten(1).int()
    assert held.T.tolist() == [
        [1, 1, 1, 1],
        [1, 1, 1, 1],
        [1, 1, 1, 0],
        [1, 1, 1, 0],
        [1, 1, 0, 0],
        [1, 1, 0, 0],
        [1, 0, 0, 0],
        [1, 0, 0, 0],
        [0, 0, 0, 0],
    ]


@pytest.mark.parametrize("n", [1, 2, 3, 5, 7, 10, 30, 51, 100])
def test_a_change_map_holds_every_level_as_long_as_exact_fractions_say(n: int) -> None:
    timesteps = tuple(9 * i for i in reversed(range(n)))
    held = held_steps(timesteps, VALUES).flatten(1)
    expected = [[Fraction(level, 255) < Fraction(n - i, n) for level in range(256)] for i in range(n)]
    assert held.tolist() == expected
    assert held[:, 0].all() and not held[:, 255].any()


@pytest.mark.parametrize("n", [1, 4, 10, 100])
def test_softness_means_a_share_of_the_steps_by_change_map_and_a_power_of_m_by_each_step(n: int) -> None:
    """Where a step itself changes nothing, each_step leaves m^n of the start, a change map the share 1 - m of holds."""
    timesteps = tuple(9 * i for i in reversed(range(n)))
    m, x = torch.tensor([0.25, 0.5, 0.9]).reshape(1, 1, 3), torch.ones(1, 1, 3)
    pin = keep("each_step", torch.zeros_like(x), m, at(*timesteps), Streams(0), False)
    for s in after(*timesteps):
        x = pin.noisy(x, s)
    torch.testing.assert_close(x, m**n)
    share = held_steps(timesteps, m).double().mean(0)
    assert ((share >= 1 - m[0] - 1e-6) & (share < 1 - m[0] + 1 / n)).all()


@pytest.mark.parametrize("start", range(len(TIMESTEPS)))
def test_shares_are_of_the_steps_that_are_run(start: int) -> None:
    """A start from the noised input visits the last timesteps only: a share is of these."""
    timesteps = TIMESTEPS[start:]
    n = len(timesteps)
    held = held_steps(timesteps, torch.tensor([0, 0.5, 1]).reshape(1, 1, 3)).flatten(1)
    assert held.sum(0).tolist() == [n, math.ceil(n / 2), 0]


def test_a_change_map_holds_a_level_alike_however_often_it_is_visited() -> None:
    m = torch.tensor([0, 0.2, 0.3, 0.5, 0.7, 1]).reshape(1, 1, 6)
    once = dict(zip((60, 30, 0, -1), held_steps((90, 60, 30, 0), m), strict=True))
    rising = (90, 60, 30, 60, 30, 0, 30, 0)
    for s, held in zip(after(*rising), held_steps(rising, m), strict=True):
        assert torch.equal(held, once[int(s.t)])


@pytest.mark.parametrize("blend", BLENDS)
def test_an_inpainted_cell_keeps_its_known_region_from_either_start(
    config: Callable[..., Any], sampled: Callable[..., Any], blend: str
) -> None:
    from diffsweep.runner.freeze import freeze

    cells = [
        freeze(
            config(
                technique="inpaint",
                technique__blend=blend,
                technique__start=start,
                technique__strength=strength,
                mask__softness=3.0,
                scheduler__steps=6,
            ),
            {},
        )
        for start, strength in (("noise", 1.0), ("input", 0.5))
    ]
    model = cells[0].model.load("cpu")
    for cell, finished in zip(cells, sampled(cells, model), strict=True):
        assert cell.mask is not None and cell.pixels is not None
        known = torch.from_numpy(cell.pixels / 127.5 - 1).permute(2, 0, 1).float()
        outside = torch.from_numpy(cell.mask == 0).expand(SHAPE[0], -1, -1)
        torch.testing.assert_close(finished.result.image[outside], known[outside], rtol=0, atol=1e-6)
