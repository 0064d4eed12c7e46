"""Who works on what, in files that are only ever created: without locks, without clocks, on any file system that has
hard links.

    claims/<key>.<generation>   made exclusively, holds the worker's name; the highest generation holds the lease
    done/<key>                  what nobody need do any more
    workers/<name>.json         a worker's beats and what it tells of itself; replaced at each beat

A worker is dead when its beats have stood still for `grace` seconds of its observer's own clock (its own grace, where
that is longer), or at once where the observer is on the same machine and sees no such process. Whoever finds the holder
of a lease dead makes the next generation, and exactly one can. Nothing is removed while work goes on: a late look at a
folder (NFS remembers for a while that a file was not there) then costs a failed try and never a second holder. Nor is a
lease needed for the result: a worker that loses it wrongly has worked in vain, since a finished cell is stored once.

Kubernetes' leader election observes in the same way; Optuna's journal lock, which removes a stale lock, shows why not
to remove.
"""

from __future__ import annotations

import json
import os
import platform
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

from diffsweep.core import files

GRACE = 60.0  # seconds of silence after which a worker counts as dead
BEATS = 12  # in this time
STUCK = 900.0  # seconds after which a worker that beats, and says that it works, counts as dead without progress
POLL = 0.2  # seconds between two looks at what others do
SOON = 2.0  # seconds for the last that a process tells
OLD = 7 * 24 * 3600.0  # seconds, after which nobody is waited for
LEFT = "left"  # the state of a worker that has given all its leases back

_open: set[Leases] = set()  # of this process


class Gone(Exception):
    """The folder of the leases has been removed: the work is over, or somebody has cleared it away."""


def create(path: Path, text: str) -> bool:
    """Make a file with its content, exclusively; whether it was made. Gone where its folder is.

    On a disk without hard links, such as exFAT, a reader may find the file empty for a moment.
    """
    written = path.with_name(f".{secrets.token_hex(8)}")
    try:
        written.write_text(text)
        try:
            made = files.linked(written, path)
            return _created(path, text) if made is None else made
        finally:
            written.unlink(missing_ok=True)
    except FileNotFoundError:
        raise Gone(path.parent) from None


def _created(path: Path, text: str) -> bool:
    try:
        with path.open("x") as file:
            file.write(text)
    except FileExistsError:
        return False
    return True


def put(path: Path, text: str) -> None:
    """Replace a file by this content. Gone where its folder is."""
    written = path.with_name(f".{secrets.token_hex(8)}")
    try:
        written.write_text(text)
        os.replace(written, path)
    except FileNotFoundError:
        raise Gone(path.parent) from None
    finally:
        with suppress(OSError):
            written.unlink(missing_ok=True)


def text_of(path: Path) -> str | None:
    """A created file's content; None where there is none."""
    try:
        return files.read(path).decode()
    except OSError:
        return None


@dataclass(frozen=True)
class Worker:
    """A worker as it was last heard of. beats: how often; rows, cells: its progress; told: all it tells."""

    name: str
    beats: int
    state: str
    rows: int
    cells: int
    told: Mapping[str, Any]

    @property
    def left(self) -> bool:
        """Whether it is known to have ended."""
        return self.state == LEFT or _is_dead(self.told)


