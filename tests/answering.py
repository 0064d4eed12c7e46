"""Running a program by hand: a function stands in for the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from diffsweep.core.types import Estimate, Program, Query

T = TypeVar("T")


def answered(program: Program[T], answer: Callable[[Query], Estimate]) -> T:
    """What a program returns whose questions are answered one by one."""
    try:
        queries = next(program)
        while True:
            queries = program.send([answer(query) for query in queries])
    except StopIteration as stop:
        return stop.value
