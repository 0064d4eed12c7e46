"""What happens to finished cells beside the sampling of others: in a thread, several at a time."""

from __future__ import annotations

from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Event, Thread
from time import monotonic
from types import TracebackType

MOST = 16  # cells at a time: a call's rows of a metric's network (`metric.batch.ROWS`), where fewer cost the same
WAIT = 5.0  # seconds for so many to come
PATIENCE = 5.0  # seconds for what goes on at an interrupt


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
        if self._thread.ident is None:
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
            while first := self._queue.get():
                cell_ids = [first, *self._others()]
                if self._over.is_set():
                    break
                self._each(cell_ids)
        except Exception:
            return

    def _others(self) -> list[str]:
        """Those that come soon; none once it is over."""
        found: list[str] = []
        end = monotonic() + WAIT
        while len(found) < MOST - 1 and (left := end - monotonic()) > 0:
            try:
                cell_id = self._queue.get(timeout=left)
            except Empty:
                break
            if cell_id is None:
                break
            found.append(cell_id)
        return found
