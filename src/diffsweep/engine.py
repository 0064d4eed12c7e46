"""Many programs, few model calls: continuous batching for sweeps.

Every program runs at its own pace. Each call takes `rows` open questions, whoever asks them, pads the last rows of
the tail, and hands the answers back; a program whose answers are complete goes on to its next questions. Programs
start longest first and are served in that order; once the last has started, those with most steps left come first
(Hu's level algorithm), so that few rows are padded at the end. All calls of a sweep have one shape: a row's bits then
do not depend on its neighbours.

A call asks one model. Where programs of several stages run (a cascade), the oldest program's stage is asked, or the
first whose call is full: no stage waits for another to end, and rows are padded only when nothing else can be asked.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from diffsweep.core.types import BASE, Estimate, Given, Model, Program, Query

log = logging.getLogger(__name__)
WINDOW = 4  # running programs hold open questions for about so many calls: slack to level the tail


@dataclass(frozen=True)
class Work:
    """A program not yet started. steps: how often it will ask, as planned; only the order depends on it."""

    key: Any
    start: Callable[[], Program[Any]]
    steps: int


@dataclass(frozen=True)
class Finished:
    """A program's end. nfe: model evaluations (rows) it used; seconds: its share of the time."""

    key: Any
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
    nfe: int = 0
    seconds: float = 0.0

    @property
    def open(self) -> list[int]:
        return [i for i in range(len(self.queries)) if i not in self.answers]


def out_of_memory(error: Exception) -> bool:
    """The device's allocator says so by its type, the processor's in words."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _lazily(start: Callable[[], Program[Any]]) -> Program[Any]:
    """The program, made by its first step, so that what goes wrong there is its own failure."""
    return (yield from start())


_Row = tuple[_Running, int]


class Engine:
    """Answers programs' questions from a model a stage; `counts` says how much work it was.

    rows: of a call; one number, or one for each stage.
    """

    def __init__(self, models: Mapping[str, Model], rows: int | Mapping[str, int]) -> None:
        self.models = models
        self.rows = dict.fromkeys(models, rows) if isinstance(rows, int) else dict(rows)
        self.counts = Counts()
        self._waiting: list[Work] = []

    def encode(self, prompts: Iterable[str], stage: str = BASE) -> None:
        """Encode each distinct prompt once."""
        self.counts.encodes += self.models[stage].encode(list(dict.fromkeys(prompts)))

    def add(self, work: Work) -> None:
        """While `run` goes on: start this program next."""
        self._waiting.append(work)

    @torch.inference_mode()
    def run(self, works: Iterable[Work], on_rows: Callable[[int], None] = lambda rows: None) -> Iterator[Finished]:
        """Run all programs; yields each as it ends, failed ones with their error. on_rows hears of rows answered."""
        waiting = self._waiting = sorted(works, key=lambda work: -work.steps)[::-1]
        running: list[_Running] = []
        order, window = 0, WINDOW * max(self.rows.values())
        while waiting or running:
            while waiting and sum(len(r.open) for r in running) < window:
                work = waiting.pop()
                order += 1
                fresh = _Running(work, order, _lazily(work.start), work.steps)
                finished = self._advance(fresh)
                if finished is None:
                    running.append(fresh)
                else:
                    yield finished
            if not running:
                continue
            rows = self._choose(running, tail=not waiting)
            halvings = self.counts.halvings
            yield from self._answer(rows, running)
            if self.counts.halvings == halvings:  # else nothing was answered
                on_rows(len(rows))

    def _choose(self, running: list[_Running], tail: bool) -> list[_Row]:
        """The next call's rows, all of one stage: half-answered programs first, then the oldest, or most steps left."""
        queue = sorted(running, key=lambda r: (not r.answers, -r.steps_left if tail else 0, r.order))
        stages: dict[str, list[_Row]] = {}
        for r in queue:
            for i in r.open:
                stages.setdefault(r.queries[i].stage, []).append((r, i))
        full = (stage for stage, rows in stages.items() if len(rows) >= self.rows[stage])
        stage = next(full, next(iter(stages)))
        return stages[stage][: self.rows[stage]]

    def _answer(self, rows: list[_Row], running: list[_Running]) -> Iterator[Finished]:
        began = time.perf_counter()
        asking = list(dict.fromkeys(r for r, _ in rows))
        try:
            estimates: list[Estimate | Exception] = list(self._predict([r.queries[i] for r, i in rows]))
        except Exception as error:
            stage = rows[0][0].queries[rows[0][1]].stage
            if out_of_memory(error) and self.rows[stage] > 1:
                self._halve(stage)
                return
            estimates = [error] if len(rows) == 1 else self._one_by_one(asking, rows)
        share = (time.perf_counter() - began) / len(rows)
        failed: dict[_Running, Exception] = {}
        for (r, i), estimate in zip(rows, estimates, strict=True):
            r.seconds += share
            r.nfe += 1
            if isinstance(estimate, Exception):
                failed[r] = estimate
            else:
                r.answers[i] = estimate
        for r in asking:
            finished = self._end(r, None, failed[r]) if r in failed else None
            if finished is None and not r.open:
                finished = self._advance(r, [r.answers[i] for i in range(len(r.queries))])
            if finished is not None:
                running.remove(r)
                yield finished

    def _halve(self, stage: str) -> None:
        self.rows[stage] = (self.rows[stage] + 1) // 2
        self.counts.halvings += 1
        log.warning("out of memory: going on with %d rows a call", self.rows[stage])

    def _one_by_one(self, asking: list[_Running], rows: list[_Row]) -> list[Estimate | Exception]:
        """After a call that raised: ask for each program alone, so that only the culprit fails."""
        answers: dict[_Row, Estimate | Exception] = {}
        for r in asking:
            own = [row for row in rows if row[0] is r]
            try:
                answers.update(zip(own, self._predict([r.queries[i] for _, i in own]), strict=True))
            except Exception as error:
                answers.update(dict.fromkeys(own, error))
        return [answers[row] for row in rows]

    def _predict(self, queries: list[Query]) -> list[Estimate]:
        stage = queries[0].stage
        padding = self.rows[stage] - len(queries)
        padded = queries + [queries[-1]] * padding
        x = torch.stack([q.image for q in padded])
        t = torch.tensor([q.t for q in padded])
        givens = [q.given for q in padded if q.given is not None]
        given = None
        if givens:
            given = Given(torch.stack([g.image for g in givens]), torch.tensor([g.noise_level for g in givens]))
        answer = self.models[stage].predict(x, t, [q.prompt for q in padded], given)
        self.counts.model_calls += 1
        self.counts.model_rows += len(queries)
        self.counts.padded_rows += padding
        variance = answer.variance
        return [Estimate(answer.noise[i], None if variance is None else variance[i]) for i in range(len(queries))]

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
        return Finished(r.work.key, result, error, r.nfe, r.seconds)
