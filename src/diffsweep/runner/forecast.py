"""What a sweep would run and take, as values and as text. `foresee` makes it; nothing of the sweep runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from diffsweep.core.text import counted, duration, labelled, size
from diffsweep.model.memory import HELD, Needs
from diffsweep.runner.cost import Speed

WORKERS = (2, 4, 8, 16)
FEW = 5  # of the settings that come to the same picture are shown
BESIDE = "loading, encoding prompts, metrics and reports come on top; nothing ran, and nothing was written"


@dataclass(frozen=True)
class Asked:
    """What a model is asked for. key: its stage's; name: which one; cells: to sample, its stage's; rows: model rows;
    calls: of `shape` rows each, at the least; prompts: distinct ones; speed: None where it is not known, which `untold`
    explains; needs: None where the model does not state them."""

    key: str
    name: str
    dtype: str
    cells: int
    rows: int
    calls: int
    shape: int
    prompts: int
    speed: Speed | None = None
    untold: str = ""
    needs: Needs | None = None

    @property
    def seconds(self) -> float | None:
        """Of sampling; None where that is not known."""
        if self.speed is None:
            return None if self.rows else 0.0
        return self.speed.seconds * (self.rows if self.speed.per == "row" else self.calls)

    @property
    def call(self) -> float | None:
        """Seconds of a call."""
        if self.speed is None:
            return None
        return self.speed.seconds * (self.shape if self.speed.per == "row" else 1)

    def lines(self) -> Iterator[tuple[str, str]]:
        yield self.key, f"{self.name}, {self.dtype}: {_many('cell', self.cells)}"
        if not self.rows:
            yield "  rows", "none, no cell asks it"
            return
        yield "  rows", f"{self.rows:,} in at least {_many('call', self.calls)} of {counted('row', self.shape)}"
        seconds, speed = self.seconds, self.speed
        if speed is None or seconds is None:
            yield "  time", f"not known: {self.untold}"
        else:
            yield "  time", f"{duration(seconds)}: {duration(speed.seconds)} a {speed.per}, {speed.source}"


@dataclass(frozen=True)
class Together:
    """The models of a cascade, which are in memory together."""

    asked: tuple[Asked, ...]

    @property
    def memory(self) -> Needs | None:
        """What a worker takes, its largest call in the place of one row: of rows, or of a decoder, beyond the weights
        that are away meanwhile; None where a model does not state its own."""
        needs = [(one, one.needs) for one in self.asked if one.needs is not None]
        if len(needs) < len(self.asked):
            return None
        weights = sum(own.weights + own.prompt * min(HELD, one.prompts) for one, own in needs)
        call = max(max(own.row * one.shape, own.decoding - own.weights) for one, own in needs)
        return Needs(max(own.text for _, own in needs), weights, call)

    def lines(self) -> Iterator[tuple[str, str]]:
        for one in self.asked:
            yield from one.lines()
        if (needs := self.memory) is None:
            yield "  memory", "not stated by the model"
            return
        text = f"; before them its text encoder, {size(needs.text)}" if needs.text else ""
        parts = f"weights {size(needs.weights)}, a call {size(needs.row)}{text}"
        yield "  memory", f"{size(max(needs.text, needs.weights + needs.row))} a worker, beside its libraries: {parts}"


@dataclass(frozen=True, repr=False)
class Forecast:
    """cells: as many as were asked for; pictures: as many as these come to; stored, missing: pictures that are there,
    and that would be sampled; bases: those that would be sampled because others enlarge them; aliases: settings that
    come to one picture, and how many such pictures there are; chain: of the cell that takes longest, the calls, one
    after another, and their seconds."""

    name: str
    cells: int
    pictures: int
    stored: int
    missing: int
    bases: int = 0
    aliases: Mapping[str, int] = field(default_factory=dict)
    device: str | None = None
    models: tuple[Together, ...] = ()
    chain: tuple[int, float | None] = (0, 0.0)

    @property
    def rows(self) -> int:
        return sum(one.rows for model in self.models for one in model.asked)

    @property
    def calls(self) -> int:
        return sum(one.calls for model in self.models for one in model.asked)

    @property
    def seconds(self) -> float | None:
        """Of sampling, by one worker; None where that is not known."""
        found = [one.seconds for model in self.models for one in model.asked]
        known = [seconds for seconds in found if seconds is not None]
        return sum(known) if len(known) == len(found) else None

    def on(self, workers: int) -> float | None:
        """Seconds of sampling by so many workers, each on a device of its own: no cell is shared."""
        seconds, (_, chain) = self.seconds, self.chain
        return None if seconds is None or chain is None else max(seconds / workers, chain)

    def lines(self) -> Iterator[tuple[str, str]]:
        """Labels and what they are of."""
        also = f", and {self.bases:,} whose pictures they enlarge" if self.bases else ""
        come = f" come to {_many('picture', self.pictures)}" if self.pictures < self.cells else ""
        cells = f"{_many('cell', self.cells)}{come}: {self.stored:,} stored, {self.missing:,} to sample"
        yield "plan", f"{self.name}, {cells}{also}"
        for place, (text, n) in enumerate([*self.aliases.items()][:FEW]):
            yield "" if place else "same", f"{text}: one picture" + (f", {n} times" if n > 1 else "")
        if (more := len(self.aliases) - FEW) > 0:
            yield "", f"and {more} more"
        for model in self.models:
            yield from model.lines()
        if not self.missing:
            yield "left", "nothing to sample"
            return
        seconds = self.seconds
        told = "not known how long it samples" if seconds is None else f"{duration(seconds)} of sampling"
        yield "in all", f"{told} on {self.device}"
        if seconds and (told := ", ".join(self._shared_by_workers(seconds))):
            yield "", told
        yield "", BESIDE

    def _shared_by_workers(self, alone: float) -> Iterator[str]:
        """How long it takes several workers, up to as many as can share it."""
        calls, chain = self.chain
        if chain is None or chain >= alone:
            return
        for workers in WORKERS:
            if workers * chain >= alone:
                told = f"the longest cell's {_many('call', calls)}, one after another"
                yield f"{workers} workers or more {duration(chain)}: {told}"
                return
            yield f"{workers} workers {duration(alone / workers)}"

    def __str__(self) -> str:
        return labelled(self.lines())

    __repr__ = __str__


def _many(what: str, number: int) -> str:
    """`1 cell`, `46,875 calls`."""
    return f"{number:,} {what}{'s' * (number != 1)}"
