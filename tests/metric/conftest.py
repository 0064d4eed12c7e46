"""Random weights under the names that torchvision's own have in torch's folder: enough to run what is built on them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def torch_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    import torchvision

    home = tmp_path_factory.mktemp("torch_home")
    folder = home / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.manual_seed(5)
    models = torchvision.models
    for build, weights in (
        (models.alexnet, models.AlexNet_Weights),
        (models.vgg16, models.VGG16_Weights),
        (models.squeezenet1_1, models.SqueezeNet1_1_Weights),
    ):
        with torch.device("meta"):
            network = build()
        # the classifier is never asked, but is loaded: zeros compress nothing and cost nothing to draw
        state = {
            key: torch.randn(value.shape) / value[0].numel() ** 0.5
            if key.startswith("features")
            else torch.zeros(value.shape)
            for key, value in network.state_dict().items()
        }
        torch.save(state, folder / weights.DEFAULT.url.rpartition("/")[2])
    return home


@pytest.fixture
def backbones(torch_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    from diffsweep.metric import backbone, perceptual

    monkeypatch.setenv("TORCH_HOME", str(torch_home))
    # as if these files had the hashes that their names tell
    monkeypatch.setattr(backbone, "hashed", lambda path: path.stem.rpartition("-")[2] + "0" * 56)
    yield
    perceptual._network.cache_clear()
