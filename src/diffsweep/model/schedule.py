"""What the configuration of a checkpoint's scheduler says: its noise process, what its network predicts, its habits.

The classes that diffusers calls schedulers mix all of these with an update rule, which diffsweep chooses by itself.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from diffsweep.core.problems import BadInput
from diffsweep.core.process import Flow, Table, from_betas, named_table, tokens_shift, zero_snr
from diffsweep.core.types import EPSILON, FLOW, SAMPLE, VELOCITY, Process
from diffsweep.model.source import Source

PREDICTIONS = (EPSILON, VELOCITY, SAMPLE, FLOW)
DYNAMIC = {"base_shift": 0.5, "max_shift": 1.15, "base_image_seq_len": 256, "max_image_seq_len": 4096}
RULES = {  # the classes whose rule diffsweep has
    "DDIMParallelScheduler": "ddim",
    "DDIMScheduler": "ddim",
    "DDPMParallelScheduler": "ddpm",
    "DDPMScheduler": "ddpm",
    "DPMSolverMultistepScheduler": "dpm_solver",
    "EulerAncestralDiscreteScheduler": "euler_ancestral",
    "EulerDiscreteScheduler": "euler",
    "FlowMatchEulerDiscreteScheduler": "euler",
    "FlowMatchHeunDiscreteScheduler": "heun",
    "GaussianDDPMScheduler": "ddpm",
    "HeunDiscreteScheduler": "heun",
}
NEAR = {  # those of which it has one of the same kind
    "DEISMultistepScheduler": "dpm_solver",
    "DPMSolverSinglestepScheduler": "dpm_solver",
    "EDMDPMSolverMultistepScheduler": "dpm_solver",
    "SASolverScheduler": "dpm_solver",
    "UniPCMultistepScheduler": "dpm_solver",
}
MOST = 1_000_000  # of what a configuration counts: timesteps, labels
UNKNOWN = ("invert_sigmas", "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")
CLIPPING = (  # unless told otherwise
    "DDIMScheduler",
    "DDPMScheduler",
    "DDIMParallelScheduler",
    "DDPMParallelScheduler",
    "GaussianDDPMScheduler",
)

ABOVE = (  # classes whose n timesteps are those of n + 1 above the last one
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "SASolverScheduler",
    "UniPCMultistepScheduler",
)


def whole(config: Mapping[str, Any], key: str, usual: int = 0, least: int = 1) -> int:
    """A count that a configuration gives; ValueError where it is none. usual: where the key is not there."""
    value = config.get(key, usual)
    if type(value) is not int or not least <= value <= MOST:
        raise ValueError(f"{key}={json.dumps(value)}: a whole number from {least} to {MOST:,} is needed")
    return value


def _number(config: Mapping[str, Any], key: str, usual: float, below: float = math.inf) -> float:
    """A number from 0, below another one; ValueError where it is none. usual: where it is null or not there."""
    value = usual if config.get(key) is None else config[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < below:
        told = "from 0" if below == math.inf else f"from 0 and below {below:g}"
        raise ValueError(f"{key}={json.dumps(value)}: a number {told} is needed")
    return value


def is_flow(config: Mapping[str, Any]) -> bool:
    return "FlowMatch" in config.get("_class_name", "") or config.get("prediction_type") == FLOW


def process(config: Mapping[str, Any], tokens: int = 0) -> Process:
    """The noise process; ValueError where it is not known. tokens: of a picture, where the shift depends on them."""
    if not is_flow(config):
        return table(config)
    if odd := [key for key in UNKNOWN if config.get(key)]:
        raise ValueError(f"{odd[0]}={config[odd[0]]} is not known")
    shift = _number(config, "shift" if "shift" in config else "flow_shift", 1.0) or 1.0
    if config.get("use_dynamic_shifting"):
        if (kind := config.get("time_shift_type", "exponential")) != "exponential":
            raise ValueError(f"time_shift_type={kind} is not known")
        span = {key: config.get(key, usual) for key, usual in DYNAMIC.items()}
        shift = tokens_shift(tokens, *span.values())
    return Flow(whole(config, "num_train_timesteps", 1000), shift, _number(config, "shift_terminal", 0.0, 1.0))


def table(config: Mapping[str, Any]) -> Table:
    """A process of whole timesteps; ValueError where it is not known."""
    if config.get("trained_betas"):
        named = from_betas(config["trained_betas"])
    else:
        kind = config.get("beta_schedule", "linear")
        T = whole(config, "num_train_timesteps" if "num_train_timesteps" in config else "timesteps", 1000, 2)  # once so
        named = named_table(kind, T, config.get("beta_start", 1e-4), config.get("beta_end", 0.02))
    if not all(0 <= a <= 1 for a in named.alphas_cumprod):
        raise ValueError("the scheduler's betas are not all between 0 and 1")
    if config.get("rescale_betas_zero_snr"):
        if config.get("prediction_type", EPSILON) == EPSILON:
            raise ValueError("rescale_betas_zero_snr=true: noise predicted without any signal gives no clean picture")
        named = zero_snr(named)
    return named if config.get("set_alpha_to_one", True) else replace(named, end=named.alphas_cumprod[0])


@lru_cache
def noising(source: Source, part: str) -> Table:
    """How a super-resolution stage's input is noised, by the scheduler in this part; BadInput where it is not known."""
    config = source.config(part, "scheduler_config.json")
    try:
        return table(config)
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(f"path={source.path}: {part} cannot be read ({error})") from error


def prediction(config: Mapping[str, Any]) -> str:
    """What the network is trained to predict; ValueError where that is not known."""
    kind = FLOW if is_flow(config) else config.get("prediction_type", EPSILON)
    if kind not in PREDICTIONS:
        raise ValueError(f"prediction_type {kind} is not known")
    return kind


def spacing(config: Mapping[str, Any]) -> str:
    """The spacing that the scheduler's class makes of its configuration."""
    if config.get("_class_name") not in ABOVE:
        return config.get("timestep_spacing", "trailing" if is_flow(config) else "leading")
    named = "linspace" if config.get("use_flow_sigmas") else config.get("timestep_spacing", "linspace")
    return f"{named}_above" if named in ("leading", "linspace") else named


def rule(config: Mapping[str, Any]) -> dict[str, str | None]:
    """The update rule of the scheduler's class, by its names in `Stage`: of one unknown, what any model of its process
    can be sampled by."""
    named = config.get("_class_name", CLIPPING[0])
    if named in RULES:
        return {"rule": RULES[named]}
    return {"rule": NEAR.get(named, "euler" if is_flow(config) else "ddim"), "stands_for": named}


def habits(config: Mapping[str, Any]) -> dict[str, Any]:
    """A stage's rule, thresholding, spacing and variance, by their names in `Stage`; ValueError where these are none.
    Some classes clip where the configuration does not tell."""
    clips = config.get("clip_sample", config.get("_class_name", CLIPPING[0]) in CLIPPING)
    return {
        **rule(config),
        "threshold": "dynamic" if config.get("thresholding") else "clip" if clips else "none",
        "threshold_ratio": _number(config, "dynamic_thresholding_ratio", 0.995),
        "threshold_max": _number(config, "sample_max_value", 1.0),
        "spacing": spacing(config),
        "offset": whole(config, "steps_offset", 0, 0),
        "variance": 1.0 if str(config.get("variance_type")).startswith("fixed_large") else None,
    }
