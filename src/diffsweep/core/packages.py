"""Where parts are looked for: the user's packages, named or declared by an entry point, then diffsweep itself."""

from __future__ import annotations

import hashlib
import importlib
import inspect
from collections.abc import Iterator
from functools import lru_cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from diffsweep.core.problems import BadInput, require


@lru_cache
def packages(plugins: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The packages in order; BadInput for every plugin that cannot be imported."""
    require(*(f"plugins={name}: no such package can be imported" for name in plugins if not _importable(name)))
    return (*plugins, *(point.value for point in entry_points(group="diffsweep.plugins")), "diffsweep")


def _importable(name: str) -> bool:
    try:
        return all(word.isidentifier() for word in name.split(".")) and find_spec(name) is not None
    except ModuleNotFoundError:  # of a package above it
        return False


def modules(group: str, plugins: tuple[str, ...] = ()) -> Iterator[str]:
    """The modules in every package's folder `group`, by their dotted names; BadInput where one fails to import."""
    for package in packages(plugins):
        path = f"{package}.{group}"
        try:
            folder = importlib.import_module(path)
        except ModuleNotFoundError as error:
            if error.name in (package, path):  # it has no such folder
                continue
            raise BadInput(f"plugins={package}: {error}") from error
        yield from (f"{path}.{name}" for name in sorted(m.name for m in iter_modules(folder.__path__)))


def source(part: Any) -> str | None:
    """SHA-256 of the file that defines a user's own part; None for a shipped part."""
    if type(part).__module__.partition(".")[0] == "diffsweep":
        return None
    return hashlib.sha256(Path(inspect.getfile(type(part))).read_bytes()).hexdigest()
