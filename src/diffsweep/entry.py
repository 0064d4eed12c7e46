"""The console entries: signals and a lack of memory are reported from the first line on, while all else is imported."""

from __future__ import annotations

import signal
import sys
from importlib import import_module


def sweep() -> int:
    """`diffsweep`; returns the exit code (see `diffsweep --help`)."""
    return _run("diffsweep", "diffsweep.app", "Cells that are stored are safe")


def results() -> int:
    """`diffsweep-results`; returns the exit code."""
    return _run("diffsweep-results", "diffsweep.results", "Stored cells are as they were")


def _run(name: str, module: str, safe: str) -> int:
    """Run a command. Its module, which has `act` and `mistake`, is imported once signals and errors are reported."""
    mask = getattr(signal, "pthread_sigmask", None)
    before = mask(signal.SIG_BLOCK, signal.valid_signals()) if mask else None  # they wait until handlers stand

    from diffsweep import process

    def act() -> int:
        if mask:
            mask(signal.SIG_SETMASK, before)
        return int(import_module(module).act())

    def mistake(error: Exception) -> str | None:
        there = sys.modules.get(module)  # not where its import has failed
        return there.mistake(error) if there else None

    return process.run(name, act, mistake, safe)
