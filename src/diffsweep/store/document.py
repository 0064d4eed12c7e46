"""A sweep's document: `sweep.json` in its folder, read by anybody, changed under the folder's lock."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

from diffsweep.core import files
from diffsweep.core.files import write_atomic
from diffsweep.core.locks import locked
from diffsweep.store.schema import Document, dump, load

NAME = "sweep.json"
COMMAND = re.compile(rb'^ "command": ("diffsweep .*"),?$', re.MULTILINE)


def empty(name: str, command: str, created: str) -> Document:
    """The document of a sweep that has no cells yet."""
    return {
        "name": name,
        "command": command,
        "created": created,
        "axes": {},
        "cells": [],
        "runs": [],
        "notes": [],
    }


def read(folder: Path) -> Document:
    """The document of the sweep in this folder. Absent, Damaged, or Newer."""
    return load(folder / NAME, Document)


def command(folder: Path) -> str | None:
    """The sweep's command, as far as a damaged document still says it."""
    try:
        found = COMMAND.search(files.read(folder / NAME))
        return str(json.loads(found[1])) if found else None
    except (OSError, ValueError):
        return None


def renew(folder: Path, made: Callable[[], Document]) -> Document:
    """Write the document that `made` makes while nobody else changes it."""
    with locked(folder):
        document = made()
        write_atomic(folder / NAME, dump(document, Document))
    return document


def change(folder: Path, how: Callable[[Document], Document]) -> None:
    """Replace the document by what `how` makes of it, unless that equals it."""
    with locked(folder):
        before = read(folder)
        if (after := how(before)) != before:
            write_atomic(folder / NAME, dump(after, Document))
