"""A folder that another process holds: who that is, how long one waits, and what its death leaves."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from diffsweep.core import locks
from diffsweep.core.locks import Busy, locked, shared
from tests.waiting import awake

HOLDS = """
import sys
from pathlib import Path
from diffsweep.core.locks import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the folder until it is told to end."""
    words = [sys.executable, "-c", HOLDS, str(folder), "seed=1"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout and process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_one_at_a_time(tmp_path: Path) -> None:
    counts = {"inside": 0, "most": 0, "done": 0}

    def count(_: int) -> None:
        for _ in range(20):
            with locked(tmp_path):
                counts["inside"] += 1
                counts["most"] = max(counts["most"], counts["inside"])
                counts["done"] += 1
                counts["inside"] -= 1

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(count, range(6)))
    assert counts == {"inside": 0, "most": 1, "done": 120}
    assert os.listdir(tmp_path) == []


def test_locks_of_two_names_do_not_wait_for_each_other(tmp_path: Path) -> None:
    with locked(tmp_path), locked(tmp_path, patience=0, name="report"):
        assert sorted(os.listdir(tmp_path)) == [".lock", ".report.lock"]


def test_who_holds_it_is_named_in_the_wait_and_at_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stopped process lets go of nothing, and says nothing."""
    monkeypatch.setattr(locks, "SOON", 0.0)
    told: list[str] = []
    with holder(tmp_path) as process:
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(Busy) as caught, locked(tmp_path, patience=0.3, tell=told.append):
            pytest.fail("it is held")
        who = rf"process {process.pid} on {platform.node()}, since \d{{4}}-\d\d-\d\dT[\d:.]+\+00:00 \(-c \S+ seed=1\)"
        assert caught.match(rf"^{tmp_path} is held by {who}$")
        (line,) = told
        assert line.startswith(f"waiting for process {process.pid} on ") and line.endswith(f"which holds {tmp_path}")


def test_who_works_is_waited_for_however_long(tmp_path: Path) -> None:
    """Three times the patience, in which the holder says ever again that it works."""
    works = """
import sys, time
from pathlib import Path
from diffsweep.core import locks
locks.BEAT = 0.05
with locks.locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(3)
"""
    with subprocess.Popen([sys.executable, "-c", works, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "held\n"
        began = time.monotonic()
        with locked(tmp_path, patience=1):
            assert time.monotonic() - began > 2


def test_what_another_process_says_of_itself_is_shown_without_control_characters(tmp_path: Path) -> None:
    import fcntl

    path = tmp_path / ".lock"
    path.write_text(json.dumps({"host": "\x1b[2J", "pid": "1\n2", "since": "\x9b1m", "command": "a\x07b"}))
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(Busy) as caught, locked(tmp_path, patience=0):
            pytest.fail("it is held")
    assert str(caught.value).isprintable() and "\\x1b[2J" in str(caught.value)


def test_a_dead_owner_never_blocks(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert os.listdir(tmp_path) == [".lock"]  # as it left it
    with locked(tmp_path, patience=0):
        pass
    assert os.listdir(tmp_path) == []


def test_a_lock_file_that_says_nothing_excludes_too(tmp_path: Path) -> None:
    """As one that was just made, or another program's."""
    import fcntl

    path = tmp_path / ".lock"
    path.write_text("[1, 2]")
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(Busy, match=r"is held by another process$"), locked(tmp_path, patience=0):
            pytest.fail("it is held")


def test_the_next_in_turn_starts_the_patience_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six owners one after the other, each for two thirds of the patience: nobody is stuck."""
    now = [0.0]
    owners = iter([{"pid": i} for i in range(6) for _ in range(4)] + [{"pid": 6}] * 99)
    monkeypatch.setattr(locks, "_owner", lambda path: next(owners))
    monkeypatch.setattr(locks, "_taken", lambda path: None)
    monkeypatch.setattr(locks.time, "monotonic", lambda: now[0])

    def sleep(seconds: float) -> None:
        now[0] += 1.0

    monkeypatch.setattr(locks.time, "sleep", sleep)
    with pytest.raises(Busy), locked(tmp_path, patience=6, tell=lambda _: None):
        pytest.fail("it is held")
    assert now[0] == 4 * 6 + 6


@pytest.mark.parametrize("error", [BlockingIOError, FileNotFoundError, KeyboardInterrupt])
def test_what_fails_within_is_raised_and_lets_go(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), locked(tmp_path):
        raise error
    with locked(tmp_path, patience=0):
        pass
    assert os.listdir(tmp_path) == []


def test_who_waits_goes_on_when_it_is_let_go(tmp_path: Path) -> None:
    got = Event()

    def wait() -> None:
        with locked(tmp_path):
            got.set()

    with locked(tmp_path):
        thread = Thread(target=wait)
        thread.start()
        assert not got.wait(0.2)
    thread.join(60)
    assert got.is_set()


@pytest.mark.parametrize("lock", [lambda folder: locked(folder, name="a"), lambda folder: shared(folder, "a")])
@pytest.mark.parametrize("put", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("other")])
def test_what_is_no_file_is_no_lock(lock: Callable[[Path], Any], put: Callable[[Path], object], tmp_path: Path) -> None:
    (tmp_path / "other").write_text("another's")
    put(tmp_path / ".a.lock")
    with pytest.raises(OSError, match=r"\.a\.lock") as caught, awake(), lock(tmp_path):
        pass
    assert caught.value.strerror  # in words
    assert (tmp_path / "other").read_text() == "another's"
    assert sorted(os.listdir(tmp_path)) == [".a.lock", "other"]
