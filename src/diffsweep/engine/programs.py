"""Programs that run: they are started, sent their answers, closed at their end."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

from diffsweep.core.types import Estimate, Program, Query, translates
from diffsweep.engine.clock import Seconds
from diffsweep.engine.values import Asking, Finished, Question, Work


@dataclass(eq=False)
class Running:
    """A program on its way, with its questions and those of their answers that have come.

    order: when it started; error: what came in place of an answer; took: how long work for it took, and among how many
    that was shared. lane: what a question's row must have in common with those of its call.
    """

    work: Work
    order: int
    lane: Callable[[Query], Hashable]
    queries: list[Query] = field(default_factory=list)
    open: list[int] = field(default_factory=list)  # places of the questions without an answer
    answers: dict[int, Estimate] = field(default_factory=dict)
    error: Exception | None = None
    answered_by: set[str] = field(default_factory=set)
    nfe: int = 0
    took: list[tuple[Seconds, int]] = field(default_factory=list)
    ended: tuple[Any, Exception | None] | None = None

    def __post_init__(self) -> None:
        self.program = _lazily(self.work)
        self.steps_left = self.work.steps
        self._asking: Asking | None = None

    @property
    def chain(self) -> int:
        """The calls that must follow one another from here, the next one among them."""
        return max(0, self.steps_left) + 1 + self.work.later

    @property
    def asking(self) -> Asking:
        """What the policy sees of it."""
        if self._asking is None:
            asked = [(place, self.queries[place]) for place in self.open]
            questions = [
                Question(self.order, place, query.stage, query.pull is not None, self.lane(query))
                for place, query in asked
            ]
            work, begun = self.work, bool(self.answers)
            self._asking = Asking(self.order, questions, self.chain, begun, work.stage, work.rows, work.later)
        return self._asking

    def take(self, place: int, answer: Estimate | Exception) -> None:
        """Note the answer to a question, or why there is none."""
        self.nfe += not translates(self.queries[place].stage)
        self.answered_by.add(self.queries[place].stage)
        if isinstance(answer, Exception):
            self.error = answer
        else:
            self.answers[place] = answer
            self.open.remove(place)
            self._asking = None

    def advance(self) -> None:
        """Send the program its answers (none to start it) until it asks again, ends or fails."""
        if self.error is not None:
            self._end(None, self.error)
            return
        answers = [self.answers[i] for i in range(len(self.queries))] if self.queries else None
        try:
            while not (queries := next(self.program) if answers is None else self.program.send(answers)):
                answers = []
            self.queries, self.open, self.answers = queries, [*range(len(queries))], {}
            self.steps_left -= 1
            self._asking = None
        except StopIteration as stop:
            self._end(stop.value, None)
        except Exception as error:
            self._end(None, error)

    def _end(self, result: Any, error: Exception | None) -> None:
        self.program.close()
        self.ended = result, error

    def finished(self) -> Finished:
        """What an ended program comes to."""
        assert self.ended is not None
        return Finished(self.work.owner, *self.ended, self.nfe, self.took)


def _lazily(work: Work) -> Program[Any]:
    """The program, made by its first step, so that what goes wrong there is its own failure, an exit too."""
    try:
        return (yield from work.start())
    except SystemExit as stop:
        raise RuntimeError(f"SystemExit({stop})") from stop
