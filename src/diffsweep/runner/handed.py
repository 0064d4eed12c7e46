"""A plan that is handed over: the composed configurations of a sweep, in a file that its workers read.

Configurations of one sweep share most of their groups: each distinct one is written once.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffsweep.core.leases import put
from diffsweep.core.problems import BadInput
from diffsweep.runner.plan import Raw

FILE = "plan.json"


@dataclass(frozen=True)
class Handed:
    """What a worker is given: the cells, the sweep's name, the command that was typed, and the folder it was typed in,
    which relative paths begin from."""

    raw: Sequence[Raw]
    name: str
    command: str
    place: str


def write(workplace: Path, raw: Sequence[Raw], name: str, command: str) -> None:
    """Hand a plan over to the workers that meet in this folder; BadInput for what JSON would change, Gone where the
    folder is no more."""
    nodes: list[Any] = []
    places: dict[str, int] = {}
    seen: dict[int, int] = {}  # by identity: jobs share their nodes

    def place(value: Any) -> int:
        if id(value) not in seen:
            text = json.dumps(value)
            if text not in places:
                if json.loads(text) != value:
                    raise BadInput(f"{text[:80]}: cannot be handed over to a worker: its keys must be texts")
                places[text] = len(nodes)
                nodes.append(value)
            seen[id(value)] = places[text]
        return seen[id(value)]

    cells = [[{key: place(value) for key, value in config.items()}, dict(axes)] for config, axes in raw]
    whole = {"name": name, "command": command, "place": str(Path.cwd()), "nodes": nodes, "cells": cells}
    put(workplace / FILE, json.dumps(whole))


def read(workplace: Path) -> Handed:
    """What was handed over in this folder; OSError where nothing was, BadInput where it is damaged."""
    data = (workplace / FILE).read_bytes()
    try:
        whole = json.loads(data)
        nodes = whole["nodes"]
        raw = [({key: nodes[place] for key, place in config.items()}, axes) for config, axes in whole["cells"]]
        return Handed(raw, whole["name"], whole["command"], whole["place"])
    except (ValueError, LookupError, TypeError, AttributeError):
        raise BadInput(f"{workplace / FILE}: damaged; the sweep's command, run again, writes it anew") from None
