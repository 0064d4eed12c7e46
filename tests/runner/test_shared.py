"""How workers part a sweep: on values, with many workers in one process, each of which can die at any moment."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diffsweep.core.leases import Leases, done_at
from diffsweep.runner.lots import lots
from diffsweep.runner.shared import WAITING, Shared
from tests.runner.test_lots import Cell, drawn

ROWS = {"model": 8, "upscale": 4}


class Hand:
    """A worker that samples in turns: it takes cells while it holds few, and ends the oldest."""

    def __init__(self, folder: Path, name: str, cells: list[Any], stored: set[str], **more: Any) -> None:
        self.leases = Leases(folder, name=name)
        self.leases.__enter__()
        self.stored, self.made, self.held = stored, [], []  # type: ignore[var-annotated]
        groups = lots(cells, ROWS)
        asked = {cell.id for cell in cells} - stored
        self.shared = Shared(self.leases, groups, asked, lambda cell: cell.id in stored, **more)
        self.fails: Callable[[str], bool] = lambda cell_id: False

    def turn(self) -> None:
        self.shared._next = 0.0
        for number in range(len(self.shared.groups)):
            if len(self.held) < 10 and (cells := self.shared.take(number)):
                self.held += cells
        if not self.held:
            self.shared.look()
            return
        cell = self.held.pop(0)
        lost = cell.base is not None and cell.base.id not in self.stored
        failed = self.fails(cell.id) or lost
        if lost:
            assert cell.base.id in self.shared.reasons()
        if not failed:
            self.stored.add(cell.id)
        self.made.append(cell.id)
        self.shared.end(cell.id, "no luck" if failed else None)

    def dies(self) -> None:
        """As a killed process does: its lease stays, and its beats stop (here: it has left)."""
        self.leases.__exit__()


def works(hands: list[Hand], rng: random.Random, dying: float = 0.0) -> None:
    """Turns of workers in any order until nothing is left; some die."""
    for _ in range(20_000):
        if all(hand.shared.over for hand in hands) and not any(hand.held for hand in hands):
            return
        hand = rng.choice(hands)
        if len(hands) > 1 and rng.random() < dying:
            hands.remove(hand)
            hand.dies()
        else:
            hand.turn()
    raise AssertionError("it does not end")


@pytest.mark.parametrize("seed", range(12))
def test_workers_that_live_sample_every_cell_once(tmp_path: Path, seed: int) -> None:
    rng, cells, stored = random.Random(seed), drawn(seed), set[str]()
    hands = [Hand(tmp_path, f"w{k}", cells, stored) for k in range(rng.randint(1, 4))]
    works(hands, rng)
    assert stored == {cell.id for cell in cells}
    assert Counter(cell for hand in hands for cell in hand.made) == Counter(stored)


@pytest.mark.parametrize("seed", range(12))
def test_what_dead_workers_leave_is_taken_over(tmp_path: Path, seed: int) -> None:
    rng, cells, stored = random.Random(seed), drawn(seed), set[str]()
    hands = [Hand(tmp_path, f"w{k}", cells, stored) for k in range(5)]
    everyone = [*hands]
    works(hands, rng, dying=0.02)
    assert stored == {cell.id for cell in cells}
    made = Counter(cell for hand in everyone for cell in hand.made)
    assert set(made) == stored and max(made.values()) == 1  # a cell that was stored is not sampled again


def test_a_worker_that_comes_later_does_what_is_left(tmp_path: Path) -> None:
    rng, cells, stored = random.Random(0), drawn(0), set[str]()
    first = Hand(tmp_path, "first", cells, stored)
    for _ in range(len(cells) // 2):
        first.turn()
    works([first, Hand(tmp_path, "second", cells, stored)], rng)
    assert stored == {cell.id for cell in cells}


def test_work_is_left_to_the_others(tmp_path: Path) -> None:
    """32 calls and two workers: the first takes what its engine needs, and at the end no more than its part."""
    cells: list[Any] = [Cell(f"c{k}", 5, 8) for k in range(32)]
    hands = [Hand(tmp_path, f"w{k}", cells, set()) for k in range(2)]
    counts = []
    for hand in (hands[0], hands[1], hands[0]):
        hand.shared.look()
        while given := hand.shared.take(0):
            hand.held += given
        counts.append(len(hand.held))
    # each goes on while it holds less than 1 / (2 workers x 2) of the rest: 6 of 26, 4 of 21
    assert counts == [7, 5, 7]


@pytest.mark.parametrize(("retries", "times"), [(0, 1), (1, 2), (2, 3), (9, 3)])
def test_a_cell_that_fails_is_tried_again_elsewhere(tmp_path: Path, retries: int, times: int) -> None:
    """By each other worker once, as often as `retries` says."""
    rng, cells, stored = random.Random(1), drawn(1), set[str]()
    bad = next(cell.id for cell in cells if all(other.base is not cell for other in cells))
    hands = [Hand(tmp_path, f"w{k}", cells, stored, retries=retries) for k in range(3)]
    for hand in hands:
        hand.fails = lambda cell_id: cell_id == bad
    works(hands, rng)
    made = Counter(cell for hand in hands for cell in hand.made)
    assert made[bad] == times and stored == {cell.id for cell in cells} - {bad}
    assert {hand.shared.reasons()[bad] for hand in hands} == {"no luck"}
    assert len({hand.leases.name for hand in hands if bad in hand.made}) == times


def test_a_cell_that_succeeds_elsewhere_is_stored(tmp_path: Path) -> None:
    rng, cells, stored = random.Random(2), drawn(2), set[str]()
    hands = [Hand(tmp_path, f"w{k}", cells, stored, retries=1) for k in range(2)]
    hands[0].fails = lambda cell_id: True
    works([hands[0], hands[1]], rng)
    lonely = {cell.id for cell in cells if cell.base is None}
    assert stored >= lonely


def test_alone_a_worker_does_not_try_again(tmp_path: Path) -> None:
    cells: list[Any] = [Cell("a"), Cell("b")]
    hand = Hand(tmp_path, "w", cells, set(), retries=3)
    hand.fails = lambda cell_id: cell_id == "a"
    works([hand], random.Random(0))
    assert hand.made == ["a", "b"] and hand.stored == {"b"}


def test_cells_that_were_removed_since_their_lot_was_done_are_sampled_again(tmp_path: Path) -> None:
    cells, stored = drawn(4), set[str]()
    works([first := Hand(tmp_path, "first", cells, stored)], random.Random(0))
    before = done_at(tmp_path)
    gone = {cells[0].id, cells[-1].id}
    stored -= gone
    second = Hand(tmp_path, "second", cells, stored, before=before)
    works([second], random.Random(0))
    assert sorted(second.made) == sorted(gone) and stored == {cell.id for cell in cells}
    first.dies()


def test_who_samples_a_picture_can_have_those_that_enlarge_it(tmp_path: Path) -> None:
    """Else its calls would be padded while its bases wait behind lots that wait for them."""
    base = Cell("base", 5, 4)
    cells: list[Any] = [base, *(Cell(f"l{k}", 5, 4, base) for k in range(3))]
    first, second = (Hand(tmp_path, name, cells, set()) for name in ("first", "second"))
    given = [[cell.id for cell in hand.shared.take(0) or ()] for hand in (first, second, first, first)]
    assert given == [["base", "l0"], [], ["l1"], ["l2"]]


def test_others_are_heard_of(tmp_path: Path) -> None:
    cells: list[Any] = [Cell(f"c{k}", 5, 8) for k in range(4)]
    stored: set[str] = set()
    heard: list[tuple[list[str], int]] = []
    watcher = Hand(tmp_path, "watcher", cells, stored, heard=lambda cells, rows: heard.append(([*cells], rows)))
    other = Hand(tmp_path, "other", cells, stored)
    watcher.shared.look()
    other.leases.rows = 40
    other.leases.tell()
    other.turn()
    watcher.shared.look()
    assert [cell for cells, _ in heard for cell in cells] == ["c0"] and sum(rows for _, rows in heard) == 40
    assert watcher.shared.waits_for == "waiting for 1 other worker"
    other.leases.state = WAITING
    other.leases.tell()
    assert watcher.shared.waits_for == "waiting for 0 other workers"


def test_who_was_silent_says_what_others_took_over(tmp_path: Path) -> None:
    cells: list[Any] = [Cell(f"c{k}", 5, 8) for k in range(4)]
    stored: set[str] = set()
    sleeper, other = (Hand(tmp_path, name, cells, stored) for name in ("sleeper", "other"))
    assert [cell.id for cell in sleeper.shared.take(0) or ()] == ["c0"]
    assert sleeper.shared.woken() is None
    sleeper.leases.lost = True
    assert sleeper.shared.woken() is None  # nobody has
    sleeper.leases.leave()
    other.shared.look()
    while other.shared.take(0):
        pass
    sleeper.leases.lost = True
    assert sleeper.shared.woken() == (
        "this worker was silent for longer than engine.grace=60 seconds: others took over 1 lot of its cells; "
        "each cell is stored once"
    )
    assert sleeper.shared.woken() is None
