"""Keys of a configuration: dotted ones (`guidance.scale` in nested mappings), and the value `auto`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeVar

Auto = Literal["auto"]
AUTO: Auto = "auto"  # the checkpoint, the input, the environment, the machine or other keys decide

T = TypeVar("T")


def at(config: Any, key: str, default: Any = None) -> Any:
    """What a configuration holds at a dotted key; the default where it has no such key."""
    for word in key.split("."):
        if not isinstance(config, Mapping) or word not in config:
            return default
        config = config[word]
    return config


def given(value: T | Auto) -> T | None:
    """The value that a user gives; None where it is auto."""
    return None if value == AUTO else value
