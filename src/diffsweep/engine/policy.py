"""Which rows the next call answers.

Programs start longest first, and the oldest is served first, so that programs end while work goes on. A younger one is
preferred only where the work could not be done in the fewest calls otherwise: a program of n steps needs n calls, and
few long programs at the end would leave rows to pad. `needed` counts that by Hu's bound on chains of unit tasks
(T. C. Hu, "Parallel sequencing and assembly line problems", Operations Research 9, 1961).

A call asks one model, for estimates alone or for vector-Jacobian products too. Where programs of several stages run (a
cascade), the oldest program's stage is asked, or the first whose call is full: no stage waits for another to end, and
rows are padded only when nothing else can be asked. So it is with the lanes of a stage, whose rows share no call.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import accumulate

from diffsweep.engine.values import Asking, Question, Work

WINDOW = 4  # running programs hold open questions for about so many calls: slack to even out the tail


class Backlog:
    """The rows of programs that wait, as planned."""

    def __init__(self) -> None:
        self._ends: dict[str, Counter[int]] = defaultdict(Counter)  # by stage: rows where a chain begins, less its end

    def add(self, work: Work) -> None:
        self._ends[work.stage].update({work.chain: work.rows, work.later: -work.rows})

    def remove(self, work: Work) -> None:
        self._ends[work.stage].subtract({work.chain: work.rows, work.later: -work.rows})

    def above(self, running: Iterable[Asking]) -> dict[str, list[int]]:
        """Of each stage, the rows still to be answered whose chain is longer than 0, 1, 2, ... up to the longest, as
        planned. running: programs that have left the backlog."""
        ends = defaultdict(Counter, {stage: Counter(waiting) for stage, waiting in self._ends.items()})
        for r in running:  # each length from `later` to below its own holds a step's rows, its own the open ones
            own, number = ends[r.stage], len(r.questions)
            own[r.chain] += number
            own[r.chain - 1] += r.rows - number
            own[r.later] -= r.rows
        longest = max(length for own in ends.values() for length, number in own.items() if number)
        above = {}
        for stage, own in ends.items():  # the longest first: rows of this length, then those of this length and above
            at = accumulate(own.get(length, 0) for length in range(longest, 0, -1))
            above[stage] = [*accumulate(at)][::-1]
        return above


def choose(running: Sequence[Asking], backlog: Backlog | None, capacity: Mapping[str, int]) -> list[Question]:
    """The next call's rows, all of one lane of a stage: those that must not wait, half-answered programs, then oldest.

    backlog: None while more programs may come, before which none need be preferred. capacity: rows of a call, by stage.
    """
    lanes: dict[tuple[str, Hashable], dict[Question, int]] = {}  # a question's chain
    for r in sorted(running, key=lambda r: (not r.begun, r.order)):
        for question in r.questions:
            lanes.setdefault((question.stage, question.lane), {})[question] = r.chain
    full = (lane for lane, asked in lanes.items() if len(asked) >= capacity[lane[0]])
    lane = next(full, next(iter(lanes)))
    (stage, _), chains = lane, lanes[lane]
    most = capacity[stage]
    pulls = next(iter(chains)).pulls
    rows = [question for question in chains if question.pulls == pulls]
    if len(rows) <= most or backlog is None:
        return rows[:most]
    above = backlog.above(running)
    if stage not in above:
        return rows[:most]
    chosen: set[Question] = set()
    for length, number in reversed([*enumerate(needed(above, capacity, stage))]):
        if number > len(chosen):
            pressing = [row for row in rows if chains[row] > length and row not in chosen]
            chosen |= {*pressing[: number - len(chosen)]}
    others = [row for row in rows if row not in chosen][: most - len(chosen)]
    chosen |= {*others}
    return [row for row in rows if row in chosen]


def needed(above: Mapping[str, Sequence[int]], capacity: Mapping[str, int], stage: str) -> list[int]:
    """How many rows whose chain is longer than 0, 1, 2, ... the next call of a stage must answer, so that all can still
    end in the fewest calls. above: `Backlog.above`; capacity: rows of a call, by stage."""

    def calls(stage: str, length: int) -> int:
        return -(-above[stage][length] // capacity[stage])

    # A row of a chain longer than `length` has `length` calls or more after its own. So of F calls the first F - length
    # answer all such rows, of every stage: F >= length + the sum over stages of ceil(above[stage][length] / capacity).
    # Hu: the greatest of these bounds is reached. After the next call F - 1 - length are left for these rows, less
    # those of other stages, and each answers `most` rows.
    own, most, others = above[stage], capacity[stage], above.keys() - {stage}
    beside = [sum(calls(other, length) for other in others) for length in range(len(own))]
    fewest = max(length + calls(stage, length) + beside[length] for length in range(len(own)))
    return [own[length] - most * (fewest - 1 - length - beside[length]) for length in range(len(own))]
