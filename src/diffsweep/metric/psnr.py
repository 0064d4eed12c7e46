"""Peak signal-to-noise ratio in dB: 10 log10(255^2 / MSE), each picture for itself, whole or in a region of the mask.

torchmetrics by default pools the squared error of a batch, which gives another number than the mean over
pictures. Equal pictures have no finite PSNR: their value is None beside `exact`.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, ClassVar, Literal

from diffsweep.metric.batch import HARD, REGIONS, Batch, Score, described, empty, named, needs


@dataclass(frozen=True)
class Psnr:
    """region: None (the whole picture), or one of `REGIONS` or `HARD`."""

    direction: ClassVar[Literal["higher"]] = "higher"
    region: str | None = None

    @property
    def name(self) -> str:
        return named("psnr", self.region)

    @property
    def needs(self) -> frozenset[str]:
        return needs(self.region)

    def definition(self) -> dict[str, Any]:
        return {
            "metric": "PSNR against the clean input, in dB",
            "direction": self.direction,
            "bounds": [0, None],
            "data_range": 255,
            "pictures": "as stored: 8 bit, RGB",
            "region": described(self.region),
            "pooling": "each picture for itself: squared error averaged over its pixels and channels",
            "package": f"torchmetrics {version('torchmetrics')}",
        }

    def __call__(self, batch: Batch) -> list[Score]:
        import torch
        from torchmetrics.functional.image import peak_signal_noise_ratio

        assert batch.references is not None
        scores = []
        for image, reference, region in zip(batch.images, batch.references, batch.region(self.region), strict=True):
            x, y = (torch.from_numpy(pixels[region]).double()[None] for pixels in (image, reference))
            if x.numel() == 0:
                scores.append(empty(str(self.region)))
            elif torch.equal(x, y):
                scores.append(Score(None, exact=True))
            else:
                value = peak_signal_noise_ratio(x, y, data_range=255.0, reduction="none", dim=(1, 2))
                scores.append(Score(round(value.item(), 6)))
        return scores


METRICS = (Psnr(), *(Psnr(region) for region in (*HARD, *REGIONS)))
