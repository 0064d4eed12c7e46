"""Weights & Biases: a run a cell, a run a sweep, or both.

A run's id follows from its sweep and cell, and `logged` remembers what each said: a sweep told again updates its runs,
and says nothing twice. Their folders lie in the sweep's own and need nothing outside of it. Without a key, or out of
reach of the server, they are written there for `wandb sync`. Whatever wandb runs into is a warning: the sweep itself is
stored already.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import TYPE_CHECKING, Any

from diffsweep.core.problems import one_of, require
from diffsweep.tracker.logged import Logged
from diffsweep.tracker.said import Said, of_cell, of_sweep, stored

if TYPE_CHECKING:
    from wandb import Run, Settings

    from diffsweep.report.write import Report
    from diffsweep.sweep.store import Store

MODES = ("online", "offline", "disabled")
GRANULARITIES = ("cell", "sweep", "both")
MOST_RUNS = 100  # cells that have runs of their own where nothing else is asked for
LOCAL = ("offline", "dryrun")  # what WANDB_MODE may say, and no server is asked
OPEN = 4  # runs at a time: most of one is waiting
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
    """project, entity, tags: where the runs belong; null or empty is what WANDB_PROJECT and the others say.

    mode: null is WANDB_MODE, else online where there is a key. granularity: null is both for up to `MOST_RUNS` cells,
    else sweep. Under `wandb agent` there is one run, the agent's, and it is the sweep's.
    """

    project: str | None = None
    entity: str | None = None
    mode: str | None = None
    granularity: str | None = None
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        named = self.project is None or re.fullmatch(r"[^/\\#?%:]{1,128}", self.project)
        require(
            None if named else f"project={self.project}: must be 1 to 128 characters, none of them / \\ # ? % :",
            None if self.mode is None else one_of("mode", self.mode, MODES),
            None if self.granularity is None else one_of("granularity", self.granularity, GRANULARITIES),
            *(f"tags: {tag!r} must be 1 to 64 characters" for tag in self.tags if not 1 <= len(tag) <= 64),
        )

    def prepare(self) -> None:
        """Import what takes two seconds while the model is at work."""
        Thread(target=import_module, args=("wandb.sdk.launch.inputs.internal",), daemon=True).start()

    def log(self, store: Store, sweep: Mapping[str, Any], report: Report) -> str | None:
        """Log a finished sweep; one line that says where it is, or None where it is nowhere."""
        try:
            try:
                return self._log(store, sweep, report, self.mode)
            except Exception as error:  # no key, no answer, an answer that ceased, a service that died
                line = self._log(store, sweep, report, "offline")
                _warn(f"{str(error).rstrip('.')}; the rest is written offline")
                return line
        except (Exception, SystemExit) as error:  # wandb exits with its service's exit code
            _warn(f"the sweep is stored, but not logged: {type(error).__name__}: {error}")
            return None

    def _log(self, store: Store, sweep: Mapping[str, Any], report: Report, asked: str | None) -> str | None:
        with _service() as settings:
            mode = asked or settings.mode
            if mode == "disabled":
                return None
            project = self.project or settings.project or "diffsweep"
            place = f"{settings.base_url} {self.entity or settings.entity} {project}"
            with Logged.of(report.folder / "wandb", place, self.tags, mode not in LOCAL) as logged:
                arguments = {
                    "project": project,
                    "entity": self.entity,
                    "tags": self.tags or None,
                    "mode": mode,
                    "group": os.environ.get("WANDB_RUN_GROUP") or sweep["name"],
                    "dir": str(report.folder.resolve()),
                }
                whole, cells = self._runs(store, sweep, report)
                for said in whole:  # first: a server that does not answer is waited for once
                    _tell(said, logged, arguments)
                _tell_several(cells, logged, arguments)
                return _where(whole, cells, logged)

    def _runs(self, store: Store, sweep: Mapping[str, Any], report: Report) -> tuple[list[Said], list[Said]]:
        """The sweep's run, and those of its cells, as asked for."""
        if "WANDB_SWEEP_ID" in os.environ:
            return [of_sweep(store, sweep, report, os.environ.get("WANDB_RUN_ID"))], []
        chosen = self.granularity or ("both" if len(sweep["cells"]) <= MOST_RUNS else "sweep")
        whole = [of_sweep(store, sweep, report)] if chosen != "cell" else []
        return whole, [of_cell(store, sweep, cell) for cell in stored(store, sweep)] if chosen != "sweep" else []


def _tell(said: Said, logged: Logged, arguments: Mapping[str, Any]) -> None:
    """One run, unless it is there and says the same."""
    if logged.has(said):
        return
    with _opened(**arguments, **said.arguments) as run:
        said.say(run)
        folder, url = Path(run.dir).parent.name, None if run.offline else run.url
    logged.note(said, folder, url)


def _tell_several(cells: Sequence[Said], logged: Logged, arguments: Mapping[str, Any]) -> None:
    pool = ThreadPoolExecutor(OPEN)
    try:
        for _ in pool.map(lambda said: _tell(said, logged, arguments), cells):
            pass
    finally:
        pool.shutdown(cancel_futures=True)


def _where(whole: Sequence[Said], cells: Sequence[Said], logged: Logged) -> str:
    """One line: where the runs are, and what of the sweep they have not."""
    own = logged.folder
    cut = "".join(said.cut for said in whole)
    waiting = logged.waiting(said.id for said in (*whole, *cells))
    if len(waiting) == 1:
        return f"wandb: offline run; wandb sync {shlex.quote(str(own / waiting[0]))}{cut}"
    if waiting:
        return f"wandb: {len(waiting)} offline runs; wandb sync {shlex.quote(str(own))}{cut}"
    if not whole and not cells:
        return "wandb: no run, as no cell is finished"
    urls = [url for said in (*whole, *cells[:1]) if (url := logged.url(said.id))]
    place = urls[0] if whole and urls else urls[0].rpartition("/runs/")[0] if urls else "sent by wandb sync"
    also = f", and {len(cells)} of its cells" if whole and cells else f", {len(cells)} runs" if cells else ""
    return f"wandb: {place}{also}{cut}"


@contextmanager
def _service() -> Iterator[Settings]:
    """wandb's service as long as it is needed, and the settings it found: silent, so asking for no key, with its own
    log (which it writes to a cache) not kept and its own errors not reported."""
    import wandb

    with TemporaryDirectory(prefix="diffsweep-", ignore_cleanup_errors=True) as cache:
        wanted = {"WANDB_CACHE_DIR": cache, **SERVICE}
        own = {name: value for name, value in wanted.items() if name not in os.environ}
        os.environ.update(own)
        try:
            yield wandb.setup(wandb.Settings(silent=True)).settings
        finally:
            for name in own:
                del os.environ[name]
            if wandb.run is None:  # none that the caller has open
                wandb.teardown()


@contextmanager
def _opened(**arguments: Any) -> Iterator[Run]:
    """A run, in place of one of its id: not resumed, which would repeat its steps. wandb's own `with` would print a
    stack trace."""
    import wandb

    run = wandb.init(**arguments, resume=None, reinit="create_new", settings=dict(PRIVATE))
    failed = 1
    try:
        yield run
        failed = 0
    finally:
        run.finish(exit_code=failed)


def _warn(text: str) -> None:
    print(f"warning: wandb: {' '.join(text.split())}", file=sys.stderr, flush=True)
