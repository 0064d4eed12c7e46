"""Multi-scale structural similarity (Wang et al. 2003): contrast and structure at five scales, luminance at the last
one."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, ClassVar

from diffsweep.metric.batch import Batch, Direction, Score, in_calls

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

LEAST = 161  # pixels: the window of 11 must fit after four halvings
BETAS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


@dataclass(frozen=True)
class MsSsim:
    name: ClassVar[str] = "ms_ssim"
    direction: ClassVar[Direction] = "higher"
    needs: ClassVar[frozenset[str]] = frozenset({"reference"})

    def definition(self) -> dict[str, Any]:
        return {
            "metric": "MS-SSIM against the clean input",
            "direction": self.direction,
            "bounds": [0, 1],
            "data_range": 255,
            "pictures": "as stored: 8 bit, RGB",
            "betas": list(BETAS),
            "window": "Gaussian, sigma 1.5, 11 x 11 pixels; negative similarities count as 0",
            "package": f"torchmetrics {version('torchmetrics')}",
        }

    def __call__(self, batch: Batch) -> list[Score]:
        import torch
        from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

        if min(batch.images.shape[1:3]) < LEAST:
            return [Score(None, reason=f"sides of at least {LEAST} pixels are needed")] * len(batch.images)

        def call(*stacks: np.ndarray) -> Tensor:
            x, y = (torch.from_numpy(p).permute(0, 3, 1, 2).float() for p in stacks)
            return multiscale_structural_similarity_index_measure(
                x, y, data_range=255.0, betas=BETAS, reduction="none", normalize="relu"
            )

        assert batch.references is not None
        return [Score(round(value, 6)) for value in in_calls(call, batch.images, batch.references).tolist()]


METRICS = (MsSsim(),)
