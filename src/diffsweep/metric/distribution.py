"""Distances between a setting's pictures and a reference set, in a network's features.

fid   Frechet distance of two Gaussians (Heusel et al. 2017); falls with the number of pictures: compare equal numbers
kid   squared maximum mean discrepancy under a cubic kernel (Binkowski et al. 2018); unbiased at any number
"""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from PIL import Image

from diffsweep.core.problems import BadInput
from diffsweep.metric.backbone import INCEPTION
from diffsweep.metric.batch import Batch, Direction, Score, in_calls
from diffsweep.model.clip import Clip

if TYPE_CHECKING:
    from torch import Tensor

FEATURES = ("clip", "inception")
WORLD = 4  # held-out renders of each scene in each style
SUBSET, SUBSETS = 1000, 100  # KID's, as its authors chose them; small sets are taken whole, once
PICTURES = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True)
class Distribution:
    """features: one of `FEATURES`: the embedding of `clip`, or Inception's last pooling. references: `inputs` (the
    cells' own clean inputs), `world` (the drawn world's held-out pictures), or a folder."""

    name: Literal["fid", "kid"]
    direction: ClassVar[Direction] = "lower"
    features: str = "clip"
    references: str = "inputs"
    clip: Clip = field(default_factory=Clip)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"reference"} if self.references == "inputs" else ())

    def missing(self) -> str | None:
        return INCEPTION.missing() if self.features == "inception" else None

    def definition(self) -> dict[str, Any]:
        formula = {
            "fid": "FID: Frechet distance of two Gaussians",
            "kid": f"KID: squared MMD, cubic kernel, at most {SUBSETS} subsets of {SUBSET}",
        }
        network = INCEPTION.definition() if self.features == "inception" else self.clip.definition()
        return {
            "metric": formula[self.name],
            "direction": self.direction,
            **network,
            "features": self.features,
            "references": self._told(),
            "distance": f"torchmetrics {version('torchmetrics')}",
        }

    def _told(self) -> str:
        if self.references == "inputs":
            return "the clean inputs of the same cells, each once"
        if self.references == "world":
            return f"held-out pictures of the drawn world, {WORLD} of each scene in each style"
        files = _files(self.references)
        digest = hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files))
        return f"{len(files)} pictures, SHA-256 {digest.hexdigest()}"

    def together(self, batch: Batch) -> Score:
        real = self._real(batch)
        fake = self.embedded(batch.images, batch.device)
        if min(len(real), len(fake)) < 2:
            return Score(None, reason=f"two pictures and two references are needed, not {len(fake)} and {len(real)}")
        return Score(round(_distance(self.name, real, fake), 6))

    def _real(self, batch: Batch) -> Tensor:
        if self.references == "inputs":
            assert batch.references is not None
            return self.embedded(np.unique(batch.references, axis=0), batch.device)
        return _embedded(self, batch.images.shape[1], batch.device)

    def embedded(self, pictures: np.ndarray, device: str) -> Tensor:
        """B D float64 from uint8 B H W 3."""
        embed = _inception(device) if self.features == "inception" else self.clip.network(device).of_pictures
        return in_calls(embed, pictures).cpu().double()


@lru_cache(maxsize=4)
def _embedded(metric: Distribution, side: int, device: str) -> Tensor:
    """The reference set that does not depend on the cells. side: of the drawn world's pictures, in pixels."""
    import torch

    if metric.references != "world":
        pictures = (np.asarray(Image.open(file).convert("RGB"))[None] for file in _files(metric.references))
        return torch.cat([metric.embedded(picture, device) for picture in pictures])
    from diffsweep.world import SCENES, STYLES, picture

    drawn = [picture(s, style, 2 * n + 1, side).pixels for n in range(WORLD) for s in SCENES for style in STYLES]
    return metric.embedded(np.stack(drawn), device)


def _files(folder: str) -> list[Path]:
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise BadInput(f"metric.references={folder}: must be inputs, world or a folder of pictures; there is none such")
    files = sorted(file for file in root.iterdir() if file.suffix.lower() in PICTURES)
    if len(files) < 2:
        raise BadInput(f"metric.references={folder}: two pictures or more are needed, there are {len(files)}")
    return files


@lru_cache(maxsize=2)
def _inception(device: str) -> Any:
    """B 2048 from uint8 B H W 3."""
    import torch
    from torchmetrics.image.fid import NoTrainInceptionV3

    network = NoTrainInceptionV3("inception-v3-compat", ["2048"], str(INCEPTION.path)).to(device)
    return lambda pixels: network(torch.from_numpy(pixels).permute(0, 3, 1, 2).to(device))


def _distance(name: str, real: Tensor, fake: Tensor) -> float:
    import torch
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    features: Any = torch.nn.Identity()
    features.num_features = real.shape[1]
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.filterwarnings("ignore", message="Metric `Kernel Inception Distance` will save all")
        torch.manual_seed(0)  # of KID's subsets
        if name == "fid":
            metric: Any = FrechetInceptionDistance(features).set_dtype(torch.float64)
        else:
            size = min(len(real), len(fake), SUBSET)
            whole = size == len(real) == len(fake)
            metric = KernelInceptionDistance(features, subsets=1 if whole else SUBSETS, subset_size=size)
        metric.update(real, real=True)
        metric.update(fake, real=False)
        result = metric.compute()
    return (result[0] if name == "kid" else result).item()


METRICS = (Distribution("fid"), Distribution("kid"))
