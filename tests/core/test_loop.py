"""The one loop."""

from __future__ import annotations

from typing import Any

import torch
from diffsweep.core.schedule import named_schedule

from diffsweep.core.loop import denoise
from diffsweep.core.streams import Streams
from diffsweep.core.types import CLEAN, Estimate, Stage
from diffsweep.guidance.none import Unguided

STAGE = Stage((1, 1, 1), named_schedule("linear"))


class Diary:
    """A scheduler that writes down what it is told, and remembers one number."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int, bool, object]] = []

    def draws(self, s: int) -> bool:
        return s != CLEAN

    def step(self, x: Any, estimate: Estimate, t: int, s: int, noise: Any, memory: object, stage: Stage) -> Any:
        self.told.append((t, s, noise is None, memory))
        return x + 1, t


def drained(program: Any) -> Any:
    queries = next(program)
    try:
        while True:
            queries = program.send([Estimate(torch.zeros_like(q.image)) for q in queries])
    except StopIteration as stop:
        return stop.value


def test_memory_passes_from_step_to_step_and_is_dropped_where_timesteps_rise() -> None:
    diary = Diary()
    image = drained(denoise(torch.zeros(1, 1, 1), (9, 5, 7, 0), Unguided("p"), diary, STAGE, Streams(0)))
    assert diary.told == [(9, 5, False, None), (5, 7, False, 9), (7, 0, False, None), (0, CLEAN, True, 7)]
    assert image.item() == 4


def test_the_constraint_sees_each_step_after_it_was_taken() -> None:
    seen: list[tuple[float, int]] = []

    def pin(x: torch.Tensor, s: int) -> torch.Tensor:
        seen.append((x.item(), s))
        return x * 0

    drained(denoise(torch.zeros(1, 1, 1), (9, 5, 0), Unguided("p"), Diary(), STAGE, Streams(0), pin))
    assert seen == [(1, 5), (1, 0), (1, CLEAN)]
