"""Many programs, few calls: every answer goes home, whatever the neighbours, and the same check catches each mutant."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from diffsweep.core.process import named_table
from diffsweep.core.types import Estimate, Level, Program, Query
from diffsweep.engine import Engine, Finished, Work
from diffsweep.model.analytic import Analytic
from diffsweep.runner.cell import Cell
from diffsweep.runner.freeze import freeze
from diffsweep.runner.ingredients import work
from diffsweep.runner.parts import names

ROWS = 8
TABLE = named_table("squaredcos_cap_v2")


# -- a model whose answers are known -----------------------------------------------------------------------------------
def answer(image: float, t: int, prompt: str) -> float:
    """What Toy says about a row: whole numbers, exact in single precision, another one for each question here."""
    return image + 100 * t + 1000 * len(prompt)


def device_lacks() -> None:
    raise torch.OutOfMemoryError("too many rows")


def processor_lacks() -> None:
    torch.empty(2**60)


def python_lacks() -> None:
    bytearray(2**60)


def library_lacks() -> None:
    """As torch words what cuBLAS answers where its handle does not fit."""
    raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")


LACKS = pytest.mark.parametrize("lack", [device_lacks, processor_lacks, python_lacks, library_lacks])


@dataclass
class Toy:
    """Answers `answer`; raises on the prompt `raise`, says NaN to `nan`, and lacks memory for more than `most` rows."""

    most: int = 1000
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    encoded: list[str] = field(default_factory=list)
    lack: Callable[[], None] = device_lacks
    side: int = 1

    def encode(self, prompts: Sequence[str]) -> int:
        self.encoded += prompts
        return len(prompts)

    def predict(self, x: Tensor, levels: Sequence[Level], prompts: Sequence[str], beside: Any) -> Estimate:
        if len(x) > self.most:
            self.lack()
        if "raise" in prompts:
            raise ValueError("a prompt that no model can bear")
        assert len(x) == len(levels) == len(prompts)
        assert x.shape[-1] == self.side
        self.shapes.append(tuple(x.shape))
        values = [answer(float(i), int(u.t), p) for i, u, p in zip(x[:, 0, 0, 0], levels, prompts, strict=True)]
        noise = torch.tensor([float("nan") if p == "nan" else v for v, p in zip(values, prompts, strict=True)])
        return Estimate(noise[:, None, None, None].expand_as(x), -noise[:, None, None, None].expand_as(x))


def query(number: int, t: int, prompt: str = "", side: int = 1) -> Query:
    return Query(torch.full((1, 1, side), float(number)), TABLE.level(t), prompt, "base" if side == 1 else "large")


def asking(number: int, steps: int, questions: int = 1, prompt: str = "a", side: int = 1) -> Program[int]:
    """Asks a number of questions at each step and insists on their answers, in order; returns its number."""
    for t in range(steps):
        prompts = [prompt * (i + 1) if prompt == "a" else prompt for i in range(questions)]
        answers = yield [query(number, t, p, side) for p in prompts]
        expected = [answer(number, t, p) for p in prompts]
        assert [float(a.output.flatten()[0]) for a in answers] == expected
        assert [float(a.variance.flatten()[-1]) for a in answers] == [-e for e in expected]  # type: ignore[union-attr]
    return number


def run(programs: Sequence[Callable[[], Program[Any]]], rows: int, model: Any = None, steps: int = 1) -> list[Finished]:
    """What became of each program, in the programs' order."""
    works = [Work(i, program, steps) for i, program in enumerate(programs)]
    models = {"base": model or Toy(), "large": Toy(side=2)}
    return sorted(Engine(models, rows).run(works), key=lambda end: end.owner)


def assert_right(ended: list[Finished], but: Sequence[int] = ()) -> None:
    """Each program returned its own number, but those that had to fail."""
    for i, end in enumerate(ended):
        assert end.owner == i
        if i in but:
            assert end.error is not None and end.result is None
        elif end.error:
            raise end.error
        else:
            assert end.result == i


def crowd(n: int) -> list[Callable[[], Program[int]]]:
    """n programs of 1 to 5 steps and 1 to 3 questions a step."""
    return [lambda i=i: asking(i, 1 + i % 5, 1 + i % 3) for i in range(n)]  # type: ignore[misc]


