"""A background thread that takes finished cells, several at a time, while others are sampled."""

from __future__ import annotations

from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Event, Thread
from time import monotonic
from types import TracebackType

MOST = 16  # cells at a time: a call's rows of a metric's network (`metric.batch.ROWS`), where fewer cost the same
WAIT = 5.0  # seconds to wait for so many
PATIENCE = 5.0  # seconds that an interrupt waits for the thread


class Background:
    """Calls `each([])` once, then `each(ids)` as cells arrive. At the end, cells still queued are skipped.

    An error ends the thread silently: the work after the sampling meets it again.
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

    def __enter__(self) -> Background:
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
        """The cells that arrive soon; none once the thread is to end."""
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
