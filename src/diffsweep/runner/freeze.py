"""From a composed configuration to a frozen cell, with everything that is wrong with it. Needs no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from diffsweep.core.keys import AUTO, Auto
from diffsweep.core.problems import BadInput, did_you_mean, placed, require, within
from diffsweep.core.text import printed
from diffsweep.core.types import EMBEDDED, Level, Stage
from diffsweep.imagefile import unreadable
from diffsweep.model.checkpoint import foreign, resolved
from diffsweep.runner import prompts
from diffsweep.runner.cell import Cell
from diffsweep.runner.identity import cell_id
from diffsweep.runner.parts import as_mapping, build, coerced, groups, plain, sources, undecided, used_by

# the blocks of conf/config.yaml: their keys' types
BLOCKS: dict[str, dict[str, Any]] = {
    "sweep": {"name": Auto | str, "replace": bool},
    "metric": {
        "name": str,
        "names": tuple[str, ...],
        "missing": str,
        "judge": str,
        "features": str,
        "references": str,
    },
    "engine": {
        "rows": Auto | int,
        "threads": Auto | int,
        "trajectory": int,
        "retries": int,
        "grace": float,
        "devices": str,
    },
    "store": {"format": Auto | str},
    "grid": {
        "rows": Auto | str,
        "cols": Auto | str,
        "blocks": Auto | tuple[str, ...],
        "metric": tuple[str, ...] | None,
        "pictures": Auto | tuple[str, ...],
        "size": Auto | int,
    },
}
AROUND = ("metric", "tracker", "sweep", "engine", "store", "grid")  # groups and blocks that do not touch the pixels
VALUES = {
    "seed": int,
    "prompt": Auto | str,
    "device": str,
    "output_dir": str,
    "plugins": tuple[str, ...],
    "confirm": bool,
    "plan": bool,
}
HANDLED = ("scheduler", "guidance", "input", "mask", "view")  # of the groups that a technique may use
MAX_SEED = 2**63 - 1
IN_LATENTS = (
    "a view is of pixels, and this model has latents, which do not turn as their picture does: technique.space=decoded "
    "looks at their pictures, or choose a model in pixels, such as model=tiny or model=if_xl"
)
OPEN: Any = object()  # in the place of a choice, to see whether a technique makes use of it


class _Read(NamedTuple):
    """An input's pixels or a mask's values, their SHA-256, and notes. hard: of a mask, before its edge is softened, 0
    or 255."""

    values: np.ndarray
    digest: str
    notes: tuple[str, ...]
    hard: np.ndarray | None = None


def _read(group: str, part: Any, size: tuple[int, int]) -> _Read:
    """An input or a mask at a height and width; a changed file is read anew."""
    return _stamped(group, part, size, part.stamp())


@lru_cache(maxsize=4096)
def _stamped(group: str, part: Any, size: tuple[int, int], stamp: object) -> _Read:
    height, width = size
    seen = part.sized(height, width)
    values = seen.pixels if group == "input" else seen.values
    if group == "mask" and not values.any():
        name = plain(part)["name"]
        raise BadInput(f"mask={name}: regenerates nothing: it is 0 at each of {width} x {height} pixels")
    digest = hashlib.sha256(repr(values.shape).encode() + np.ascontiguousarray(values).tobytes()).hexdigest()
    hard = np.asarray(seen.hard, dtype=np.uint8) * 255 if group == "mask" else None
    return _Read(values, digest, seen.notes, hard)


@lru_cache(maxsize=4096)
def _hash(timesteps: tuple[float, ...]) -> str:
    return hashlib.sha256(repr(timesteps).encode()).hexdigest()


@lru_cache
def _model(part: Any) -> tuple[Stage, str]:
    stage = part.stage()
    if told := unreadable(*stage.size):
        height, width = stage.size
        keys = f"height={height}, width={width}" if hasattr(part, "height") else f"path={part.path}"
        raise BadInput(f"{keys}: {told}")
    return stage, part.fingerprint()


def _resolved(model: Any) -> Any:
    """The model that its files say it is, its keys as they come out."""
    model = resolved(model)
    return model.settled() if hasattr(model, "settled") else model


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
            self.messages += [m if not group or m.startswith(own) else placed(group, m) for m in error.messages]

    def settle(self) -> None:
        if self.messages:
            raise BadInput(self.messages)


def freeze(config: Mapping[str, Any], axes: Mapping[str, Any]) -> Cell:
    """Check a composed configuration and freeze it to a cell; BadInput with everything that is wrong with it."""
    problems = _Problems()
    values = _values(config, problems)
    parts: dict[str, Any] = {}
    for group in (name for name in groups() if name not in AROUND):  # in order, as messages are
        with problems.under():
            parts[group] = build(group, config.get(group), values["plugins"] or ())
    stage: Stage | None = None
    if "model" in parts:
        with problems.under("model"):
            try:
                parts["model"] = _resolved(parts["model"])
                stage, fingerprint = _model(parts["model"])
            except BadInput as error:  # what a choice sets for its own family may not fit another's folder
                raise BadInput([*foreign(parts["model"]), *error.messages]) from None
    larger: list[tuple[Any, Stage, str]] = []
    if stage is not None and "upscale" in parts:
        larger = list(_larger(parts["upscale"], parts["model"], stage, problems))
    plugins = values["plugins"] or ()
    uses = parts["technique"].uses if "technique" in parts else used_by(config.get("technique"), plugins)
    reads: dict[str, _Read] = {}
    for group in ("input", "mask"):
        if stage is not None and group in uses and group in parts:
            with problems.under(group):
                if group == "mask" and "input" in reads:
                    parts["mask"].fits_cropped(*parts["input"].proportions(), stage.size[::-1])
                reads[group] = _read(group, parts[group], stage.size)
    if stage is None or "technique" not in parts:
        raise BadInput(problems.messages)  # what follows depends on both

    technique: Any = parts["technique"]
    scheduler: Any = parts.get("scheduler")
    near = None
    if hasattr(scheduler, "chosen"):
        near, scheduler = stage.stands_for, scheduler.chosen(stage)
    levels: tuple[Level, ...] = ()
    visited: tuple[Level, ...] = ()
    if scheduler:
        with problems.under("scheduler"):
            levels = scheduler.levels(stage)
            if hasattr(scheduler, "serves") and "scheduler" in uses:
                scheduler.serves(_plain(technique)["name"])
    if levels:
        with problems.under("technique"):
            visited = technique.visited(levels, stage)
            technique = technique.settled(levels, stage)
    looks: tuple[Any, ...] = technique.looks(parts.get("view")) if "view" in uses else ()
    decoded = getattr(technique, "space", None) == "decoded"  # views are of pictures, whatever the model samples
    for view in looks if stage.factor > 1 and not decoded else ():
        with problems.under("view"):
            if (name := _plain(view)["name"]) != "identity":
                raise BadInput(f"view={name}: {IN_LATENTS}")
    for view in looks:
        with problems.under("view"):
            for seen in (stage, *(s for _, s, _ in larger if s.factor == 1)):
                _fits(view, *(seen.size if decoded else seen.shape[1:]))
    guided: Any = None
    if "guidance" in parts:
        with problems.under("guidance"):
            guided = _guided(parts["guidance"], stage)
    prompt, assumed = "", None
    picture = parts.get("input")
    if picture and ("input" in reads or "input" not in uses):
        with problems.under():
            name = _plain(picture)["name"]
            prompt, assumed = prompts.settled(values["prompt"], technique, picture, name, guided, stage.assumed)
            prompt = prompts.read(parts["model"], prompt, technique, guided)
    problems.settle()

    guidance = _plainest(guided, technique.prompts_for(prompt))
    model = parts["model"]
    used: dict[str, Any] = {
        "model": {**_plain(model), "fingerprint": fingerprint, **_told(model, "decided")},
        "technique": _plain(technique),
    }
    if "prompt" in uses:
        asked = technique.prompts_for(prompt)
        used["prompt"] = asked[0] if len(asked) == 1 else list(asked)
        left = undecided(technique.__class__)
        used["technique"] = {key: value for key, value in used["technique"].items() if key not in left}
    if "scheduler" in uses:
        used["scheduler"] = _trajectory(scheduler, stage, levels)
    if "guidance" in uses:
        used["guidance"] = _plain(guidance)
    if "view" in uses and OPEN in technique.looks(OPEN):  # else it has views of its own
        used["view"] = _plain(parts["view"])
    for group, read in reads.items():
        used[group] = {**_plain(parts[group]), "sha256": read.digest}
    others = {group: parts[group] for group in sorted(uses - {"prompt", *HANDLED})}
    used |= {group: _plain(part) for group, part in others.items()}
    deciding = uses - {"prompt", "input", "mask"}
    if own := sources(parts["model"], technique, *(parts[group] for group in sorted(deciding))):
        used["plugins"] = own  # edited, or of a shipped part's name: another picture
    decided = {"seed": values["seed"], **used}
    cell = Cell(
        id=cell_id(decided, plugins),
        config=decided,
        axes=axes,
        seed=values["seed"],
        prompt=prompt,
        model=model.shared() if hasattr(model, "shared") else model,
        beside=_told(model, "beside"),
        stage=stage,
        scheduler=scheduler,
        guidance=guidance,
        technique=technique,
        view=parts["view"],
        parts=others,
        levels=levels,
        visited=visited,
        pixels=reads["input"].values if "input" in reads else None,
        mask=reads["mask"].values if "mask" in reads else None,
        hard_mask=reads["mask"].hard if "mask" in reads else None,
        notes=(
            *_notes(reads, technique, stage),
            *([_near(near, stage)] if near and "scheduler" in uses else []),
            *([f"prompt: {assumed}"] if assumed else []),
        ),
    )
    for upscale, following, weights in larger:
        cell = _enlarged(cell, upscale, following, weights, parts, plugins)
    return cell


def _told(model: Any, what: str) -> dict[str, Any]:
    """What a model says of itself beside its keys, if it does: what decides pictures, or what a question tells it."""
    return getattr(model, what)() if hasattr(model, what) else {}


def _guided(guidance: Any, stage: Stage) -> Any:
    """As it is for a stage; BadInput where that cannot be guided so."""
    guidance = guidance.on(stage) if hasattr(guidance, "on") else guidance
    if EMBEDDED in stage.steers and EMBEDDED not in getattr(guidance, "told", {}):
        name = _plain(guidance)["name"]
        raise BadInput(f"guidance={name}: it does not tell this checkpoint's network the scale that it takes (`told`)")
    return guidance


def _plainest(guidance: Any, prompts: tuple[str, ...]) -> Any:
    """In its plainest form about these prompts, so that equal pictures have equal ids."""
    return guidance.settled(prompts) if hasattr(guidance, "settled") else guidance


def _near(named: str, stage: Stage) -> str:
    return (
        f"scheduler=auto: {stage.rule}, in the place of the checkpoint's {named}; "
        f"scheduler=diffusers scheduler.cls={named} is that itself, for text_to_image and image_to_image"
    )


def _notes(reads: Mapping[str, _Read], technique: Any, stage: Stage) -> Iterator[str]:
    """Notes on how input and mask were read, and what a technique says of itself on a stage."""
    for group, read in reads.items():
        yield from (f"{group}: {note}" for note in read.notes)
    if hasattr(technique, "notes"):
        yield from (f"technique={_plain(technique)['name']}: {note}" for note in technique.notes(stage))


def _fits(view: Any, height: int, width: int) -> None:
    """BadInput unless the view can show pictures of these sides."""
    if height != width and getattr(view, "square", False):
        raise BadInput(
            f"view={plain(view)['name']}: shows squares alone, and the model's picture is {width} x {height}; "
            "identity, flip, negate and rotate with angle=180 show any"
        )
    if hasattr(view, "fits"):
        for side in dict.fromkeys((height, width)):
            view.fits(side)


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
        if hasattr(upscale.scheduler, "chosen"):
            upscale = replace(upscale, scheduler=upscale.scheduler.chosen(following))
        yield upscale, following, fingerprint
        low, upscale, key = following, upscale.then, f"{key}.then"


def _enlarged(
    base: Cell, upscale: Any, stage: Stage, fingerprint: str, parts: Mapping[str, Any], plugins: tuple[str, ...]
) -> Cell:
    """The cell that enlarges the picture of `base`, towards the same input and under the same mask."""
    levels = upscale.scheduler.levels(stage)
    asked = upscale.prompts_for(base.technique.prompts_for(base.prompt))
    guidance = _plainest(_guided(upscale.guidance, stage), asked)
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
            part = part.enlarged(stage.size[0] / base.cascade[0].stage.size[0])
            hard_mask = _read(group, part, stage.size).hard
        read = _read(group, part, stage.size)
        pixels[group] = read.values
        decided[group] = {**base.config[group], "sha256": [base.config[group]["sha256"], read.digest]}
    if own := sources(base.model, base.technique, upscale):
        decided["plugins"] = {**base.config.get("plugins", {}), **own}
    return replace(
        base,
        id=cell_id(decided, plugins),
        config=decided,
        stage=stage,
        scheduler=upscale.scheduler,
        guidance=guidance,
        levels=levels,
        visited=levels,
        pixels=pixels["input"],
        mask=pixels["mask"],
        hard_mask=hard_mask,
        beside={},
        upscale=upscale,
        base=base,
    )


def _trajectory(scheduler: Any, stage: Stage, levels: tuple[Level, ...]) -> dict[str, Any]:
    """A scheduler's settings as they come out on a stage."""
    own = {"steps": len(levels), "timesteps": _hash(tuple(level.t for level in levels))}
    if scheduler.spacing == AUTO:
        own["spacing"] = stage.spacing
    seen = scheduler.on(stage)
    dynamic = seen.threshold == "dynamic"  # else these two decide nothing
    own |= {"threshold": seen.threshold, "threshold_ratio": seen.threshold_ratio if dynamic else None}
    own |= {"threshold_max": seen.threshold_max if dynamic else None}
    return {**_plain(scheduler.settled() if hasattr(scheduler, "settled") else scheduler), **own}


def _values(config: Mapping[str, Any], problems: _Problems) -> dict[str, Any]:
    """The plain keys at the root, checked; and no others there."""
    root = dict.fromkeys([*VALUES, "vars", *groups(), *AROUND])  # vars: texts that others name; they decide nothing
    for key in config:
        if key not in root:
            problems.messages.append(f"{key}: unknown key; there are {', '.join(root)}{did_you_mean(key, root)}")
    values: dict[str, Any] = dict.fromkeys(VALUES) | {"prompt": AUTO}
    for key, hint in VALUES.items():
        try:
            values[key] = coerced(config.get(key), hint) if key in config or key == "seed" else values[key]
        except TypeError as error:
            problems.messages.append(f"{key}={printed(config.get(key))}: {error}")
    with problems.under():
        require(within("seed", values["seed"], 0, MAX_SEED))
    return values


@lru_cache(maxsize=65536)
def _plain(part: Any) -> dict[str, Any]:
    return plain(part)


def block_of(config: Mapping[str, Any], group: str) -> Mapping[str, Any]:
    """One of the blocks around the pixels, as a mapping."""
    return as_mapping(group, config.get(group) or {})
