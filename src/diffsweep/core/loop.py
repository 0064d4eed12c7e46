"""The one denoising loop: start x guidance x constraint.

x <- start
for t, s in the visited timesteps (s = CLEAN at the end):
    estimate <- guidance asks the model about x at t
    x        <- scheduler steps from t to s
    x        <- constraint pins what must not move
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from diffsweep.core.streams import MAIN, Streams
from diffsweep.core.types import CLEAN, Constraint, Guidance, Program, Scheduler, Stage

if TYPE_CHECKING:
    from torch import Tensor


def steps(timesteps: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The steps (t, s) of a trajectory, the last one to CLEAN."""
    return pairwise((*timesteps, CLEAN))


def denoise(
    x: Tensor,
    timesteps: Sequence[int],
    guidance: Guidance,
    scheduler: Scheduler,
    stage: Stage,
    streams: Streams,
    constraint: Constraint | None = None,
    watch: Callable[[int, Tensor, Tensor], None] | None = None,
) -> Program[Tensor]:
    """Carry `x` (C H W, at noise level timesteps[0]) down to a clean image. Timesteps may rise again (RePaint). watch:
    is told t, x and the clean image that the estimate implies (unclipped), at every step."""
    memory: object = None
    for t, s in steps(timesteps):
        estimate = guidance.merge(x, t, (yield guidance.queries(x, t)))
        if watch is not None:
            watch(t, x, stage.schedule.clean(x, estimate.noise, t))
        noise = streams.normal(MAIN, tuple(x.shape)) if scheduler.draws(s) else None
        x, memory = scheduler.step(x, estimate, t, s, noise, memory, stage)
        if s > t:
            memory = None
        if constraint is not None:
            x = constraint(x, s)
    return x
