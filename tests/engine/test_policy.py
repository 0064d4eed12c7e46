"""The policy on plain values: no model, no program, no tensor."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product

import pytest

from diffsweep.core.types import Program
from diffsweep.engine.policy import Backlog, choose
from diffsweep.engine.values import Asking, Question, Work


@dataclass(frozen=True)
class Plan:
    """A program of so many steps, of so many rows each, all of one stage."""

    steps: int
    rows: int = 1
    stage: str = "base"

    def asking(self, order: int, step: int, answered: Collection[int] = ()) -> Asking:
        """It asks for a step's rows, of which some were answered."""
        questions = [Question(order, i, self.stage) for i in range(self.rows) if i not in answered]
        return Asking(order, questions, self.steps - step, bool(answered), self.stage, self.rows)


def chosen(plans: Sequence[Plan], capacity: Mapping[str, int]) -> Iterator[list[Question]]:
    """Each call's rows until all programs ended."""
    running = {i: (0, set[int]()) for i in range(len(plans))}  # the step, and which of its rows were answered
    while running:
        rows = choose([plans[i].asking(i, *at) for i, at in running.items()], Backlog(), capacity)
        yield rows
        for i, place, *_ in rows:
            step, answered = running[i]
            assert place in range(plans[i].rows) and place not in answered
            running[i] = (step, answered | {place}) if len(answered) < plans[i].rows - 1 else (step + 1, set())
            if running[i][0] == plans[i].steps:
                del running[i]


def fewest(plans: Sequence[Plan], capacity: Mapping[str, int]) -> int:
    """The calls that the best of all orders needs, found by trying them all."""

    @cache
    def left(state: tuple[tuple[int, int, int, str], ...]) -> int:
        """state: of each program the steps left, the open rows of this step, rows a step, stage."""
        if not state:
            return 0
        best = 10**9
        for stage, most in capacity.items():
            takes = [range(opened + 1) if own == stage else (0,) for _, opened, _, own in state]
            total = min(most, sum(opened for _, opened, _, own in state if own == stage))
            for taken in product(*takes):
                if sum(taken) == total > 0:
                    after = []
                    for (steps, opened, rows, own), number in zip(state, taken, strict=True):
                        steps, opened = (steps, opened - number) if opened > number else (steps - 1, rows)
                        after += [(steps, opened, rows, own)] if steps else []
                    best = min(best, 1 + left(tuple(sorted(after))))
        return best

    return left(tuple(sorted((plan.steps, plan.rows, plan.rows, plan.stage) for plan in plans)))


def drawn(seed: int, rows: int, stages: Sequence[str]) -> tuple[list[Plan], dict[str, int]]:
    """A few programs, and the rows of a call of each stage."""
    rng = random.Random(seed)
    plans = [Plan(rng.randint(1, 4), rng.randint(1, rows), rng.choice(stages)) for _ in range(rng.randint(1, 5))]
    return plans, {stage: rng.randint(1, 4) for stage in stages}


@pytest.mark.parametrize("seed", range(60))
def test_no_order_of_single_rows_takes_fewer_calls(seed: int) -> None:
    plans, capacity = drawn(seed, 1, ["base"])
    assert len([*chosen(plans, capacity)]) == fewest(plans, capacity)


@pytest.mark.parametrize(("rows", "stages"), [(3, ["base"]), (1, ["base", "large"]), (2, ["base", "large"])], ids=str)
def test_steps_of_several_rows_and_several_stages_take_few_calls_more(rows: int, stages: list[str]) -> None:
    """2 % more than the best of all orders: the bound is of single rows, and the oldest program chooses the stage."""
    cases = [drawn(seed, rows, stages) for seed in range(60)]
    best = sum(fewest(*case) for case in cases)
    assert best <= sum(len([*chosen(*case)]) for case in cases) <= 1.02 * best


@pytest.mark.parametrize("seed", range(20))
def test_the_rows_ahead_are_those_of_programs_that_wait_and_that_run(seed: int) -> None:
    rng, backlog = random.Random(seed), Backlog()
    chains: dict[str, list[int]] = {"base": [], "large": []}  # of each row still to be answered
    running = []
    for order in range(8):
        stage, later, rows = rng.choice([*chains]), rng.randint(0, 3), rng.randint(1, 3)
        work = Work(order, asking_nothing, rng.randint(1, 5), rows, stage, later)
        backlog.add(work)
        opened, chain = rows, work.chain
        if order % 2:
            backlog.remove(work)
            opened, chain = rng.randint(1, rows), rng.randint(later + 1, work.chain)
            questions = [Question(order, place, stage) for place in range(opened)]
            running.append(Asking(order, questions, chain, opened < rows, stage, rows, later))
        chains[stage] += [chain] * opened + [length for length in range(later + 1, chain) for _ in range(rows)]
    above = backlog.above(running)
    assert {len(own) for own in above.values()} == {max(max(own, default=0) for own in chains.values())}
    for stage, own in chains.items():
        for length, number in enumerate(above.get(stage, ())):
            assert number == sum(chain > length for chain in own)


# -- lanes -------------------------------------------------------------------------------------------------------------
def laned(seed: int, lanes: int) -> Iterator[tuple[list[Question], set[Question], int]]:
    """Each call's rows, the questions that were open, and the most rows, of programs whose rows have lanes."""
    rng = random.Random(seed)
    left = {order: rng.randint(1, 5) for order in range(rng.randint(1, 8))}
    width = {order: rng.randint(1, 3) for order in left}
    lane = {(order, place): rng.randrange(lanes) for order in left for place in range(width[order])}
    opened = {order: set(range(width[order])) for order in left}
    capacity = {"base": rng.randint(1, 4)}
    while left:
        running = [
            Asking(
                order,
                [Question(order, place, lane=lane[order, place]) for place in sorted(opened[order])],
                left[order],
                len(opened[order]) < width[order],
                rows=width[order],
            )
            for order in left
        ]
        rows = choose(running, Backlog() if seed % 2 else None, capacity)
        assert 0 < len(rows) <= capacity["base"]
        yield rows, {question for asking in running for question in asking.questions}, capacity["base"]
        for row in rows:
            opened[row.order].remove(row.place)
            if not opened[row.order]:
                left[row.order] -= 1
                opened[row.order] = set(range(width[row.order]))
                if not left[row.order]:
                    del left[row.order]


@pytest.mark.parametrize("seed", range(40))
def test_rows_of_two_lanes_never_meet_in_a_call_and_all_are_answered(seed: int) -> None:
    """Each call answers one row or more, so that programs that ended left none behind."""
    calls = [*laned(seed, 3)]
    for rows, opened, _ in calls:
        assert len({row.lane for row in rows}) == 1
        assert {*rows} <= opened and len({*rows}) == len(rows)


@pytest.mark.parametrize("seed", range(20))
def test_rows_are_padded_only_where_no_lane_fills_a_call(seed: int) -> None:
    for rows, opened, most in laned(seed, 3):
        if len(rows) < most:
            lanes = [sum(question.lane == lane for question in opened) for lane in range(3)]
            assert max(lanes) < most


def test_the_oldest_programs_lane_is_asked_where_none_is_full() -> None:
    running = [Asking(order, [Question(order, 0, lane=order % 2)], 3) for order in range(4)]
    assert [row.order for row in choose(running, None, {"base": 3})] == [0, 2]
    begun = [*running[:3], Asking(3, [Question(3, 1, lane=1)], 3, begun=True, rows=2)]
    assert [row.order for row in choose(begun, None, {"base": 3})] == [3, 1]


def asking_nothing() -> Program[None]:
    yield []
