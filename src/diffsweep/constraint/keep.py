"""Keeping what is known: after each step the known image, at the step's noise level, is joined in by the mask.

each_step: x <- m x + (1 - m) noised(known, s), the known region re-noised afresh at every step (RePaint (8); the
DeepFloyd writeup's inpainting). A soft mask's effect then depends on the number of steps.
change_map: a pixel is held while the remaining share of steps exceeds its m, and free afterwards (Levin and Fried
2023, differential diffusion), so that softness means the same at any number of steps. m = 0 is held to the end.
The known image is noised from its own random stream, or joined clean (`renoise=False`, IF's own inpainting).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from diffsweep.core.streams import Streams
from diffsweep.core.types import CLEAN, Constraint, Stage

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Keep:
    """known: C H W clean image; mask: 1 H W, 1 = regenerate."""

    known: Tensor
    mask: Tensor
    stage: Stage
    streams: Streams
    renoise: bool = True

    def __call__(self, x: Tensor, s: int) -> Tensor:
        return self.mask * x + (1 - self.mask) * self.at(s)

    def at(self, s: int) -> Tensor:
        """The known image at noise level s."""
        if s == CLEAN or not self.renoise:
            return self.known
        return self.stage.schedule.noised(self.known, self.streams.normal("known", tuple(self.known.shape)), s)


@dataclass(frozen=True, eq=False)
class KeepByShare:
    """The change map's rule over `timesteps`: a hard join each step, of a region that shrinks as steps remain."""

    keep: Keep
    timesteps: Sequence[int]

    def __call__(self, x: Tensor, s: int) -> Tensor:
        n = len(self.timesteps)
        # the step just taken is the i-th (from 0) of n; before it a share (n - i) / n of the steps remained
        i = n - 1 if s == CLEAN else self.timesteps.index(s) - 1
        held = self.keep.mask < (n - i) / n
        return self.keep.at(s).where(held, x)


def keep(
    blend: str, known: Tensor, mask: Tensor, timesteps: Sequence[int], stage: Stage, streams: Streams, renoise: bool
) -> Constraint:
    every_step = Keep(known, mask, stage, streams, renoise)
    return KeepByShare(every_step, timesteps) if blend == "change_map" else every_step
