"""Many programs, few model calls: continuous batching for sweeps.

Every program runs at its own pace. Each call takes `rows` open questions, whoever asks them, pads the last rows of
the tail, and hands the answers back; a program whose answers are complete goes on to its next questions. All calls of a
sweep have one shape: a row's bits then do not depend on its neighbours.

Programs start longest first, and the oldest is served first, so that programs end while work goes on. A younger one is
preferred only where the work could not be done in the fewest calls otherwise: a program of n steps needs n calls, and
few long programs at the end would leave rows to pad. `_needed` counts that by Hu's bound on chains of unit tasks
(T. C. Hu, "Parallel sequencing and assembly line problems", Operations Research 9, 1961).

A call asks one model, for estimates alone or for vector-Jacobian products too (`Query.pull`). Where programs of several
stages run (a cascade), the oldest program's stage is asked, or the first whose call is full: no stage waits for another
to end, and rows are padded only when nothing else can be asked.

Where memory does not suffice, the engine halves a stage's rows, and programs that this stage has answered already start
again: every picture is sampled in one shape.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import torch

from diffsweep.core.memory import out_of_memory
from diffsweep.core.types import BASE, Estimate, Level, Model, Program, Query, clean_of

log = logging.getLogger(__name__)
WINDOW = 4  # running programs hold open questions for about so many calls: slack to even out the tail


@dataclass(frozen=True)
class Work:
    """A program not yet started, or to be started again. owner: whose it is, such as a cell.

    steps: how often it will ask, as planned; rows: of a step; stage: which model it asks; later: the steps of what
    follows once it has ended. Only the order depends on these four.
    """

    owner: Any
    start: Callable[[], Program[Any]]
    steps: int
    rows: int = 1
    stage: str = BASE
    later: int = 0

    @property
    def chain(self) -> int:
        """The calls that must follow one another, this program's and those of what follows."""
        return self.steps + self.later


@dataclass(frozen=True)
class Finished:
    """A program's end. nfe: model evaluations (rows) it used; seconds: its share of the time."""

    owner: Any
    result: Any
    error: Exception | None
    nfe: int
    seconds: float


@dataclass
class Counts:
    """Work done: calls of the model, rows asked for, rows padded, prompts encoded, halvings for lack of memory."""

    model_calls: int = 0
    model_rows: int = 0
    padded_rows: int = 0
    encodes: int = 0
    halvings: int = 0


@dataclass(eq=False)
class _Running:
    work: Work
    order: int
    program: Program[Any]
    steps_left: int
    queries: list[Query] = field(default_factory=list)
    answers: dict[int, Estimate] = field(default_factory=dict)
    answered_by: set[str] = field(default_factory=set)
    nfe: int = 0
    seconds: float = 0.0

    @property
    def open(self) -> list[int]:
        return [i for i in range(len(self.queries)) if i not in self.answers]

    @property
    def chain(self) -> int:
        """The calls that must follow one another from here, the next one among them."""
        return max(0, self.steps_left) + 1 + self.work.later


def _lazily(start: Callable[[], Program[Any]]) -> Program[Any]:
    """The program, made by its first step, so that what goes wrong there is its own failure, an exit too."""
    try:
        return (yield from start())
    except SystemExit as stop:
        raise RuntimeError(f"SystemExit({stop})") from stop


_Row = tuple[_Running, int]


class _TooManyRows(Exception):
    """Memory does not suffice for a call, and fewer rows may mend that."""


