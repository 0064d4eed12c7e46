"""Diffusers' own pipelines, for what they make of prompts."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

from diffsweep.model.layout import class_of, configs_of, family_of, has
from diffsweep.model.source import Source
from diffsweep.model.text import tokenizer


def pipeline_of(source: Source, parts: Mapping[str, Any]) -> Any:
    """Diffusers' own pipeline of a checkpoint, of which these parts alone are there."""
    import diffusers

    found, kind = configs_of(source), getattr(diffusers, class_of(source))
    known = inspect.signature(kind.__init__).parameters
    usual = {key: one.default for key, one in known.items() if isinstance(one.default, int | float)}
    settings = {key: value for key in usual if isinstance(value := found.index.get(key), int | float)}
    needed = [key for key, one in known.items() if one.default is inspect.Parameter.empty and key != "self"]
    off = {"requires_safety_checker": False} if "requires_safety_checker" in known else {}
    pipeline = kind(**{**dict.fromkeys(needed), **settings, **off, **parts})
    unloaded = SimpleNamespace(config=SimpleNamespace(**found.network))  # some read the network's widths
    pipeline.__dict__[family_of(source).network] = unloaded
    return pipeline


@contextmanager
def quiet() -> Iterator[None]:
    """Within, the libraries do not warn of prompts that are cut: `Checkpoint.cuts` told of them."""
    logs = [logging.getLogger(name) for name in ("diffusers.pipelines", "transformers.tokenization_utils_base")]
    before = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for log, level in zip(logs, before, strict=True):
            log.setLevel(level)


@lru_cache
def reading(source: Source) -> Any:
    """A checkpoint's pipeline with its tokenizers alone, which count."""
    index = configs_of(source).index
    names = [name for name in family_of(source).text if name.startswith("tokenizer") and has(index, name)]
    return pipeline_of(source, {name: tokenizer(source.root, name) for name in names})
