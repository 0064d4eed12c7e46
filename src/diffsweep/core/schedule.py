"""The noise schedule a model was trained on: q(x_t | x_0) = N(sqrt(a_t) x_0, (1 - a_t) I), DDPM (4).

Plain numbers, no tensors, so that planning a sweep needs no torch. `a` is written alpha_bar in DDPM and
`alphas_cumprod` in diffusers. CLEAN (-1) is the noiseless end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate
from operator import mul
from typing import TYPE_CHECKING

from diffsweep.core.types import CLEAN

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class NoiseSchedule:
    """alphas_cumprod: a_t for t = 0 .. T - 1, falling. end: a at CLEAN, below 1 where a checkpoint's own sampler
    leaves a little noise (diffusers' `set_alpha_to_one: false`)."""

    alphas_cumprod: tuple[float, ...]
    end: float = 1.0

    def __len__(self) -> int:
        return len(self.alphas_cumprod)

    def a(self, t: int) -> float:
        return self.end if t == CLEAN else self.alphas_cumprod[t]

    def sigma(self, t: int) -> float:
        """Noise over signal, sqrt((1 - a) / a): the sigma of k-diffusion and of Karras et al."""
        return math.sqrt((1 - self.a(t)) / self.a(t))

    @cached_property
    def sigmas(self) -> tuple[float, ...]:
        return tuple(self.sigma(t) for t in range(len(self)))

    def noised(self, clean: Tensor, eps: Tensor, t: int) -> Tensor:
        """x_t from a clean image and unit noise, DDPM (4)."""
        return math.sqrt(self.a(t)) * clean + math.sqrt(1 - self.a(t)) * eps

    def clean(self, x: Tensor, eps: Tensor, t: int) -> Tensor:
        """The clean image that x_t and its noise imply: DDPM (4) solved for x_0."""
        return (x - math.sqrt(1 - self.a(t)) * eps) / math.sqrt(self.a(t))


def from_betas(betas: Sequence[float]) -> NoiseSchedule:
    return NoiseSchedule(tuple(accumulate((1 - beta for beta in betas), mul)))


@lru_cache
def named_schedule(kind: str, steps: int = 1000, start: float = 1e-4, end: float = 0.02) -> NoiseSchedule:
    """A training schedule by the name diffusers gives it (`beta_schedule` in a scheduler's configuration).

    linear: DDPM; scaled_linear: latent diffusion; squaredcos_cap_v2: iDDPM (17), which DeepFloyd IF uses.
    """
    if kind == "linear":
        return from_betas([start + (end - start) * i / (steps - 1) for i in range(steps)])
    if kind == "scaled_linear":
        low, high = math.sqrt(start), math.sqrt(end)
        return from_betas([(low + (high - low) * i / (steps - 1)) ** 2 for i in range(steps)])
    if kind == "squaredcos_cap_v2":

        def f(u: float) -> float:
            return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

        return from_betas([min(1 - f((i + 1) / steps) / f(i / steps), 0.999) for i in range(steps)])
    raise ValueError(f"beta_schedule={kind!r} is not known: linear, scaled_linear, squaredcos_cap_v2 are")
