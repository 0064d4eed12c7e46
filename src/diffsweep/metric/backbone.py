"""Networks that torchvision and torch-fidelity keep in torch's own folder. Nothing is downloaded here: a message names
the command that downloads missing weights."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from diffsweep.model.source import hashed


@dataclass(frozen=True)
class Backbone:
    """file: of the weights; fetch: Python that downloads them; package: what it needs beside torchvision."""

    name: str
    file: str
    fetch: str
    package: str | None = None

    @property
    def path(self) -> Path:
        """As torch.hub finds it."""
        cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
        home = Path(os.environ.get("TORCH_HOME") or cache / "torch")
        return home.expanduser() / "hub" / "checkpoints" / self.file

    def missing(self) -> str | None:
        """What is missing, and how to get it; None where nothing is."""
        if self.package and find_spec(self.package.replace("-", "_")) is None:
            return f"the package {self.package} is not installed; run `pip install {self.package}`"
        path = str(self.path).replace(str(Path.home()), "~")
        if not self.path.is_file():
            return f"the weights of {self.name} are not at {path}; `python -c '{self.fetch}'` downloads them"
        if not hashed(self.path).startswith(self.path.stem.rpartition("-")[2]):  # torch.hub's files bear their hash
            return (
                f"the weights of {self.name} at {path} are damaged: remove the file; "
                f"`python -c '{self.fetch}'` downloads it again"
            )
        return None

    def definition(self) -> dict[str, str]:
        found = {"network": self.name, "weights": hashed(self.path)}
        return found | ({"features_package": f"{self.package} {version(self.package)}"} if self.package else {})


def _torchvision(name: str, file: str) -> Backbone:
    return Backbone(name, file, f'import torchvision; torchvision.models.{name}(weights="DEFAULT")')


ALEXNET = _torchvision("alexnet", "alexnet-owt-7be5be79.pth")
VGG16 = _torchvision("vgg16", "vgg16-397923af.pth")
SQUEEZENET = _torchvision("squeezenet1_1", "squeezenet1_1-b8a52dc0.pth")
INCEPTION = Backbone(
    "inception-v3-compat",
    "weights-inception-2015-12-05-6726825d.pth",
    "from torchmetrics.image.fid import FrechetInceptionDistance as F; F()",
    "torch-fidelity",
)
