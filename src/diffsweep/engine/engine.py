"""The engine: a step chooses rows, has them answered, and lets their programs go on.

Where memory does not suffice, the engine halves a stage's rows, and programs that this stage has answered already start
again: every picture is sampled in one shape.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence

import torch

from diffsweep.core.types import BASE, Estimate, Model, Query, translates
from diffsweep.engine.clock import Seconds, begun
from diffsweep.engine.execution import TooManyRows, answers, predicted
from diffsweep.engine.policy import WINDOW, Backlog, choose
from diffsweep.engine.programs import Running
from diffsweep.engine.values import Counts, Finished, Source, Work

log = logging.getLogger(__name__)
CPU = torch.device("cpu")


class Engine:
    """Answers programs' questions from a model a stage; `counts` says how much work it was.

    rows: of a call; one number, or one for each stage.
    """

    def __init__(self, models: Mapping[str, Model], rows: int | Mapping[str, int]) -> None:
        self.models = models
        self.rows = dict.fromkeys(models, rows) if isinstance(rows, int) else dict(rows)
        self.counts = Counts()
        self._waiting: list[Work] = []
        self._backlog = Backlog()
        self._running: list[Running] = []
        self._source: Source | None = None
        self._started = 0

    def encode(self, prompts: Iterable[str | None], stage: str = BASE) -> None:
        """Encode each distinct prompt once."""
        self.counts.encodes += self.models[stage].encode(list(dict.fromkeys(prompts)))

    @property
    def busy(self) -> bool:
        """Whether programs wait or run."""
        return bool(self._waiting or self._running)

    def add(self, work: Work) -> None:
        """Start this program next, before those that wait."""
        self._waiting.append(work)
        self._backlog.add(work)

    def run(
        self,
        works: Iterable[Work],
        on_rows: Callable[[int], None] = lambda rows: None,
        source: Source | None = None,
    ) -> Iterator[Finished]:
        """Run all programs, and those that are added meanwhile; yields each as it ends, failed ones with their error.

        on_rows is called with the rows answered; where programs start again, with those lost, as a negative number.
        source: is asked for further programs while there is room for them, until it has no more.
        """
        for work in sorted(works, key=lambda work: -work.chain)[::-1]:  # the last is started first
            self.add(work)
        self._source = source
        while self.busy or self._fetched():
            yield from self.step(on_rows)

    @torch.no_grad()
    def step(self, on_rows: Callable[[int], None] = lambda rows: None) -> Iterator[Finished]:
        """Start programs while there is room for their questions, and make one model call; yields each that ends."""
        yield from self._start()
        if self._running:
            yield from self._answer(self._choose(self._running), on_rows)

    def _start(self) -> Iterator[Finished]:
        window = WINDOW * max(self.rows.values())  # less, once memory lacked
        while sum(len(r.open) for r in self._running) < window and (self._waiting or self._fetched()):
            work = self._waiting.pop()
            self._backlog.remove(work)
            self._started += 1
            self._running.append(Running(work, self._started, self._lane))
            yield from self._advance([self._running[-1]])

    def _fetched(self) -> bool:
        """Whether the source gave further programs."""
        works = self._source() if self._source else None
        if works is None:
            self._source = None
        for work in reversed(works or ()):
            self.add(work)
        return bool(works)

    def _lane(self, query: Query) -> Hashable:
        """The lane of a question, None where its model has only one."""
        model = self.models[query.stage]
        return model.lane(query.prompt) if hasattr(model, "lane") else None

    def _choose(self, running: Sequence[Running]) -> list[tuple[Running, int]]:
        """The next call's rows: a program and the place of its question, each."""
        by_order = {r.order: r for r in running}
        chosen = choose([r.asking for r in running], self._backlog if self._source is None else None, self.rows)
        return [(by_order[row.order], row.place) for row in chosen]

    def _answer(self, rows: Sequence[tuple[Running, int]], on_rows: Callable[[int], None]) -> Iterator[Finished]:
        """Make one call for these rows, and let programs go on whose questions are all answered."""
        asked = [(r, r.queries[place]) for r, place in rows]
        stage, device = asked[0][1].stage, asked[0][1].image.device
        ended = begun(device)
        try:
            for (r, place), estimate in zip(rows, answers(asked, self._predict, self.rows[stage]), strict=True):
                r.take(place, estimate)
        except TooManyRows:
            self._halve(stage)
            yield from self._restart([r for r in self._running if stage in r.answered_by], on_rows)
            return
        _share(ended(), [r for r, _ in rows])
        on_rows(0 if translates(stage) else len(rows))
        ready = [r for r in dict.fromkeys(r for r, _ in rows) if r.error is not None or not r.open]
        yield from self._advance(ready, device)

    def _predict(self, queries: list[Query]) -> list[Estimate]:
        """One call of the model that these queries ask, counted."""
        stage = queries[0].stage
        estimates = predicted(self.models[stage], queries, self.rows[stage])
        if translates(stage):
            return estimates
        self.counts.model_calls += 1
        self.counts.model_rows += len(queries)
        self.counts.padded_rows += self.rows[stage] - len(queries)
        return estimates

    def _halve(self, stage: str) -> None:
        self.rows[stage] = (self.rows[stage] + 1) // 2
        self.counts.halvings += 1
        log.warning("out of memory: going on with %d rows a call", self.rows[stage])

    def _restart(self, begun: Sequence[Running], on_rows: Callable[[int], None]) -> Iterator[Finished]:
        """Programs that were answered in a shape that is given up start again: a picture's bits are of one shape."""
        for r in begun:
            on_rows(-r.nfe)
            r.program.close()
            fresh = Running(r.work, r.order, self._lane)
            self._running[self._running.index(r)] = fresh
            yield from self._advance([fresh])

    def _advance(self, running: Sequence[Running], device: torch.device = CPU) -> Iterator[Finished]:
        """Let running programs go on; yields those that end."""
        ended = begun(device)
        for r in running:
            r.advance()
        _share(ended(), running)
        for r in running:
            if r.ended:
                self._running.remove(r)
                yield r.finished()


def _share(seconds: Seconds, running: Sequence[Running]) -> None:
    """The device has worked for these programs: each has an equal share of the seconds."""
    for r in running:
        r.took.append((seconds, len(running)))
