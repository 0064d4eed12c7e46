"""What goes into the engine, what comes out, and what its parts hand to one another."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from diffsweep.core.types import BASE, Program
from diffsweep.engine.clock import Seconds


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


Source = Callable[[], Sequence[Work] | None]
"""Gives further programs, the first to start first: none where it has none for now, None where no more will come."""


@dataclass(frozen=True)
class Finished:
    """A program's end. nfe: model evaluations (rows) it used; took: how long work for it and others took, and for how
    many."""

    owner: Any
    result: Any
    error: Exception | None
    nfe: int
    took: Sequence[tuple[Seconds, int]]

    @property
    def seconds(self) -> float:
        """Its share of the time. On CUDA, this waits until its work is done."""
        return sum(seconds() / among for seconds, among in self.took)


@dataclass
class Counts:
    """Work done: calls of the model, rows asked for, rows padded, prompts encoded, halvings for lack of memory."""

    model_calls: int = 0
    model_rows: int = 0
    padded_rows: int = 0
    encodes: int = 0
    halvings: int = 0


class Question(NamedTuple):
    """An open question, a row of a call to come: its program's order, its place among the program's questions, the
    stage that it asks, whether it asks for a vector-Jacobian product, which a call answers for all of its rows or for
    none, and its lane, outside of which it shares no call."""

    order: int
    place: int
    stage: str = BASE
    pulls: bool = False
    lane: Hashable = None


@dataclass(frozen=True)
class Asking:
    """A running program with open questions. order: when it started; begun: whether some were answered already; chain:
    the calls that must follow one another from here, the next one among them; stage, rows, later: those of `Work`."""

    order: int
    questions: Sequence[Question]
    chain: int
    begun: bool = False
    stage: str = BASE
    rows: int = 1
    later: int = 0
