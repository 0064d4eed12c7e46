"""Several guidances, each through its own view, joined into one estimate (Geng et al. 2024, visual anagrams).

    eps = join over k of invert_k(guidance_k(apply_k(x)))

join is the mean for anagrams and the sum for hybrids, whose views split the noise into frequency bands. The variance
is averaged in both, as visual_anagrams does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import TYPE_CHECKING

from diffsweep.core.loop import together
from diffsweep.core.types import Estimate, Guidance, Level, Program, View

if TYPE_CHECKING:
    from torch import Tensor


def mean(parts: list[Tensor]) -> Tensor:
    return reduce(add, parts) / len(parts)


def total(parts: list[Tensor]) -> Tensor:
    return reduce(add, parts)


@dataclass(frozen=True)
class Multiview:
    parts: tuple[tuple[View, Guidance], ...]
    join: Callable[[list[Tensor]], Tensor] = mean

    @property
    def prompts(self) -> tuple[str | None, ...]:
        return tuple(prompt for _, guidance in self.parts for prompt in guidance.prompts)

    def estimate(self, x: Tensor, level: Level) -> Program[Estimate]:
        seen = yield from together(*(guidance.estimate(view.apply(x), level) for view, guidance in self.parts))
        estimates = [view.invert(estimate) for (view, _), estimate in zip(self.parts, seen, strict=True)]
        variances = [e.variance for e in estimates if e.variance is not None]
        output = self.join([e.output for e in estimates])
        return replace(estimates[0], output=output, variance=mean(variances) if variances else None)
