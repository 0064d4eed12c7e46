"""Logs one sweep to W&B: its cells as they finish, the rest at the end.

A run's id follows from its sweep and cell, and `logged` remembers what each run holds: logging a sweep again updates
its runs and writes nothing twice. The runs' folders lie in the sweep's own and need nothing outside of it. Without a
key, or when the server cannot be reached, wandb writes the runs there for `wandb sync`. Errors of wandb become
warnings: the sweep itself is stored already.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Collection, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

from diffsweep.core.keys import given
from diffsweep.core.locks import Busy, locked
from diffsweep.core.text import counted, visible
from diffsweep.report.frame import results
from diffsweep.tracker.agent import trial_id
from diffsweep.tracker.logged import Logged
from diffsweep.tracker.run_logs import RunLog, group_of, log_last, of_beginning, of_cell, of_failed, of_sweep, stored
from diffsweep.tracker.service import FAILURES, SOON, awaited, leave, service, start
from diffsweep.tracker.steps import Steps

if TYPE_CHECKING:
    from wandb import Run

    from diffsweep.report.write import Report
    from diffsweep.store.cells import Store
    from diffsweep.store.schema import Document

LOCAL = ("offline", "dryrun")  # values of WANDB_MODE without a server
OPEN = 4  # runs logged at a time: each mostly waits
PATIENCE = 600.0  # seconds to wait for another process that logs the same sweep


class Settings(Protocol):
    """What a user sets (`tracker.wandb.Wandb`): where the runs belong, and which runs a sweep has."""

    @property
    def project(self) -> str: ...
    @property
    def entity(self) -> str: ...
    @property
    def mode(self) -> str: ...
    @property
    def tags(self) -> tuple[str, ...]: ...
    def of(self, sweep: Document) -> tuple[bool, bool]:
        """Whether the sweep has a run of its own, and whether its cells have."""


class Session:
    """Only an interrupt is raised. After a first failure everything is logged again offline; after a second, logging
    stops. Failures are reported once, at the end. A lock serialises the calls."""

    def __init__(self, chosen: Settings, store: Store, folder: Path) -> None:
        self._chosen, self._store, self._folder = chosen, store, folder
        self._mode = given(chosen.mode)
        self._open: OpenRuns | None = None
        self._finished: dict[str, None] = {}
        self._last: tuple[Document, Report] | None = None
        self._failure: BaseException | None = None
        self._end: BaseException | None = None
        self._over = False
        self._lock = Lock()

    def cells(self, sweep: Document, cell_ids: Collection[str]) -> None:
        """Log finished and measured cells while others are sampled."""
        with self._lock, suppress(Busy):  # then they are logged at the end
            self._finished |= dict.fromkeys(cell_ids)
            self._do(lambda runs: runs.cells(sweep, self._finished.keys()), 0)

    def report(self, sweep: Document, report: Report) -> None:
        """Log a sweep as a whole. It may go on, and be logged again."""
        with self._lock:
            try:
                try:
                    self._do(lambda runs: runs.report(sweep, report), 0)
                except Busy:
                    print("wandb: waiting for another process that logs this sweep", file=sys.stderr, flush=True)
                    self._do(lambda runs: runs.report(sweep, report), PATIENCE)
            except Busy as error:
                self._end = error
            self._last = sweep, report

    def close(self) -> str | None:
        """End the runs. Answers one line that says where they are, or None if there are none. Nothing is logged after
        it."""
        acquired = False
        try:
            acquired = self._lock.acquire(timeout=SOON)
        finally:
            if not acquired:  # after an interrupt: a call that does not return
                self._over = True
                leave()
        if not acquired:
            _warn(f"it does not answer; {self._remedy} logs what is missing")
            return None
        try:
            line = self._do(OpenRuns.close, PATIENCE) if self._open else None
            lacks = self._open.lacks if self._open else None
        finally:
            over, self._over, self._open = self._over, True, None
            self._lock.release()
        if over:
            return None
        if isinstance(self._end, Busy):
            _warn(f"another process logs this sweep; {self._remedy} logs the rest")
        elif self._end:
            what = f"{type(self._end).__name__}: {_reason(self._end)}"
            _warn(f"the sweep is stored, but not logged: {what}; {self._remedy} logs it, once that is fixed")
        elif self._failure:
            _warn(f"{_reason(self._failure)}; the rest is written offline")
        elif lacks:
            _warn(lacks)
        return line

    @property
    def _remedy(self) -> str:
        return f"diffsweep-results sync {self._folder.name}"

    def _do(self, act: Callable[[OpenRuns], str | None], patience: float) -> str | None:
        if self._end or self._over:
            return None
        try:
            return act(self._begun(patience))
        except Busy:
            raise
        except FAILURES as error:  # no key, no answer, an answer that ceased, a service that died
            if self._over:
                return None
            self._drop()
            if self._failure or (act is OpenRuns.close and not self._last):
                self._end = error
                return None
            self._failure, self._mode = error, "offline"
        try:
            runs = self._begun(patience)
            if self._last:
                runs.report(*self._last)
            return act(runs)
        except FAILURES as error:
            self._drop()
            self._end = error
            return None

    def _begun(self, patience: float) -> OpenRuns:
        if self._open is None:
            self._open = OpenRuns(self._chosen, self._store, self._folder, self._mode, patience)
        return self._open

    def _drop(self) -> None:
        runs, self._open = self._open, None
        if runs:
            runs.drop()


class OpenRuns:
    """A sweep's runs, logged in one mode (None: as the environment says). Busy where another process logs the same
    sweep for longer than `patience` seconds."""

    def __init__(self, chosen: Settings, store: Store, folder: Path, mode: str | None, patience: float) -> None:
        self._chosen, self._store = chosen, store
        self._steps = Steps()
        self._seen: set[str] = set()
        self._run: Run | None = None
        self._sweep_log: RunLog | None = None
        self._cell_logs: dict[str, RunLog] = {}
        self._last: tuple[Document, Report] | None = None
        self.lacks: str | None = None
        with ExitStack() as stack:
            settings = stack.enter_context(service())
            self._mode = mode or settings.mode
            if self._mode != "disabled":
                project = given(chosen.project) or settings.project or "diffsweep"
                entity = given(chosen.entity)
                place = f"{settings.base_url} {entity or settings.entity} {project}"
                online = self._mode not in LOCAL
                own, group = folder / "wandb", "" if trial_id() else group_of(folder.name)
                stack.enter_context(locked(own, patience, tell=lambda _: None))
                self._logged = stack.enter_context(Logged.of(own, place, group, chosen.tags, online))
                self._arguments = {
                    "project": project,
                    "entity": entity,
                    "tags": chosen.tags or None,
                    "mode": self._mode,
                    "group": group or None,
                    "dir": str(folder.resolve()),
                }
            self._stack = stack.pop_all()

    def cells(self, sweep: Document, cell_ids: Set[str]) -> None:
        """Log those that are new."""
        if self._mode == "disabled":
            return
        whole, each = self._chosen.of(sweep)
        new = cell_ids - self._seen
        self._seen |= new
        if new:
            self._last = None  # no longer
        part: Document = {**sweep, "sets": {}, "cells": [cell for cell in sweep["cells"] if cell["cell_id"] in new]}
        if whole:
            run = self._opened(of_beginning(sweep, trial_id()))
            self._steps.log(run, self._store, sweep, results(self._store, part))
        if each:
            self._log_all([of_cell(self._store, sweep, cell) for cell in stored(self._store, part)])
        self._logged.keep()

    def report(self, sweep: Document, report: Report) -> None:
        if self._mode == "disabled":
            return
        whole, each = self._chosen.of(sweep)
        if whole:  # first: a silent server then makes wandb wait once
            log = of_sweep(self._store, sweep, report, self._steps, trial_id())
            if self._run or not self._logged.has(log):
                run = self._opened(log)
                run.config.update(log.config, allow_val_change=True)  # type: ignore[no-untyped-call]
                log.write(run)
            self._sweep_log = log
        if each:
            done = [of_cell(self._store, sweep, cell) for cell in stored(self._store, sweep)]
            self._log_all([*done, *of_failed(self._store, sweep)])
        self._last = sweep, report

    def close(self) -> str | None:
        """Log what comes last, and end the sweep's run, which has failed where there was no report."""
        with self._stack:
            if self._run:
                assert self._sweep_log is not None
                run, self._run = self._run, None  # ended once: a silent server makes wandb wait
                folder, url = Path(run.dir).parent.name, None if run.offline else run.url
                code = 1
                try:
                    if self._last:
                        self.lacks = log_last(self._store, *self._last, run)
                        code = 0
                finally:
                    with awaited():
                        run.finish(exit_code=code)
                self._logged.note(self._sweep_log, folder, url)
            return None if self._mode == "disabled" else self._where()

    def drop(self) -> None:
        """End the sweep's run as failed."""
        with suppress(*FAILURES), self._stack:
            if self._run:
                self._run.finish(exit_code=1)

    def _opened(self, log: RunLog) -> Run:
        """The sweep's run."""
        if self._run is None:
            self._run = start(**self._arguments, **log.arguments)
            self._sweep_log = log
        return self._run

    def _log_all(self, cells: Sequence[RunLog]) -> None:
        """Log a run for each cell, several at a time."""
        several = {log.id: log for log in cells}
        self._cell_logs |= several
        pool = ThreadPoolExecutor(OPEN)
        try:
            for _ in pool.map(self._log_one, several.values()):
                pass
        finally:
            pool.shutdown(cancel_futures=True)

    def _log_one(self, log: RunLog) -> None:
        """Log a run, unless it is there and holds the same."""
        if self._logged.has(log):
            return
        run = start(**self._arguments, **log.arguments)
        code = 1
        try:
            log.write(run)
            code = log.exit_code
            folder, url = Path(run.dir).parent.name, None if run.offline else run.url
        finally:
            run.finish(exit_code=code)
        self._logged.note(log, folder, url)

    def _where(self) -> str:
        """One line: where the runs are, and what of the sweep they lack."""
        own, whole, each = self._logged.folder, self._sweep_log, list(self._cell_logs)
        cut = whole.cut if whole else ""
        ids = [*([whole.id] if whole else []), *each]
        waiting = self._logged.waiting(ids)
        if waiting:  # from there: wandb finds an artifact's files from the folder around the run alone
            runs = "offline run" if len(waiting) == 1 else f"{len(waiting)} offline runs"
            return f"wandb: {runs}; cd {shlex.quote(str(own))} && wandb sync .{cut}"
        if not ids:
            return "wandb: no run, as no cell is finished"
        url = next(filter(None, map(self._logged.url, ids[:1])), None)
        place = "sent by wandb sync" if url is None else url if whole else url.rpartition("/runs/")[0]
        also = f", and {len(each)} of its cells" if whole and each else f", {counted('run', len(each))}" if each else ""
        return f"wandb: {place}{also}{cut}"


def _reason(error: BaseException) -> str:
    """The error without advice for programs; a refused environment variable by its name."""
    wrong: Any = getattr(error, "errors", None)  # pydantic's
    if callable(wrong):
        return "; ".join(f"WANDB_{'_'.join(map(str, one['loc'])).upper()}: {one['msg']}" for one in wrong())
    return str(error).partition("\nConsider increasing the init_timeout")[0].rstrip(".")


def _warn(text: str) -> None:
    print(visible(f"warning: wandb: {' '.join(text.split())}"), file=sys.stderr, flush=True)
