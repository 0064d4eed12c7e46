"""scripts/bench_gpu.py measures what public checkpoints are: the parameters that their weights have."""

from __future__ import annotations

import importlib
from pathlib import Path

import diffusers
import pytest
import torch

PUBLIC = {"sd15": 859_520_964, "sdxl": 2_567_463_684, "sd35_medium": 2_243_171_520, "flux": 11_901_408_320}
VAE = 83_653_863  # of Stable Diffusion 1 and XL


@pytest.mark.parametrize("name", PUBLIC)
def test_a_shape_has_its_checkpoints_parameters(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "scripts"))
    shape = importlib.import_module("gpu.shapes").SHAPES[name](1)
    with torch.device("meta"):
        network = getattr(diffusers, shape.kind).from_config(shape.network)
        vae = diffusers.AutoencoderKL.from_config(shape.vae)
    assert sum(p.numel() for p in network.parameters()) == PUBLIC[name]
    assert name not in ("sd15", "sdxl") or sum(p.numel() for p in vae.parameters()) == VAE
