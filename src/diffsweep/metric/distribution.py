"""Distances between a setting's pictures and a reference set, in a network's features.

fid   Frechet distance of two Gaussians (Heusel et al. 2017); falls with the number of pictures: compare equal numbers
kid   squared maximum mean discrepancy under a cubic kernel (Binkowski et al. 2018); unbiased at any number

Below `FEW` pictures or references a number has a note: a covariance of Inception's 2,048 features needs more of them to
be of full rank, and FID's authors ask for 10,000. KID has no bias there, but scatters.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from PIL import Image

from diffsweep.core.files import is_folder, require_regular
from diffsweep.core.problems import BadInput
from diffsweep.metric.backbone import INCEPTION
from diffsweep.metric.batch import Batch, Direction, Score, in_calls
from diffsweep.model.clip import Clip

if TYPE_CHECKING:
    from torch import Tensor

FEATURES = ("clip", "inception")
FEW = 2048
WORLD = 4  # held-out renders of each scene in each style
AT_ONCE = 64  # pictures held at once
PICTURES = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True)
class Distribution:
    """features: one of `FEATURES`: the embedding of `judge`, or Inception's last pooling. references: `inputs` (the
    cells' own clean inputs), `world` (the drawn world's held-out pictures), or a folder."""

    name: Literal["fid", "kid"]
    direction: ClassVar[Direction] = "lower"
    features: str = "clip"
    references: str = "inputs"
    judge: Clip = field(default_factory=Clip)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"reference"} if self.references == "inputs" else ())

    def missing(self) -> str | None:
        return INCEPTION.missing() if self.features == "inception" else None

    def definition(self) -> dict[str, Any]:
        formula = {
            "fid": "FID: Frechet distance of two Gaussians",
            "kid": "KID: squared MMD, cubic kernel, unbiased, over all pairs",
        }
        network = INCEPTION.definition() if self.features == "inception" else self.judge.definition()
        return {
            "metric": formula[self.name],
            "direction": self.direction,
            "note_below": FEW,
            **network,
            "features": self.features,
            "references": self.reference_set,
        }

    @property
    def reference_set(self) -> str:
        """A description that changes whenever the reference set does."""
        if self.references == "inputs":
            return "the clean inputs of the same cells, each once"
        if self.references == "world":
            drawn = f"held-out pictures of the drawn world, {WORLD} of each scene in each style"
            return f"{drawn}, as diffsweep {version('diffsweep')} draws them"
        files = _files(self.references)
        return f"{len(files)} pictures, SHA-256 {_digest(tuple((str(f), f.stat().st_mtime_ns) for f in files))}"

    def together(self, batch: Batch) -> Score:
        real = self._real(batch)
        fake = self.embedded(batch.images, batch.device)
        if min(len(real), len(fake)) < 2:
            return Score(None, reason=f"two pictures and two references are needed, not {len(fake)} and {len(real)}")
        value = float(f"{(fid if self.name == 'fid' else kid)(real, fake):.8g}")
        return Score(value, note=self.caveat(len(fake), len(real)))

    def caveat(self, pictures: int, references: int = FEW) -> str | None:
        """A caveat on numbers of so few pictures; None for enough."""
        if min(pictures, references) >= FEW:
            return None
        against = f" against {references} references" if references < FEW else ""
        fault = {"fid": "is too high, the more so the fewer: compare equal numbers alone", "kid": "scatters widely"}
        return f"of {pictures} pictures{against}; below {FEW:,} it {fault[self.name]}"

    def _real(self, batch: Batch) -> Tensor:
        if self.references == "inputs":
            assert batch.references is not None
            return self.embedded(np.unique(batch.references, axis=0), batch.device)
        return _embedded(replace(self, name="fid"), self.reference_set, batch.images.shape[1:3], batch.device)

    def embedded(self, pictures: np.ndarray, device: str) -> Tensor:
        """B D float64 from uint8 B H W 3."""
        embed = _inception(device) if self.features == "inception" else self.judge.network(device).of_pictures
        return in_calls(embed, pictures).cpu().double()


@lru_cache(maxsize=4)
def _embedded(metric: Distribution, reference_set: str, size: tuple[int, int], device: str) -> Tensor:
    """A reference set that does not depend on the cells. size: height and width of the drawn world's pictures."""
    import torch

    if metric.references == "world":
        from diffsweep.input.world import World
        from diffsweep.world import SCENES, STYLES

        ids = (f"{s}/{style}/{n}" for n in range(WORLD) for s in SCENES for style in STYLES)
        drawn = [World(id).sized(*size).pixels for id in ids]
        return metric.embedded(np.stack(drawn), device)
    pictures = (np.asarray(Image.open(file).convert("RGB")) for file in _files(metric.references))
    runs = (list(run) for _, run in groupby(pictures, key=lambda pixels: pixels.shape))
    parts = (run[i : i + AT_ONCE] for run in runs for i in range(0, len(run), AT_ONCE))
    return torch.cat([metric.embedded(np.stack(part), device) for part in parts])


