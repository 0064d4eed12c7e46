"""Named random streams of a cell: a picture is a function of its cell, never of its neighbours.

The main stream is `torch.Generator("cpu").manual_seed(seed)`, drawn in the order of diffusers' pipelines (the start,
then one draw a step, none after the last), so that a seed means here what it means there. Every other stream is
seeded by a hash of (seed, name): a constraint that draws does not shift the sampler.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

MAIN = "main"


def stream_seed(seed: int, name: str) -> int:
    """The seed of a named stream: 64 bits of BLAKE2b over seed and name; the main stream's is the seed itself."""
    if name == MAIN:
        return seed
    return int.from_bytes(hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest(), "big")


@dataclass
class Streams:
    """Unit normal draws by stream name, made on the CPU and copied to `device`."""

    seed: int
    device: str = "cpu"
    _generators: dict[str, torch.Generator] = field(default_factory=dict)

    def generator(self, name: str) -> torch.Generator:
        """A stream as a generator on the processor, which goes on from where the last draw left it."""
        import torch

        if name not in self._generators:
            self._generators[name] = torch.Generator("cpu").manual_seed(stream_seed(self.seed, name))
        return self._generators[name]

    def normal(self, name: str, shape: tuple[int, ...]) -> Tensor:
        import torch

        return placed(torch.randn(shape, generator=self.generator(name)), self.device)


def placed(x: Tensor, device: str) -> Tensor:
    """A tensor of the processor on a device; nothing waits for the copy."""
    return (x.pin_memory() if device.startswith("cuda") else x).to(device, non_blocking=True)


def like(x: Tensor, numbers: Sequence[Any]) -> Tensor:
    """Numbers as a tensor of x's type, on its device; nothing waits for the copy, as `x.new_tensor` does."""
    import torch

    return placed(torch.tensor(numbers, dtype=x.dtype), str(x.device))
