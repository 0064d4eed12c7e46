"""A short calibration: a few calls of a model, of the rows that its sweep would have, answered and thrown away.

The engine runs copies of one cell until it has made a few calls. It reads no stored picture, encodes no prompt where
the model can do without, and stores nothing.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING

from diffsweep.core.problems import under
from diffsweep.runner.cell import Cell
from diffsweep.runner.cost import Speed
from diffsweep.runner.ingredients import work
from diffsweep.runner.translation import with_translators

if TYPE_CHECKING:
    import numpy as np

    from diffsweep.core.types import Model
    from diffsweep.engine import Engine

CALLS = 6  # at most, the first one among them, which warms up
PATIENCE = 20.0  # seconds of calls; then there is no further one


def timed(cell: Cell, rows: int, device: str) -> Speed:
    """How long a call of so many rows takes, of the model of a cell's own stage, which is loaded for that and dropped
    again. Raises what a model or a technique raises."""
    from diffsweep.engine import Engine

    seconds: list[float] = []
    with _dropped(device), under(cell.config_key):
        model = _loaded(cell, device)
        own = work(cell, device, lambda _: _black(cell), model=model)
        engine = Engine(*with_translators({cell.stage_name: model}, {cell.stage_name: rows}))
        for _ in range(CALLS * -(-rows // own.rows)):
            engine.add(replace(own, owner=object()))
        while engine.busy and not _enough(seconds, getattr(cell.network, "compile", False)):
            seconds.append(_step(engine, device))
        fitted = engine.rows[cell.stage_name]  # fewer, where memory lacked
        del engine, model, own
    return Speed(rows / fitted * median(seconds[1:] or seconds), "call", "timed just now")


def _loaded(cell: Cell, device: str) -> Model:
    """The model, ready to be asked about the cell's prompts."""
    model = cell.network.load(device)
    if hasattr(model, "assume"):
        model.assume(cell.prompts)
    else:
        model.encode(list(dict.fromkeys(cell.prompts)))
    model.ready()
    return model


def _black(cell: Cell) -> np.ndarray:
    """A picture in the place of the one that a cell enlarges."""
    import numpy as np

    assert cell.base is not None
    return np.zeros((*cell.base.stage.size, 3), np.uint8)


def _enough(seconds: Sequence[float], compiled: bool) -> bool:
    """Whether these calls tell how long one takes; the first one of a compiled model does not."""
    return len(seconds) >= CALLS or (sum(seconds) >= PATIENCE and len(seconds) > compiled)


def _step(engine: Engine, device: str) -> float:
    """One call, in seconds."""
    import torch

    from diffsweep.engine.clock import begun

    ended = begun(torch.device(device))
    errors = [finished.error for finished in engine.step() if finished.error]
    seconds = ended()()
    for error in errors:
        raise error
    return seconds


@contextmanager
def _dropped(device: str) -> Iterator[None]:
    """Afterwards, the memory of what was loaded within is free again."""
    try:
        yield
    finally:
        gc.collect()
        if device.startswith("cuda"):
            import torch

            torch.cuda.empty_cache()
