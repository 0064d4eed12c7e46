"""Cases run without a network, in a folder of their own, beside a secret that none may show."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz.values import SECRET


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hydra_restore_singletons: None) -> Iterator[Path]:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("hydra_plugins.diffsweep_fused._loader.MOST_CELLS", 300)  # each takes milliseconds
    monkeypatch.setenv("CANARY", SECRET)
    monkeypatch.setenv("WANDB_MODE", "offline")
    place = tmp_path / "here"
    place.mkdir()
    monkeypatch.chdir(place)
    (place / "folder").mkdir()
    os.mkfifo(place / "fifo")
    yield place
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here"]  # nothing was written elsewhere
