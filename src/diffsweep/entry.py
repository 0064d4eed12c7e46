"""The console entries: a signal, or a lack of memory, is told from the first line on, while all else is imported."""

from __future__ import annotations

import signal
import sys
from importlib import import_module

TYPE_CHECKING = False  # typing's own takes time to import
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def sweep() -> int:
    """`diffsweep`; returns the exit code (see `diffsweep --help`)."""
    return _run("diffsweep", "diffsweep.app", lambda app: app.act(), "Cells that are stored are safe")


def results() -> int:
    """`diffsweep-results`; returns the exit code."""
    act = lambda results: results._main(sys.argv[1:])  # noqa: E731
    return _run("diffsweep-results", "diffsweep.results", act, "Stored cells are as they were")


def _run(name: str, module: str, act: Callable[[Any], int], safe: str) -> int:
    """Run a command, whose module is imported once signals and errors have somebody who tells of them."""
    mask = getattr(signal, "pthread_sigmask", None)
    before = mask(signal.SIG_BLOCK, signal.valid_signals()) if mask else None  # they wait until handlers stand

    from diffsweep import process

    def begin() -> int:
        if mask:
            mask(signal.SIG_SETMASK, before)
        return act(import_module(module))

    def explain(error: Exception) -> str | None:
        there = sys.modules.get(module)  # not where its import has failed
        return there._mistake(error) if there else None

    return process.run(name, begin, explain, safe)
