"""Weights & Biases: one run a sweep, with its configuration, a table of scalars, pictures, and each metric's mean.

The run's id follows from the sweep, so that a sweep told again is the same run, and its folder lies in the sweep's own
and needs nothing outside of it. Without a key, or out of reach of the server, the run is written there for `wandb
sync`. Whatever wandb runs into is a warning: the sweep itself is stored already.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from diffsweep.core.problems import one_of, require
from diffsweep.report.frame import results
from diffsweep.report.text import short, shown
from diffsweep.sweep.store import Store

if TYPE_CHECKING:
    import pandas as pd
    from wandb import Run, Table

MODES = ("online", "offline", "disabled")
MOST_PICTURES = 100  # wandb itself keeps 108 of a list, and 10,000 rows of a table
MOST_ROWS = 10_000
PRIVATE = {  # neither the terminal, the code, nor the machine is recorded
    "console": "off",
    "save_code": False,
    "disable_git": True,
    "host": "",
    "x_disable_machine_info": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
}
SERVICE = {"WANDB_ERROR_REPORTING": "false", "WANDB_FINISH_TIMEOUT": "120", "WANDB_FINISH_TIMEOUT_RAISES": "true"}


@dataclass(frozen=True)
class Wandb:
    """project, entity, tags: where the run belongs. mode: null is WANDB_MODE, else online where there is a key."""

    project: str = "diffsweep"
    entity: str | None = None
    mode: str | None = None
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        named = re.fullmatch(r"[^/\\#?%:]{1,128}", self.project)
        require(
            None if named else f"project={self.project}: must be 1 to 128 characters, none of them / \\ # ? % :",
            None if self.mode is None else one_of("mode", self.mode, MODES),
            *(f"tags: {tag!r} must be 1 to 64 characters" for tag in self.tags if not 1 <= len(tag) <= 64),
        )

    def log(self, store: Store, sweep: Mapping[str, Any], files: Sequence[Path]) -> str | None:
        """Log a finished sweep; one line that says where it is, or None where it is nowhere."""
        try:
            try:
                return self._log(store, sweep, files, self.mode)
            except Exception as error:  # no key, no answer, an answer that ceased, a service that died
                line = self._log(store, sweep, files, "offline")
                _warn(f"{str(error).rstrip('.')}; the run is written offline")
                return line
        except (Exception, SystemExit) as error:  # wandb exits with its service's exit code
            _warn(f"the sweep is stored, but not logged: {type(error).__name__}: {error}")
            return None

    def _log(self, store: Store, sweep: Mapping[str, Any], files: Sequence[Path], mode: Any) -> str | None:
        import wandb

        folder = store.root / "sweeps" / sweep["name"]
        frame = results(store, sweep)
        there = [cell for cell in sweep["cells"] if _picture(store, cell).exists()]
        n = min(len(there), MOST_PICTURES)
        chosen = [there[i * len(there) // n] for i in range(n)]
        with _opened(
            project=self.project,
            entity=self.entity,
            mode=mode,
            tags=self.tags,
            id=run_id(sweep),
            name=sweep["name"],
            config=config(store, sweep),
            dir=str(folder.resolve()),
            resume="allow",
        ) as run:
            if run.disabled:
                return None
            run.log(
                {
                    "results": _table(frame, run),
                    "samples": [wandb.Image(str(_picture(store, c)), caption=_caption(c)) for c in chosen],
                    **{path.stem: wandb.Image(str(path)) for path in files if path.match("grid*.png")},
                }
            )
            run.summary.update(_summary(frame))
            own = folder / "wandb" / Path(run.dir).parent.name
            place = f"offline run; wandb sync {shlex.quote(str(own))}" if run.offline else run.url
        for other in own.parent.glob(f"*run-*-{run.id}*"):
            if other.name != own.name:
                shutil.rmtree(other, ignore_errors=True)  # of an earlier time, or of a server that was out of reach
        counts = ((MOST_ROWS, len(frame), "rows"), (MOST_PICTURES, len(there), "pictures"))
        cut = [f"{most} of {count} {what}" for most, count, what in counts if count > most]
        return f"wandb: {place}" + (f" ({', '.join(cut)})" if cut else "")


def run_id(sweep: Mapping[str, Any]) -> str:
    """The same for a sweep however often, and wherever, it is told."""
    return hashlib.sha256(f"{sweep['name']} {sweep['created']}".encode()).hexdigest()[:16]


def config(store: Store, sweep: Mapping[str, Any]) -> dict[str, Any]:
    """What all cells have in common, nested; the axes with their values; the command."""
    records = [store.record(cell["cell_id"]) for cell in sweep["cells"] if cell["cell_id"] in store]
    same = common([record["config"] for record in records])
    return {**same, "axes": dict(sweep["axes"]), "command": sweep["command"]}


def common(mappings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The entries that are equal in all of them, to any depth."""
    found: dict[str, Any] = {}
    for key, value in mappings[0].items() if mappings else ():
        values = [mapping[key] for mapping in mappings if key in mapping]
        if len(values) < len(mappings):
            continue
        if all(other == value for other in values):
            found[key] = value
        elif all(isinstance(other, Mapping) for other in values) and (inner := common(values)):
            found[key] = inner
    return found


def _table(frame: pd.DataFrame, run: Run) -> Table:
    """A row a cell. Bound by hand: else wandb makes an artifact of it too, staged outside of the run's folder."""
    import wandb

    cells = frame.head(MOST_ROWS).astype(object)
    rows: list[Any] = cells.where(cells.notna(), None).to_numpy().tolist()
    table = wandb.Table(columns=list(map(str, frame)), data=rows)
    table.bind_to_run(run, "results", run.step)  # type: ignore[no-untyped-call]
    return table


def _picture(store: Store, cell: Mapping[str, Any]) -> Path:
    return store.folder(cell["cell_id"]) / "image.png"


def _caption(cell: Mapping[str, Any]) -> str:
    values = {**cell["axes"], "seed": cell["seed"]}
    return ", ".join(f"{axis} = {short(shown(value), 60)}" for axis, value in values.items())


def _summary(frame: pd.DataFrame) -> dict[str, float]:
    """Each metric's mean over the cells that have a value, and how many cells there are."""
    counts = {"cells": len(frame), "failed": int((frame["status"] == "failed").sum())}
    means = {name: float(frame[name].mean()) for name in frame.attrs["metrics"] if frame[name].notna().any()}
    return {**counts, **means}


@contextmanager
def _opened(**arguments: Any) -> Iterator[Run]:
    """A run, and wandb's service as long as it needs one: silent, so asking for no key, with its own log (which it
    writes to a cache) not kept and its own errors not reported. wandb's `with` would print a stack trace."""
    import wandb

    with TemporaryDirectory(prefix="diffsweep-", ignore_cleanup_errors=True) as cache:
        wanted = {"WANDB_CACHE_DIR": cache, **SERVICE}
        own = {name: value for name, value in wanted.items() if name not in os.environ}
        os.environ.update(own)
        try:
            wandb.setup(wandb.Settings(silent=True))
            run = wandb.init(**arguments, reinit="create_new", settings=dict(PRIVATE))
            failed = 1
            try:
                yield run
                failed = 0
            finally:
                run.finish(exit_code=failed)
        finally:
            for name in own:
                del os.environ[name]
            if wandb.run is None:  # none that the caller has open
                wandb.teardown()


def _warn(text: str) -> None:
    print(f"warning: wandb: {' '.join(text.split())}", file=sys.stderr, flush=True)
