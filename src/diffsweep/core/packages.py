"""Where diffsweep looks for parts: the user's packages, named or declared by an entry point, then diffsweep itself."""

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
from traceback import walk_tb
from types import ModuleType
from typing import Any

from diffsweep.core.files import is_folder
from diffsweep.core.memory import out_of_memory
from diffsweep.core.problems import BadInput, require
from diffsweep.core.text import in_one_line
from diffsweep.paths import shipped

HINT = "plugins=[my_package] finds a part of your own"
_plugins: set[str] = set()  # all of the user's own that were asked for
_digests: dict[type, str] = {}  # of their files, as they were first read


@lru_cache
def packages(plugins: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The packages in order; BadInput for every plugin that cannot be imported, or holds no parts."""
    require(*map(_wrong, plugins))
    found = (*plugins, *(point.value for point in entry_points(group="diffsweep.plugins")))
    _plugins.update(name for name in found if name.partition(".")[0] != "diffsweep")
    return (*found, "diffsweep")


def _wrong(name: str) -> str | None:
    """What is wrong with a plugin, found from its folders, without running any of its code."""
    groups = sorted(folder.name for folder in shipped("conf").iterdir() if folder.is_dir())
    first, *inner = name.split(".")
    try:  # of a dotted name, it would import the package above
        spec = find_spec(first) if all(word.isidentifier() for word in (first, *inner)) else None
    except ValueError:  # of a program that is no module, such as __main__
        return f"plugins={name}: not a package"
    places = [Path(place, *inner) for place in (spec and spec.submodule_search_locations) or ()]
    if spec is None or (inner and not any(map(is_folder, places))):
        return f"plugins={name}: no such package can be imported; install it, or set PYTHONPATH to the folder it is in"
    if any(is_folder(place / group) for place in places for group in groups):
        return None
    return f"plugins={name}: not a package with parts; it needs at least one of the folders {', '.join(groups)}"


def modules(group: str, plugins: tuple[str, ...] = ()) -> Iterator[str]:
    """The modules in every package's folder `group`, by their dotted names; BadInput where one fails to import."""
    for package in packages(plugins):
        path = f"{package}.{group}"
        try:
            folder = imported(path)
        except ModuleNotFoundError:  # it has no such folder
            continue
        yield from (f"{path}.{name}" for name in sorted(m.name for m in iter_modules(folder.__path__)))


def imported(path: str) -> ModuleType:
    """A module of one of the packages; ModuleNotFoundError where there is none, BadInput where it fails to import."""
    try:
        return importlib.import_module(path)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and f"{path}.".startswith(f"{error.name}."):
            raise
        if out_of_memory(error):
            raise
        raise BadInput(f"plugins={path}: {described(error)}") from error


def culprit(error: BaseException | None) -> str | None:
    """The line of a plugin's code that an exception comes from; None where it comes from elsewhere."""
    while error is not None:
        for frame, line in reversed([*walk_tb(error.__traceback__)]):
            if any(f"{frame.f_globals.get('__name__')}.".startswith(f"{name}.") for name in _plugins):
                return f"{frame.f_code.co_filename}, line {line}"
        error = error.__cause__
    return None


def described(error: BaseException) -> str:
    """An exception in one line, with its place in a plugin's code."""
    place = culprit(error)
    return f"{in_one_line(error)} ({place})" if place else in_one_line(error)


def source(part: Any) -> str | None:
    """SHA-256 of the file that defines a user's own part; None for a shipped part. BadInput where the file has changed
    since this process read it: what was imported is not what stands there."""
    module = type(part).__module__
    if module.partition(".")[0] == "diffsweep":
        return None
    digest = hashlib.sha256(Path(inspect.getfile(type(part))).read_bytes()).hexdigest()
    if _digests.setdefault(type(part), digest) != digest:
        raise BadInput(f"plugins: {module} was edited since this process imported it: start Python again")
    return digest
