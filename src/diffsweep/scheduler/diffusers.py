"""Any scheduler class of diffusers, by its name: its own state and noise schedule, one copy a cell.

Of the checkpoint's scheduler it has the betas, the prediction type and the spacing. Its state knows whole trajectories
alone: techniques that turn back, or pin what is known, need one of diffsweep's own rules. Classes that draw noise, and
UniPC, copy numbers to a device at each step and wait for it.

Such a class may keep a sample in another space than the network sees (k-diffusion's, where it grows with the noise);
`scale_model_input` leads from that to the network's, in which x is between the steps.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

from diffsweep.core.keys import AUTO, given
from diffsweep.core.problems import BadInput, did_you_mean, one_of, require
from diffsweep.core.process import Flow, Table
from diffsweep.core.streams import MAIN, Streams
from diffsweep.core.types import EPSILON, FLOW, Estimate, Level, Process, Stage, Weights
from diffsweep.scheduler.spacing import Spaced

if TYPE_CHECKING:
    from torch import Tensor

SERVES = ("text_to_image", "image_to_image")
# what such a class does by itself; of a flow it has one spacing, whatever it is told
SPACED = {"leading_above": "leading", "linspace_above": "linspace", "sd3": "linspace"}
MOST_BETA = 1 - 1e-6


@dataclass(frozen=True)
class Diffusers(Spaced):
    """cls: the class. spacing: leading, trailing or linspace, as far as the class has a choice."""

    ends_with_noise: ClassVar[bool] = True  # the class decides
    cls: str = "UniPCMultistepScheduler"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(one_of("spacing", str(self.spacing), (AUTO, "leading", "trailing", "linspace")))

    def serves(self, technique: str) -> None:
        """BadInput for a technique that such a class cannot serve."""
        if technique not in SERVES:
            raise BadInput(
                f"cls={self.cls}: serves {' and '.join(SERVES)} alone; choose euler, ddim or another rule of diffsweep"
            )

    def levels(self, stage: Stage) -> tuple[Level, ...]:
        n = given(self.steps) or min(stage.steps, stage.process.T)
        return tuple(_level(stage.process, float(t)) for t in self._made(stage, n).timesteps)

    def start(self, level: Level, stage: Stage) -> float:
        import torch

        made = self._made(stage, given(self.steps) or min(stage.steps, stage.process.T))
        return float(made.scale_model_input(torch.ones(1) * made.init_noise_sigma, made.timesteps[0]))

    def stepper(self, stage: Stage, levels: Sequence[Level], streams: Streams) -> Callable[..., Tensor]:
        """What carries x (C H W) a step on: called with x, its clean estimate and the model's answer, it returns the
        next x. levels: those of the trajectory, the last ones of all."""
        n = given(self.steps) or min(stage.steps, stage.process.T)
        whole, state = len(self.levels(stage)), _State()

        def step(x: Tensor, clean: Tensor, estimate: Estimate, level: Level) -> Tensor:
            if state.made is None:
                state.made = self._fresh(stage, n, estimate.kind)
                state.made.set_timesteps(n)  # on the processor, which reads them
                state.times = state.made.timesteps[whole - len(levels) :]
                if hasattr(state.made, "set_begin_index"):
                    state.made.set_begin_index(whole - len(levels))
                scale = state.made.scale_model_input(x.new_ones(1), state.times[0])
                state.sample = x / scale
            t = state.times[state.number]
            output = estimate.output if stage.threshold == "none" else (x - level.alpha * clean) / level.sigma
            more = {"generator": streams.generator(MAIN)} if state.draws else {}
            state.sample = state.made.step(output[None], t, state.sample[None], **more, return_dict=False)[0][0]
            state.number += 1
            after = state.times[min(state.number, len(state.times) - 1)]
            return state.made.scale_model_input(state.sample, after)

        return step

    def weights(self, t: Level, s: Level, before: Level | None) -> Weights:
        raise NotImplementedError("its steps are the class's own")

    def _made(self, stage: Stage, n: int) -> Any:
        """The class for a stage, its timesteps set."""
        spacing = stage.spacing if self.spacing == AUTO else self.spacing
        return _made(self.cls, stage.process, str(spacing), stage.offset, n, given(self.shift))

    def _fresh(self, stage: Stage, n: int, kind: str) -> Any:
        spacing = stage.spacing if self.spacing == AUTO else self.spacing
        known = EPSILON if stage.threshold != "none" else kind
        return _instance(self.cls, stage.process, str(spacing), stage.offset, n, given(self.shift), known)


class _State:
    """Of one trajectory."""

    made: Any = None
    sample: Any = None
    times: Any = None
    number = 0

    @property
    def draws(self) -> bool:
        return "generator" in inspect.signature(self.made.step).parameters


def known() -> list[str]:
    """The names of diffusers' scheduler classes."""
    import diffusers

    return sorted(name for name in dir(diffusers) if name.endswith("Scheduler") and "Flax" not in name)


