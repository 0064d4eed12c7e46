"""A stored sweep, found by its name or its path and opened."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Set
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from diffsweep.core.files import is_there
from diffsweep.core.problems import BadInput, did_you_mean
from diffsweep.store import document
from diffsweep.store.schema import Absent, Damaged, Document

if TYPE_CHECKING:
    from diffsweep.store.cells import Store


@dataclass(frozen=True)
class Stored:
    """A sweep found on disk: the store it belongs to, and what its sweep.json holds."""

    root: Path
    folder: Path
    sweep: Document
    store: Store

    @property
    def cell_ids(self) -> list[str]:
        """Each cell that is stored, once, in the sweep's order."""
        return [i for i in dict.fromkeys(cell["cell_id"] for cell in self.sweep["cells"]) if i in self.store]

    @property
    def lost(self) -> list[str]:
        """The cells that were finished, and are not in the store any more."""
        done = dict.fromkeys(cell["cell_id"] for cell in self.sweep["cells"] if cell["status"] == "done")
        return [i for i in done if i not in self.store and i not in self.store.damaged]

    def with_bases(self) -> tuple[list[str], dict[str, str]]:
        """These cells, and before each those of a cascade whose pictures lead to its own; and of the latter those that
        are not in the store, each with the cell that enlarges it."""
        found, lacking = dict[str, None](), dict[str, str]()
        for cell_id in self.cell_ids:
            line = [cell_id]
            while base := self.store.record(line[0]).get("facts", {}).get("base"):
                if base not in self.store:
                    if base not in self.store.damaged:
                        lacking.setdefault(base, line[0])
                    break
                line.insert(0, base)
            found |= dict.fromkeys(line)
        return list(found), lacking


def names(root: Path) -> list[str]:
    """The sweeps under an `output_dir`."""
    return sorted(file.parent.name for file in (root / "sweeps").glob(f"*/{document.NAME}"))


def shown_elsewhere(root: Path, name: str, ids: Set[str]) -> Iterator[str]:
    """A line for each other sweep under an `output_dir` that shows some of these cells, which were moved: its page and
    tables lead to where they were."""
    for other in names(root) if ids else ():
        with suppress(Damaged, BadInput):  # of a later diffsweep's too
            own = document.read(root / "sweeps" / other)["cells"] if other != name else ()
            if any(cell["cell_id"] in ids for cell in own):
                again = f"diffsweep-results report {shlex.quote(other)} writes its files anew"
                yield f"note: {other} shows some of the cells that were moved; {again}"


def opened(name: str, output_dir: str) -> Stored:
    """The sweep of this name under output_dir, or at this path; BadInput where there is none."""
    from diffsweep.store.cells import Store

    root, path = Path(output_dir).expanduser(), Path(name).expanduser()
    folder = root / "sweeps" / name
    if path.is_absolute() or not is_there(folder / document.NAME):
        folder = path
        root = _here(folder).parents[1] if is_there(folder / document.NAME) else root
    try:
        sweep = document.read(folder)
    except Absent:
        known = names(root)
        there = f"there are {', '.join(known)}" if known else f"there are none under {root}"
        raise BadInput(f"{name}: no such sweep; {there}{did_you_mean(name, known)}") from None
    except Damaged as error:
        told = f"{error}; the sweep's command, run again, writes it anew"
        command = document.command(folder)
        raise BadInput(f"{told}: {command}" if command else told) from None
    if not sweep["cells"]:
        raise BadInput(f"{folder / document.NAME}: holds no cells; the sweep's command, run again, writes it anew")
    return Stored(root, folder, {**sweep, "name": _here(folder).name}, Store(root))


def _here(folder: Path) -> Path:
    """An absolute path without `..`, its links left as they are: a sweep's folder may be one, under its own name."""
    return Path(os.path.abspath(folder))  # noqa: PTH100