@dataclass
class Laned(Toy):
    """Prompts of one length share a call."""

    met: list[set[int]] = field(default_factory=list)

    def lane(self, prompt: str) -> int:
        return len(prompt)

    def predict(self, x: Tensor, levels: Sequence[Level], prompts: Sequence[str], beside: Any) -> Estimate:
        self.met.append({len(prompt) for prompt in prompts})
        return super().predict(x, levels, prompts, beside)


# -- calls -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("rows", [1, 2, 7, 16, 200])
def test_every_answer_goes_back_to_its_question(rows: int) -> None:
    assert_right(run(crowd(40), rows))


@pytest.mark.parametrize("rows", [1, 2, 7, 16])
def test_lanes_keep_rows_apart_and_what_they_pad_is_counted(rows: int) -> None:
    model = Laned()
    engine = Engine({"base": model}, rows)
    works = [Work(i, p, 1 + i % 5) for i, p in enumerate(crowd(40))]
    assert_right(sorted(engine.run(works), key=lambda end: end.owner))
    assert all(len(lengths) == 1 for lengths in model.met) and {*map(min, model.met)} == {1, 2, 3}
    asked = sum((1 + i % 5) * (1 + i % 3) for i in range(40))
    assert (engine.counts.model_calls, engine.counts.model_rows) == (len(model.met), asked)
    assert engine.counts.padded_rows == len(model.met) * rows - asked


@pytest.mark.parametrize("rows", [1, 2, 7, 16, 200])
def test_all_calls_have_one_shape_and_what_is_padded_is_counted(rows: int) -> None:
    model = Toy()
    engine = Engine({"base": model}, rows)
    heard: list[int] = []
    ended = list(engine.run([Work(i, p, 1 + i % 5) for i, p in enumerate(crowd(40))], heard.append))
    asked = sum((1 + i % 5) * (1 + i % 3) for i in range(40))
    assert set(model.shapes) == {(rows, 1, 1, 1)}
    counts = engine.counts
    assert (counts.model_calls, counts.model_rows) == (len(model.shapes), asked)
    assert counts.model_rows + counts.padded_rows == counts.model_calls * rows
    assert sum(heard) == sum(end.nfe for end in ended) == asked
    assert {end.owner: end.nfe for end in ended} == {i: (1 + i % 5) * (1 + i % 3) for i in range(40)}


@pytest.mark.parametrize("rows", [4, 7, 16])
@pytest.mark.parametrize("questions", [(1,), (2,), (1, 2), (2, 4)], ids=str)
@pytest.mark.parametrize("each", [12, 13])
def test_a_mixed_sweep_of_10_20_and_50_steps_pads_at_most_5_percent(
    rows: int, questions: tuple[int, ...], each: int
) -> None:
    cells = [(steps, q) for steps in (10, 20, 50) for q in questions for _ in range(each)]
    random.Random(each).shuffle(cells)
    engine = Engine({"base": Toy()}, rows)
    works = [Work(i, lambda i=i, s=s, q=q: asking(i, s, q), s) for i, (s, q) in enumerate(cells)]  # type: ignore[misc]
    assert_right(sorted(engine.run(works), key=lambda end: end.owner))
    assert engine.counts.padded_rows <= 0.05 * engine.counts.model_calls * rows


@pytest.mark.parametrize("rows", [4, 7, 16])
@pytest.mark.parametrize("questions", [1, 2])
@pytest.mark.parametrize("n", [1, 5, 9, 17, 33, 40])
def test_a_sweep_of_equal_cells_needs_no_call_more_than_its_rows_fill(rows: int, questions: int, n: int) -> None:
    engine = Engine({"base": Toy()}, rows)
    ended = engine.run([Work(i, lambda i=i: asking(i, 10, questions), 10) for i in range(n)])  # type: ignore[misc]
    assert_right(sorted(ended, key=lambda end: end.owner))
    assert engine.counts.model_calls == max(10, math.ceil(n * 10 * questions / rows))


