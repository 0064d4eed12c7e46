"""The one loop."""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import Any

import pytest
import torch

from diffsweep.core.loop import asked as asked_at
from diffsweep.core.loop import denoise, noised_further, stepped, steps, together
from diffsweep.core.process import Flow, named_table
from diffsweep.core.streams import MAIN, Streams
from diffsweep.core.types import Estimate, Level, Process, Program, Query, Stage, Weights
from diffsweep.guidance.none import Unguided
from diffsweep.guidance.rule import About
from diffsweep.scheduler.ddim import Ddim
from diffsweep.scheduler.heun import Heun
from diffsweep.scheduler.spacing import Spaced
from tests.answering import answered

TABLE = named_table("linear")
STAGE = Stage((1, 1, 1), TABLE)
GUIDANCE = About(Unguided(), "p")


def at(*timesteps: float) -> tuple[Level, ...]:
    return tuple(TABLE.level(t) for t in timesteps)


class Diary(Spaced):
    """A scheduler that writes down which steps are taken, and adds 1 each time."""

    def __init__(self, again: bool = False) -> None:
        self.taken: list[tuple[float, float, float | None]] = []
        self.again = again

    def on(self, stage: Stage) -> Stage:
        return stage

    def weights(self, t: Level, s: Level, before: Level | None) -> Weights:
        self.taken.append((t.t, s.t, before.t if before else None))
        return Weights(1.0, 1.0)

    def corrected(self, t: Level, s: Level) -> Weights | None:
        return Weights(0.0, 0.0, 1.0) if self.again and not s.is_end else None


def one(query: Query) -> Estimate:
    return Estimate(torch.ones_like(query.image), kind="sample")


def test_steps_lead_from_each_level_to_the_next_and_to_the_end() -> None:
    levels = at(900, 500, 700, 0)
    assert list(steps(levels, TABLE)) == [*zip(levels, (*levels[1:], TABLE.clean), strict=True)]
    assert list(steps((), TABLE)) == []


def test_the_step_before_is_told_and_forgotten_where_levels_rise() -> None:
    diary = Diary()
    image = answered(denoise(torch.zeros(1, 1, 1), at(9, 5, 7, 0), GUIDANCE, diary, STAGE, Zeros()), one)
    assert diary.taken == [(9, 5, None), (7, 0, None), (0, -1, 7)]
    kept = TABLE.level(7).alpha / TABLE.level(5).alpha  # the rise, without its noise
    assert image.item() == pytest.approx(1 * kept + 2)


