"""What is done beside the sampling: nothing twice, nothing out of order, and an end that does not wait for the rest."""

from __future__ import annotations

from threading import Event, get_ident
from time import monotonic, sleep

import pytest

from diffsweep.runner import following
from diffsweep.runner.following import Following


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "WAIT", 0.05)


def waited(event: Event) -> bool:
    return event.wait(10)


def test_all_that_came_meanwhile_is_taken_together_in_order_and_elsewhere() -> None:
    taken: list[list[str]] = []
    threads: set[int] = set()
    begun, go_on, done = Event(), Event(), Event()

    def each(cell_ids: list[str]) -> None:
        taken.append(cell_ids)
        threads.add(get_ident())
        if cell_ids == ["a"]:
            begun.set()
            assert waited(go_on)
        if "d" in cell_ids:
            done.set()

    with Following(each) as cells:
        cells.begin()
        cells.begin()  # once is enough
        cells.add("a")
        assert waited(begun)
        for cell_id in "bcd":
            cells.add(cell_id)
        go_on.set()
        assert waited(done)
    assert taken == [[], ["a"], ["b", "c", "d"]]
    assert len(threads) == 1 and get_ident() not in threads


def test_the_end_waits_for_what_goes_on_and_leaves_the_rest() -> None:
    taken: list[str] = []
    begun, go_on = Event(), Event()

    def each(cell_ids: list[str]) -> None:
        if cell_ids:
            begun.set()
            assert waited(go_on)
            sleep(0.05)
        taken.extend(cell_ids)

    with Following(each) as cells:
        cells.begin()
        cells.add("a")
        assert waited(begun)
        cells.add("b")
        go_on.set()
    assert taken == ["a"]


def test_no_more_than_so_many_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "MOST", 2)
    taken: list[list[str]] = []
    done = Event()

    def each(cell_ids: list[str]) -> None:
        taken.append(cell_ids)
        if "e" in cell_ids:
            done.set()

    with Following(each) as cells:
        for cell_id in "abcde":
            cells.add(cell_id)
        cells.begin()
        assert waited(done)
    assert taken == [[], ["a", "b"], ["c", "d"], ["e"]]


def test_an_error_ends_it_alone() -> None:
    taken: list[list[str]] = []

    def each(cell_ids: list[str]) -> None:
        taken.append(cell_ids)
        raise OSError("no space left")

    with Following(each) as cells:
        cells.begin()
        cells.add("a")
        sleep(0.1)
        cells.begin()  # not again
    assert taken == [[]]


def test_few_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "WAIT", 60.0)
    monkeypatch.setattr(following, "MOST", 2)
    taken: list[list[str]] = []
    done = Event()

    def each(cell_ids: list[str]) -> None:
        taken.append(cell_ids)
        if cell_ids:
            done.set()

    with Following(each) as cells:
        cells.begin()
        cells.add("a")
        sleep(0.1)
        cells.add("b")
        assert waited(done)
    assert taken == [[], ["a", "b"]]


def test_but_not_for_ever() -> None:
    done = Event()
    with Following(lambda cell_ids: done.set() if cell_ids == ["a"] else None) as cells:
        cells.begin()
        cells.add("a")
        assert waited(done)


def test_the_end_does_not_wait_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "WAIT", 60.0)
    taken: list[list[str]] = []
    at = monotonic()
    with Following(taken.append) as cells:
        cells.begin()
        cells.add("a")
        sleep(0.1)
    assert monotonic() - at < 30 and taken == [[]]


def test_what_never_began_ends_at_once() -> None:
    with Following(lambda cell_ids: pytest.fail("called")) as cells:
        cells.add("a")


def test_an_interrupt_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "PATIENCE", 0.1)
    begun, over = Event(), Event()

    def each(cell_ids: list[str]) -> None:
        begun.set()
        waited(over)

    cells, at = Following(each), monotonic()
    with cells:
        cells.begin()
        assert waited(begun)
        cells.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
        over.set()
    assert monotonic() - at < 5
