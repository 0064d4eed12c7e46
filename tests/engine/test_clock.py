"""What a cell's seconds are: those of the work, shared by the cells that it is done for."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch

from diffsweep.core.types import Estimate, Level, Program, Query
from diffsweep.engine import Engine, Work
from diffsweep.engine.clock import begun


class Event:
    """Stands in for an event of CUDA: work that is launched is done one after another, each piece when it is due."""

    launched = done = 0.0

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self, stream: object) -> None:
        self.due = Event.launched

    def synchronize(self) -> None:
        Event.done = max(Event.done, self.due)

    def elapsed_time(self, end: Event) -> float:
        if Event.done < end.due:
            raise RuntimeError("the event is not done")
        return 1000 * (end.due - self.due)


def test_seconds_on_cuda_are_the_works_not_the_launches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    ended = begun(torch.device("cuda"))
    Event.launched += 3.0  # launched at once, done in three seconds
    seconds = ended()
    Event.launched += 5.0  # other work
    assert Event.done == 0.0  # nobody has waited
    assert seconds() == pytest.approx(3.0) and Event.done == 3.0


def test_a_calls_seconds_are_shared_by_its_rows() -> None:
    class Slow:
        def predict(self, x: torch.Tensor, *asked: Any) -> Estimate:
            time.sleep(0.08)
            return Estimate(x)

    def program(rows: int) -> Program[None]:
        yield [Query(torch.zeros(1, 1, 1), Level(1, 1.0, 0.0))] * rows

    works = [Work(rows, lambda rows=rows: program(rows), 1, rows) for rows in (1, 3)]
    seconds = {end.owner: end.seconds for end in Engine({"base": Slow()}, 4).run(works)}  # type: ignore[dict-item]
    assert sum(seconds.values()) == pytest.approx(0.08, abs=0.03)
    assert seconds[3] / seconds[1] == pytest.approx(3, rel=0.2)
