"""A cell: one picture asked for, frozen and named by all that decides its pixels. Needs no torch.

The id is a hash of the recipe's version, the seed, the model's weights, the technique and those parts that the
technique uses, in their settled form: input and mask by content, spacing and steps as the timesteps they come to. A
part of a user's own counts with its file. Metrics, tracker, device and batch size are not in it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from diffsweep.core.loop import rounds
from diffsweep.core.problems import BadInput, did_you_mean, require, within
from diffsweep.core.types import BASE, Level, Stage
from diffsweep.runner import prompts
from diffsweep.runner.parts import as_mapping, build, coerced, plain, shown, sources, undecided, used_by
from diffsweep.scheduler.spacing import CHECKPOINT

RECIPE = 2  # raised when the same configuration would give another picture
GROUPS = ("model", "scheduler", "guidance", "technique", "view", "mask", "input", "upscale")
# the blocks of conf/config.yaml: their keys' types
BLOCKS: dict[str, dict[str, Any]] = {
    "sweep": {"name": str | None, "replace": bool},
    "metric": {
        "name": str,
        "names": tuple[str, ...],
        "missing": str,
        "clip": str,
        "features": str,
        "references": str,
    },
    "engine": {"rows": int | str | None, "threads": int | None, "trajectory": int},
    "grid": {
        "rows": str | None,
        "cols": str | None,
        "blocks": tuple[str, ...] | None,
        "metric": tuple[str, ...] | None,
        "pictures": tuple[str, ...] | None,
        "size": int | None,
    },
}
AROUND = ("metric", "tracker", "sweep", "engine", "grid")  # groups and blocks that do not touch the pixels
VALUES = {
    "seed": int,
    "prompt": str | None,
    "device": str,
    "output_dir": str,
    "plugins": tuple[str, ...],
    "confirm": bool | None,
}
ROOT = (*VALUES, "vars", *GROUPS, *AROUND)  # vars: texts that others name, so they decide nothing themselves
MAX_SEED = 2**63 - 1
OPEN: Any = object()  # in the place of a choice, to see whether a technique makes use of it
CONTENT = ("sha256", "fingerprint", "timesteps", "plugins")  # hashes in a cell's configuration, of what it names


@dataclass(frozen=True, eq=False)
class Cell:
    """One picture asked for. config: what decides it, plain; axes: what its sweep varies; the parts, built; notes: what
    was assumed, each beginning with its key.

    Of a cell that enlarges another's picture, stage, scheduler, guidance and levels are the super-resolution's.
    """

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
    levels: tuple[Level, ...]  # those that the scheduler visits
    visited: tuple[Level, ...]  # those of the technique's trajectory
    pixels: np.ndarray | None
    mask: np.ndarray | None
    hard_mask: np.ndarray | None = None  # before softening; it decides no pixel, metrics need it
    upscale: Any = None
    base: Cell | None = None  # the cell whose picture this one enlarges
    notes: tuple[str, ...] = ()

    @property
    def asked(self) -> Any:
        """The model that answers."""
        return self.upscale.model if self.base else self.model

    @property
    def asks(self) -> str:
        """What the engine calls its stage."""
        return self.upscale.name if self.base else BASE

    @property
    def key(self) -> str:
        """The configuration's key of the model that answers."""
        return f"{self.base.key}.then" if self.base and self.base.base else "upscale" if self.base else "model"

    @property
    def cascade(self) -> tuple[Cell, ...]:
        """The cells of every stage, from the first to this one."""
        return (*(self.base.cascade if self.base else ()), self)

    @property
    def prompts(self) -> tuple[str, ...]:
        """Every prompt the model is asked about, a step's rows in order."""
        if not self.visited:
            return ()
        prompts = self.technique.asked(self.prompt)
        asked = self.upscale.asked(prompts) if self.base else prompts
        return tuple(row for prompt in asked for row in self.guidance.branches(prompt))

    @cached_property
    def rounds(self) -> int:
        """How often the technique asks for an estimate, each of so many model rows as there are `prompts`."""
        return rounds(self.visited, self.scheduler, self.stage.process)


