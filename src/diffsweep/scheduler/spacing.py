"""Which noise levels are visited: the noise schedule as an axis.

A spacing chooses levels of the model's own noise process; it never swaps the process under a trained model. Of a
table, levels are training timesteps: spacings in the noise level (karras, logsnr_uniform) are mapped to the nearest
one, and where rounding makes two equal, one is dropped, so that a trajectory can be shorter than asked. A flow has a
level everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import pairwise
from typing import ClassVar

from diffsweep.core.keys import AUTO, Auto, given
from diffsweep.core.problems import BadInput, one_of, require, within
from diffsweep.core.process import Flow, Table
from diffsweep.core.text import counted, printed
from diffsweep.core.threshold import KINDS
from diffsweep.core.types import Level, Process, Stage, Weights
from diffsweep.scheduler.presets import PRESETS

SIGMA_MAX = 80.0  # Karras et al. 2022, table 1; the cosine schedule itself reaches 20,291
RHO = 7.0  # ditto
FORMULAS = (
    "leading",
    "trailing",
    "linspace",
    "quadratic",
    "karras",
    "logsnr_uniform",
    "leading_above",
    "linspace_above",
)
OF_FLOWS = ("sd3",)
SPACINGS = (*FORMULAS, *OF_FLOWS, *PRESETS)


@lru_cache(maxsize=4096)
def spaced(spacing: str, n: int, process: Process, offset: int = 0) -> tuple[Level, ...]:
    """About n falling levels of the process by a formula, doubles dropped.

    leading, trailing, linspace: Lin et al. 2023, table 2, as diffusers has them. quadratic: DDIM, appendix D.2, here
    over the whole process, so that sampling begins at full noise. karras: Karras et al. (5), rho 7, sigma clipped at
    80. logsnr_uniform: equal steps in log(sigma), clipped alike. leading_above, linspace_above: of n + 1 levels those
    above the cleanest, as DPM-Solver's class in diffusers has them. sd3: of a flow, evenly down to its lowest sigma
    taken for a place, which is thus shifted twice (Stable Diffusion 3 in diffusers). offset: added to `leading`
    (diffusers'
    `steps_offset`).
    """
    T, last = process.T, max(n - 1, 1)
    if spacing in ("karras", "logsnr_uniform"):
        high, low = min(SIGMA_MAX, process.at(T - 1).ratio), process.at(0).ratio
        found = [process.nearest(_between(spacing, high, low, i / last)) for i in range(n)]
    else:
        from_one = spacing in ("trailing", "sd3") or (spacing == "linspace_above" and not isinstance(process, Table))
        first = int(from_one)  # places are counted from 1 to T, and rounded there
        lowest = T * process.at(0).sigma if spacing == "sd3" else 1.0
        places: dict[str, Callable[[int], float]] = {
            "leading": lambda i: i * (T // n) + offset,
            "trailing": lambda i: T + i * ((T - T / n) - T),  # in this order, as numpy.arange rounds
            "linspace": lambda i: i * ((T - 1) / last),  # in this order, as numpy.linspace rounds
            "sd3": lambda i: T + i * ((lowest - T) / last),
            "leading_above": lambda i: (i + 1) * (T // (n + 1)) + offset,
            "linspace_above": lambda i: (i + 1) * ((T - 1) / n),
            "quadratic": lambda i: (T - 1) * (i / last) ** 2,
        }
        chosen = [places[spacing](i) for i in range(n)]
        found = [process.at(place, first) for place in chosen if -0.5 <= place - first < T - 0.5]
        found = process.stretched(found) if isinstance(process, Flow) else found
    return tuple(sorted(set(found), key=lambda level: -level.t))


def _between(spacing: str, high: float, low: float, share: float) -> float:
    """The noise over signal at a share of the way from the highest to the lowest."""
    if spacing == "karras":
        return (high ** (1 / RHO) + share * (low ** (1 / RHO) - high ** (1 / RHO))) ** RHO
    return high * (low / high) ** share


def falling(timesteps: tuple[float, ...]) -> str | None:
    """A problem unless these are timesteps that fall, none of them twice."""
    if not timesteps:
        return "spacing=[]: at least one timestep is needed"
    for t, s in pairwise(timesteps):
        if s >= t:
            return f"spacing: {s:g} comes after {t:g}: a list of timesteps must fall, each of them once"
    return None if timesteps[-1] >= 0 else f"spacing: {timesteps[-1]:g} is below 0, the last timestep"


@lru_cache
def ended(process: Process) -> Process:
    """The process, its trajectories ending without noise."""
    return replace(process, end=1.0) if isinstance(process, Table) else process


@dataclass(frozen=True)
class Spaced:
    """What every scheduler has: which levels it visits, and how the clean estimate is thresholded.

    steps: how many; auto is the preset's or the list's own number, or the checkpoint's. spacing: one of SPACINGS, or
    the timesteps themselves, falling. threshold: none, clip or dynamic. threshold_ratio, threshold_max: dynamic
    thresholding's quantile and highest value (IF: 0.95, and 1.5 or 1 by stage). shift: of a flow's places, above 1
    towards noise. Of all, auto is the checkpoint's own.
    """

    ends_with_noise: ClassVar[bool] = False  # where the checkpoint says so (`set_alpha_to_one: false`), as DDIM does
    steps: Auto | int = field(default=AUTO, metadata={"decides": False})  # the timesteps that they come to do
    spacing: Auto | str | tuple[float, ...] = field(default=AUTO, metadata={"decides": False})
    threshold: Auto | str = AUTO
    threshold_ratio: Auto | float = AUTO
    threshold_max: Auto | float = AUTO
    shift: Auto | float = field(default=AUTO, metadata={"decides": False})  # as steps

    def __post_init__(self) -> None:
        shift = f"shift={printed(self.shift)}"
        if isinstance(self.spacing, tuple):
            fixed, name, problem = self.spacing, "the list", falling(self.spacing)
        else:
            fixed, name = PRESETS.get(self.spacing, ()), f"spacing={self.spacing}"
            problem = one_of("spacing", self.spacing, (AUTO, *SPACINGS))
        require(
            within("steps", self.steps, 1),
            problem,
            self._conflict(name, len(fixed)) if fixed else None,
            f"{shift}: must be above 0" if self.shift != AUTO and self.shift <= 0 else None,
            f"{shift}: {name} fixes the timesteps; leave it out" if fixed and self.shift != AUTO else None,
            one_of("threshold", self.threshold, (AUTO, *KINDS)),
            within("threshold_ratio", self.threshold_ratio, 0, 1),
            within("threshold_max", self.threshold_max, 1),
        )

    def _conflict(self, name: str, number: int) -> str | None:
        """A problem where other steps are asked for than a list or a preset has."""
        if self.steps in (AUTO, number):
            return None
        return (
            f"steps={self.steps}: {name} fixes {counted('step', number)}; set steps={AUTO}, "
            "or choose another spacing, such as leading"
        )

    def on(self, stage: Stage) -> Stage:
        """The stage, its thresholding as it is asked for here, and the end that the rule goes to."""
        keys = ("threshold", "threshold_ratio", "threshold_max")
        process = stage.process if self.ends_with_noise else ended(stage.process)
        asked = {key: value for key in keys if (value := getattr(self, key)) != AUTO}
        return replace(stage, process=process, **asked)

    def start(self, level: Level, stage: Stage) -> float:
        return 1.0

    def spaced_on(self, stage: Stage) -> str | tuple[float, ...]:
        """The spacing, on a stage that says what auto is."""
        return stage.spacing if self.spacing == AUTO else self.spacing

    def levels(self, stage: Stage) -> tuple[Level, ...]:
        """The levels visited, falling. BadInput where they do not fit the stage's process."""
        process, T = stage.process, stage.process.T
        spacing = self.spaced_on(stage)
        if isinstance(spacing, tuple):
            try:
                return tuple(process.level(t) for t in spacing)
            except BadInput as error:
                raise BadInput(f"spacing: {message}" for message in error.messages) from None
        require(one_of(f"spacing={AUTO}: the checkpoint's timestep_spacing", spacing, SPACINGS))
        flow = isinstance(process, Flow)
        require(
            f"spacing={spacing}: made for flows, and this model is none" if spacing in OF_FLOWS and not flow else None,
            f"shift={printed(self.shift)}: of flows alone, and this model is none"
            if self.shift != AUTO and not flow
            else None,
        )
        n = len(PRESETS.get(spacing, ())) or given(self.steps) or min(stage.steps, T)
        process = process.shifted(n, given(self.shift)) if isinstance(process, Flow) else process
        if spacing in PRESETS:
            require(None if T == 1000 else f"spacing={spacing}: made for 1000 training steps, this model has {T}")
            return tuple(process.at(place) for place in PRESETS[spacing])
        if n > T:
            raise BadInput(f"steps={n}: this model has {T} training steps")
        return spaced(spacing, n, process, stage.offset)

    def raised(self, level: Level, steps: int, process: Process) -> Level:
        return level

    def corrected(self, t: Level, s: Level) -> Weights | None:
        return None
