"""Dotted keys: `guidance.scale` in nested mappings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def at(config: Any, key: str, default: Any = None) -> Any:
    """What a configuration holds at a dotted key; the default where it has no such key."""
    for word in key.split("."):
        if not isinstance(config, Mapping) or word not in config:
            return default
        config = config[word]
    return config