def _instance(cls: str, process: Process, spacing: str, offset: int, n: int, shift: float | None, kind: str) -> Any:
    """The class, for a noise process; BadInput where it is none, or cannot have that."""
    import diffusers

    if cls not in (names := known()):
        raise BadInput(
            f"cls={cls}: no scheduler class of diffusers{did_you_mean(cls, names)}; there are {', '.join(names)}"
        )
    settings: dict[str, Any] = {
        "num_train_timesteps": process.T,
        "timestep_spacing": SPACED.get(spacing, spacing),
        "steps_offset": offset,
        "prediction_type": kind,
        "clip_sample": False,
        "thresholding": False,
    }
    kindly: Any = getattr(diffusers, cls)
    if "Inverse" in cls:
        raise BadInput(f"cls={cls}: leads from a picture to noise")
    if more := _wanted(kindly):
        raise BadInput(f"cls={cls}: its step wants more than a model's answer: {', '.join(more)}")
    parameters = inspect.signature(kindly.__init__).parameters
    if isinstance(process, Flow):
        if "use_flow_sigmas" not in parameters:
            raise BadInput(f"cls={cls}: not of flows, which this model is; euler and heun are")
        if process.terminal:
            raise BadInput(f"cls={cls}: this model's last level is its own (shift_terminal); euler and heun keep it")
        settings |= {"use_flow_sigmas": True, "flow_shift": process.shifted(n, shift).shift, "prediction_type": FLOW}
    elif isinstance(process, Table):
        settings |= {"set_alpha_to_one": process.end == 1.0, **_schedule(process)}
        if "trained_betas" not in parameters:
            raise BadInput(f"cls={cls}: has a noise schedule of its own, and this model has another")
    try:
        return kindly(**{key: value for key, value in settings.items() if key in parameters})
    except (ImportError, NotImplementedError, ValueError) as error:
        raise BadInput(f"cls={cls}: {error}") from None


def _wanted(kind: Any) -> list[str]:
    """What a step must be told beside the answer, its timestep and the sample."""
    asked = [*inspect.signature(kind.step).parameters.values()][4:]
    plain = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    return [one.name for one in asked if one.default is inspect.Parameter.empty and one.kind in plain]


@lru_cache(maxsize=64)
def _made(cls: str, process: Process, spacing: str, offset: int, n: int, shift: float | None) -> Any:
    made = _instance(cls, process, spacing, offset, n, shift, FLOW if isinstance(process, Flow) else EPSILON)
    try:
        made.set_timesteps(n)
    except (ImportError, NotImplementedError, ValueError, IndexError, TypeError) as error:
        raise BadInput(f"cls={cls}: cannot be set to {n} steps: {error}") from None
    return made


def _schedule(table: Table) -> dict[str, Any]:
    """The noise schedule as such a class is told it: by name, rounded as it rounds, or else its betas."""
    if table.named is None:
        return {"trained_betas": _betas(table)}
    kind, first, last = table.named
    return {"beta_schedule": kind, "beta_start": first, "beta_end": last}


@lru_cache
def _betas(table: Table) -> list[float]:
    """The betas whose products the table holds."""
    products = (1.0, *table.alphas_cumprod)
    return [min(1 - a / b, MOST_BETA) for b, a in zip(products, table.alphas_cumprod, strict=False)]


def _level(process: Process, t: float) -> Level:
    """The level of a timestep; between whole ones of a table, noise over signal is linear, as k-diffusion has it."""
    if not isinstance(process, Table) or t == int(t):
        return process.level(t)
    low = int(t)
    a, b = process.ratios[low], process.ratios[low + 1]
    ratio = a + (t - low) * (b - a)
    alpha = (1 + ratio**2) ** -0.5
    return Level(t, alpha, alpha * ratio)