class Leases:
    """This worker's part in the work that a folder shares. Within `with`, it beats; after it, its leases are free.

    state, rows, cells, more: what others see of it; `tell` shows a change at once.
    """

    def __init__(self, folder: Path, grace: float = GRACE, name: str | None = None) -> None:
        self.folder, self.grace = folder, grace
        self.name = name or f"{platform.node() or 'host'}-{os.getpid()}-{secrets.token_hex(3)}"
        self.state, self.rows, self.cells = "starting", 0, 0
        self.more: dict[str, Any] = {}
        self.lost = False  # whether it was silent for so long that others may have taken its leases
        self._held: dict[str, int] = {}
        self._beats = 0
        self._last = time.monotonic()
        self._seen: dict[str, tuple[int, float, int, float]] = {}  # beats and since when, rows and since when
        self._telling, self._ended = Lock(), Event()
        self._thread = Thread(target=self._beat, name="leases", daemon=True)

    def __enter__(self) -> Leases:
        try:
            for part in ("claims", "done", "workers"):
                (self.folder / part).mkdir(parents=True, exist_ok=True)
        except FileNotFoundError:  # a folder above it was removed meanwhile
            raise Gone(self.folder) from None
        self.tell()
        _open.add(self)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self.leave()
        _open.discard(self)
        self._thread.join()

    def become(self, state: str) -> None:
        """Show others another state, at once."""
        if state != self.state:
            self.state = state
            self.tell()

    def leave(self) -> None:
        """Give all leases back. Callable from any thread, as the last thing that a process does."""
        self.state = LEFT
        with suppress(OSError, Gone):
            self.tell()

    # -- this worker ---------------------------------------------------------------------------------------------------
    def tell(self) -> None:
        """Show others that this worker lives, and how far it is."""
        with self._telling:
            self._beats += 1
            own = {"beats": self._beats, "state": self.state, "rows": self.rows, "cells": self.cells}
            own["grace"] = self.grace
            put(self.folder / f"workers/{self.name}.json", json.dumps({**myself(), **own, **self.more}))

    def _beat(self) -> None:
        while not self._ended.wait(self.grace / BEATS):
            now = time.monotonic()
            self.lost = self.lost or now - self._last > self.grace
            self._last = now
            with suppress(OSError, Gone):  # a full disk keeps nobody from working
                self.tell()

    # -- the others ----------------------------------------------------------------------------------------------------
    def workers(self) -> dict[str, Worker]:
        """All workers that have ever begun, this one too, by their names."""
        if not (self.folder / "workers").is_dir():
            raise Gone(self.folder)
        return {worker.name: worker for worker in heard(self.folder)}

    def alive(self, name: str) -> bool:
        """Whether a worker counts as alive: it has not left, and moves."""
        if name == self.name:
            return True
        worker = _heard(self.folder / f"workers/{name}.json")
        if worker is None:
            worker = Worker(name, -1, "", 0, 0, {})
        if worker.left:
            return False
        grace = max(self.grace, float(worker.told.get("grace", 0)))  # who is asked to beat seldom is not silent
        now = time.monotonic()
        beats, since, rows, moved = self._seen.get(name, (None, now, None, now))
        since = since if beats == worker.beats else now
        moved = moved if rows == worker.rows and worker.state == "sampling" else now
        self._seen[name] = worker.beats, since, worker.rows, moved
        return now - since < grace and now - moved < STUCK

    # -- leases --------------------------------------------------------------------------------------------------------
    def claims(self) -> dict[str, int]:
        """The latest generation of each key that was ever claimed."""
        latest: dict[str, int] = {}
        for path in self._listed("claims"):
            key, _, generation = path.name.rpartition(".")
            if key and generation.isdecimal():
                latest[key] = max(latest.get(key, 0), int(generation))
        return latest

    def holder(self, key: str, generation: int) -> str | None:
        return text_of(self.folder / f"claims/{key}.{generation}")

    def take(self, key: str, generation: int | None = None) -> bool:
        """Take a lease that is free: claimed by nobody, or by a worker that is dead. generation: its latest."""
        if generation is None:
            return self._create(key, 0)
        holder = self.holder(key, generation)
        if holder == self.name:
            return True
        return holder is not None and not self.alive(holder) and self._create(key, generation + 1)

    def _create(self, key: str, generation: int) -> bool:
        if not create(self.folder / f"claims/{key}.{generation}", self.name):
            return False
        self._held[key] = generation
        return True

    def holds(self, key: str) -> bool:
        """Whether this worker holds a lease still: it has taken it, nobody has taken it over, and the work is there."""
        with suppress(OSError, Gone):
            return key in self._held and self.claims().get(key) == self._held[key]
        return False

    def superseded(self) -> list[str]:
        """The keys that others have taken over from this worker."""
        latest = self.claims()
        return [key for key, generation in self._held.items() if latest.get(key, generation) > generation]

    def settle(self, key: str, text: str = "") -> bool:
        """Note that nobody need do this any more; whether nobody had."""
        return create(self.folder / f"done/{key}", text)

    def settled(self) -> set[str]:
        return {path.name for path in self._listed("done")}

    def text(self, key: str) -> str:
        """What was noted of a key that is done."""
        path = self.folder / f"done/{key}"
        if not text_of(path):
            time.sleep(POLL)  # while it is written, on a disk without links
        if (text := text_of(path)) is None:
            raise Gone(self.folder)
        return text

    def once(self, key: str, act: Callable[[], None], wait: Callable[[], None] = lambda: time.sleep(POLL)) -> bool:
        """Have one of all workers act, while the others wait; whether it was this one. The death of who does it hands
        it on; so does its error, which is raised there."""
        while key not in self.settled():
            if self.take(key, self.claims().get(key)):
                act()
                self.settle(key)
                return True
            wait()
        return False

    def _listed(self, part: str) -> Iterator[Path]:
        try:
            names = os.listdir(self.folder / part)
        except FileNotFoundError:
            raise Gone(self.folder) from None
        return (self.folder / part / name for name in names if not name.startswith("."))


