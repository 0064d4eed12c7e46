"""What happens to finished cells beside the sampling of others: in a thread, as many at a time as have come."""

from __future__ import annotations

from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Event, Thread
from types import TracebackType

MOST = 64  # cells at a time
PATIENCE = 10.0  # seconds for what goes on at an interrupt


class Following:
    """Once begun, `each` is called with no cell, then with the ids of those that were added; cells that have not had
    their turn at the end are left.

    An error ends it: whoever does the rest afterwards meets it too.
    """

    def __init__(self, each: Callable[[list[str]], None]) -> None:
        self._each = each
        self._queue: SimpleQueue[str | None] = SimpleQueue()
        self._over = Event()
        self._thread = Thread(target=self._run, daemon=True)

    def add(self, cell_id: str) -> None:
        self._queue.put(cell_id)

    def begin(self) -> None:
        if not self._thread.is_alive():
            self._thread.start()

    def __enter__(self) -> Following:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._queue.put(None)
        if self._thread.ident is not None:
            self._thread.join(PATIENCE if kind else None)

    def _run(self) -> None:
        try:
            self._each([])
            while (first := self._queue.get()) is not None and not self._over.is_set():
                self._each([first, *self._others()])
        except Exception:
            return

    def _others(self) -> list[str]:
        found: list[str] = []
        while len(found) < MOST - 1:
            try:
                cell_id = self._queue.get_nowait()
            except Empty:
                break
            if cell_id is None:
                break
            found.append(cell_id)
        return found
