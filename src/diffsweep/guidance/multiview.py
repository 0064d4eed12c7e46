"""Several guidances, each through its own view, joined into one estimate (Geng et al. 2024, visual anagrams).

    eps = join over k of invert_k(guidance_k(apply_k(x)))

join is the mean for anagrams and the sum for hybrids, whose views split the noise into frequency bands. The variance
is averaged in both, as visual_anagrams does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from itertools import islice
from operator import add
from typing import TYPE_CHECKING

from diffsweep.core.types import Estimate, Guidance, Query, View

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
    def prompts(self) -> tuple[str, ...]:
        return tuple(prompt for _, guidance in self.parts for prompt in guidance.prompts)

    def queries(self, x: Tensor, t: int) -> list[Query]:
        return [query for view, guidance in self.parts for query in guidance.queries(view.apply(x), t)]

    def merge(self, x: Tensor, t: int, answers: list[Estimate]) -> Estimate:
        rest = iter(answers)
        estimates = []
        for view, guidance in self.parts:
            own = list(islice(rest, len(guidance.prompts)))
            estimates.append(view.invert(guidance.merge(view.apply(x), t, own)))
        variances = [e.variance for e in estimates if e.variance is not None]
        return Estimate(self.join([e.noise for e in estimates]), mean(variances) if variances else None)
