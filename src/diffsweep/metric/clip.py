"""How well a picture shows its prompt, by a CLIP (Radford et al. 2021).

clip_score           100 x cosine of picture and prompt, at least 0 (Hessel et al. 2021)
clip_low, clip_high  the same for a hybrid's bands, each alone, against their own prompts
clip_alignment       of an anagram: the worst view's cosine with its prompt (A of Geng et al. 2024)
clip_concealment     of an anagram: how surely its prompt tells each view from the others (C of Geng et al. 2024)

The embedded CLIP knows the drawn world and nothing else: its scores compare pictures of the embedded model, and mean
nothing beside those of a CLIP trained on photographs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np

from diffsweep.metric.batch import Batch, Direction, Score, in_calls
from diffsweep.model.clip import Clip

BANDS = {
    "low": "the low band, as the technique parts it, and its prompt (the first)",
    "high": "the picture less its low band, around mid-grey, and its prompt (the last)",
}


@dataclass(frozen=True)
class ClipScore:
    """judge: the CLIP that compares pictures and prompts. band: None (the whole picture), or one of `BANDS`."""

    direction: ClassVar[Direction] = "higher"
    band: Literal["low", "high"] | None = None
    judge: Clip = field(default_factory=Clip)

    @property
    def name(self) -> str:
        return f"clip_{self.band}" if self.band else "clip_score"

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"low", "prompt"} if self.band else {"prompt"})

    def definition(self) -> dict[str, Any]:
        seen = BANDS[self.band] if self.band else "the picture and its prompt; of several, the first"
        score = "CLIP score: 100 x cosine of picture and prompt, at least 0"
        said = {"metric": score, "direction": self.direction, "bounds": [0, 100], "seen": seen}
        return said | self.judge.definition()

    def __call__(self, batch: Batch) -> list[Score]:
        pictures, prompts = self._seen(batch)
        network = self.judge.network(batch.device)
        cosines = (in_calls(network.of_pictures, pictures) * network.of_texts(prompts)).sum(-1)
        return [Score(round(max(100 * cosine, 0.0), 4)) for cosine in cosines.tolist()]

    def _seen(self, batch: Batch) -> tuple[np.ndarray, list[str]]:
        if self.band is None:
            assert batch.prompts is not None
            return batch.images, list(batch.prompts)
        assert batch.lows is not None and batch.all_prompts is not None
        if self.band == "low":
            return batch.lows, [prompts[0] for prompts in batch.all_prompts]
        high = (batch.images.astype(np.int16) - batch.lows + 128).clip(0, 255).astype(np.uint8)
        return high, [prompts[-1] for prompts in batch.all_prompts]


@dataclass(frozen=True)
class AnagramScore:
    """kind: `alignment`, a cosine, or `concealment`, a probability, 1 / K by chance.

    With S the cosines of K views and K prompts and tau the network's temperature,
    A = min S_kk and C = (tr softmax_rows(S / tau) + tr softmax_columns(S / tau)) / 2K.
    """

    direction: ClassVar[Direction] = "higher"
    needs: ClassVar[frozenset[str]] = frozenset({"views", "prompt"})
    kind: Literal["alignment", "concealment"] = "alignment"
    judge: Clip = field(default_factory=Clip)

    @property
    def name(self) -> str:
        return f"clip_{self.kind}"

    def definition(self) -> dict[str, Any]:
        formula = {
            "alignment": "the least of the cosines of a view and its prompt",
            "concealment": "mean diagonal of the softmax of the cosines over the temperature, by view and by prompt",
        }
        return {
            "metric": f"{self.kind} of an anagram (Geng et al. 2024): {formula[self.kind]}",
            "direction": self.direction,
            "bounds": [-1, 1] if self.kind == "alignment" else [0, 1],
            "seen": "the stored views and their prompts",
            **self.judge.definition(),
        }

    def __call__(self, batch: Batch) -> list[Score]:
        import torch

        assert batch.views is not None and batch.all_prompts is not None
        network = self.judge.network(batch.device)
        number, k = batch.views.shape[:2]
        seen = batch.views.reshape(number * k, *batch.views.shape[2:])
        pictures = in_calls(network.of_pictures, seen).view(number, k, -1)
        texts = network.of_texts([p for prompts in batch.all_prompts for p in prompts]).view(number, k, -1)
        cosines = pictures @ texts.mT
        if self.kind == "alignment":
            values = cosines.diagonal(dim1=1, dim2=2).amin(1)
        else:
            logits = cosines * network.scale
            values = torch.stack([logits.softmax(dim).diagonal(dim1=1, dim2=2).mean(1) for dim in (1, 2)]).mean(0)
        return [Score(round(value, 6)) for value in values.tolist()]


METRICS = (ClipScore(), ClipScore("low"), ClipScore("high"), AnagramScore(), AnagramScore("concealment"))
