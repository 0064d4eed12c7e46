"""Distances in the features of networks trained to name photographs, linearly weighted to agree with people.

lpips_alex, lpips_vgg, lpips_squeeze   Zhang et al. 2018, version 0.1
dists                                  Ding et al. 2020: structure and texture
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, ClassVar

from diffsweep.metric.backbone import ALEXNET, SQUEEZENET, VGG16, Backbone
from diffsweep.metric.batch import Batch, Direction, Score, in_calls

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

BACKBONES = {"lpips_alex": ALEXNET, "lpips_vgg": VGG16, "lpips_squeeze": SQUEEZENET, "dists": VGG16}
LEAST = 32  # pixels: the smallest picture that every backbone's pooling leaves something of


@dataclass(frozen=True)
class Perceptual:
    """name: one of `BACKBONES`."""

    name: str
    direction: ClassVar[Direction] = "lower"
    needs: ClassVar[frozenset[str]] = frozenset({"reference"})

    @property
    def backbone(self) -> Backbone:
        return BACKBONES[self.name]

    def missing(self) -> str | None:
        return self.backbone.missing()

    def definition(self) -> dict[str, Any]:
        kind = "DISTS" if self.name == "dists" else "LPIPS 0.1"
        return {
            "metric": f"{kind} against the clean input",
            "direction": self.direction,
            "bounds": [0, None],
            "pictures": f"as stored: 8 bit, RGB, to {'[0, 1]' if self.name == 'dists' else '[-1, 1]'}, not resized",
            **self.backbone.definition(),
            "package": f"torchmetrics {version('torchmetrics')}",
        }

    def __call__(self, batch: Batch) -> list[Score]:
        assert batch.references is not None
        if min(batch.images.shape[1:3]) < LEAST:
            return [Score(None, reason=f"sides of at least {LEAST} pixels are needed")] * len(batch.images)
        return [Score(round(value, 6)) for value in self.distances(batch.images, batch.references, batch.device)]

    def distances(self, images: np.ndarray, others: np.ndarray, device: str) -> list[float]:
        """Of each picture from the other of its place; uint8 B H W 3."""
        import torch

        low = 0.0 if self.name == "dists" else -1.0
        network = _network(self.name, self.backbone.path, device)

        def call(*stacks: np.ndarray) -> Tensor:
            return network(*(_tensor(pixels, device) * (1 - low) + low for pixels in stacks)).reshape(-1)

        with torch.inference_mode():
            return in_calls(call, images, others).tolist()


def _tensor(pixels: np.ndarray, device: str) -> Tensor:
    """B 3 H W in [0, 1]."""
    import torch

    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float().to(device) / 255


@lru_cache(maxsize=4)
def _network(name: str, weights: object, device: str) -> nn.Module:
    """In float32, with torchmetrics' own heads."""
    if name == "dists":
        from torchmetrics.functional.image.dists import DISTSNetwork

        return DISTSNetwork().to(device).eval()
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    net = name.removeprefix("lpips_")
    return LearnedPerceptualImagePatchSimilarity(net_type=net).net.to(device)  # type: ignore[arg-type]


METRICS = tuple(Perceptual(name) for name in BACKBONES)
