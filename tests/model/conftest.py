"""Random checkpoints of each family, each saved once for a module's tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.checkpoints import saved


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The folder of a family's checkpoint; not to be changed."""
    kept: dict[str, Path] = {}

    def folder(name: str, **more: Any) -> Path:
        key = f"{name}-{more}"
        if key not in kept:
            kept[key] = saved(tmp_path_factory.mktemp(name), name, **more)
        return kept[key]

    return folder
