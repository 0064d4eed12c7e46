"""Writers of one cell that are killed at any file operation, or that take turns in any order."""

from __future__ import annotations

import errno
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Condition, Thread
from typing import Any

import numpy as np
import pytest

from diffsweep.core import files, locks
from diffsweep.store import cells as module
from diffsweep.store.cells import Store

CELL = "0123456789abcdef0123"
IMAGE = np.random.default_rng(0).integers(0, 256, (8, 6, 3), np.uint8)


def steps(*numbers: int) -> dict[str, np.ndarray]:
    return {f"step_{n:04}_clean": np.full((2, 2, 3), n, np.uint8) for n in numbers}


# -- killed ------------------------------------------------------------------------------------------------------------
class Killed(BaseException):
    pass


class Killing:
    """From its n-th change to files on, a process that does nothing any more: as if it were killed there."""

    EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.utime", "os.truncate")

    def __init__(self) -> None:
        self.left: int | None = None
        sys.addaudithook(self.heard)

    def heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.left is None or event not in self.EVENTS or "cells" not in str(arguments[0]):
            return
        if self.left == 0:
            raise Killed
        self.left -= 1

    def at(self, number: int, act: Callable[[], None]) -> bool:
        """Act, and be killed before the operation of this number; whether it came so far."""
        self.left = number
        try:
            act()
        except Killed:
            return True
        finally:
            self.left = None
        return False


@pytest.fixture(scope="module")
def killing() -> Killing:
    return Killing()