def _array(group: str, part: Any, size: int) -> tuple[np.ndarray, str]:
    """An input's or a mask's pixels, and their hash; a changed file is read anew."""
    return _read(group, part, size, part.stamp())


@lru_cache(maxsize=4096)
def _read(group: str, part: Any, size: int, stamp: object) -> tuple[np.ndarray, str]:
    values = part.pixels(size) if group == "input" else part.values(size)
    if group == "mask" and not values.any():
        name = plain(part)["name"]
        raise BadInput(f"mask={name}: regenerates nothing: it is 0 at each of {size} x {size} pixels")
    return values, hashlib.sha256(repr(values.shape).encode() + np.ascontiguousarray(values).tobytes()).hexdigest()


def _hard(mask: Any, size: int) -> np.ndarray:
    """A mask before its edge is softened, 0 or 255; a changed file is read anew."""
    return _hardened(mask, size, mask.stamp())


@lru_cache(maxsize=4096)
def _hardened(mask: Any, size: int, stamp: object) -> np.ndarray:
    return np.asarray(mask.hard(size), dtype=np.uint8) * 255


@lru_cache(maxsize=4096)
def _hash(timesteps: tuple[float, ...]) -> str:
    return hashlib.sha256(repr(timesteps).encode()).hexdigest()


@lru_cache
def _model(part: Any) -> tuple[Stage, str]:
    return part.stage(), part.fingerprint()


@dataclass
class _Problems:
    """Collects what is wrong, each message under its group."""

    messages: list[str] = field(default_factory=list)

    @contextmanager
    def under(self, group: str = "") -> Iterator[None]:
        try:
            yield
        except BadInput as error:
            own = f"{group}="  # what is wrong with the choice itself, not with one of its keys
            self.messages += [m if not group or m.startswith(own) else f"{group}.{m}" for m in error.messages]

    def settle(self) -> None:
        if self.messages:
            raise BadInput(self.messages)


