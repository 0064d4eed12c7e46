"""The batch shape, from values to values."""

from __future__ import annotations

import pytest

from diffsweep.runner.sampling import Run
from diffsweep.runner.shape import Shape, as_begun, fewest, fitting, parted
from diffsweep.store import document
from diffsweep.store.schema import CellEntry, Document, RunEntry

CELLS: list[CellEntry] = [{"cell_id": name, "axes": {}, "seed": 0, "status": "done"} for name in "ab"]


def earlier(rows: int | None, *runs: RunEntry, cells: int = 2, **later: int) -> Document:
    began = document.empty("mine", "diffsweep", "today")
    return {**began, "rows": rows, "later_rows": later, "runs": list(runs), "cells": CELLS[:cells]}


def a_run(rows: int, halvings: int) -> RunEntry:
    return Run(rows=rows, halvings=halvings).entry


def test_a_sweep_fills_no_more_rows_than_it_has_unless_more_are_asked_for() -> None:
    most = {"model": 5, "upscale": 100}
    assert fitting(most, None, "cpu") == {"model": 5, "upscale": 16}
    assert fitting(most, None, "cuda:1") == {"model": 5, "upscale": 32}
    assert fitting(most, 64, "cpu") == {"model": 64, "upscale": 64}
    assert fitting({"model": 0}, None, "cpu") == {"model": 1}


@pytest.mark.parametrize("before", [earlier(None), earlier(7, cells=1)])
def test_what_never_ran_and_a_lone_cell_bind_nobody(before: Document) -> None:
    assert as_begun({"model": 3}, before) == Shape({"model": 3}, {"model": 3})


def test_a_sweep_goes_on_in_the_shape_that_it_began_with() -> None:
    found = as_begun({"model": 16, "upscale": 4}, earlier(8, upscale=4))
    assert (found.kept, found.rows) == ({"model": 8, "upscale": 4},) * 2
    assert found.notes == ("model: 8 model rows a call, as mine began; engine.rows=16 would be faster",)


def test_what_does_not_fit_any_more_is_kept_for_the_next_run() -> None:
    found = as_begun({"model": 2}, earlier(8))
    assert (found.kept, found.rows) == ({"model": 8}, {"model": 2})
    (note,) = found.notes
    assert note.startswith("model: 8 model rows a call, as mine began, do not fit any more, 2 do: bits may differ")


def test_a_run_that_lacked_memory_is_told_and_not_repeated() -> None:
    found = as_begun({"model": 8}, earlier(8, a_run(2, halvings=2)))
    assert (found.kept, found.rows) == ({"model": 8}, {"model": 8})
    assert "ended with 2" in found.notes[0] and found.notes[0].endswith("engine.rows=2 keeps them")
    assert as_begun({"model": 8}, earlier(8, a_run(2, halvings=0))).notes == ()


def test_a_run_keeps_the_fewest_rows_that_it_has_had() -> None:
    assert fewest({"model": 0}, {"model": 4, "upscale": 8}) == {"model": 4, "upscale": 8}
    assert fewest({"model": 4, "upscale": 8}, {"model": 16, "upscale": 2}) == {"model": 4, "upscale": 2}
    assert parted({"model": 4, "upscale": 2}) == (4, {"upscale": 2})
    assert parted({}) == (0, {})
