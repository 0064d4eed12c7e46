"""Which keys hold a text, so that it stays as the user types it: `sweep.name=2024_01_01` is no number."""

from __future__ import annotations

import dataclasses
import types
import typing
from functools import lru_cache
from typing import Any

from diffsweep.core.keys import Auto
from diffsweep.core.problems import BadInput
from diffsweep.runner.freeze import BLOCKS, VALUES
from diffsweep.runner.parts import fields_of, find, group_of, groups, names


def holds_text(key: str, plugins: tuple[str, ...] = ()) -> bool:
    """Is a number or a truth value typed for this dotted key a text? A key of several choices is one if it is in each
    of them that has it."""
    top, *path = (word for word in key.split(".") if not word.isdigit())  # a list's entry is as its list
    if top in VALUES:
        return _is_text(VALUES[top])
    if top in BLOCKS:
        return bool(path) and _is_text(BLOCKS[top].get(path[0]))
    return top == "vars" or (top in groups() and bool(path) and _in_group(top, tuple(path), plugins))


@lru_cache
def _in_group(group: str, path: tuple[str, ...], plugins: tuple[str, ...]) -> bool:
    try:
        parts = [find(group, name, plugins) for name in names(group, plugins)]
    except BadInput:  # about plugins, reported when the cells are planned
        parts = []
    found = {answer for part in parts if (answer := _in_fields(part, path, plugins)) is not None}
    return found == {True}


def _in_fields(cls: type, path: tuple[str, ...], plugins: tuple[str, ...]) -> bool | None:
    """None: it has no such field."""
    hint: Any = fields_of(cls).get(path[0])
    if hint is None or len(path) == 1:
        return None if hint is None else _is_text(hint)
    for option in _options(hint):
        if group := group_of(option):
            return _in_group(group, path[1:], plugins)
        if isinstance(option, type) and dataclasses.is_dataclass(option):
            return _in_fields(option, path[1:], plugins)
    return False


def _is_text(hint: Any) -> bool:
    if typing.get_origin(hint) is tuple:
        return _is_text(typing.get_args(hint)[0])
    options = [option for option in _options(hint) if option not in (types.NoneType, Auto)]
    return options == [str] or (len(options) == 1 and options != [hint] and _is_text(options[0]))


def _options(hint: Any) -> tuple[Any, ...]:
    several = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if several else (hint,)