class Levelled(Engine):
    """Most steps left first: no row is padded that need not be, and all programs end together."""

    def _choose(self, running: Any) -> Any:
        return [(r, i) for r in sorted(running, key=lambda r: (not r.answers, -r.chain)) for i in r.open][:16]


class InOrder(Engine):
    """The oldest first: programs end one after another, and the last ones leave rows to pad."""

    def _choose(self, running: Any) -> Any:
        return [(r, i) for r in sorted(running, key=lambda r: (not r.answers, r.order)) for i in r.open][:16]


QUICKSTART = [(25, 1)] * 12 + [(25, 2)] * 24  # steps, questions: shared calls of 16 rows
MIXED = [(steps, questions) for steps in (10, 20, 50) for questions in (1, 2, 4) for _ in range(6)]


def calls_and_loss(kind: type[Engine], cells: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The calls of 16 rows that these cells take, and the rows that an interrupt loses at the worst moment."""
    engine, lost, most = kind({"base": Toy()}, 16), 0, 0

    def heard(rows: int) -> None:
        nonlocal lost, most
        lost += rows
        most = max(most, lost)

    for end in engine.run(
        [Work(i, lambda i=i, s=s, q=q: asking(i, s, q), s, q) for i, (s, q) in enumerate(cells)], heard
    ):  # type: ignore[misc]
        lost -= end.nfe
    return engine.counts.model_calls, most


@pytest.mark.parametrize("cells", [QUICKSTART, MIXED])
def test_programs_end_while_work_goes_on_and_no_call_is_wasted(cells: Sequence[tuple[int, int]]) -> None:
    """The bounds: a call has 16 rows, a program of n steps takes n calls; what is begun fills a call, and the next."""
    rows, longest = sum(s * q for s, q in cells), max(s for s, _ in cells)
    fewest, loss = math.ceil(rows / 16), 16 * longest

    def wrong(kind: type[Engine]) -> tuple[bool, bool]:
        calls, lost = calls_and_loss(kind, cells)
        return calls > fewest, lost > loss

    assert wrong(Engine) == (False, False)
    assert wrong(Levelled) == (False, True)
    assert wrong(InOrder) == (True, False)


def test_stages_are_not_mixed_in_a_call() -> None:
    def both(number: int) -> Program[int]:
        for t in range(3):
            small, large, again = yield [query(number, t, "a"), query(number, t, "a", 2), query(number, t, "aa")]
            assert [a.output.shape[-1] for a in (small, large, again)] == [1, 2, 1]
            assert float(again.output) == answer(number, t, "aa")
            assert (large.output == answer(number, t, "a")).all()
        return number

    programs = [lambda i=i: both(i) if i % 3 else asking(i, 4, 2, side=1 + i % 2) for i in range(20)]  # type: ignore[misc]
    assert_right(run(programs, 6))  # Toy insists on one picture size a stage


def test_what_a_query_shows_beside_its_picture_is_stacked_row_by_row() -> None:
    """A picture and a number, of each row its own, those of padding too."""
    seen: list[Any] = []

    class Looking(Toy):
        def predict(self, x: Tensor, levels: Sequence[Level], prompts: Sequence[str], beside: Any) -> Estimate:
            seen.append({key: value.clone() for key, value in beside.items()})
            return super().predict(x, levels, prompts, {})

    def shows(number: int) -> Program[int]:
        beside = {"low": torch.full((3, 2, 2), float(number)), "noise_level": 10 * number}
        yield [replace(query(number, 0), beside=beside)]
        return number

    assert_right(run([lambda i=i: shows(i) for i in range(3)], 4, Looking()))  # type: ignore[misc]
    (beside,) = seen
    assert beside["low"].shape == (4, 3, 2, 2)
    rows = beside["low"][:, 0, 0, 0].tolist()
    assert sorted(set(rows)) == [0, 1, 2]
    assert beside["noise_level"].tolist() == [10 * int(row) for row in rows]


def test_a_step_is_one_call_and_programs_may_be_added_between_steps() -> None:
    model = Toy()
    engine = Engine({"base": model}, 4)
    assert not engine.busy and list(engine.step()) == [] and model.shapes == []
    ended = []
    for i in range(6):
        engine.add(Work(i, lambda i=i: asking(i, 3, 2), 3, 2))  # type: ignore[misc]
        ended += list(engine.step())
        assert len(model.shapes) == i + 1 and engine.busy
    while engine.busy:
        calls = len(model.shapes)
        ended += list(engine.step())
        assert len(model.shapes) == calls + 1
    assert_right(sorted(ended, key=lambda end: end.owner))
    assert engine.counts.model_rows == 6 * 3 * 2


def test_a_program_without_questions_ends_at_once() -> None:
    def silent(number: int) -> Program[int]:
        yield from ()
        return number

    model = Toy()
    assert_right(run([lambda i=i: silent(i) for i in range(50)], 4, model))  # type: ignore[misc]
    assert model.shapes == []


def test_an_empty_list_of_questions_is_answered_by_an_empty_list() -> None:
    def sometimes(number: int) -> Program[int]:
        for questions in (0, 2, 0, 0, 1):
            answers = yield [query(number, 5, "a")] * questions
            assert [float(a.output) for a in answers] == [answer(number, 5, "a")] * questions
        return number

    assert_right(run([lambda i=i: sometimes(i) for i in range(5)], 4))  # type: ignore[misc]


@pytest.mark.parametrize("rows", [1, 8])
def test_programs_start_lazily_so_that_few_hold_memory(rows: int) -> None:
    alive = most = 0

    def held(number: int) -> Program[int]:
        nonlocal alive, most
        alive += 1
        most = max(most, alive)
        yield from asking(number, 3, 2)
        alive -= 1
        return number

    assert_right(run([lambda i=i: held(i) for i in range(300)], rows))  # type: ignore[misc]
    assert alive == 0
    assert most <= 4 * rows


def test_the_longest_programs_start_first_and_results_come_as_they_end() -> None:
    started: list[int] = []

    def noted(steps: int) -> Program[int]:
        started.append(steps)
        return (yield from asking(steps, steps))

    lengths = [3, 9, 1, 9, 4, 2]
    works = [Work(i, lambda s=s: noted(s), s) for i, s in enumerate(lengths)]  # type: ignore[misc]
    ended = [end.owner for end in Engine({"base": Toy()}, 2).run(works)]
    assert started == sorted(lengths, reverse=True)
    assert sorted(ended) == list(range(6))
    assert ended.index(2) > ended.index(4)  # one step, but the last to start


# -- failures ----------------------------------------------------------------------------------------------------------
def raising(number: int, after: int) -> Program[int]:
    yield from asking(number, after, 2)
    raise ZeroDivisionError(f"program {number}")


@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_program_that_raises_fails_alone(after: int) -> None:
    programs = crowd(12)
    programs[5] = lambda: raising(5, after)
    ended = run(programs, 4)
    assert_right(ended, but=[5])
    assert isinstance(ended[5].error, ZeroDivisionError) and str(ended[5].error) == "program 5"
    assert ended[5].nfe == 2 * after


def test_a_program_that_cannot_be_started_fails_alone() -> None:
    def unstartable() -> Program[int]:
        raise MemoryError("no room for its picture")

    programs = crowd(12)
    programs[5] = unstartable
    ended = run(programs, 4)
    assert_right(ended, but=[5])
    assert isinstance(ended[5].error, MemoryError)


@pytest.mark.parametrize("rows", [1, 4, 30])
def test_only_the_culprit_of_a_call_that_raises_fails(rows: int) -> None:
    programs = crowd(12)
    for i in (2, 7):
        programs[i] = lambda i=i: asking(i, 3, 2, "raise")  # type: ignore[misc]
    model = Toy()
    ended = run(programs, rows, model)
    assert_right(ended, but=[2, 7])
    assert all(isinstance(ended[i].error, ValueError) for i in (2, 7))
    assert {shape[0] for shape in model.shapes} == {rows}


def test_a_program_that_fails_is_closed() -> None:
    closed = []

    def careful(number: int) -> Program[int]:
        try:
            return (yield from asking(number, 3, 1, "raise" if number else "a"))
        finally:
            closed.append(number)

    run([lambda i=i: careful(i) for i in range(3)], 4)  # type: ignore[misc]
    assert sorted(closed) == [0, 1, 2]


def test_nan_stays_with_the_row_that_it_came_from() -> None:
    def lenient(number: int) -> Program[Tensor]:
        (first, second) = yield [query(number, 1, "nan"), query(number, 1, "a")]
        assert float(second.output) == answer(number, 1, "a")
        return first.output

    programs = crowd(9)
    programs[4] = lambda: lenient(4)
    ended = run(programs, 5)
    assert_right([*ended[:4], replace(ended[4], result=4), *ended[5:]])
    assert ended[4].error is None and ended[4].result.isnan().all()


@LACKS
@pytest.mark.parametrize(("rows", "most", "left"), [(16, 5, 4), (7, 1, 1), (9, 8, 5)])
def test_out_of_memory_halves_the_rows_and_every_answer_is_right(
    lack: Callable[[], None], rows: int, most: int, left: int
) -> None:
    model = Toy(most=most, lack=lack)
    engine = Engine({"base": model}, rows)
    ended = sorted(engine.run([Work(i, p, 1) for i, p in enumerate(crowd(30))]), key=lambda end: end.owner)
    assert_right(ended)
    assert {shape[0] for shape in model.shapes} == {left}
    assert engine.rows == {"base": left}
    assert engine.counts.halvings > 0
    assert engine.counts.model_calls == len(model.shapes)


@dataclass
class Rounding(Toy):
    """Answers in the last digit by the number of rows of a call, as a network does; lacks memory at its call `at`."""

    at: int = 0

    def predict(self, x: Tensor, levels: Sequence[Level], prompts: Sequence[str], beside: Any) -> Estimate:
        if len(self.shapes) == self.at:
            self.shapes.append((0,))
            self.lack()
        self.shapes.append(tuple(x.shape))
        return Estimate(torch.full_like(x, float(len(x))))


@LACKS
@pytest.mark.parametrize("at", range(1, 17, 3))
def test_every_picture_is_sampled_in_one_shape_though_memory_ran_out(lack: Callable[[], None], at: int) -> None:
    def shapes(steps: int, questions: int) -> Program[set[float]]:
        seen: set[float] = set()
        for t in range(steps):
            answers = yield [query(0, t)] * questions
            seen |= {float(a.output) for a in answers}
        return seen

    engine = Engine({"base": Rounding(lack=lack, at=at)}, 8)
    heard: list[int] = []
    works = [Work(i, lambda i=i: shapes(3 + i % 4, 1 + i % 2), 3 + i % 4, 1 + i % 2) for i in range(20)]  # type: ignore[misc]
    ended = list(engine.run(works, heard.append))
    assert all(end.error is None and len(end.result) == 1 for end in ended)
    assert set().union(*(end.result for end in ended)) <= {8.0, 4.0} and engine.rows == {"base": 4}
    assert {end.owner: end.nfe for end in ended} == {i: (3 + i % 4) * (1 + i % 2) for i in range(20)}
    assert sum(heard) == sum(end.nfe for end in ended) < engine.counts.model_rows


@LACKS
def test_memory_that_lacks_where_programs_are_asked_alone_halves_the_rows(lack: Callable[[], None]) -> None:
    """After an error of one program's: the others' questions are asked again, now in a call that lacks memory."""

    @dataclass
    class Crowded(Toy):
        refused: int = 0

        def predict(self, x: Tensor, levels: Sequence[Level], prompts: Sequence[str], beside: Any) -> Estimate:
            if "raise" in prompts:
                self.refused += 1
            elif self.refused and len(x) > 4:
                self.lack()
            return super().predict(x, levels, prompts, beside)

    programs = crowd(12)
    programs[3] = lambda: asking(3, 2, prompt="raise")
    model = Crowded(lack=lack)
    engine = Engine({"base": model}, 8)
    ended = sorted(engine.run([Work(i, p, 1) for i, p in enumerate(programs)]), key=lambda end: end.owner)
    assert_right(ended, but=[3])
    assert isinstance(ended[3].error, ValueError)
    assert engine.rows == {"base": 4} and engine.counts.halvings == 1


def test_few_programs_run_once_the_rows_were_halved() -> None:
    alive = 0
    beside: dict[int, int] = {}  # how many run when a program starts

    def counted(number: int) -> Program[int]:
        nonlocal alive
        alive += 1
        beside[number] = alive
        try:
            return (yield from asking(number, 3))
        finally:
            alive -= 1

    works = [Work(i, lambda i=i: counted(i), 3) for i in range(300)]  # type: ignore[misc]
    assert len([*Engine({"base": Toy(most=2)}, 16).run(works)]) == 300
    assert alive == 0
    assert max(list(beside.values())[-100:]) <= 4 * 2


def test_with_one_row_a_call_there_is_nothing_left_to_halve() -> None:
    """Every program fails with that reason; the run goes on to its end."""
    ended = run(crowd(3), 4, Toy(most=0))
    assert len(ended) == 3 and all(isinstance(end.error, torch.OutOfMemoryError) for end in ended)


# -- prompts and guidance ----------------------------------------------------------------------------------------------
def test_a_model_is_handed_each_prompt_of_a_sweep_once() -> None:
    model = Toy()
    engine = Engine({"base": model}, 4)
    engine.encode(iter(["red", "", "red", "blue", ""]))
    assert sorted(model.encoded) == ["", "blue", "red"]
    assert engine.counts.encodes == 3


@pytest.mark.parametrize(
    ("scale", "told"), [(1.0, {"red"}), (0.0, {"blue"}), (0.5, {"blue", "red"}), (7.0, {"blue", "red"})]
)
def test_the_unconditional_row_is_asked_for_where_the_scale_needs_it(
    scale: float, told: set[str], config: Callable[..., dict[str, Any]]
) -> None:
    model = Analytic().load("cpu")
    spoken: set[str] = set()
    predict = model.predict
    model.predict = lambda x, levels, prompts, beside: spoken.update(prompts) or predict(x, levels, prompts, beside)
    guided = {"guidance__scale": scale, "guidance__negative_prompt": "blue"}
    cell = freeze(config(prompt="red", scheduler__steps=6, **guided), {})
    engine = Engine({"base": model}, len(told))
    engine.encode(cell.prompts)
    (end,) = engine.run([work(cell, "cpu")])
    assert end.error is None
    assert spoken == told
    assert end.nfe == engine.counts.model_rows == 6 * len(told)
    assert engine.counts.encodes == len(told)


# -- vector-Jacobian products ------------------------------------------------------------------------------------------
def asking_for(queries: list[Query]) -> Program[list[Estimate]]:
    return (yield queries)


def estimates(model: Any, queries: list[Query], rows: int = ROWS, others: Sequence[Query] = ()) -> list[Estimate]:
    """What the engine answers to these queries, beside those of other programs."""
    engine = Engine({"base": model}, rows)
    engine.encode([query.prompt for query in [*queries, *others]])
    works = [Work("own", lambda: asking_for(queries), 1, len(queries))]
    works += [Work(i, lambda q=q: asking_for([q]), 1) for i, q in enumerate(others)]  # type: ignore[misc]
    ended = {end.owner: end for end in engine.run(works)}
    for end in ended.values():
        if end.error:
            raise end.error
    return ended["own"].result


def drawn(n: int, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn((n, *shape), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("process", ["ddpm", "flow"])
def test_a_pull_back_is_the_closed_form_on_a_gaussian(process: str) -> None:
    """clean = mu + alpha S C^-1 (x - alpha mu) with C = alpha^2 S + sigma^2 I: the product with its Jacobian's rows."""
    model = Analytic(size=4, process=process).load("cpu")
    shape, places = model.stage.shape, (5, 300, 600, 950)
    covariance = ((model.eigenvectors * model.eigenvalues[:, None]) @ model.eigenvectors.mT)[0]
    x, v = drawn(4, shape), drawn(4, shape, 1)
    levels = [model.stage.process.at(place) for place in places]
    queries = [Query(x[i], level, "red", pull=v[i]) for i, level in enumerate(levels)]
    for i, (found, level) in enumerate(zip(estimates(model, queries), levels, strict=True)):
        c = level.alpha**2 * covariance + level.sigma**2 * torch.eye(len(covariance), dtype=torch.float64)
        jacobian = level.alpha * covariance @ torch.linalg.inv(c)
        assert found.pulled is not None
        expected = v[i].flatten().double() @ jacobian
        torch.testing.assert_close(found.pulled.flatten().double(), expected, atol=1e-5, rtol=1e-4)


def test_a_pull_back_is_autograds_and_owes_nothing_to_its_neighbours(prior: Prior) -> None:
    """Bit for bit at one batch shape: alone, among other pulls, and where plain questions wait beside."""
    model, stage = prior.model, prior.model.stage
    model.ready()
    level, shape = stage.process.level(400), stage.shape
    (x,), (v,), far, others = drawn(1, shape), drawn(1, shape, 1), drawn(ROWS, shape, 2), drawn(ROWS, shape, 3)
    own = Query(x, level, "a photo of a red dog", pull=v)
    (alone,) = estimates(model, [own])
    beside = [Query(y, stage.process.level(700), "blue", pull=w) for y, w in zip(others, far, strict=True)]
    plain = [Query(y, level, "") for y in far]
    (among,) = estimates(model, [own], others=[*beside, *plain])
    assert alone.pulled is not None and among.pulled is not None
    assert torch.equal(alone.output, among.output) and torch.equal(alone.pulled, among.pulled)
    (unpulled,) = estimates(model, [replace(own, pull=None)])
    assert torch.equal(unpulled.output, alone.output) and unpulled.pulled is None
    assert not alone.pulled.requires_grad and not alone.output.requires_grad

    leaf = x.clone().requires_grad_()
    answer = model.predict(leaf[None], [level], [own.prompt], {})
    clean = Estimate(answer.output[0], kind=answer.kind).clean(leaf, level)
    (expected,) = torch.autograd.grad((clean * v).sum(), leaf)
    scale = expected.abs().max()
    torch.testing.assert_close(alone.pulled / scale, expected / scale, atol=1e-5, rtol=0)


# -- fused equals alone ------------------------------------------------------------------------------------------------
VARIED: tuple[dict[str, Any], ...] = (
    {},
    {"seed": 2},
    {"guidance__scale": 3.0},
    {"prompt": "blue"},
    {"scheduler": "ddim", "scheduler__eta": 0.5, "scheduler__steps": 3, "guidance": "none"},
    {"scheduler": "dpm_solver", "scheduler__steps": 5, "guidance__scale": 0.0, "prompt": "an oil painting of a skull"},
)


@dataclass
class Prior:
    """A loaded model, and how a configuration names it."""

    model: Any
    config: Callable[..., dict[str, Any]]
    named: dict[str, Any]

    def cells(self, technique: str, n: int = len(VARIED)) -> list[Cell]:
        """n cells of a technique: a plain one, and others that differ from it in one thing or in many."""
        usual = {
            "prompt": "a photo of a red dog",
            "scheduler__steps": 4,
            "mask__softness": 2.0,
            "seed": 1,
            **self.named,
        }
        return [freeze(self.config(technique=technique, **usual | varied), {}) for varied in VARIED[:n]]


@pytest.fixture(params=["analytic", "checkpoint"])
def prior(
    request: pytest.FixtureRequest, config: Callable[..., dict[str, Any]], checkpoint: Path, loaded: Any
) -> Prior:
    if request.param == "analytic":
        return Prior(Analytic().load("cpu"), config, {"model": "analytic"})
    return Prior(loaded, config, {"model": "tiny", "model__path": str(checkpoint)})


def pictures(engine: Engine, works: Sequence[Work]) -> dict[Any, dict[str, Tensor]]:
    found = {}
    for end in engine.run(works):
        if end.error:
            raise end.error
        found[end.owner] = {"image": end.result.image, **end.result.pictures}
    return found


def assert_fused_equals_alone(own: list[Cell], others: list[Cell], model: Any, fused: type[Engine] = Engine) -> None:
    """Each of `own` has the same bits by itself as among the others, in two orders."""
    everyone = [*own, *others]
    Engine({"base": model}, ROWS).encode(prompt for cell in everyone for prompt in cell.prompts)
    alone = {cell: pictures(Engine({"base": model}, ROWS), [work(cell, "cpu")])[cell] for cell in own}
    for order in range(2):
        together = pictures(fused({"base": model}, ROWS), [work(cell, "cpu") for cell in everyone])
        for cell in own:
            assert together[cell].keys() == alone[cell].keys()
            for name, picture in alone[cell].items():
                assert picture.isfinite().all()
                assert torch.equal(together[cell][name], picture), (cell.technique, name, order)
        random.Random(order).shuffle(everyone)


@pytest.mark.parametrize("technique", names("technique"))
def test_fused_equals_alone_bit_for_bit(technique: str, prior: Prior) -> None:
    others = [cell for name in names("technique") if name != technique for cell in prior.cells(name, 1)]
    assert_fused_equals_alone(prior.cells(technique), others, prior.model)


class PromptsSwapped(Engine):
    """The first two rows with different prompts are asked about each other's."""

    def _predict(self, queries: list[Query]) -> list[Estimate]:
        first, *rest = queries
        for i, other in enumerate(rest, 1):
            if other.prompt != first.prompt:
                queries = [replace(first, prompt=other.prompt), *rest]
                queries[i] = replace(other, prompt=first.prompt)
                break
        return super()._predict(queries)


class GuidanceHalvesSwapped(Engine):
    """The two answers about one image change places."""

    def _predict(self, queries: list[Query]) -> list[Estimate]:
        answers = super()._predict(queries)
        for i, (one, two) in enumerate(pairwise(queries)):
            if one.image is two.image:
                answers[i : i + 2] = answers[i + 1], answers[i]
                break
        return answers


class ATimestepOff(Engine):
    """The first row is asked about one timestep earlier or later."""

    def _predict(self, queries: list[Query]) -> list[Estimate]:
        t = queries[0].level.t
        first = replace(queries[0], level=TABLE.level(t - 1 if t else 1))
        return super()._predict([first, *queries[1:]])


class Exchanged(Engine):
    """The first cell and the one at `other` get each other's picture; they differ in one thing."""

    other: ClassVar[int]

    def run(self, works: Any, on_rows: Any = lambda rows: None) -> Iterator[Finished]:
        first, *rest = works
        second = rest[self.other - 1]
        rest[self.other - 1] = replace(second, start=first.start)
        return super().run([replace(first, start=second.start), *rest], on_rows)


class SeedsExchanged(Exchanged):
    other = 1


class ScalesExchanged(Exchanged):
    other = 2


class CellsPromptsExchanged(Exchanged):
    other = 3


class NeighboursSeen(Engine):
    """The answer depends on who else is in the call: what batch statistics would do."""

    def _predict(self, queries: list[Query]) -> list[Estimate]:
        answers = super()._predict(queries)
        mean = sum(float(q.image.mean()) for q in queries) / len(queries)
        return [replace(a, output=a.output + 1e-6 * mean) for a in answers]


MUTANTS = (
    PromptsSwapped,
    GuidanceHalvesSwapped,
    ATimestepOff,
    SeedsExchanged,
    ScalesExchanged,
    CellsPromptsExchanged,
    NeighboursSeen,
)


@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_same_check_catches_a_mutant(mutant: type[Engine], prior: Prior) -> None:
    others = [cell for name in ("inpaint", "anagram") for cell in prior.cells(name, 2)]
    with pytest.raises(AssertionError, match="image"):
        assert_fused_equals_alone(prior.cells("text_to_image"), others, prior.model, mutant)


def test_a_programs_last_stretch_counts_in_its_seconds() -> None:
    def slow() -> Program[int]:
        yield [query(0, 0)]
        time.sleep(0.05)
        return 0

    (end,) = run([slow], 1)
    assert end.seconds >= 0.05


def test_rows_are_heard_of_once_though_memory_ran_out() -> None:
    heard: list[int] = []
    works = [Work(i, lambda: asking(0, 3), 3) for i in range(6)]
    list(Engine({"base": Toy(most=2)}, 8).run(works, heard.append))
    assert sum(heard) == 18