def leave_all() -> None:
    """Give back all leases of this process, which is about to end; not for ever where a disk does not answer."""
    threads = [Thread(target=leases.leave, daemon=True) for leases in [*_open]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON)


def done_at(folder: Path) -> frozenset[str]:
    """What is done of the work in a folder, which need not be there."""
    try:
        return frozenset(os.listdir(folder / "done"))
    except OSError:
        return frozenset()


def clear(folder: Path) -> None:
    """Remove the folder of work that is over, in one step for whoever looks at it."""
    aside = files.scratch(folder)
    with suppress(OSError):
        os.rename(folder, aside)
        files.remove(aside)
        folder.parent.rmdir()  # where no other work is


def tidy(folder: Path) -> None:
    """Remove the folders of work in this one that nobody is at any more: whose workers have all ended, or that nobody
    has touched for days. What was handed over (a file in it) may still wait for its workers."""
    with suppress(OSError):
        files.tidy(folder)
        for place in folder.glob("[!.]*"):
            waits = any(path.is_file() for path in place.iterdir())
            touched = max(path.stat().st_mtime for path in (place, *place.iterdir()))
            if time.time() - touched > OLD or (not waits and all(worker.left for worker in heard(place))):
                clear(place)
        folder.rmdir()


def heard(folder: Path) -> list[Worker]:
    """The workers that have ever begun in this folder."""
    return [worker for path in folder.glob("workers/[!.]*.json") if (worker := _heard(path))]


def moving(folder: Path, grace: float) -> bool:
    """Whether somebody works in this folder: waits until one is seen to beat, or all are silent for `grace`."""
    leases, first = Leases(folder, grace), {worker.name: worker.beats for worker in heard(folder)}
    while names := [worker.name for worker in heard(folder) if leases.alive(worker.name)]:
        if any(worker.beats != first.get(worker.name) for worker in heard(folder) if worker.name in names):
            return True
        time.sleep(POLL)
    return False


def _heard(path: Path) -> Worker | None:
    try:
        told = json.loads(files.read(path))
        return Worker(path.stem, told["beats"], told["state"], told["rows"], told["cells"], told)
    except (OSError, ValueError, KeyError, TypeError):
        return None


# -- processes of one machine ------------------------------------------------------------------------------------------
@lru_cache
def _machine() -> str | None:
    """The running system and its process numbers' name space: within it, a process number means one process."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None


def _born(pid: int) -> str | None:
    """When a process of this machine began, in ticks since the system did; None where there is none."""
    fields = files.state(pid)
    return fields[19] if fields and fields[0] not in "ZX" else None  # one that has ended is dead, waited for or not


def myself() -> dict[str, Any]:
    """This process, so that those on the same machine can see whether it lives."""
    pid = os.getpid()
    return {"host": platform.node(), "pid": pid, "machine": _machine(), "born": _born(pid)}


def _is_dead(told: Mapping[str, Any]) -> bool:
    """Whether a process is seen to be dead: of another machine, nobody can say."""
    machine, pid, born = told.get("machine"), told.get("pid"), told.get("born")
    if machine is None or machine != _machine() or not isinstance(pid, int) or born is None:
        return False
    return _born(pid) != born
