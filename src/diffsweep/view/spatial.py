"""What spatial views share: a map of pixels to pixels moves output and variance alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from diffsweep.core.streams import placed
from diffsweep.core.types import Estimate

if TYPE_CHECKING:
    from torch import Tensor


def both(move: Callable[[Tensor], Tensor], estimate: Estimate) -> Estimate:
    variance = None if estimate.variance is None else move(estimate.variance)
    return replace(estimate, output=move(estimate.output), variance=variance)


def permuted(x: Tensor, source: list[int]) -> Tensor:
    """Pixel i of the result (row by row) is pixel source[i] of x (... H W)."""
    import torch

    index = placed(torch.tensor(source), str(x.device))
    return x.flatten(-2).index_select(-1, index).unflatten(-1, x.shape[-2:])


def inverse(source: list[int]) -> list[int]:
    """The permutation that undoes `source`."""
    back = [0] * len(source)
    for i, j in enumerate(source):
        back[j] = i
    return back