def freeze(config: Mapping[str, Any], axes: Mapping[str, Any]) -> Cell:
    """Check a composed configuration and freeze it to a cell; BadInput with everything that is wrong with it."""
    problems = _Problems()
    values = _values(config, problems)
    parts: dict[str, Any] = {}
    for group in GROUPS:
        with problems.under():
            parts[group] = build(group, config.get(group), values["plugins"] or ())
    stage: Stage | None = None
    if "model" in parts:
        with problems.under("model"):
            stage, fingerprint = _model(parts["model"])
    larger: list[tuple[Any, Stage, str]] = []
    if stage is not None and "upscale" in parts:
        larger = list(_larger(parts["upscale"], parts["model"], stage, problems))
    plugins = values["plugins"] or ()
    uses = parts["technique"].uses if "technique" in parts else used_by(config.get("technique"), plugins)
    arrays: dict[str, tuple[np.ndarray, str]] = {}
    for group in ("input", "mask"):
        if stage is not None and group in uses and group in parts:
            with problems.under(group):
                if group == "mask" and "input" in arrays:
                    parts["mask"].fits(*parts["input"].proportions())
                arrays[group] = _array(group, parts[group], stage.shape[-1])
    if stage is None or "technique" not in parts:
        raise BadInput(problems.messages)  # what follows depends on both

    technique: Any = parts["technique"]
    scheduler: Any = parts.get("scheduler")
    levels: tuple[Level, ...] = ()
    visited: tuple[Level, ...] = ()
    if scheduler:
        with problems.under("scheduler"):
            levels = scheduler.levels(stage)
    if levels:
        with problems.under("technique"):
            visited = technique.visited(levels, stage)
            technique = technique.settled(levels)
    looks: tuple[Any, ...] = technique.looks(parts.get("view")) if "view" in uses else ()
    for view in looks:
        fits = getattr(view, "fits", None)
        if fits is not None:
            with problems.under("view"):
                for seen in (stage, *(s for _, s, _ in larger if s.factor == 1)):
                    fits(seen.side)
    prompt, assumed = "", None
    picture = parts.get("input")
    if picture and ("input" in arrays or "input" not in uses):
        with problems.under():
            name, guided = _plain(picture)["name"], parts.get("guidance")
            prompt, assumed = prompts.settled(values["prompt"], technique, picture, name, guided)
    problems.settle()

    guidance = _guidance(parts["guidance"], technique.asked(prompt))
    used: dict[str, Any] = {
        "model": {**_plain(parts["model"]), "fingerprint": fingerprint},
        "technique": _plain(technique),
    }
    if "prompt" in uses:
        asked = technique.asked(prompt)
        used["prompt"] = asked[0] if len(asked) == 1 else list(asked)
        used["technique"] = {k: v for k, v in used["technique"].items() if k not in undecided(technique)}
    if "scheduler" in uses:
        used["scheduler"] = _trajectory(scheduler, stage, levels)
    if "guidance" in uses:
        used["guidance"] = _plain(guidance)
    if "view" in uses and OPEN in technique.looks(OPEN):  # else it has views of its own
        used["view"] = _plain(parts["view"])
    for group, (_, digest) in arrays.items():
        used[group] = {**_plain(parts[group]), "sha256": digest}
    deciding = {"scheduler", "guidance", "view"} & uses
    if own := sources(parts["model"], technique, *(parts[group] for group in deciding)):
        used["plugins"] = own  # edited, or of a shipped part's name: another picture
    decided = {"seed": values["seed"], **used}
    cell = Cell(
        id=cell_id(decided),
        config=decided,
        axes=axes,
        seed=values["seed"],
        prompt=prompt,
        model=parts["model"],
        stage=stage,
        scheduler=scheduler,
        guidance=guidance,
        technique=technique,
        view=parts["view"],
        levels=levels,
        visited=visited,
        pixels=arrays["input"][0] if "input" in arrays else None,
        mask=arrays["mask"][0] if "mask" in arrays else None,
        hard_mask=_hard(parts["mask"], stage.shape[-1]) if "mask" in arrays else None,
        notes=(*_notes(arrays, parts, stage.shape[-1]), *([f"prompt: {assumed}"] if assumed else [])),
    )
    for upscale, following, weights in larger:
        cell = _enlarged(cell, upscale, following, weights, parts)
    return cell


def _guidance(guidance: Any, prompts: tuple[str, ...]) -> Any:
    """In its plainest form about these prompts, so that equal pictures have equal ids."""
    return guidance.settled(prompts) if hasattr(guidance, "settled") else guidance


def _notes(read: Iterable[str], parts: Mapping[str, Any], size: int) -> Iterator[str]:
    """What should be known of how input and mask were read."""
    for group in read:
        yield from (f"{group}: {note}" for note in parts[group].notes(size))


def _larger(upscale: Any, model: Any, low: Stage, problems: _Problems) -> Iterator[tuple[Any, Stage, str]]:
    """The stages that follow the first: how each enlarges, its stage, its weights' fingerprint."""
    key = "upscale"
    while True:
        following: Stage | None = None
        with problems.under(key):
            upscale = upscale.on(model, low)
            if larger := upscale.larger(low):
                fingerprint = _model(upscale.model)[1]
                following = larger
        if following is None:
            return
        yield upscale, following, fingerprint
        low, upscale, key = following, upscale.then, f"{key}.then"