def _files(folder: str) -> list[Path]:
    root = Path(folder).expanduser()
    if not is_folder(root):
        raise BadInput(f"metric.references={folder}: must be inputs, world or a folder of pictures that exists")
    files = sorted(file for file in root.iterdir() if file.suffix.lower() in PICTURES)
    if len(files) < 2:
        raise BadInput(f"metric.references={folder}: two pictures or more are needed, there are {len(files)}")
    return files


@lru_cache(maxsize=4)
def _digest(files: tuple[tuple[str, int], ...]) -> str:
    """SHA-256 of the files' contents; BadInput for one that is no picture. files: paths, with when they changed."""
    whole = hashlib.sha256()
    for name, _ in files:
        try:
            require_regular(Path(name))
            with Image.open(name) as image:
                image.verify()
        except (OSError, SyntaxError) as error:
            raise BadInput(f"metric.references: {name} cannot be read ({error})") from error
        whole.update(hashlib.sha256(Path(name).read_bytes()).digest())
    return whole.hexdigest()


@lru_cache(maxsize=2)
def _inception(device: str) -> Any:
    """B 2048 from uint8 B H W 3."""
    import torch
    from torchmetrics.image.fid import NoTrainInceptionV3

    network = NoTrainInceptionV3("inception-v3-compat", ["2048"], str(INCEPTION.path)).to(device)
    return lambda pixels: network(torch.from_numpy(pixels).permute(0, 3, 1, 2).to(device))


def fid(x: Tensor, y: Tensor) -> float:
    """Heusel et al. (6): |mean x - mean y|^2 + tr(A + B - 2 sqrt(A B)), A and B the covariances; x, y: N D float64.

    tr sqrt(A B) is the nuclear norm of X^T Y / sqrt((n - 1) (m - 1)) for centred X, Y, whose QR keeps it small.
    """
    import torch

    centred = [(z - z.mean(0)) / (len(z) - 1) ** 0.5 for z in (x, y)]
    r, s = (torch.linalg.qr(z, mode="r").R for z in centred)
    spread = sum((z**2).sum() for z in centred) - 2 * torch.linalg.svdvals(r @ s.mT).sum()
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + spread)


def kid(x: Tensor, y: Tensor) -> float:
    """Binkowski et al. (4), unbiased, over all pairs, with the kernel (x.y / D + 1)^3; x, y: N D float64."""

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.mT / a.shape[1] + 1) ** 3

    def within(z: Tensor) -> Tensor:
        pairs = kernel(z, z)
        return (pairs.sum() - pairs.diagonal().sum()) / (len(z) * (len(z) - 1))

    return float(within(x) + within(y) - 2 * kernel(x, y).mean())


METRICS = (Distribution("fid"), Distribution("kid"))
