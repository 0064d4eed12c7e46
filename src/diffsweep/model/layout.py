"""What a folder or a repository is, by its files of configuration: a family's checkpoint, in a layout of diffusers'."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from diffsweep.core.files import is_file
from diffsweep.core.problems import BadInput
from diffsweep.model.family import families
from diffsweep.model.family.family import Configs, Family
from diffsweep.model.labels import Labels
from diffsweep.model.source import WEIGHTED, Source

INDEX = "model_index.json"
IF = "IFPipeline"
KIND = "a checkpoint"
ROOTED = ("UNet2DModel", "UNetUnconditionalModel")  # of which diffusers once saved all at the root
QUANTISED = ".gguf"
TEXT = "text_encoder"  # begins the names of the parts that encode prompts and have weights


def class_of(source: Source) -> str:
    """The pipeline's class that a checkpoint names; BadInput where it is none."""
    path = f"{source.key}={source.path}"
    if is_single(source):
        if source.path.lower().endswith(QUANTISED):
            raise BadInput(f"{path}: quantised weights of one network; diffsweep reads folders that diffusers saves")
        raise BadInput(
            f"{path}: a single file; diffsweep reads folders that diffusers saves: convert it once, where there is a "
            "network, by StableDiffusionPipeline.from_single_file(FILE).save_pretrained(FOLDER), and give FOLDER"
        )
    root = source.root
    if not (root / INDEX).is_file():
        source.require((), KIND)
        if is_file(root / "config.json"):
            alone = source.config(".", "config.json").get("_class_name", "a network")
            if alone in ROOTED and is_file(root / "scheduler_config.json"):
                return "DDPMPipeline"
            raise BadInput(f"{path}: {alone} alone; a whole pipeline is needed, a folder with {INDEX}")
        raise BadInput(f"{path}: not {KIND}, {INDEX} missing in it")
    named = source.config(".", INDEX).get("_class_name")
    if not isinstance(named, str):
        raise BadInput(f"{path}: {INDEX} in it names no pipeline: _class_name={named}")
    return named


@lru_cache
def family_of(source: Source) -> Family:
    """The family of a checkpoint; BadInput where it is not known."""
    name, known = class_of(source), families()
    if name not in known:
        listed = ", ".join(["IFPipeline", *known])
        raise BadInput(f"{source.key}={source.path}: a {name}, which diffsweep cannot sample; it can {listed}")
    return known[name]


@lru_cache
def places_of(pipeline: str) -> tuple[str, ...]:
    """Where checkpoints for a pipeline have weights; of one that is not known, where any has."""
    if (family := families().get(pipeline)) is None or family.kind in ROOTED:
        return WEIGHTED
    texts = [part for part in family.text if part.startswith(TEXT)]
    return tuple(f"{part}/" for part in [family.network, *(["vae"] if family.vae else []), *texts])


def has(index: Mapping[str, Any], part: str) -> bool:
    """Whether a checkpoint has a part. index: as of `_index`."""
    return bool((index.get(part) or [None])[0])


def _index(source: Source, parts: Iterable[str]) -> dict[str, Any]:
    """What model_index.json holds, of old checkpoints nothing; BadInput where it tells these parts otherwise than by a
    library and a class, null where there is none."""
    index = source.config(".", INDEX) if is_file(source.root / INDEX) else {}
    for part in (part for part in parts if index.get(part) is not None):
        kind = index[part]
        pair = isinstance(kind, list) and len(kind) == 2 and kind.count(None) in (0, 2)
        if not pair or not all(word is None or isinstance(word, str) for word in kind):
            told = json.dumps(kind)
            raise BadInput(
                f"{source.key}={source.path}: {part}={told} in {INDEX}: a library and a class are needed, such as "
                '["diffusers", "AutoencoderKL"]'
            )
    return index


@lru_cache
def configs_of(source: Source) -> Configs:
    family = family_of(source)
    index = _index(source, (family.network, "scheduler", "vae", *family.text))
    texts = [name for name in family.text if name.startswith(TEXT) and has(index, name)]
    source.require([family.network, "scheduler", *(["vae"] if family.vae else []), *texts], KIND)
    return Configs(
        index=index,
        network=source.config(family.network, "config.json"),
        scheduler=source.config("scheduler", "scheduler_config.json"),
        vae=source.config("vae", "config.json") if family.vae else {},
        texts={name: source.config(name, "config.json") for name in texts},
    )


@lru_cache
def labels_of(source: Source) -> Labels | None:
    family, configs = family_of(source), configs_of(source)
    try:
        labels = family.labels(configs)
        return labels and replace(labels, path=f"model.path={source.path}")
    except ValueError as error:
        raise BadInput(f"{source.key}={source.path}: {error}") from error


def is_single(source: Source) -> bool:
    return source.hub is None and is_file(Path(source.path).expanduser())
