"""The command that makes one cell of a sweep again: the sweep's own words, each axis held at the cell's value.

A value is written in Hydra's grammar of overrides (a text in double quotes unless it is a plain word), and the whole
word then quoted for the shell. The words that name or search the sweep give way to a name of its own, so that running
one cell leaves the sweep's files alone.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from diffsweep.store.schema import Document

AROUND = r"sweep\.\w+|grid|grid\.\w+|hydra/sweeper|hydra\.sweeper\..*"  # they say nothing of one cell
WORD = r"[A-Za-z_][\w./-]*"
NOT_TEXT = ("null", "true", "false", "nan", "inf")  # in any case


def command(sweep: Document, axes: Mapping[str, Any]) -> str:
    """A shell's command line for the cell with these axes."""
    prefixes = added(sweep)
    held = [override(prefixes.get(axis, axis), value) for axis, value in axes.items()]
    before, after = around(sweep)
    return " ".join([before, *held, after])


def around(sweep: Document) -> tuple[str, str]:
    """What stands before and after the axes."""
    program, *words = _words(sweep)
    kept = [word for word in words if _key(word) not in sweep["axes"] and not re.fullmatch(AROUND, _key(word))]
    return shlex.join([program, *kept]), override("sweep.name", f"{sweep['name'][:54]}-again")


def added(sweep: Document) -> dict[str, str]:
    """The axes that the command adds to the configuration, as it does: `+key` or `++key`."""
    return {_key(word): word.partition("=")[0] for word in _words(sweep) if _key(word) in sweep["axes"]}


def override(key: str, value: Any) -> str:
    """`key=value` for Hydra, quoted for the shell."""
    return shlex.quote(f"{key}={written(value)}")


def _words(sweep: Document) -> list[str]:
    try:
        return shlex.split(sweep["command"]) or ["diffsweep"]
    except ValueError:  # not a line of a shell's
        return sweep["command"].split()


def _key(word: str) -> str:
    return word.partition("=")[0].lstrip("+~") if "=" in word else ""


def written(value: Any, literal: bool = True) -> str:
    """A value as Hydra reads it back. literal: a `${` in a text stands for itself, and names no other key."""
    if isinstance(value, Mapping):
        return f"{{{_listed(f'{key}:{written(item, literal)}' for key, item in value.items())}}}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{_listed(written(item, literal) for item in value)}]"
    if not isinstance(value, str):
        return json.dumps(value, allow_nan=False)
    if re.fullmatch(WORD, value, flags=re.ASCII) and value.lower() not in NOT_TEXT:
        return value
    text = re.sub(r"(\\*)\$\{", r"\1\1\\${", value) if literal else value  # OmegaConf's: no interpolation
    text = re.sub(r'(\\*)"', r'\1\1\\"', text)  # a backslash is one, unless a quote or the end follows
    text = re.sub(r"(\\+)\Z", r"\1\1", text)
    return f'"{text}"'


def _listed(items: Iterable[str]) -> str:
    return ",".join(items)
