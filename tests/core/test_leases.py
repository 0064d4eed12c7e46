"""Leases: one holder a generation, and none that lives is robbed. Processes are real, the network is not."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from diffsweep.core import leases
from diffsweep.core.leases import Gone, Leases, clear, create, done_at, leave_all
from tests.waiting import awake

RACE = """
import sys, time
from pathlib import Path
from typing import Any
from diffsweep.core.leases import Leases
folder, name, start = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
with Leases(folder, name=name) as mine:
    time.sleep(max(0, start - time.time()))
    print(*[key for key in map(str, range(200)) if mine.take(key)])
"""
HOLDS = """
import sys, time
from pathlib import Path
from typing import Any
from diffsweep.core.leases import Leases
with Leases(Path(sys.argv[1]), grace=float(sys.argv[2]), name="other") as mine:
    assert mine.take("a")
    print("holds", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """A process that holds `a`, and beats 12 times in so many seconds."""
    started = []

    def start(grace: float = 60) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", HOLDS, str(tmp_path), str(grace)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None and process.stdout.readline() == "holds\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_of_workers_that_race_each_key_has_one_holder(tmp_path: Path) -> None:
    command = [sys.executable, "-c", RACE, str(tmp_path)]
    start = str(time.time() + 1.5)
    racers = [subprocess.Popen([*command, f"w{k}", start], stdout=subprocess.PIPE, text=True) for k in range(4)]
    taken = [racer.communicate()[0].split() for racer in racers]
    assert sorted(chain(*taken)) == sorted(map(str, range(200)))
    for k, keys in enumerate(taken):
        assert all((tmp_path / f"claims/{key}.0").read_text() == f"w{k}" for key in keys)
    assert [name for name in os.listdir(tmp_path / "claims") if name.startswith(".")] == []


def test_a_created_file_is_whole_and_made_once(tmp_path: Path) -> None:
    assert create(tmp_path / "a", "mine") and not create(tmp_path / "a", "yours")
    assert (tmp_path / "a").read_text() == "mine" and os.listdir(tmp_path) == ["a"]


def test_an_answer_that_the_network_lost_is_still_a_claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As NFS does it: the link is made, its answer is lost, and the second try finds it there."""
    link = os.link

    def twice(source: Path, target: Path) -> None:
        link(source, target)
        link(source, target)

    monkeypatch.setattr(os, "link", twice)
    assert create(tmp_path / "a", "mine")


def test_a_lease_is_free_once_its_holder_has_left(tmp_path: Path) -> None:
    with Leases(tmp_path, name="b") as mine:
        with Leases(tmp_path, name="a") as other:
            assert other.take("key") and not mine.take("key")
            assert not mine.take("key", 0)
        assert mine.take("key", 0)
        assert mine.claims() == {"key": 1} and mine.holder("key", 1) == "b"
        assert mine.take("key", 1)  # its own
        assert other.superseded() == ["key"] and mine.superseded() == []


def test_a_killed_process_of_this_machine_is_seen_to_be_dead(tmp_path: Path, other: Callable[..., Any]) -> None:
    with Leases(tmp_path) as mine:
        process = other()
        assert not mine.take("a", 0)
        process.kill()
        process.wait()
        assert mine.take("a", 0)


def test_a_process_number_that_another_process_has_by_now_is_not_the_worker(tmp_path: Path) -> None:
    with Leases(tmp_path) as mine:
        told = {**leases.myself(), "beats": 1, "state": "sampling", "rows": 0, "cells": 0}
        for name, born, alive in (("same", told["born"], True), ("older", "1", False)):
            (tmp_path / f"workers/{name}.json").write_text(json.dumps({**told, "born": born}))
            assert mine.alive(name) == alive


@pytest.mark.parametrize("told", [{"machine": "another"}, {"machine": None}, {"born": None}])
def test_elsewhere_a_worker_is_dead_when_its_beats_stand_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: dict[str, str | None]
) -> None:
    """By the observer's clock: what the other's clock says, and the file's time, count for nothing."""
    now = [1000.0]
    with Leases(tmp_path, grace=60) as mine:
        monkeypatch.setattr(leases.time, "monotonic", lambda: now[0])
        file = tmp_path / "workers/far.json"

        def beats(number: int, rows: int = 0, state: str = "sampling") -> None:
            own = {"beats": number, "state": state, "rows": rows, "cells": 0, "pid": 1, "born": "1"}
            file.write_text(json.dumps({**own, **told}))
            os.utime(file, (0, 0))  # ten minutes or fifty years ago

        beats(1)
        assert mine.alive("far")  # seen for the first time
        for second in range(0, 59, 10):
            now[0] = 1000.0 + second
            assert mine.alive("far")
        beats(2)
        now[0] = 1059.0
        assert mine.alive("far")  # it has moved
        now[0] = 1059.0 + 59
        assert mine.alive("far")
        now[0] = 1059.0 + 60
        assert not mine.alive("far")
        beats(3, state="left")
        assert not mine.alive("far")


def test_a_worker_that_beats_and_does_not_come_on_is_stuck(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    with Leases(tmp_path, grace=60) as mine:
        monkeypatch.setattr(leases.time, "monotonic", lambda: now[0])

        def alive(minute: int, rows: int, state: str = "sampling") -> bool:
            now[0] = 60.0 * minute
            own = {"beats": minute, "state": state, "rows": rows, "cells": 0}
            (tmp_path / "workers/far.json").write_text(json.dumps(own))
            return mine.alive("far")

        assert all(alive(minute, rows=minute // 10) for minute in range(40))  # a call of ten minutes is no reason
        assert all(alive(minute, rows=4) for minute in range(40, 55)) and not alive(55, rows=4)
        assert all(alive(minute, rows=4, state="starting") for minute in range(60, 90))  # a large model loads


@pytest.mark.slow
def test_a_stopped_worker_is_taken_over_from_and_learns_of_it(tmp_path: Path, other: Callable[..., Any]) -> None:
    with Leases(tmp_path, grace=1.2) as mine:
        process = other(grace=1.2)
        end = time.monotonic() + 3
        while time.monotonic() < end:
            assert not mine.take("a", 0)  # it lives
            time.sleep(0.05)
        process.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        while not mine.take("a", 0):
            assert time.monotonic() - began < 10
            time.sleep(0.05)
        assert time.monotonic() - began > 1
        process.send_signal(signal.SIGCONT)
        assert mine.claims() == {"a": 1} and mine.take("a", 1)


def test_what_one_does_the_others_wait_for(tmp_path: Path) -> None:
    done: list[str] = []
    with Leases(tmp_path, name="a") as first, Leases(tmp_path, name="b") as second:
        assert first.once("key", lambda: done.append("first"))
        assert not second.once("key", lambda: done.append("second"))
        assert first.settled() == {"key"} == {*done_at(tmp_path)} and done == ["first"]

        def fails() -> None:
            raise ValueError("no")

        with pytest.raises(ValueError, match="no"):
            first.once("other", fails)
        first.leave()
        assert second.once("other", lambda: done.append("third")) and done == ["first", "third"]


def test_work_that_was_cleared_away_is_gone(tmp_path: Path) -> None:
    folder = tmp_path / "work/it"
    with Leases(folder) as mine:
        clear(folder)
        assert not (tmp_path / "work").exists() and done_at(folder) == frozenset()
        for act in (mine.tell, mine.claims, mine.settled, mine.workers, lambda: mine.take("a"), lambda: mine.text("a")):
            with pytest.raises(Gone):
                act()
        mine.leave()  # nobody is there to hear of it
    assert not folder.exists()


def test_a_process_that_ends_gives_all_its_leases_back(tmp_path: Path) -> None:
    with Leases(tmp_path, name="a"), Leases(tmp_path, name="b") as mine:
        leave_all()
        assert {worker.state for worker in mine.workers().values()} == {"left"}


def test_a_name_stands_for_one_worker(tmp_path: Path) -> None:
    assert len({Leases(tmp_path).name for _ in range(100)}) == 100


def test_who_is_asked_to_beat_seldom_is_not_robbed_by_who_waits_less(
    tmp_path: Path, other: Callable[..., subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beats 5 seconds apart, and an observer with a grace of 1: by its own clock, 59 seconds are not silence."""
    other(grace=60)
    moments = iter((0.0, 2.0, 59.0, 61.0))
    with Leases(tmp_path, grace=1) as mine:
        now = 0.0
        monkeypatch.setattr(leases.time, "monotonic", lambda: now)
        looks = []
        for now in moments:  # noqa: B007, read by the clock
            looks.append(mine.take("a", 0))
            told = json.loads((tmp_path / "workers/other.json").read_text())
            told["beats"] = 1
            (tmp_path / "workers/other.json").write_text(json.dumps(told))
    assert looks == [False, False, False, True]


def test_work_that_nobody_is_at_is_tidied_up(
    tmp_path: Path, other: Callable[..., subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "work"
    for name in ("killed", "left", "waits", "waits-long", "elsewhere", "lives"):
        with Leases(place / name, name="w"):
            pass
    lives = Leases(place / "lives", name="lives")
    with lives:
        for name in ("killed", "elsewhere"):  # of a process that is no more, or of another machine
            told = json.loads((place / name / "workers/w.json").read_text())
            told |= {"state": "sampling", "born": "0"} if name == "killed" else {"state": "sampling", "machine": "m"}
            (place / name / "workers/w.json").write_text(json.dumps(told))
        for name in ("waits", "waits-long"):
            (place / name / "plan.json").touch()
        for path in (place / "waits-long", *(place / "waits-long").iterdir()):
            os.utime(path, (0, 0))
        leases.tidy(place)
        assert {path.name for path in place.iterdir()} == {"waits", "elsewhere", "lives"}
    clear(place / "waits")
    clear(place / "elsewhere")
    leases.tidy(place)
    assert not place.exists()


def test_who_moves_is_seen(tmp_path: Path, other: Callable[..., subprocess.Popen[str]]) -> None:
    process = other(grace=2)
    assert leases.moving(tmp_path, grace=60)
    process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    assert not leases.moving(tmp_path, grace=1) and time.monotonic() - began > 1.9
    process.kill()
    process.wait()
    assert not leases.moving(tmp_path, grace=60)


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP])
def test_a_disk_without_links_has_leases_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def link(source: Path, target: Path) -> None:
        raise OSError(number, "no links here")

    monkeypatch.setattr(leases.os, "link", link)
    with Leases(tmp_path, name="a") as a, Leases(tmp_path, name="b") as b:
        assert a.take("x") and not b.take("x") and not b.take("x", 0)
        assert a.settle("x", "text") and not b.settle("x", "other") and b.text("x") == "text"
    assert not [*tmp_path.glob("*/.*")]


def test_a_disk_that_is_full_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with Leases(tmp_path) as mine:
        monkeypatch.setattr(leases.os, "link", link)
        with pytest.raises(OSError, match="No space left"):
            mine.take("x")


def test_who_was_taken_over_from_holds_no_lease(tmp_path: Path) -> None:
    with Leases(tmp_path, name="a") as a, Leases(tmp_path, name="b") as b:
        assert a.take("x") and a.holds("x") and not b.holds("x")
        a.leave()
        assert b.take("x", 0) and b.holds("x") and not a.holds("x")
        clear(tmp_path)
        assert not b.holds("x")


def test_a_pipe_in_the_place_of_a_lease_or_a_worker_is_not_waited_for(tmp_path: Path) -> None:
    with awake(), Leases(tmp_path, name="mine") as mine:
        os.mkfifo(tmp_path / "workers/other.json")
        os.mkfifo(tmp_path / "claims/a.0")
        assert list(mine.workers()) == ["mine"] and mine.holder("a", 0) is None
        assert mine.take("b")
