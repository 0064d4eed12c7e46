"""From a group's configuration to the object that it names: name = path, types and ranges checked. Needs no torch.

`{name: flip, axis: vertical}` of group `view` is the dataclass of `diffsweep/view/flip.py`, its keys the dataclass's
fields. A user's own part is a module of the same group in a package of theirs, listed in `plugins` or found by the
entry point group `diffsweep.plugins`.
"""

from __future__ import annotations

import dataclasses
import json
import re
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import import_module
from typing import Any

from diffsweep.core.group import Group
from diffsweep.core.packages import HINT, imported, modules, source
from diffsweep.core.problems import BadInput, did_you_mean, not_text, placed, require
from diffsweep.core.text import WORDS, printed
from diffsweep.paths import shipped


@lru_cache
def groups() -> dict[str, Group]:
    """The config groups that hold parts: those folders of conf/ whose package has a `GROUP`."""
    folders = sorted(folder.name for folder in shipped("conf").iterdir() if folder.is_dir())
    found = ((name, getattr(import_module(f"diffsweep.{name}"), "GROUP", None)) for name in folders)
    return {name: group for name, group in found if group}


@lru_cache
def usable() -> tuple[str, ...]:
    """What a technique may use."""
    return ("prompt", *(name for name, group in groups().items() if group.chosen))


@lru_cache
def group_of(hint: Any) -> str | None:
    """The group whose part a field of this type holds."""
    return next((name for name, group in groups().items() if group.kind is hint is not None), None)


@lru_cache
def find(group: str, name: str, plugins: tuple[str, ...] = ()) -> type:
    """The dataclass that `name` of `group` stands for."""
    for path in modules(group, plugins):
        if path.rpartition(".")[2] == name and (part := _part(path, group)):
            return part
    known = names(group, plugins)
    placed = "; a choice is placed there by upscale@upscale.then=NAME" if group == "upscale" else ""
    raise BadInput(
        f"{group}={name}: not known; there are {', '.join(known)}; {HINT}{did_you_mean(name, known)}{placed}"
    )


def names(group: str, plugins: tuple[str, ...] = ()) -> list[str]:
    """Every part of a group."""
    return sorted({path.rpartition(".")[2] for path in modules(group, plugins) if _part(path, group)})


def _part(path: str, group: str) -> type | None:
    """The module's part: its dataclass with the group's mark."""
    for value in vars(imported(path)).values():
        own = isinstance(value, type) and value.__module__ == path and dataclasses.is_dataclass(value)
        if own and hasattr(value, groups()[group].mark) and not getattr(value, "__abstractmethods__", None):
            return value
    return None


def build(group: str, config: Any, plugins: tuple[str, ...] = ()) -> Any:
    """The part that a configuration names; BadInput naming `group.key` for everything that is wrong with it."""
    return _build(group, json.dumps(config, default=str), plugins)


@lru_cache(maxsize=65536)
def _build(group: str, config_json: str, plugins: tuple[str, ...]) -> Any:
    config = json.loads(config_json)
    if isinstance(config, str):
        config = {"name": config}
    if not isinstance(config, dict) or not isinstance(config.get("name"), str):
        raise BadInput(f"{group}: a name, or keys with a name, are needed, not {config!r}")
    name = config.pop("name")
    cls = find(group, name, plugins)
    require(_incomplete(group, cls), _mixed(group, name, cls, config, plugins))
    try:
        return _filled(cls, config, plugins, f" of {group}={name}")
    except BadInput as error:
        raise BadInput(placed(group, message) for message in error.messages) from None