def _needed(above: Mapping[str, Sequence[int]], capacity: Mapping[str, int], stage: str) -> list[int]:
    """How many rows whose chain is longer than 0, 1, 2, ... the next call of a stage must answer, so that all can still
    end in the fewest calls. above: `Engine._above`; capacity: rows of a call, by stage."""

    def calls(stage: str, length: int) -> int:
        return -(-above[stage][length] // capacity[stage])

    # A row of a chain longer than `length` has `length` calls or more after its own. So of F calls the first F - length
    # answer all such rows, of every stage: F >= length + the sum over stages of ceil(above[stage][length] / capacity).
    # Hu: the greatest of these bounds is reached. After the next call F - 1 - length are left for these rows, less
    # those of other stages, and each answers `most` rows.
    own, most, others = above[stage], capacity[stage], above.keys() - {stage}
    beside = [sum(calls(other, length) for other in others) for length in range(len(own))]
    fewest = max(length + calls(stage, length) + beside[length] for length in range(len(own)))
    return [own[length] - most * (fewest - 1 - length - beside[length]) for length in range(len(own))]


def _stacked(values: Sequence[torch.Tensor | float]) -> torch.Tensor:
    """A tensor or a number a row, as one tensor."""
    tensors = [value for value in values if isinstance(value, torch.Tensor)]
    return torch.stack(tensors) if tensors else torch.tensor(values)


def _pulls(row: _Row) -> bool:
    """Whether a row asks for a vector-Jacobian product, which a call answers for all of its rows or for none."""
    running, i = row
    return running.queries[i].pull is not None


def _pulled(
    model: Model,
    x: torch.Tensor,
    levels: Sequence[Level],
    prompts: Sequence[str],
    beside: Mapping[str, torch.Tensor],
    pulls: torch.Tensor,
) -> Estimate:
    """The model's answer, with v^T d(clean estimate)/dx of each row. pulls: v, B C H W.

    No row depends on another, so one backward pass serves them all.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        answer = model.predict(x, levels, prompts, beside)
        numbers = torch.tensor([(level.alpha, level.sigma) for level in levels], device=x.device)
        alpha, sigma = numbers.T[..., None, None, None]
        (pulled,) = torch.autograd.grad(clean_of(answer.kind, x, answer.output, alpha, sigma), x, pulls)
    variance = None if answer.variance is None else answer.variance.detach()
    return Estimate(answer.output.detach(), variance, answer.kind, pulled)


class Engine:
    """Answers programs' questions from a model a stage; `counts` says how much work it was.

    rows: of a call; one number, or one for each stage.
    """

    def __init__(self, models: Mapping[str, Model], rows: int | Mapping[str, int]) -> None:
        self.models = models
        self.rows = dict.fromkeys(models, rows) if isinstance(rows, int) else dict(rows)
        self.counts = Counts()
        self._waiting: list[Work] = []
        self._running: list[_Running] = []
        self._started = 0
        self._coming: dict[str, Counter[int]] = defaultdict(Counter)  # rows of programs that wait, as `_above` reads it

    def encode(self, prompts: Iterable[str], stage: str = BASE) -> None:
        """Encode each distinct prompt once."""
        self.counts.encodes += self.models[stage].encode(list(dict.fromkeys(prompts)))

    @property
    def busy(self) -> bool:
        """Whether programs wait or run."""
        return bool(self._waiting or self._running)

    def add(self, work: Work) -> None:
        """Start this program next, before those that wait."""
        self._waiting.append(work)
        self._coming[work.stage].update({work.chain: work.rows, work.later: -work.rows})

    def run(self, works: Iterable[Work], on_rows: Callable[[int], None] = lambda rows: None) -> Iterator[Finished]:
        """Run all programs, and those that are added meanwhile; yields each as it ends, failed ones with their error.

        on_rows is called with the rows answered; where programs start again, with those lost, as a negative number.
        """
        for work in sorted(works, key=lambda work: -work.chain)[::-1]:  # the last is started first
            self.add(work)
        while self.busy:
            yield from self.step(on_rows)

    @torch.no_grad()
    def step(self, on_rows: Callable[[int], None] = lambda rows: None) -> Iterator[Finished]:
        """Start programs while there is room for their questions, and make one model call; yields each that ends."""
        window = WINDOW * max(self.rows.values())  # less, once memory lacked
        while self._waiting and sum(len(r.open) for r in self._running) < window:
            work = self._waiting.pop()
            self._coming[work.stage].subtract({work.chain: work.rows, work.later: -work.rows})
            self._started += 1
            fresh = _Running(work, self._started, _lazily(work.start), work.steps)
            finished = self._advance(fresh)
            if finished is None:
                self._running.append(fresh)
            else:
                yield finished
        if self._running:
            yield from self._answer(self._choose(self._running), on_rows)

    def _choose(self, running: list[_Running]) -> list[_Row]:
        """The next call's rows, all of one stage: those that must not wait, half-answered programs, then the oldest."""
        stages: dict[str, list[_Row]] = {}
        for r in sorted(running, key=lambda r: (not r.answers, r.order)):
            for i in r.open:
                stages.setdefault(r.queries[i].stage, []).append((r, i))
        full = (stage for stage, rows in stages.items() if len(rows) >= self.rows[stage])
        stage = next(full, next(iter(stages)))
        oldest, i = stages[stage][0]
        rows = [row for row in stages[stage] if _pulls(row) == _pulls((oldest, i))]
        most, above = self.rows[stage], self._above(running)
        if len(rows) <= most or stage not in above:
            return rows[:most]
        chosen: set[_Row] = set()
        for length, number in reversed([*enumerate(_needed(above, self.rows, stage))]):
            if number > len(chosen):
                pressing = [row for row in rows if row[0].chain > length and row not in chosen]
                chosen |= {*pressing[: number - len(chosen)]}
        others = [row for row in rows if row not in chosen][: most - len(chosen)]
        chosen |= {*others}
        return [row for row in rows if row in chosen]

    def _above(self, running: list[_Running]) -> dict[str, list[int]]:
        """Of each stage, the rows still to be answered whose chain is longer than 0, 1, 2, ... up to the longest, as
        planned."""
        ends = {stage: Counter(coming) for stage, coming in self._coming.items()}
        for r in running:  # each length from `later` to below its own holds a step's rows, its own the open ones
            own, chain, rows, number = ends[r.work.stage], r.chain, r.work.rows, len(r.open)
            own[chain] += number
            own[chain - 1] += rows - number
            own[r.work.later] -= rows
        longest = max(length for own in ends.values() for length, number in own.items() if number)
        above = {}
        for stage, own in ends.items():
            at = accumulate(own[length] for length in range(longest, 0, -1))  # rows of this length, the longest first
            above[stage] = [*accumulate(at)][::-1]
        return above

    def _answer(self, rows: list[_Row], on_rows: Callable[[int], None]) -> Iterator[Finished]:
        began = time.perf_counter()
        asking = list(dict.fromkeys(r for r, _ in rows))
        stage = rows[0][0].queries[rows[0][1]].stage
        try:
            estimates = self._estimates(rows, stage)
        except _TooManyRows:
            self._halve(stage)
            yield from self._restart([r for r in self._running if stage in r.answered_by], on_rows)
            return
        share = (time.perf_counter() - began) / len(rows)
        failed: dict[_Running, Exception] = {}
        for (r, i), estimate in zip(rows, estimates, strict=True):
            r.seconds += share
            r.nfe += 1
            r.answered_by.add(stage)
            if isinstance(estimate, Exception):
                failed[r] = estimate
            else:
                r.answers[i] = estimate
        on_rows(len(rows))
        for r in asking:
            finished = self._end(r, None, failed[r]) if r in failed else None
            if finished is None and not r.open:
                finished = self._advance(r, [r.answers[i] for i in range(len(r.queries))])
            if finished is not None:
                self._running.remove(r)
                yield finished

    def _halve(self, stage: str) -> None:
        self.rows[stage] = (self.rows[stage] + 1) // 2
        self.counts.halvings += 1
        log.warning("out of memory: going on with %d rows a call", self.rows[stage])

    def _restart(self, begun: Sequence[_Running], on_rows: Callable[[int], None]) -> Iterator[Finished]:
        """Programs that were answered in a shape that is given up start again: a picture's bits are of one shape."""
        for r in begun:
            on_rows(-r.nfe)
            r.program.close()
            fresh = _Running(r.work, r.order, _lazily(r.work.start), r.work.steps)
            self._running[self._running.index(r)] = fresh
            if finished := self._advance(fresh):
                self._running.remove(fresh)
                yield finished

    def _estimates(self, rows: list[_Row], stage: str) -> Sequence[Estimate | Exception]:
        """A call's answers. Where it raised, each program is asked for alone, so that only the culprit fails."""
        try:
            return self._predict([r.queries[i] for r, i in rows])
        except Exception as error:
            if out_of_memory(error) and self.rows[stage] > 1:
                raise _TooManyRows from error
            if len(asking := list(dict.fromkeys(r for r, _ in rows))) == 1:
                return [error] * len(rows)
        alone = {r: [row for row in rows if row[0] is r] for r in asking}
        answers = {r: iter(self._estimates(own, stage)) for r, own in alone.items()}
        return [next(answers[r]) for r, _ in rows]

    def _predict(self, queries: list[Query]) -> list[Estimate]:
        stage = queries[0].stage
        padding = self.rows[stage] - len(queries)
        padded = queries + [queries[-1]] * padding
        x = torch.stack([q.image for q in padded])
        beside = {key: _stacked([q.beside[key] for q in padded]) for key in padded[0].beside}
        levels, prompts = [q.level for q in padded], [q.prompt for q in padded]
        pulls = [q.pull for q in padded if q.pull is not None]
        if pulls:
            answer = _pulled(self.models[stage], x, levels, prompts, beside, torch.stack(pulls))
        else:
            answer = self.models[stage].predict(x, levels, prompts, beside)
        self.counts.model_calls += 1
        self.counts.model_rows += len(queries)
        self.counts.padded_rows += padding
        none = [None] * len(queries)
        variances = none if answer.variance is None else answer.variance
        pulled = none if answer.pulled is None else answer.pulled
        return [Estimate(answer.output[i], variances[i], answer.kind, pulled[i]) for i in range(len(queries))]

    def _advance(self, r: _Running, answers: list[Estimate] | None = None) -> Finished | None:
        """Send a program its answers (none to start it) until it asks again; Finished when it ended."""
        began = time.perf_counter()
        try:
            while not (queries := next(r.program) if answers is None else r.program.send(answers)):
                answers = []
            r.queries, r.answers = queries, {}
            r.steps_left -= 1
            return None
        except StopIteration as stop:
            ended: tuple[Any, Exception | None] = stop.value, None
        except Exception as error:
            ended = None, error
        finally:
            r.seconds += time.perf_counter() - began
        return self._end(r, *ended)

    def _end(self, r: _Running, result: Any, error: Exception | None) -> Finished:
        r.program.close()
        return Finished(r.work.owner, result, error, r.nfe, r.seconds)
