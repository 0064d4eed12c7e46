"""Keeping what is known: after each step the known image, at the step's noise level, is joined in by the mask.

each_step: x <- m x + (1 - m) noised(known, s), the known region re-noised afresh at every step (RePaint (8); the
DeepFloyd writeup's inpainting). A soft mask's effect then depends on the number of steps.
change_map: a pixel is held while the remaining share of steps exceeds its m, and free afterwards (Levin and Fried
2023, differential diffusion), so that softness means the same at any number of steps. m = 0 is held to the end.
The known image is noised from its own random stream, or by one noise all along (`held`, as the inpainting of Stable
Diffusion's pipelines), or joined clean (`renoise=False`, IF's own inpainting).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from diffsweep.core.streams import Streams
from diffsweep.core.types import Constraint, Level

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Keep:
    """known: C H W clean image; mask: 1 H W, 1 = regenerate; held: C H W, the known region's noise if it is one."""

    known: Tensor
    mask: Tensor
    streams: Streams
    renoise: bool = True
    held: Tensor | None = None

    def clean(self, clean: Tensor, x: Tensor, level: Level) -> Tensor:
        return clean

    def noisy(self, x: Tensor, level: Level) -> Tensor:
        return self.mask * x + (1 - self.mask) * self.at(level)

    def at(self, level: Level) -> Tensor:
        """The known image at this level."""
        if level.is_end or not self.renoise:
            return self.known
        fresh = self.streams.normal("known", tuple(self.known.shape)) if self.held is None else self.held
        return level.noised(self.known, fresh)


@dataclass(frozen=True, eq=False)
class KeepByShare:
    """The change map's rule: a hard join each step, of a region that shrinks as steps remain. levels: visited, each of
    them once or more often."""

    keep: Keep
    levels: Sequence[Level]

    def clean(self, clean: Tensor, x: Tensor, level: Level) -> Tensor:
        return clean

    def noisy(self, x: Tensor, level: Level) -> Tensor:
        # the step that led here began with this share of all levels still to come
        ratios = {t.ratio for t in self.levels}
        remained = 1 if level.is_end else sum(ratio <= level.ratio for ratio in ratios) + 1
        held = self.keep.mask < remained / len(ratios)
        return self.keep.at(level).where(held, x)


def keep(
    blend: str,
    known: Tensor,
    mask: Tensor,
    levels: Sequence[Level],
    streams: Streams,
    renoise: bool,
    held: Tensor | None = None,
) -> Constraint:
    every_step = Keep(known, mask, streams, renoise, held)
    return KeepByShare(every_step, levels) if blend == "change_map" else every_step
