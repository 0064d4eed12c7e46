"""Named random streams."""

from __future__ import annotations

import pytest
import torch

from diffsweep.core.streams import MAIN, Streams, stream_seed


def test_the_main_stream_is_a_generator_of_the_seed_drawn_in_order() -> None:
    streams, generator = Streams(11), torch.Generator("cpu").manual_seed(11)
    for _ in range(3):
        assert torch.equal(streams.normal(MAIN, (3, 8, 8)), torch.randn((1, 3, 8, 8), generator=generator)[0])


def test_a_stream_that_draws_does_not_shift_another() -> None:
    alone, beside = Streams(5), Streams(5)
    for _ in range(4):
        beside.normal("known", (3, 4, 4))
        assert torch.equal(alone.normal(MAIN, (3, 4, 4)), beside.normal(MAIN, (3, 4, 4)))


@pytest.mark.parametrize("other", [(5, "mask"), (6, "known"), (5, MAIN)])
def test_seed_and_name_both_decide_a_stream(other: tuple[int, str]) -> None:
    ours, theirs = Streams(5).normal("known", (64,)), Streams(other[0]).normal(other[1], (64,))
    assert not torch.equal(ours, theirs)
    assert abs(torch.corrcoef(torch.stack([ours, theirs]))[0, 1]) < 0.6


def test_a_streams_seed_is_the_same_in_every_process() -> None:
    assert stream_seed(0, MAIN) == 0
    # BLAKE2b of "0/known" as any other implementation gives it: `printf 0/known | b2sum -l 64`
    assert stream_seed(0, "known") == 0xB8C59CC2739F0CF8
