"""The one denoising loop: start x guidance x constraint.

x <- start
for each step from level t to s, the last one to the clean end:
    clean <- guidance asks the model about x at t; the answer's clean image, thresholded
    clean <- constraint corrects it
    x     <- scheduler weighs x, clean and noise
    x     <- constraint pins what must not move, at s
Where levels rise (RePaint), x is noised further and nobody is asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from diffsweep.core.streams import MAIN, Streams
from diffsweep.core.threshold import threshold
from diffsweep.core.types import (
    Constraint,
    Estimate,
    Guidance,
    Level,
    Process,
    Program,
    Query,
    Scheduler,
    Stage,
    T,
    Watch,
    Weights,
)

if TYPE_CHECKING:
    from torch import Tensor

RISE = "rise"  # the stream of the noise that carries a level up


def steps(levels: Sequence[Level], process: Process) -> Iterator[tuple[Level, Level]]:
    """The steps (t, s) of a trajectory, the last one to the end."""
    return pairwise((*levels, process.clean)) if levels else iter(())


def rises(t: Level, s: Level) -> bool:
    return s.ratio > t.ratio


def asked(levels: Sequence[Level], scheduler: Scheduler, process: Process) -> list[Level]:
    """The levels at which guidance is asked for an estimate on the way, a level as often as it is."""
    falling = [(t, s) for t, s in steps(levels, process) if not rises(t, s)]
    begun = [(scheduler.raised(t, len(falling), process), s) for t, s in falling]
    return [level for t, s in begun for level in ((t, s) if scheduler.corrected(t, s) is not None else (t,))]


def denoise(
    x: Tensor,
    levels: Sequence[Level],
    guidance: Guidance,
    scheduler: Scheduler,
    stage: Stage,
    streams: Streams,
    constraint: Constraint | None = None,
    watch: Watch | None = None,
) -> Program[Tensor]:
    """Carry `x` (C H W, at levels[0]) down to a clean image. watch: sees every step. A scheduler with a `stepper` has
    steps of its own, which nothing corrects."""
    stage = scheduler.on(stage)
    process = stage.process

    def estimated(x: Tensor, level: Level) -> Program[tuple[Tensor, Estimate]]:
        estimate = yield from guidance.estimate(x, level)
        clean = threshold(estimate.clean(x, level), stage)
        return clean if constraint is None else constraint.clean(clean, x, level), estimate

    stepper: Any = getattr(scheduler, "stepper", None)
    step = stepper(stage, levels, streams) if stepper else None
    assert step is None or constraint is None, "its steps cannot be corrected"
    falls = sum(not rises(t, s) for t, s in steps(levels, process))
    before: tuple[Level, Tensor] | None = None  # of the step that led here
    for t, s in steps(levels, process):
        if step is None and rises(t, s):
            x, before = noised_further(x, t, s, streams.normal(RISE, tuple(x.shape))), None
            continue
        higher = scheduler.raised(t, falls, process)
        if higher != t:
            x, t = noised_further(x, t, higher, streams.normal(MAIN, tuple(x.shape))), higher
        clean, estimate = yield from estimated(x, t)
        if watch is not None:
            watch(t, x, clean)
        if step is not None:
            x = step(x, clean, estimate, t)
            continue
        weights = scheduler.weights(t, s, before[0] if before else None)
        noise = streams.normal(MAIN, tuple(x.shape)) if weights.noise else None
        variance = estimate.variance
        if variance is None and stage.variance is not None:
            variance = x.new_full((), stage.variance)
        x_next = stepped(weights, x, clean, before[1] if before else None, noise, variance)
        if corrected := scheduler.corrected(t, s):
            again, _ = yield from estimated(x_next, s)
            x_next = stepped(corrected, x, clean, again)
        x, before = x_next, (t, clean)
        if constraint is not None:
            x = constraint.noisy(x, s)
    return x


def stepped(
    weights: Weights,
    x: Tensor,
    clean: Tensor,
    other: Tensor | None = None,
    noise: Tensor | None = None,
    variance: Tensor | None = None,
) -> Tensor:
    """The next x (all C H W). variance: as `Estimate.variance`, or one number."""
    x_next = weights.clean * clean + weights.x * x
    if weights.other:
        assert other is not None
        x_next = x_next + weights.other * other
    if noise is None:
        return x_next
    if variance is None or weights.between is None:
        return x_next + weights.noise * noise
    share, (low, high) = (variance + 1) / 2, weights.between  # iDDPM (15)
    return x_next + (0.5 * (share * high + (1 - share) * low)).exp() * noise


def noised_further(x: Tensor, t: Level, s: Level, eps: Tensor) -> Tensor:
    """x at level t (C H W), carried up to s: q(x_s | x_t), a Gaussian."""
    kept = s.alpha / t.alpha
    return kept * x + max(s.sigma**2 - (kept * t.sigma) ** 2, 0.0) ** 0.5 * eps


def together(*programs: Program[T]) -> Program[list[T]]:
    """Several programs side by side: their open questions are asked at once."""
    results: dict[int, T] = {}
    running: dict[int, list[Query]] = {}

    def send(k: int, answers: list[Estimate] | None) -> None:
        try:
            running[k] = next(programs[k]) if answers is None else programs[k].send(answers)
        except StopIteration as stop:
            running.pop(k, None)
            results[k] = stop.value

    for k in range(len(programs)):
        send(k, None)
    while running:
        asking = list(running.items())
        answers = iter((yield [query for _, queries in asking for query in queries]))
        for k, queries in asking:
            send(k, [next(answers) for _ in queries])
    return [results[k] for k in range(len(programs))]
