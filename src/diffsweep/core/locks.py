"""Locks a folder against other processes, which can say who holds it.

The lock is on a file in the folder, which names its owner: a lock on the folder itself excludes nobody over NFS. The
system releases it when its process ends, however that ends. While its owner works, it renews what stands there: others
wait for work, but not for a process that is silent, such as a stopped one.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import re
import shlex
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from threading import Event, Thread
from typing import Any

from diffsweep.core import files
from diffsweep.core.text import visible

PATIENCE = 300.0  # seconds for a process that holds a folder and is silent
BEAT = 5.0  # seconds after which a holder says that it works
SOON = 3.0  # seconds after which a wait is reported
PAUSE = 0.05  # seconds between two tries
NAME = re.compile(r"\.(.+\.)?lock")  # of a lock file


class Busy(RuntimeError):
    """Another process holds the lock; the message says which one."""


def report(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


@contextmanager
def locked(
    folder: Path, patience: float = PATIENCE, name: str = "", tell: Callable[[str], None] = report
) -> Iterator[None]:
    """Hold a folder against other processes that do so, where the system can (not on Windows).

    Busy where the process that has it is silent for longer than `patience` seconds. name: of one of several locks of a
    folder. tell: called when a wait lasts.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if find_spec("fcntl") is None:
        yield
        return
    path = folder / f".{name}.lock" if name else folder / ".lock"
    wait = _Wait(path, patience, tell)
    while (number := _taken(path)) is None:
        wait.go_on()
    try:
        with _renewed(number):
            yield
    finally:
        try:
            path.unlink(missing_ok=True)
        finally:
            os.close(number)


@contextmanager
def shared(folder: Path, name: str, patience: float = PATIENCE, tell: Callable[[str], None] = report) -> Iterator[None]:
    """Hold a folder together with all who do so, against one that has it `locked` by this name."""
    if find_spec("fcntl") is None:
        yield
        return
    import fcntl

    path = folder / f".{name}.lock"
    wait = _Wait(path, patience, tell)
    while (number := _taken(path, together=True)) is None:
        wait.go_on()
    try:
        yield
    finally:
        with suppress(OSError):  # others hold it still, who remove the file
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
        os.close(number)


@contextmanager
def _renewed(number: int) -> Iterator[None]:
    """Within, the open lock file names this process, and that it works."""
    myself, ended = _myself(), Event()

    def renew(beats: int) -> None:
        os.pwrite(number, json.dumps({**myself, "beats": beats}).encode(), 0)

    def work() -> None:
        beats = 0
        while not ended.wait(BEAT):
            beats += 1
            with suppress(OSError):  # a full disk keeps nobody from working
                renew(beats)

    renew(0)
    thread = Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def tidy(folder: Path) -> None:
    """Remove the lock files of processes that are dead."""
    for path in left(folder):
        with suppress(Busy), locked(folder, patience=0, name=path.name[1:].rpartition(".")[0]):
            pass


def left(folder: Path) -> list[Path]:
    """The lock files in a folder that nobody holds: those of processes that are dead."""
    if find_spec("fcntl") is None:
        return []
    return [path for path in sorted(folder.iterdir()) if NAME.fullmatch(path.name) and not _held(path)]


def _held(path: Path) -> bool:
    """Whether a process holds a lock file; what cannot be looked at counts as held."""
    import fcntl

    try:
        number = os.open(path, os.O_RDWR | files.ONLY_HERE)
    except OSError:
        return True
    try:
        if not stat.S_ISREG(os.fstat(number).st_mode):
            return True
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(number)
    return False


def _taken(path: Path, together: bool = False) -> int | None:
    """The open lock file, None where another process has it. together: with all who take it so."""
    import fcntl

    number = os.open(path, (os.O_RDONLY if together else os.O_RDWR) | os.O_CREAT | files.ONLY_HERE, 0o666)
    try:
        if not stat.S_ISREG(os.fstat(number).st_mode):
            raise OSError(errno.EINVAL, "Not a regular file", str(path))
        fcntl.flock(number, (fcntl.LOCK_SH if together else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(number), path.stat()):  # else its last owner has removed it meanwhile
            if not together:
                os.ftruncate(number, 0)
            return number
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(number)
        raise
    os.close(number)
    return None


class _Wait:
    """For a lock that others hold: each of them may be silent for `patience` seconds."""

    def __init__(self, path: Path, patience: float, tell: Callable[[str], None]) -> None:
        self.path, self.patience, self.tell = path, patience, tell
        self.owner: Any = None
        self.began = self.since = time.monotonic()
        self.quiet = True

    def go_on(self) -> None:
        now, owner = time.monotonic(), _owner(self.path)
        if owner != self.owner and owner:
            self.owner, self.since = owner, now
        if now - self.since >= self.patience:
            raise Busy(f"{self.path.parent} is held by {_words(self.owner)}")
        if self.quiet and now - self.began >= SOON:
            self.quiet = False
            self.tell(f"waiting for {_words(self.owner)}, which holds {self.path.parent}")
        time.sleep(PAUSE)


def _myself() -> dict[str, Any]:
    since = datetime.now(UTC).isoformat(timespec="milliseconds")
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    return {"host": platform.node(), "pid": os.getpid(), "since": since, "command": command}


def _owner(path: Path) -> Any:
    """Who holds the lock, as it wrote it; None where it has not yet, or not any more."""
    try:
        return json.loads(files.read(path))
    except (OSError, ValueError):
        return None


def _words(owner: Any) -> str:
    try:
        pid, host, since, command = (owner[key] for key in ("pid", "host", "since", "command"))
    except (KeyError, TypeError):
        return "another process"
    return visible(f"process {pid} on {host}, since {since} ({command})").replace("\n", " ")
