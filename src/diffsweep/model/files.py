"""Where weights lie, and whether they are what they should be. Needs no torch.

A folder's SHA256SUMS, where it has one (as sha256sum writes it), is held against its files; the embedded ones have.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from diffsweep.core.problems import BadInput

EMBEDDED = ("tiny", "tiny_upscale", "tiny_clip")  # folders beside this file
SUMS = "SHA256SUMS"


def folder(path: str) -> Path:
    """An embedded folder by its name, or any other."""
    return Path(__file__).parent / path if path in EMBEDDED else Path(path).expanduser()


def expected(path: str) -> dict[str, str]:
    """The SHA-256 of each file that SHA256SUMS lists; nothing where there is no such list."""
    sums = folder(path) / SUMS
    lines = (line.split(maxsplit=1) for line in sums.read_text().splitlines()) if sums.is_file() else ()
    return {name.removeprefix("*"): sha256 for sha256, name in lines}


def complete(path: str) -> None:
    """BadInput naming each file that SHA256SUMS lists and that is not there."""
    gone = [(name, sha256) for name, sha256 in expected(path).items() if not (folder(path) / name).is_file()]
    if gone:
        raise BadInput(f"path={path}: {name} is missing: SHA-256 {sha256} is expected" for name, sha256 in gone)


def digest(path: str, files: Sequence[Path]) -> str:
    """SHA-256 over names and contents of files in a folder; BadInput naming each that is not as SHA256SUMS says."""
    return _digest(path, tuple((str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files))


@lru_cache
def _digest(path: str, state: tuple[tuple[str, int, int], ...]) -> str:
    root, whole, found = folder(path), hashlib.sha256(), {}
    for name, _, _ in state:
        relative = Path(name).relative_to(root).as_posix()
        with Path(name).open("rb") as file:
            content = hashlib.file_digest(file, "sha256")
        found[relative] = content.hexdigest()
        whole.update(relative.encode())
        whole.update(content.digest())
    damaged = [
        f"path={path}: {name} is damaged: SHA-256 {sha256} is expected, {found[name]} found"
        for name, sha256 in expected(path).items()
        if found.get(name, sha256) != sha256
    ]
    if damaged:
        raise BadInput(damaged)
    return whole.hexdigest()
