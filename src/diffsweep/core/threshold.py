"""What is done to the clean estimate before a step: nothing, clipping, or Imagen's dynamic thresholding.

Dynamic thresholding (Imagen, section 2.3): s is the given quantile of |x_0|, at least 1 and at most the maximum;
the image is clamped to [-s, s] and divided by s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffsweep.core.types import Stage

if TYPE_CHECKING:
    from torch import Tensor

KINDS = ("none", "clip", "dynamic")


def threshold(clean: Tensor, stage: Stage) -> Tensor:
    """Threshold a clean estimate (C H W) as the stage says."""
    if stage.threshold == "none":
        return clean
    if stage.threshold == "clip":
        return clean.clamp(-1, 1)
    quantile = clean.abs().flatten().quantile(stage.threshold_ratio)
    s = quantile.clamp(1, max(1.0, stage.threshold_max))
    return clean.clamp(-s, s) / s
