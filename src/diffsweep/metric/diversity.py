"""How different a setting's pictures of one input are from seed to seed: the mean distance of all pairs, averaged over
inputs.

diversity_pixels   root mean square difference, in levels of 255
diversity_clip     1 - cosine of CLIP's embeddings
diversity_lpips    LPIPS, as `lpips_alex`
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, ClassVar, Literal

import numpy as np

from diffsweep.metric.batch import Batch, Direction, Score, in_calls
from diffsweep.metric.perceptual import Perceptual
from diffsweep.model.clip import Clip

KINDS = {
    "pixels": "root mean square difference, in levels of 255",
    "clip": "1 - cosine of CLIP's embeddings",
    "lpips": "LPIPS",
}
PAIRS = 1024  # held at once


@dataclass(frozen=True)
class Diversity:
    direction: ClassVar[Direction] = "higher"
    needs: ClassVar[frozenset[str]] = frozenset()
    kind: Literal["pixels", "clip", "lpips"] = "pixels"
    judge: Clip = field(default_factory=Clip)

    @property
    def name(self) -> str:
        return f"diversity_{self.kind}"

    def missing(self) -> str | None:
        return LPIPS.missing() if self.kind == "lpips" else None

    def definition(self) -> dict[str, Any]:
        own = {"lpips": LPIPS.definition, "clip": self.judge.definition}.get(self.kind, dict)()
        return {
            **own,
            "metric": f"diversity over seeds: {KINDS[self.kind]}",
            "direction": self.direction,
            "pooling": "mean over all pairs of seeds, then over inputs",
        }

    def together(self, batch: Batch) -> Score:
        assert batch.inputs is not None
        means = []
        for name in dict.fromkeys(batch.inputs):
            pictures = batch.images[[other == name for other in batch.inputs]]
            if len(pictures) > 1:
                means.append(self._mean(pictures, batch.device))
        return Score(round(float(np.mean(means)), 6)) if means else Score(None, reason="two seeds or more are needed")

    def _mean(self, pictures: np.ndarray, device: str) -> float:
        """Over all pairs; pictures: uint8 B H W 3."""
        pairs = list(combinations(range(len(pictures)), 2))
        if self.kind == "clip":
            embedded = in_calls(self.judge.network(device).of_pictures, pictures)
            return 1 - float(np.mean([(embedded[i] @ embedded[j]).item() for i, j in pairs]))
        if self.kind == "pixels":
            return float(np.mean([np.sqrt(np.mean((pictures[i].astype(float) - pictures[j]) ** 2)) for i, j in pairs]))
        found: list[float] = []
        for start in range(0, len(pairs), PAIRS):
            first, second = (pictures[list(side)] for side in zip(*pairs[start : start + PAIRS], strict=True))
            found += LPIPS.distances(first, second, device)
        return float(np.mean(found))


LPIPS = Perceptual("lpips_alex")
METRICS = (Diversity("pixels"), Diversity("clip"), Diversity("lpips"))
