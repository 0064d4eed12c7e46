"""Measures a sweep: its cells, then its settings, and writes the numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from diffsweep.core.failures import Failures
from diffsweep.core.locks import locked
from diffsweep.metric.choice import Chosen
from diffsweep.metric.scoring import score, score_sets
from diffsweep.store import document

if TYPE_CHECKING:
    from diffsweep.store.cells import Store
    from diffsweep.store.schema import Document


@dataclass(frozen=True)
class Measured:
    """document: sweep.json as it was written; changed: how many cells have new numbers; failed: the metrics that an
    error ended; without: those that no cell has the needs of, and what the cells lack."""

    document: Document
    changed: int
    failed: Failures
    without: dict[str, str]


@contextmanager
def measured_sweep(
    store: Store,
    folder: Path,
    made: Callable[[], Document],
    cell_ids: Iterable[str],
    chosen: Chosen,
    device: str,
    again: bool = False,
) -> Iterator[Measured]:
    """Measure these cells and the settings of the sweep in a folder, and write its sweep.json. Within, no other process
    measures settings or reports on the sweep: the last of several writes what all of them made.

    made: makes the document as it is now, which other processes may have changed meanwhile; again: also what has been
    measured already. BadInput for a device that is not there.
    """
    failed, without = Failures(), dict[str, str]()
    changed = score(store, cell_ids, chosen.metrics, device, failed, again=again, without=without)

    def measured() -> Document:
        found = made()
        before = {name: why for name, why in found.get("unavailable", {}).items() if name not in chosen.names}
        return {
            **found,
            "metrics": list(dict.fromkeys([*found.get("metrics", ()), *chosen.names])),
            "sets": {**found.get("sets", {}), **sets},
            "unavailable": {**before, **chosen.unavailable, **without, **failed},
        }

    with locked(folder, name="report"):
        sets = score_sets(store, made(), chosen.of_sets, device, failed, again)
        yield Measured(document.renew(folder, measured), changed, failed, without)
