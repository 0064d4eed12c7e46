"""Several guidances whose latents are kept to one picture, each through its own view (for anagrams in latents).

Latents do not turn as their picture does, so a view is of the decoded clean estimate. Every view has latents of its
own. At each step, with D the decoder, E the encoder and c_k the clean estimate of view k,

    picture = mean over k of invert_k(D(c_k))
    c_k    <- c_k + E(apply_k(picture)) - E(D(c_k))

so that what encoding loses is no part of the correction, as in LookingGlass (Chang et al. 2025); latents that go side
by side and agree on their clean estimates are SyncTweedies' (Kim et al. 2024).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from diffsweep.core.loop import together
from diffsweep.core.types import SAMPLE, Estimate, Guidance, Level, Program, View
from diffsweep.guidance.multiview import mean

if TYPE_CHECKING:
    from torch import Tensor

Codec = Callable[["Tensor"], Program["Tensor"]]


@dataclass(frozen=True)
class Synchronised:
    """x of its estimates is K C h w, latents for each of the parts. decode, encode: latents to a picture, and back."""

    parts: tuple[tuple[View, Guidance], ...]
    decode: Codec
    encode: Codec

    @property
    def prompts(self) -> tuple[str | None, ...]:
        return tuple(prompt for _, guidance in self.parts for prompt in guidance.prompts)

    def estimate(self, x: Tensor, level: Level) -> Program[Estimate]:
        import torch

        asked = zip(self.parts, x, strict=True)
        seen = yield from together(*(guidance.estimate(own, level) for (_, guidance), own in asked))
        clean = [estimate.clean(own, level) for estimate, own in zip(seen, x, strict=True)]
        pictures = yield from together(*map(self.decode, clean))
        joined = self.joined(pictures)
        shown = [view.apply(joined) for view, _ in self.parts]
        codes = yield from together(*map(self.encode, [*shown, *pictures]))
        agreed, before = codes[: len(clean)], codes[len(clean) :]
        corrected = [c + new - old for c, new, old in zip(clean, agreed, before, strict=True)]
        return Estimate(torch.stack(corrected), kind=SAMPLE)

    def joined(self, pictures: Sequence[Tensor]) -> Tensor:
        """The one picture (3 H W) of what the views show, K of 3 H W."""
        each = zip(self.parts, pictures, strict=True)
        return mean([view.invert(Estimate(picture, kind=SAMPLE)).output for (view, _), picture in each])
