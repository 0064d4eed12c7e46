"""A cell's id: a hash of everything that decides its pixels.

It is over the recipe's version, the seed, the model's weights, the technique and those parts that the technique uses,
in their settled form: input and mask by content, spacing and steps by the timesteps they come to. A user's own part
counts with its file. Metrics, tracker, device and batch size are not in it. Which of a part's keys decide nothing, its
fields say (`decides`), and which came `later`: at their default, or at the value
that this names, they are left out, so that older ids stay.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from diffsweep.runner.parts import find, nested, undecided

RECIPE = 2  # raised when the same configuration would give another picture
CONTENT = ("sha256", "fingerprint", "timesteps", "plugins")  # hashes in a cell's configuration, of what it names


def cell_id(config: Mapping[str, Any], plugins: tuple[str, ...] = ()) -> str:
    """20 hexadecimal digits of SHA-256 over the recipe's version and what decides the pixels. plugins: the packages
    that hold the user's own parts."""
    settled = {key: decisive(key, v, plugins) if isinstance(v, Mapping) else v for key, v in config.items()}
    text = json.dumps({"recipe": RECIPE, **settled}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def decisive(group: str, config: Mapping[str, Any], plugins: tuple[str, ...] = ()) -> Mapping[str, Any]:
    """What of a part's configuration decides pixels. The content of a picture or mask stands for the keys that made
    it."""
    if "sha256" in config:
        return {"sha256": config["sha256"]}
    return config if group == "plugins" else _kept(find(group, config["name"], plugins), config, plugins)


def _kept(cls: Any, config: Mapping[str, Any], plugins: tuple[str, ...]) -> Mapping[str, Any]:
    later = {f: f.metadata["later"] for f in dataclasses.fields(cls) if "later" in f.metadata}
    plain = {f.name: f.default if before is True else before for f, before in later.items()}
    kept = {
        key: value
        for key, value in config.items()
        if key not in undecided(cls) and not (key in plain and value == plain[key])
    }
    for key, kind in {**nested(cls), "of": "upscale"}.items():  # of: the stage before
        if isinstance(value := kept.get(key), Mapping):
            kept[key] = decisive(kind, value, plugins) if isinstance(kind, str) else _kept(kind, value, plugins)
    return kept


def as_typed(config: Mapping[str, Any]) -> str:
    """A cell's configuration without content hashes: it stays the same when a file that it reads is edited."""

    def bare(value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {key: bare(one) for key, one in value.items() if key not in CONTENT}

    return json.dumps(bare(config), sort_keys=True)