class Zeros(Streams):
    def __init__(self) -> None:
        super().__init__(0)

    def normal(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        return torch.zeros(shape)


def test_where_levels_rise_nobody_is_asked_and_the_samplers_noise_stays() -> None:
    asked: list[float] = []

    def answer(query: Query) -> Estimate:
        asked.append(query.level.t)
        return one(query)

    streams = Streams(3)
    answered(denoise(torch.zeros(1, 1, 1), at(9, 5, 7, 0), GUIDANCE, Ddim(), STAGE, streams), answer)
    assert asked == [9, 7, 0]
    assert torch.equal(streams.normal(MAIN, (4,)), Streams(3).normal(MAIN, (4,)))


@pytest.mark.parametrize("process", [TABLE, Flow()])
def test_a_rise_is_the_forward_process(process: Process) -> None:
    """Noised to t and further to s is noised to s: the moments of q(x_s | x_0)."""
    t, s = process.at(200), process.at(700)
    mean = noised_further(t.noised(torch.tensor(1.0), torch.tensor(0.0)), t, s, torch.tensor(0.0))
    by_first = noised_further(t.noised(torch.tensor(0.0), torch.tensor(1.0)), t, s, torch.tensor(0.0))
    by_second = noised_further(torch.tensor(0.0), t, s, torch.tensor(1.0))
    assert mean.item() == pytest.approx(s.alpha)
    assert math.hypot(by_first.item(), by_second.item()) == pytest.approx(s.sigma)


class Pin:
    """A constraint that writes down what it sees, and sets it to a value."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, float, float]] = []

    def clean(self, clean: torch.Tensor, x: torch.Tensor, level: Level) -> torch.Tensor:
        self.seen.append(("clean", clean.item(), level.t))
        return clean * 0 + 10

    def noisy(self, x: torch.Tensor, level: Level) -> torch.Tensor:
        self.seen.append(("noisy", x.item(), level.t))
        return x * 0


def test_a_constraint_sees_each_clean_estimate_before_the_step_and_each_x_after_it() -> None:
    pin, watched = Pin(), []
    program = denoise(
        torch.zeros(1, 1, 1), at(9, 0), GUIDANCE, Diary(), STAGE, Streams(0), pin,
        lambda level, x, clean: watched.append((level.t, x.item(), clean.item())),
    )  # fmt: skip
    answered(program, one)
    assert pin.seen == [("clean", 1, 9), ("noisy", 10, 0), ("clean", 1, 0), ("noisy", 10, -1)]
    assert watched == [(9, 0, 10), (0, 0, 10)]


def test_the_clean_estimate_is_thresholded_before_it_is_seen_and_used() -> None:
    pin, watched = Pin(), []
    stage = Stage((1, 1, 1), TABLE, threshold="clip")
    program = denoise(
        torch.zeros(1, 1, 1), at(9), GUIDANCE, Ddim(), stage, Streams(0), None, lambda *seen: watched.append(seen)
    )
    image = answered(program, lambda query: Estimate(torch.full_like(query.image, 3.0), kind="sample"))
    assert image.item() == 1 and watched[0][2].item() == 1
    answered(
        denoise(torch.zeros(1, 1, 1), at(9), GUIDANCE, Ddim(), stage, Streams(0), pin),
        lambda query: Estimate(torch.full_like(query.image, 3.0), kind="sample"),
    )
    assert pin.seen[0] == ("clean", 1, 9)


def test_a_rule_that_asks_again_is_asked_about_its_own_step() -> None:
    seen: list[tuple[float, float]] = []

    def answer(query: Query) -> Estimate:
        seen.append((query.level.t, query.image.item()))
        return Estimate(torch.full_like(query.image, len(seen)), kind="sample")

    image = answered(denoise(torch.zeros(1, 1, 1), at(9, 5), GUIDANCE, Diary(again=True), STAGE, Streams(0)), answer)
    assert seen == [(9, 0), (5, 1), (5, 2)]  # its step to 5 gives 0 + 1; the second answer, 2, replaces it
    assert image.item() == 2 + 3


@pytest.mark.parametrize(
    "scheduler, levels, expected",
    [
        (Ddim(), (9, 5, 0), 3),
        (Ddim(), (), 0),
        (Ddim(), (9, 5, 7, 0), 3),
        (Heun(), (9, 5, 0), 5),
        (Heun(churn=5.0), (900, 500, 100), 5),
        (Heun(), (9,), 1),
    ],
)
def test_rounds_are_counted_ahead_as_they_are_asked(scheduler: Any, levels: tuple[int, ...], expected: int) -> None:
    asked = 0

    def answer(query: Query) -> Estimate:
        nonlocal asked
        asked += 1
        return one(query)

    answered(denoise(torch.zeros(1, 1, 1), at(*levels), GUIDANCE, scheduler, STAGE, Streams(0)), answer)
    assert len(asked_at(at(*levels), scheduler, TABLE)) == asked == expected


def test_stepped_weighs_what_it_is_given() -> None:
    x, clean, other, noise, variance = (torch.tensor([v], dtype=torch.float64) for v in (2.0, 3.0, 5.0, 7.0, -0.5))
    weights = Weights(0.1, 0.2, 0.3, 0.4, (math.log(0.01), math.log(0.09)))
    assert stepped(weights, x, clean, other).item() == pytest.approx(0.2 + 0.6 + 1.5)
    assert stepped(weights, x, clean, other, noise).item() == pytest.approx(0.2 + 0.6 + 1.5 + 2.8)
    between = math.sqrt(0.01**0.75 * 0.09**0.25)  # a quarter of the way from the least to the greatest, in logarithms
    assert stepped(weights, x, clean, other, noise, variance).item() == pytest.approx(0.2 + 0.6 + 1.5 + 7 * between)


def test_together_asks_all_open_questions_at_once_and_sorts_the_answers() -> None:
    def program(name: str, sizes: tuple[int, ...]) -> Program[str]:
        heard = [name]
        for size in sizes:
            answers = yield [Query(torch.zeros(1), TABLE.level(0), f"{name}{i}") for i in range(size)]
            heard += [str(answer.output) for answer in answers]
        return " ".join(heard)

    asked: list[list[str]] = []

    def run(joint: Generator[list[Query], list[Any], list[str]]) -> list[str]:
        try:
            queries = next(joint)
            while True:
                asked.append([query.prompt for query in queries])
                queries = joint.send([Estimate(f"<{query.prompt}>") for query in queries])  # type: ignore[arg-type]
        except StopIteration as stop:
            return stop.value

    results = run(together(program("a", (2, 1)), program("b", ()), program("c", (1, 1, 1))))
    assert asked == [["a0", "a1", "c0"], ["a0", "c0"], ["c0"]]
    assert results == ["a <a0> <a1> <a0>", "b", "c <c0> <c0> <c0>"]