def _enlarged(base: Cell, upscale: Any, stage: Stage, fingerprint: str, parts: Mapping[str, Any]) -> Cell:
    """The cell that enlarges the picture of `base`, towards the same input and under the same mask."""
    levels = upscale.scheduler.levels(stage)
    guidance = _guidance(upscale.guidance, upscale.asked(base.technique.asked(base.prompt)))
    settled = {key: value for key, value in plain(upscale).items() if key != "then"}
    settled |= {"scheduler": _trajectory(upscale.scheduler, stage, levels), "guidance": _plain(guidance)}
    before = {"of": base.config["upscale"]} if base.base else {}
    decided = {**base.config, "upscale": {**settled, "fingerprint": fingerprint, **before}}
    if "prompt" not in decided:
        decided["prompt"] = base.prompt
    pixels = {"input": base.pixels, "mask": base.mask}
    hard_mask = base.hard_mask
    for group in (group for group, array in pixels.items() if array is not None):
        part = parts[group]
        if group == "mask":
            part = part.enlarged(stage.side / base.cascade[0].stage.side)
            hard_mask = _hard(part, stage.side)
        pixels[group], digest = _array(group, part, stage.side)
        decided[group] = {**base.config[group], "sha256": [base.config[group]["sha256"], digest]}
    if plugins := sources(base.model, base.technique, upscale):
        decided["plugins"] = {**base.config.get("plugins", {}), **plugins}
    return replace(
        base,
        id=cell_id(decided),
        config=decided,
        stage=stage,
        scheduler=upscale.scheduler,
        guidance=guidance,
        levels=levels,
        visited=levels,
        pixels=pixels["input"],
        mask=pixels["mask"],
        hard_mask=hard_mask,
        upscale=upscale,
        base=base,
    )


def _trajectory(scheduler: Any, stage: Stage, levels: tuple[Level, ...]) -> dict[str, Any]:
    """A scheduler's settings as they come out on a stage."""
    own = {"steps": len(levels), "timesteps": _hash(tuple(level.t for level in levels))}
    if scheduler.spacing == CHECKPOINT:
        own["spacing"] = stage.spacing
    seen = scheduler.on(stage)
    dynamic = seen.threshold == "dynamic"  # else these two decide nothing
    own |= {"threshold": seen.threshold, "threshold_ratio": seen.threshold_ratio if dynamic else None}
    own |= {"threshold_max": seen.threshold_max if dynamic else None}
    return {**_plain(scheduler), **own}


def _values(config: Mapping[str, Any], problems: _Problems) -> dict[str, Any]:
    """The plain keys at the root, checked; and no others there."""
    for key in config:
        if key not in ROOT:
            problems.messages.append(f"{key}: unknown key; there are {', '.join(ROOT)}{did_you_mean(key, ROOT)}")
    values: dict[str, Any] = dict.fromkeys(VALUES)
    for key, hint in VALUES.items():
        try:
            values[key] = coerced(config.get(key), hint) if key in config or key == "seed" else None
        except TypeError as error:
            problems.messages.append(f"{key}={shown(config.get(key))}: {error}")
    with problems.under():
        require(within("seed", values["seed"], 0, MAX_SEED))
    return values


@lru_cache(maxsize=65536)
def _plain(part: Any) -> dict[str, Any]:
    return plain(part)


def decisive(group: str, config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What of a group's configuration decides pixels: a picture's, a mask's or a trajectory's content stands for how it
    was made."""
    if group in ("input", "mask"):
        return {"sha256": config["sha256"]}
    place = ("path", "variant")
    made = {"model": place, "upscale": place, "text": ("path", "variant", "device"), "scheduler": ("spacing", "steps")}
    inner = {"scheduler": "scheduler", "text": "text", "of": "upscale"} if group in ("model", "upscale") else {}
    kept = {key: value for key, value in config.items() if key not in made.get(group, ())}
    return kept | {key: decisive(inner[key], kept[key]) for key in kept if key in inner}


def cell_id(config: Mapping[str, Any]) -> str:
    """20 hexadecimal digits of SHA-256 over the recipe's version and what decides the pixels."""
    settled = {k: decisive(k, v) if isinstance(v, Mapping) else v for k, v in config.items()}
    text = json.dumps({"recipe": RECIPE, **settled}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def as_typed(config: Mapping[str, Any]) -> str:
    """A cell's configuration without the hashes of what it names: what stays when a file that it reads is edited."""

    def bare(value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {key: bare(one) for key, one in value.items() if key not in CONTENT}

    return json.dumps(bare(config), sort_keys=True)


def settings(config: Mapping[str, Any], group: str) -> Mapping[str, Any]:
    """One of the blocks around the pixels, as a mapping."""
    return as_mapping(group, config.get(group) or {})
