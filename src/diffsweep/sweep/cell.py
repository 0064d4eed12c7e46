"""A cell: one picture asked for, frozen and named by all that decides its pixels. Needs no torch.

The id is a hash of the recipe's version, the seed, the model's weights, the technique and those parts that the
technique uses, in their settled form: input and mask by content, spacing and steps as resolved. Two ways to ask for
the same picture have one id. Metrics, tracker, device and batch size are not in it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from diffsweep.core.problems import BadInput, did_you_mean
from diffsweep.core.types import Stage
from diffsweep.sweep.parts import as_mapping, build, coerced, plain

RECIPE = 1  # raised when the same configuration would give another picture
DEFAULT_PROMPT = "a photo of a dog"
GROUPS = ("model", "scheduler", "guidance", "technique", "view", "mask", "input")
AROUND = ("metric", "tracker", "sweep", "engine", "grid")  # groups and blocks that do not touch the pixels
VALUES = {"seed": int, "prompt": str | None, "device": str, "output_dir": str, "plugins": tuple[str, ...]}
ROOT = (*VALUES, *GROUPS, *AROUND)
MAX_SEED = 2**63 - 1


@dataclass(frozen=True, eq=False)
class Cell:
    """One picture asked for. config: what decides it, plain; axes: what its sweep varies; the parts, built."""

    id: str
    config: Mapping[str, Any]
    axes: Mapping[str, Any]
    seed: int
    prompt: str
    model: Any
    stage: Stage
    scheduler: Any
    guidance: Any
    technique: Any
    view: Any
    timesteps: tuple[int, ...]
    visited: tuple[int, ...]
    pixels: np.ndarray | None
    mask: np.ndarray | None

    @property
    def prompts(self) -> tuple[str, ...]:
        """Every prompt the model is asked about, a step's rows in order."""
        if not self.visited:
            return ()
        return tuple(p for asked in self.technique.asked(self.prompt) for p in self.guidance.about(asked).prompts)


@lru_cache(maxsize=4096)
def _array(group: str, part: Any, size: int) -> tuple[np.ndarray, str]:
    """An input's or a mask's pixels, and their hash."""
    values = part.pixels(size) if group == "input" else part.values(size)
    return values, hashlib.sha256(repr(values.shape).encode() + np.ascontiguousarray(values).tobytes()).hexdigest()


@lru_cache
def _model(part: Any) -> tuple[Stage, str]:
    return part.stage(), part.fingerprint()


def freeze(config: Mapping[str, Any], axes: Mapping[str, Any]) -> Cell:
    """Check a composed configuration and freeze it to a cell; BadInput with everything that is wrong with it."""
    problems: list[str] = []

    def attempt(action: Any, *arguments: Any, group: str = "") -> Any:
        try:
            return action(*arguments)
        except BadInput as error:
            problems.extend(f"{group}.{m}" if group else m for m in error.messages)
            return None

    for key in config:
        if key not in ROOT:
            problems.append(f"{key}: unknown key; there are {', '.join(ROOT)}{did_you_mean(key, ROOT)}")
    values: dict[str, Any] = {}
    for key, hint in VALUES.items():
        try:
            values[key] = coerced(config.get(key), hint) if key in config or key == "seed" else None
        except TypeError as error:
            problems.append(f"{key}={config.get(key)}: {error}")
            values[key] = None
    seed, plugins = values["seed"], values["plugins"] or ()
    if seed is not None and not 0 <= seed <= MAX_SEED:
        problems.append(f"seed={seed}: must be between 0 and {MAX_SEED}")
    parts = {group: attempt(build, group, config.get(group), plugins) for group in GROUPS}
    model, technique, scheduler = parts["model"], parts["technique"], parts["scheduler"]
    stage, fingerprint = (attempt(_model, model, group="model") if model else None) or (None, None)

    timesteps: tuple[int, ...] = ()
    visited: tuple[int, ...] = ()
    if stage and scheduler:
        timesteps = attempt(scheduler.timesteps, stage, group="scheduler") or ()
    if technique and timesteps:
        visited = attempt(technique.visited, timesteps, group="technique") or ()
        technique = attempt(technique.settled, timesteps, group="technique") or technique

    arrays: dict[str, tuple[np.ndarray, str] | None] = {"input": None, "mask": None}
    uses = technique.uses if technique else frozenset()
    if stage:
        size = stage.shape[-1]
        for group in ("input", "mask"):
            if group in uses and parts[group]:
                arrays[group] = attempt(_array, group, parts[group], size, group=group)
        for view in (parts["view"], *(getattr(technique, "views", None) or ())):
            if "view" in uses and hasattr(view, "fits"):
                attempt(view.fits, size, group="view")
    if problems:
        raise BadInput(problems)

    caption = parts["input"].caption() if "input" in uses else None
    prompt = values["prompt"] if values["prompt"] is not None else caption or DEFAULT_PROMPT
    used: dict[str, Any] = {
        "model": {**_plain(model, "model"), "fingerprint": fingerprint},
        "technique": _plain(technique, "technique"),
    }
    if "prompt" in uses:
        asked = technique.asked(prompt)
        used["prompt"] = asked[0] if len(asked) == 1 else list(asked)
        used["technique"] = {k: v for k, v in used["technique"].items() if k != "prompts"}
    if "scheduler" in uses:
        spacing = stage.spacing if scheduler.spacing == "checkpoint" else scheduler.spacing
        threshold = stage.threshold if scheduler.threshold == "checkpoint" else scheduler.threshold
        used["scheduler"] = {
            **_plain(scheduler, "scheduler"),
            "spacing": spacing,
            "threshold": threshold,
            "steps": len(timesteps),
        }
    if "guidance" in uses:
        used["guidance"] = _plain(parts["guidance"], "guidance")
    if "view" in uses and getattr(technique, "views", None) is None:
        used["view"] = _plain(parts["view"], "view")
    for group, array in arrays.items():
        if array is not None:
            used[group] = {**_plain(parts[group], group), "sha256": array[1]}
    guidance = parts["guidance"]
    config = {"seed": seed, **used}
    return Cell(
        id=cell_id(config),
        config=config,
        axes=axes,
        seed=seed,
        prompt=prompt,
        model=model,
        stage=stage,
        scheduler=scheduler,
        guidance=guidance,
        technique=technique,
        view=parts["view"],
        timesteps=timesteps,
        visited=visited,
        pixels=arrays["input"][0] if arrays["input"] else None,
        mask=arrays["mask"][0] if arrays["mask"] else None,
    )


@lru_cache(maxsize=65536)
def _plain(part: Any, group: str) -> dict[str, Any]:
    return plain(part, group)


def decisive(group: str, config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What of a group's configuration decides pixels: a picture's or mask's content stands for how it was made."""
    if group in ("input", "mask"):
        return {"sha256": config["sha256"]}
    if group == "model":
        return {key: value for key, value in config.items() if key != "path"}
    return config


def cell_id(config: Mapping[str, Any]) -> str:
    """20 hexadecimal digits of SHA-256 over the recipe's version and what decides the pixels."""
    settled = {k: decisive(k, v) if isinstance(v, Mapping) else v for k, v in config.items()}
    text = json.dumps({"recipe": RECIPE, **settled}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def settings(config: Mapping[str, Any], group: str) -> Mapping[str, Any]:
    """One of the blocks around the pixels, as a mapping."""
    return as_mapping(group, config.get(group) or {})
