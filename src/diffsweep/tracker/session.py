"""The runs of one sweep while they are told: its cells as they are finished, the rest at its end.

A run's id follows from its sweep and cell, and `logged` remembers what each said: a sweep told again updates its runs,
and says nothing twice. Their folders lie in the sweep's own and need nothing outside of it. Without a key, or out of
reach of the server, they are written there for `wandb sync`. Whatever wandb runs into is a warning: the sweep itself is
stored already.
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
from diffsweep.core.text import counted
from diffsweep.report.frame import results
from diffsweep.tracker.agent import trial_id
from diffsweep.tracker.logged import Logged
from diffsweep.tracker.said import Said, group_of, of_beginning, of_cell, of_failed, of_sweep, say_last, stored
from diffsweep.tracker.service import FAILURES, SOON, awaited, leave, service, start
from diffsweep.tracker.steps import Steps

if TYPE_CHECKING:
    from wandb import Run

    from diffsweep.report.write import Report
    from diffsweep.store.cells import Store
    from diffsweep.store.schema import Document

LOCAL = ("offline", "dryrun")  # what WANDB_MODE may say, and no server is asked
OPEN = 4  # runs at a time: most of one is waiting
PATIENCE = 600.0  # seconds for other processes that tell of the same sweep


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
    """Nothing here raises but an interrupt: after a first failure all is told again, offline, and a second one is the
    last. What there was is a warning at the end. One thread at a time is heard."""

    def __init__(self, chosen: Settings, store: Store, folder: Path) -> None:
        self._chosen, self._store, self._folder = chosen, store, folder
        self._mode = given(chosen.mode)
        self._telling: Telling | None = None
        self._finished: dict[str, None] = {}
        self._last: tuple[Document, Report] | None = None
        self._failure: BaseException | None = None
        self._end: BaseException | None = None
        self._over = False
        self._lock = Lock()

    def cells(self, sweep: Document, cell_ids: Collection[str]) -> None:
        """Tell of cells that are finished and measured, beside the sampling of others."""
        with self._lock, suppress(Busy):  # then they are told at the end
            self._finished |= dict.fromkeys(cell_ids)
            self._do(lambda telling: telling.cells(sweep, self._finished.keys()), 0)

    def report(self, sweep: Document, report: Report) -> None:
        """Tell of a sweep as a whole. It may go on, and be reported again."""
        with self._lock:
            try:
                try:
                    self._do(lambda telling: telling.report(sweep, report), 0)
                except Busy:
                    print("wandb: waiting for another process that tells of this sweep", file=sys.stderr, flush=True)
                    self._do(lambda telling: telling.report(sweep, report), PATIENCE)
            except Busy as error:
                self._end = error
            self._last = sweep, report

    def close(self) -> str | None:
        """End the runs; one line that says where they are, or None where they are nowhere. Nothing is told after it."""
        heard = False
        try:
            heard = self._lock.acquire(timeout=SOON)
        finally:
            if not heard:  # after an interrupt: a call that does not come back
                self._over = True
                leave()
        if not heard:
            _warn(f"it does not answer; {self._mended} tells what is missing")
            return None
        try:
            line = self._do(Telling.close, PATIENCE) if self._telling else None
            lacks = self._telling.lacks if self._telling else None
        finally:
            over, self._over, self._telling = self._over, True, None
            self._lock.release()
        if over:
            return None
        if isinstance(self._end, Busy):
            _warn(f"another process tells of this sweep; {self._mended} tells the rest")
        elif self._end:
            what = f"{type(self._end).__name__}: {_reason(self._end)}"
            _warn(f"the sweep is stored, but not logged: {what}; {self._mended} logs it, once that is mended")
        elif self._failure:
            _warn(f"{_reason(self._failure)}; the rest is written offline")
        elif lacks:
            _warn(lacks)
        return line

    @property
    def _mended(self) -> str:
        return f"diffsweep-results sync {self._folder.name}"

    def _do(self, act: Callable[[Telling], str | None], patience: float) -> str | None:
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
            if self._failure or (act is Telling.close and not self._last):
                self._end = error
                return None
            self._failure, self._mode = error, "offline"
        try:
            telling = self._begun(patience)
            if self._last:
                telling.report(*self._last)
            return act(telling)
        except FAILURES as error:
            self._drop()
            self._end = error
            return None

    def _begun(self, patience: float) -> Telling:
        if self._telling is None:
            self._telling = Telling(self._chosen, self._store, self._folder, self._mode, patience)
        return self._telling

    def _drop(self) -> None:
        telling, self._telling = self._telling, None
        if telling:
            telling.drop()


class Telling:
    """Runs that are told in one mode, None for what the environment says. Busy where another process tells of the same
    sweep for longer than `patience` seconds."""

    def __init__(self, chosen: Settings, store: Store, folder: Path, mode: str | None, patience: float) -> None:
        self._chosen, self._store = chosen, store
        self._steps = Steps()
        self._heard: set[str] = set()
        self._run: Run | None = None
        self._whole: Said | None = None
        self._each: dict[str, Said] = {}
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
        """Those that it has not heard of yet."""
        if self._mode == "disabled":
            return
        whole, each = self._chosen.of(sweep)
        new = cell_ids - self._heard
        self._heard |= new
        if new:
            self._last = None  # no longer
        part: Document = {**sweep, "sets": {}, "cells": [cell for cell in sweep["cells"] if cell["cell_id"] in new]}
        if whole:
            run = self._opened(of_beginning(sweep, trial_id()))
            self._steps.log(run, self._store, sweep, results(self._store, part))
        if each:
            self._tell([of_cell(self._store, sweep, cell) for cell in stored(self._store, part)])
        self._logged.keep()

    def report(self, sweep: Document, report: Report) -> None:
        if self._mode == "disabled":
            return
        whole, each = self._chosen.of(sweep)
        if whole:  # first: a server that does not answer is waited for once
            said = of_sweep(self._store, sweep, report, self._steps, trial_id())
            if self._run or not self._logged.has(said):
                run = self._opened(said)
                run.config.update(said.config, allow_val_change=True)  # type: ignore[no-untyped-call]
                said.say(run)
            self._whole = said
        if each:
            done = [of_cell(self._store, sweep, cell) for cell in stored(self._store, sweep)]
            self._tell([*done, *of_failed(self._store, sweep)])
        self._last = sweep, report

    def close(self) -> str | None:
        """Tell what is told once, at the end, and end the sweep's run, which has failed where there was no report."""
        with self._stack:
            if self._run:
                assert self._whole is not None
                run, self._run = self._run, None  # ended once: a server that does not answer is waited for
                folder, url = Path(run.dir).parent.name, None if run.offline else run.url
                code = 1
                try:
                    if self._last:
                        self.lacks = say_last(self._store, *self._last, run)
                        code = 0
                finally:
                    with awaited():
                        run.finish(exit_code=code)
                self._logged.note(self._whole, folder, url)
            return None if self._mode == "disabled" else self._where()

    def drop(self) -> None:
        """End what cannot be told."""
        with suppress(*FAILURES), self._stack:
            if self._run:
                self._run.finish(exit_code=1)

    def _opened(self, said: Said) -> Run:
        """The sweep's run."""
        if self._run is None:
            self._run = start(**self._arguments, **said.arguments)
            self._whole = said
        return self._run

    def _tell(self, cells: Sequence[Said]) -> None:
        """A run each, several at a time."""
        several = {said.id: said for said in cells}
        self._each |= several
        pool = ThreadPoolExecutor(OPEN)
        try:
            for _ in pool.map(self._tell_one, several.values()):
                pass
        finally:
            pool.shutdown(cancel_futures=True)

    def _tell_one(self, said: Said) -> None:
        """Unless it is there and says the same."""
        if self._logged.has(said):
            return
        run = start(**self._arguments, **said.arguments)
        code = 1
        try:
            said.say(run)
            code = said.exit_code
            folder, url = Path(run.dir).parent.name, None if run.offline else run.url
        finally:
            run.finish(exit_code=code)
        self._logged.note(said, folder, url)

    def _where(self) -> str:
        """One line: where the runs are, and what of the sweep they have not."""
        own, whole, each = self._logged.folder, self._whole, list(self._each)
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
    """Without what only a program could do about it; a variable's value that is refused, by its name."""
    wrong: Any = getattr(error, "errors", None)  # pydantic's
    if callable(wrong):
        return "; ".join(f"WANDB_{'_'.join(map(str, one['loc'])).upper()}: {one['msg']}" for one in wrong())
    return str(error).partition("\nConsider increasing the init_timeout")[0].rstrip(".")


def _warn(text: str) -> None:
    print(f"warning: wandb: {' '.join(text.split())}", file=sys.stderr, flush=True)
