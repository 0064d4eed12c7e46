"""An end to what would wait for ever."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

AGAIN = 5.0  # seconds, where the first error was caught


@contextmanager
def awake(seconds: float = 60) -> Iterator[None]:
    """AssertionError where what is within, in the main thread, takes longer, even where it catches any error."""
    woken = False

    def wake(number: int, frame: Any) -> None:
        nonlocal woken
        woken = True
        raise AssertionError("it waits")

    before = signal.signal(signal.SIGALRM, wake)
    signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert not woken, "it waited"
