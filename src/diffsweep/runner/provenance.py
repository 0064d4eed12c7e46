"""What made a picture, beside its settings."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("diffsweep", "torch", "diffusers", "transformers", "hydra-core", "numpy", "pillow", "torchvision")


@lru_cache
def provenance() -> Mapping[str, Any]:
    """Package versions and, from a checkout, the commit."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {"versions": versions, "git": _commit(Path(__file__).parents[3])}


def _commit(checkout: Path) -> str | None:
    """The commit of a checkout, `-dirty` where files differ from it; None where there is none, or no git."""
    if not (checkout / ".git").exists():
        return None
    try:
        git = subprocess.run(
            ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return None
    return git.stdout.strip() or None