@pytest.fixture
def dead() -> int:
    """The pid of a process that is no more."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def whole(store: Store) -> bool:
    """Whether the cell is there, every file as its record has it."""
    return CELL in store and store.finished(CELL) is not None and store.verify(CELL) == []


def listed(store: Store) -> set[str]:
    return {path.relative_to(store.root).as_posix() for path in store.root.rglob("*")}


def killed_everywhere(
    tmp_path: Path,
    killing: Killing,
    dead: int,
    patch: pytest.MonkeyPatch,
    prepare: Callable[[Store], None],
    act: Callable[[Store], None],
) -> Iterator[tuple[Store, Store]]:
    """A store after a kill at each file operation of an act, and the one that no kill disturbed."""
    undisturbed = Store(tmp_path / "undisturbed")
    prepare(undisturbed)
    act(undisturbed)
    for number in itertools.count():
        store = Store(tmp_path / str(number))
        prepare(store)
        with patch.context() as own:
            own.setattr(os, "getpid", lambda: dead)
            came = killing.at(number, lambda store=store: act(store))  # type: ignore[misc]
        if not came:
            assert number > 5
            return
        yield store, undisturbed


def test_a_kill_while_pictures_are_added_leaves_the_record_before_or_after(
    tmp_path: Path, killing: Killing, dead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepare(store: Store) -> None:
        store.save(CELL, {"image": IMAGE, **steps(0, 4, 8)}, {"facts": {"trajectory": {"asked": 3, "t": [9, 5, 1]}}})

    def act(store: Store) -> None:
        store.add(CELL, steps(0, 8), "step_", {"trajectory": {"asked": 2, "t": [9, 1]}})

    def more(store: Store) -> None:
        store.add(CELL, steps(0, 2, 6, 8), "step_", {"trajectory": {"asked": 4, "t": [9, 7, 3, 1]}})

    for name, change in {"fewer": act, "more": more}.items():
        found = set()
        for store, undisturbed in killed_everywhere(tmp_path / name, killing, dead, monkeypatch, prepare, change):
            assert whole(store)
            trajectory = store.record(CELL)["facts"]["trajectory"]
            found.add((trajectory["asked"], len(module.steps(store.record(CELL)))))
            change(store)  # the next run
            assert whole(store) and listed(store) == listed(undisturbed)
            assert store.record(CELL)["files"] == undisturbed.record(CELL)["files"]
        assert found == {(3, 3), {"fewer": (2, 2), "more": (4, 4)}[name]}


def test_a_kill_while_a_cell_is_saved_leaves_it_or_nothing(
    tmp_path: Path, killing: Killing, dead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def act(store: Store) -> None:
        store.save(CELL, {"image": IMAGE}, {})

    found = set()
    for store, undisturbed in killed_everywhere(tmp_path, killing, dead, monkeypatch, lambda store: None, act):
        found.add(whole(store))
        assert whole(store) or not store.folder(CELL).exists()
        act(store)
        store.tidy([CELL])
        assert whole(store) and listed(store) == listed(undisturbed)
    assert found == {True, False}


def test_a_kill_while_a_damaged_cell_is_mended_leaves_no_other_damage(
    tmp_path: Path, killing: Killing, dead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepare(store: Store) -> None:
        store.save(CELL, {"image": IMAGE}, {"nfe": 1})
        (store.folder(CELL) / "image.png").write_bytes(b"half of a pict")

    def act(store: Store) -> None:
        store.save(CELL, {"image": IMAGE}, {"nfe": 2})

    found = set()
    for store, undisturbed in killed_everywhere(tmp_path, killing, dead, monkeypatch, prepare, act):
        found.add(whole(store))
        assert not whole(store) or store.record(CELL)["nfe"] == 2
        act(store)
        store.tidy([CELL])
        assert whole(store) and store.record(CELL)["nfe"] == 2 and listed(store) == listed(undisturbed)
    assert found == {True, False}


# -- taking turns ------------------------------------------------------------------------------------------------------
class Turns:
    """Threads of which one goes on at a time: before each of its steps a thread waits for the schedule to name it.

    Where the schedule is at its end, they take turns.
    """

    def __init__(self, schedule: tuple[int, ...], look: Callable[[], None]) -> None:
        self.schedule, self.look = list(schedule), look
        self.ready = Condition()
        self.running = {0, 1}
        self.names: dict[int, int] = {}
        self.errors: list[BaseException] = []
        self.last = 1

    def next(self) -> int:
        if self.schedule and self.schedule[0] in self.running:
            return self.schedule[0]
        return 1 - self.last if 1 - self.last in self.running else self.last

    def step(self) -> None:
        from threading import get_ident

        me = self.names.get(get_ident())
        if me is None:
            return
        with self.ready:
            assert self.ready.wait_for(lambda: self.next() == me, timeout=60)
            self.look()
            self.last = me
            del self.schedule[:1]
            self.ready.notify_all()

    def run(self, act: Callable[[int], None]) -> None:
        from threading import get_ident

        def own(number: int) -> None:
            with self.ready:
                self.names[get_ident()] = number
                self.ready.notify_all()
                self.ready.wait_for(lambda: len(self.names) == 2)
            try:
                act(number)
            except BaseException as error:
                self.errors.append(error)
            with self.ready:
                self.running.discard(number)
                self.ready.notify_all()

        threads = [Thread(target=own, args=(number,)) for number in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.look()


@pytest.mark.parametrize("begins", ["damaged", "absent"])
def test_in_whatever_order_two_processes_mend_a_cell_a_good_one_stays(
    begins: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All orders of the first eight steps of the two, a step being a look at the cell, a try for its lock, or a move:
    once the cell is whole, it is so at every later moment, and it stays the same one."""
    turns: list[Turns] = []

    def stepping(act: Callable[..., Any]) -> Callable[..., Any]:
        def stepped(*arguments: Any, **more: Any) -> Any:
            turns[-1].step()
            return act(*arguments, **more)

        return stepped

    looked = Store.checked
    monkeypatch.setattr(module.os, "rename", stepping(os.rename))
    monkeypatch.setattr(locks, "_taken", stepping(locks._taken))
    monkeypatch.setattr(locks, "PAUSE", 0)
    monkeypatch.setattr(Store, "checked", stepping(Store.checked))
    monkeypatch.setattr(files.os, "fsync", lambda number: None)
    seen = set()
    for number, schedule in enumerate(itertools.product((0, 1), repeat=8)):
        store = Store(tmp_path / str(number))
        place = store.folder(CELL)
        if begins == "damaged":
            turns.append(Turns((), lambda: None))
            store.save(CELL, {"image": IMAGE}, {"nfe": 9})
            (place / "image.png").write_bytes(b"half of a pict")
        good: list[int] = []

        def look(store: Store = store, good: list[int] = good) -> None:
            try:
                good.append(looked(store, CELL)["nfe"])
            except OSError:
                assert not good, "a good cell is gone"

        turns.append(Turns(schedule, look))
        turns[-1].run(lambda number, store=store: store.save(CELL, {"image": IMAGE}, {"nfe": number}))  # type: ignore[misc]
        assert turns[-1].errors == []
        assert good and len(set(good)) == 1 and store.verify(CELL) == []
        assert os.listdir(place.parent) == [CELL]
        seen.add(good[0])
    assert seen == {0, 1}


def test_a_full_disk_while_mending_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)

    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        store.save(CELL, {"image": IMAGE}, {})
    assert CELL not in store and not [path for path in tmp_path.rglob("*") if path.is_file()]
