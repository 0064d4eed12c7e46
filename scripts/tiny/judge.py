"""The second judge: a small convolutional classifier of the subjects, never used to train or choose anything.

It is trained on pictures that no other part has seen, and shares neither network nor loss with the CLIP.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffsweep.world import SUBJECTS, held_out
from tiny.clip import seen
from tiny.data import Batch

SIZE = 32


def network() -> nn.Module:
    """B 3 32 32 in [-1, 1] to B len(SUBJECTS) logits."""
    layers: list[nn.Module] = []
    for entering, leaving in ((3, 32), (32, 64), (64, 96), (96, 128)):
        layers += [nn.Conv2d(entering, leaving, 3, padding=1), nn.BatchNorm2d(leaving), nn.ReLU()]
        layers += [nn.Conv2d(leaving, leaving, 3, padding=1), nn.BatchNorm2d(leaving), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(128 * 4, len(SUBJECTS)))


class Judge:
    rate = 2e-3

    def __init__(self) -> None:
        self.module = network()
        self.recipe: dict[str, Any] = {"part": "judge"}

    def loss(self, batch: Batch, generator: torch.Generator, rng: random.Random) -> tuple[Tensor, dict[str, float]]:
        device = next(self.module.parameters()).device
        right = torch.tensor([SUBJECTS.index(s) for s in batch.subjects], device=device)
        logits = self.module(seen(F.avg_pool2d(batch.pixels, 2), generator).to(device))
        loss = F.cross_entropy(logits, right, label_smoothing=0.05)
        return loss, {"loss": loss.item(), "right": (logits.argmax(1) == right).float().mean().item()}

    @torch.no_grad()
    def sample(self, average: nn.Module, file: Path) -> None:
        pictures = [held_out(i, SIZE) for i in range(3 * len(SUBJECTS))]
        pixels = torch.stack([torch.from_numpy(p.pixels.copy()).permute(2, 0, 1) for p in pictures]).float() / 127.5 - 1
        named = average.eval()(pixels.to(next(average.parameters()).device)).argmax(1).tolist()
        right = sum(SUBJECTS[i] == p.subject for i, p in zip(named, pictures, strict=True))
        print(f"\nheld out: {right} of {len(pictures)} named rightly")
