"""Which noise levels are visited: the noise schedule as an axis.

A spacing chooses timesteps of the model's own training schedule; it never swaps the schedule under a trained model.
Spacings in the noise level (karras, logsnr-uniform) are mapped to the nearest training timestep. Where rounding makes
two timesteps equal, one is dropped, so a trajectory can be shorter than asked.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

from diffsweep.core.problems import BadInput, one_of, require, within
from diffsweep.core.schedule import NoiseSchedule
from diffsweep.core.text import counted
from diffsweep.core.types import Stage
from diffsweep.scheduler.presets import PRESETS
from diffsweep.scheduler.threshold import CHECKPOINT, KINDS, threshold

if TYPE_CHECKING:
    from torch import Tensor

SIGMA_MAX = 80.0  # Karras et al. 2022, table 1; the cosine schedule itself reaches 20,291
RHO = 7.0  # ditto
DEFAULT_STEPS = 50
FORMULAS = ("leading", "trailing", "linspace", "quadratic", "karras", "logsnr-uniform")
SPACINGS = (*FORMULAS, *PRESETS)


@lru_cache(maxsize=4096)
def spaced(spacing: str, n: int, schedule: NoiseSchedule, offset: int = 0) -> tuple[int, ...]:
    """About n falling timesteps of the schedule by a formula, doubles dropped.

    leading, trailing, linspace: Lin et al. 2023, table 2, as diffusers has them. quadratic: DDIM, appendix D.2, here
    over the whole schedule, so that sampling begins at full noise. karras: Karras et al. (5), rho 7, sigma clipped at
    80. logsnr-uniform: equal steps in log(sigma), clipped alike. offset: added to `leading` (diffusers'
    `steps_offset`).
    """
    T = len(schedule)
    if spacing == "leading":
        raw = [i * (T // n) + offset for i in range(n)]
    elif spacing == "trailing":
        raw = [round(T + i * ((T - T / n) - T)) - 1 for i in range(n)]  # in this order, as numpy.arange rounds
    elif spacing == "linspace":
        raw = [round(i * ((T - 1) / max(n - 1, 1))) for i in range(n)]  # in this order, as numpy.linspace rounds
    elif spacing == "quadratic":
        raw = [round((T - 1) * (i / max(n - 1, 1)) ** 2) for i in range(n)]
    else:
        high, low = min(SIGMA_MAX, schedule.sigma(T - 1)), schedule.sigma(0)
        power = 1 / RHO if spacing == "karras" else 0.0
        raw = []
        for i in range(n):
            u = i / max(n - 1, 1)
            if power:
                sigma = (high**power + u * (low**power - high**power)) ** RHO
            else:
                sigma = high * (low / high) ** u
            raw.append(nearest(schedule, sigma))
    return tuple(sorted({t for t in raw if 0 <= t < T}, reverse=True))


def nearest(schedule: NoiseSchedule, sigma: float) -> int:
    """The training timestep whose sigma is nearest, in its logarithm."""
    after = min(bisect_left(schedule.sigmas, sigma), len(schedule) - 1)
    before = max(after - 1, 0)
    return min((after, before), key=lambda t: abs(math.log(schedule.sigmas[t] / sigma)))


def falling(timesteps: tuple[int, ...]) -> str | None:
    """A problem unless these are timesteps that fall, none of them twice."""
    if not timesteps:
        return "spacing=[]: at least one timestep is needed"
    for t, s in pairwise(timesteps):
        if s >= t:
            return f"spacing: {s} comes after {t}: a list of timesteps must fall, each of them once"
    return None if timesteps[-1] >= 0 else f"spacing: {timesteps[-1]} is below 0, the last timestep"


@dataclass(frozen=True)
class Spaced:
    """What every scheduler has: which timesteps it visits, and how the clean estimate is thresholded.

    steps: how many, None for the preset's or the list's own number, or 50. spacing: one of SPACINGS, `checkpoint` for
    the checkpoint's own, or the timesteps themselves, falling. threshold: none, clip, dynamic, or `checkpoint`.
    threshold_ratio, threshold_max: dynamic thresholding's quantile and highest value, None for the checkpoint's (IF:
    0.95, and 1.5 or 1 by stage).
    """

    steps: int | None = None
    spacing: str | tuple[int, ...] = CHECKPOINT
    threshold: str = CHECKPOINT
    threshold_ratio: float | None = None
    threshold_max: float | None = None

    def __post_init__(self) -> None:
        if isinstance(self.spacing, tuple):
            fixed, name, problem = self.spacing, "the list", falling(self.spacing)
        else:
            fixed, name = PRESETS.get(self.spacing, ()), f"spacing={self.spacing}"
            problem = one_of("spacing", self.spacing, (CHECKPOINT, *SPACINGS))
        require(
            within("steps", self.steps, 1),
            problem,
            self._conflict(name, len(fixed)) if fixed else None,
            one_of("threshold", self.threshold, (CHECKPOINT, *KINDS)),
            within("threshold_ratio", self.threshold_ratio, 0, 1),
            within("threshold_max", self.threshold_max, 1),
        )

    def _conflict(self, name: str, number: int) -> str | None:
        """A problem where other steps are asked for than a list or a preset has."""
        if self.steps in (None, number):
            return None
        return (
            f"steps={self.steps}: {name} fixes {counted('step', number)}; leave steps out, "
            f"or choose another spacing, as {CHECKPOINT} or leading"
        )

    def on(self, stage: Stage) -> Stage:
        """The stage, its thresholding as it is asked for here."""
        kind = stage.threshold if self.threshold == CHECKPOINT else self.threshold
        ratio = stage.threshold_ratio if self.threshold_ratio is None else self.threshold_ratio
        most = stage.threshold_max if self.threshold_max is None else self.threshold_max
        return replace(stage, threshold=kind, threshold_ratio=ratio, threshold_max=most)

    def thresholded(self, clean: Tensor, stage: Stage) -> Tensor:
        """The clean estimate (C H W), thresholded."""
        return threshold(clean, self.on(stage))

    def timesteps(self, stage: Stage) -> tuple[int, ...]:
        """The timesteps visited, falling. BadInput where they do not fit the stage's schedule."""
        T = len(stage.schedule)
        if isinstance(self.spacing, tuple):
            require(None if self.spacing[0] < T else f"spacing: {self.spacing[0]} is not below {T}, the training steps")
            return self.spacing
        spacing = stage.spacing if self.spacing == CHECKPOINT else self.spacing
        if spacing in PRESETS:
            require(None if T == 1000 else f"spacing={spacing}: made for 1000 training steps, this model has {T}")
            return PRESETS[spacing]
        n = self.steps or min(DEFAULT_STEPS, T)
        if n > T:
            raise BadInput(f"steps={n}: this model has {T} training steps")
        return spaced(spacing, n, stage.schedule, stage.offset)