def _incomplete(group: str, cls: Any) -> str | None:
    """A problem where the class of a user's own part lacks what its group asks for."""
    contract, base = groups()[group].contract, groups()[group].base
    if contract is None or base is None:
        return None
    name, uses = cls.__module__.rpartition(".")[2], usable()
    has = sorted(key for key in {*vars(contract), *contract.__annotations__} if not key.startswith("_"))
    if lacking := [key for key in has if not hasattr(cls, key)]:
        known = f"{base.__module__}.{base.__name__}"
        return f"{group}={name}: its class {cls.__name__} lacks {', '.join(lacking)}; build it on {known}"
    if wrong := sorted(set(cls.uses) - set(uses)) if group == "technique" else ():
        listed = ", ".join(map(repr, wrong))
        return f"{group}={name}: its `uses` names {listed}; it may name {', '.join(uses)}{did_you_mean(wrong[0], uses)}"
    return None


def _mixed(group: str, name: str, cls: type, config: Mapping[str, Any], plugins: tuple[str, ...]) -> str | None:
    """A problem where only the name was set, and the keys are still those of another choice."""
    own = fields_of(cls).keys()
    others = config.keys() - own
    for other in names(group, plugins) if len(others) > 1 else ():
        if others == fields_of(find(group, other, plugins)).keys() - own:
            listed = ", ".join(key for key in config if key in others)
            return (
                f"{group}={name}: {listed}: keys of {group}={other}; to choose, write {group}={name}, "
                f"or in a sweeps file's defaults list - override /{group}: {name}"
            )
    return None


def _filled(cls: type, config: Mapping[str, Any], plugins: tuple[str, ...], of: str = "") -> Any:
    """The dataclass with these fields; BadInput naming each key that is wrong."""
    hints = fields_of(cls)
    problems, values = [], {}
    entries = {f.name: f.metadata["entry"] for f in dataclasses.fields(cls) if "entry" in f.metadata}
    for key, value in config.items():
        if key not in hints:
            allowed = f"it has {', '.join(hints)}" if hints else "it has none"
            problems.append(f"{key}: unknown key{of}; {allowed}{did_you_mean(key, hints)}")
            continue
        try:
            values[key] = coerced(value, hints[key], plugins, entries.get(key, "{}"))
        except BadInput as error:
            problems += [_under(key, hints[key], message) for message in error.messages]
        except TypeError as error:
            problems.append(f"{key}={printed(value)}: {error}")
    required = [f.name for f in dataclasses.fields(cls) if f.default is f.default_factory is dataclasses.MISSING]
    problems += [f"{key}: must be given, it has no default" for key in required if key not in config]
    try:
        part = cls(**values) if values.keys() >= set(required) else None
    except BadInput as error:
        problems += error.messages
    if problems:
        raise BadInput(problems)
    return part


def _under(key: str, hint: Any, message: str) -> str:
    """A message about a key's value. One about a nested part starts with its group: the key replaces that."""
    if group := group_of(hint):
        return key + message.removeprefix(group)
    return placed(key, message) if dataclasses.is_dataclass(hint) else f"{key}: {message}"


@lru_cache
def fields_of(cls: type[Any]) -> dict[str, Any]:
    """The configurable fields and their types, in order."""
    hints = typing.get_type_hints(cls)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls) if not f.metadata.get("bound")}


def coerced(value: Any, hint: Any, plugins: tuple[str, ...] = (), entry: str = "{}") -> Any:
    """A value as its field's type; TypeError saying what is needed. Whole numbers pass as floats, numbers as text.
    entry: how a list's entry is written, around a text."""
    try:
        return _of_type(value, hint, plugins)
    except TypeError as error:
        several = len(value) > 1 if isinstance(value, list | tuple) else isinstance(value, str) and "," in value
        if several and "number" in str(error) and "a list" not in str(error):
            places = "in a file's hydra.sweeper.params, or in Python in a list"
            raise TypeError(f"{error}; several to sweep over stand {places}") from None
        if isinstance(value, str) and value and str(error).endswith("a list"):
            raise TypeError(f"{error}, as in [{','.join(map(entry.format, value.split(',')))}]") from None
        ends = re.fullmatch(r"(\d+)(?:-|\.\.)(\d+)", value) if isinstance(value, str) else None
        if ends and "number" in str(error) and int(ends[1]) < int(ends[2]):
            raise TypeError(f"{error}; to sweep, -m and range({ends[1]},{int(ends[2]) + 1})") from None
        raise


