"""How a model's training noised its pictures: by a table (DDPM and its kin) or by a formula (flow matching).

Plain numbers, no tensors, so that planning a sweep needs no torch. CLEAN (-1) is the noiseless end.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from itertools import accumulate
from operator import mul

from diffsweep.core.problems import require, within
from diffsweep.core.types import CLEAN, Level


@dataclass(frozen=True)
class Table:
    """q(x_t | x_0) = N(sqrt(a_t) x_0, (1 - a_t) I), DDPM (4), with a_t written alpha_bar in DDPM.

    alphas_cumprod: a_t for t = 0 .. T - 1, falling. end: a at CLEAN, below 1 where a checkpoint's own sampler leaves a
    little noise (diffusers' `set_alpha_to_one: false`). named: the schedule's name, its first beta and its last, if it
    is one that diffusers names.
    """

    alphas_cumprod: tuple[float, ...]
    end: float = 1.0
    named: tuple[str, float, float] | None = field(default=None, compare=False)

    @property
    def T(self) -> int:
        return len(self.alphas_cumprod)

    @property
    def clean(self) -> Level:
        return Level(CLEAN, math.sqrt(self.end), math.sqrt(1 - self.end))

    def level(self, t: float) -> Level:
        whole = int(t)
        require(
            f"t={t:g}: must be a whole number for this model" if t != whole else None,
            within("t", whole, 0, self.T - 1),
        )
        a = self.alphas_cumprod[whole]
        return Level(whole, math.sqrt(a), math.sqrt(1 - a))

    def at(self, place: float, first: int = 0) -> Level:
        return self.level(round(place) - first)

    @cached_property
    def ratios(self) -> tuple[float, ...]:
        return tuple(math.sqrt((1 - a) / a) if a else math.inf for a in self.alphas_cumprod)

    def nearest(self, ratio: float) -> Level:
        after = min(bisect_left(self.ratios, ratio), self.T - 1)
        before = max(after - 1, 0)
        return self.level(min((after, before), key=lambda t: abs(math.log(self.ratios[t] / ratio))))


@dataclass(frozen=True)
class StepsShift:
    """FLUX.2's shift, exp(mu), with mu linear in the tokens of a picture and, up to 4300 of these, in the steps
    (`compute_empirical_mu` of its pipelines in diffusers)."""

    tokens: int

    def of(self, n: int) -> float:
        most, least = 0.00016927 * self.tokens + 0.45666666, 8.73809524e-05 * self.tokens + 1.89833333  # at 200, at 10
        if self.tokens > 4300:
            return math.exp(most)
        slope = (most - least) / 190
        return math.exp(slope * n + most - 200 * slope)


def tokens_shift(tokens: int, base: float, highest: float, fewest: int, most: int) -> float:
    """FLUX.1's shift, exp(mu), with mu linear in the tokens of a picture: `base` at `fewest`, `highest` at `most`."""
    slope = (highest - base) / (most - fewest)
    return math.exp(base + slope * (tokens - fewest))


@dataclass(frozen=True)
class Flow:
    """Rectified flow, x = (1 - s) x_0 + s eps, for s in (0, 1] (Liu et al. 2022; Lipman et al. 2022).

    The network is given t = T s. shift moves evenly spaced places towards noise: the place at share u of all has
    s = shift u / (1 + (shift - 1) u) (Esser et al. 2024, (23)). It can depend on the number of steps. terminal: the s
    that the last of the levels visited is stretched to (LTX-Video's and Qwen-Image's `shift_terminal`); 0 leaves them.
    """

    T: int = 1000
    shift: float | StepsShift = 1.0
    terminal: float = 0.0

    def shifted(self, n: int, shift: float | None = None) -> Flow:
        """The flow as n steps see it, by another shift if there is one."""
        own = self.shift.of(n) if isinstance(self.shift, StepsShift) else self.shift
        return replace(self, shift=own if shift is None else shift)

    @property
    def clean(self) -> Level:
        return Level(CLEAN, 1.0, 0.0)

    def level(self, t: float) -> Level:
        require(None if 0 < t <= self.T else f"t={t:g}: must be above 0 and at most {self.T}")
        return Level(t, 1 - t / self.T, t / self.T)

    def at(self, place: float, first: int = 0) -> Level:
        assert not isinstance(self.shift, StepsShift), "settled by `shifted`"
        u = min((place - first + 1) / self.T, 1.0)
        return self.level(self.T * self.shift * u / (1 + (self.shift - 1) * u))

    def stretched(self, levels: Sequence[Level]) -> list[Level]:
        """Falling levels, so that the last one is the terminal one."""
        if not self.terminal or levels[-1].alpha == 0:
            return [*levels]
        share = (1 - self.terminal) / levels[-1].alpha
        return [self.level(self.T * (1 - level.alpha * share)) for level in levels]

    def nearest(self, ratio: float) -> Level:
        return self.level(self.T * (1.0 if math.isinf(ratio) else ratio / (1 + ratio)))


def from_betas(betas: Sequence[float]) -> Table:
    return Table(tuple(accumulate((1 - beta for beta in betas), mul)))


def zero_snr(table: Table) -> Table:
    """The table with no signal left at its last timestep (Lin et al. 2023, algorithm 1; `rescale_betas_zero_snr`)."""
    roots = [math.sqrt(a) for a in table.alphas_cumprod]
    first, last = roots[0], roots[-1]
    return Table(tuple(((root - last) * first / (first - last)) ** 2 for root in roots), table.end)


@lru_cache
def named_table(kind: str, steps: int = 1000, start: float = 1e-4, end: float = 0.02) -> Table:
    """A training schedule by the name diffusers gives it (`beta_schedule` in a scheduler's configuration).

    linear: DDPM; scaled_linear: latent diffusion; squaredcos_cap_v2: iDDPM (17), which DeepFloyd IF uses.
    """
    if kind == "linear":
        betas = [start + (end - start) * i / (steps - 1) for i in range(steps)]
    elif kind == "scaled_linear":
        low, high = math.sqrt(start), math.sqrt(end)
        betas = [(low + (high - low) * i / (steps - 1)) ** 2 for i in range(steps)]
    elif kind == "squaredcos_cap_v2":

        def f(u: float) -> float:
            return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

        betas = [min(1 - f((i + 1) / steps) / f(i / steps), 0.999) for i in range(steps)]
    else:
        raise ValueError(f"beta_schedule={kind!r} is not known: linear, scaled_linear, squaredcos_cap_v2 are")
    return replace(from_betas(betas), named=(kind, start, end))
