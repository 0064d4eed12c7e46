"""Files that are there whole or not at all, and the folder that they lie under."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from diffsweep.core.problems import BadInput


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old content or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    number, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(number, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(number)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk tells no name
        raise
    finally:
        Path(name).unlink(missing_ok=True)  # still there only where something failed


def root_of(output_dir: str, writes: bool = False) -> Path:
    """The folder that output_dir names, which may not be there yet; BadInput where it can be none, or, with `writes`,
    where nothing can be written to it."""
    try:
        root = Path(output_dir).expanduser()
        with suppress(FileNotFoundError, NotADirectoryError):
            os.lstat(root)  # too long, with a NUL, in a loop of links
        there = next(place for place in (root.absolute(), *root.absolute().parents) if os.path.lexists(place))
        if not there.is_dir():
            raise OSError(f"{there} is {'a link that leads to no' if there.is_symlink() else 'not a'} folder")
        os.listdir(there)
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: of ~nobody, where there is no such user
        raise BadInput(f"output_dir={output_dir}: {getattr(error, 'strerror', None) or error}") from None
    if writes:
        try:
            with tempfile.TemporaryDirectory(dir=there, prefix=".diffsweep-"):
                pass
        except OSError as error:
            raise BadInput(f"output_dir={output_dir}: {there} cannot be written to ({error.strerror})") from None
    return root