def _of_type(value: Any, hint: Any, plugins: tuple[str, ...] = ()) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and types.NoneType in arguments:
            return None
        needs = []
        for option in arguments:
            if option is types.NoneType:
                continue
            try:
                return _of_type(value, option, plugins)
            except TypeError as error:
                needs.append(str(error).removeprefix("must be "))
        *most, last = [*needs, *(["null"] if types.NoneType in arguments else [])]
        raise TypeError(f"must be {', '.join(most)}{' or ' if most else ''}{last}")
    if origin is typing.Literal:
        if value in arguments:
            return value
        raise TypeError(f"must be {' or '.join(arguments)}")
    if origin is tuple:
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise TypeError("must be a list")
        return _coerced_list(value, arguments[0], plugins)
    if group := group_of(hint):
        return build(group, value, plugins)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise TypeError("must hold keys")
        return _filled(hint, value, plugins)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not abs(value) <= sys.float_info.max:  # nor NaN
            raise TypeError("must be a finite number")
        return float(value)
    if hint is str and isinstance(value, str | int | float) and not isinstance(value, bool):
        if not_text(str(value)):
            raise TypeError("must be text in UTF-8")
        return str(value)
    if type(value) is hint:
        return value
    raise TypeError(f"must be {WORDS.get(hint, hint)}")


def _coerced_list(value: Sequence[Any], hint: Any, plugins: tuple[str, ...]) -> tuple[Any, ...]:
    items, problems = [], []
    for item in value:
        try:
            items.append(coerced(item, hint, plugins))
        except BadInput as error:
            problems += error.messages
        except TypeError as error:
            raise TypeError(f"must be a list (each entry {str(error).removeprefix('must be ')})") from None
    if problems:
        raise BadInput(problems)
    return tuple(items)


def used_by(technique: Any, plugins: Sequence[str] | None = None) -> frozenset[str]:
    """What a configuration's technique uses, even if its keys are wrong; nothing where the technique is unknown."""
    try:
        part: Any = find("technique", technique["name"], tuple(plugins or ()))
    except (BadInput, KeyError, TypeError):
        return frozenset()
    return frozenset(part.uses)


def sources(*parts: Any) -> dict[str, str]:
    """The user's own modules among these parts and those within them, each with the hash of its file."""
    found: dict[str, str] = {}
    for part in filter(dataclasses.is_dataclass, parts):
        if own := source(part):
            found[type(part).__module__] = own
        for value in vars(part).values():
            found |= sources(*(value if isinstance(value, tuple) else (value,)))
    return found


def plain(part: Any) -> dict[str, Any]:
    """A part as plain values, for a cell's id and record: its class's module name and its configurable fields."""
    cls: type = type(part)
    return {"name": cls.__module__.rpartition(".")[2], **{key: _plain(getattr(part, key)) for key in fields_of(cls)}}


@lru_cache
def undecided(cls: Any) -> frozenset[str]:
    """The keys of a part whose fields say that they decide no pixel: something else in the cell stands for them."""
    return frozenset(f.name for f in dataclasses.fields(cls) if not f.metadata.get("decides", True))


@lru_cache
def nested(cls: Any) -> dict[str, Any]:
    """The fields that hold keys of their own, each with its dataclass, or with the group whose part it holds."""
    kinds = {key: group_of(hint) or hint for key, hint in fields_of(cls).items()}
    return {key: kind for key, kind in kinds.items() if isinstance(kind, str) or dataclasses.is_dataclass(kind)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return plain(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def as_mapping(key: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise BadInput(f"{key}={printed(value)}: must hold keys, not a value")
    return value
