"""CLIP score (Hessel et al. 2021): 100 times the cosine between the embeddings of picture and prompt, at least 0.

The embedded CLIP knows the drawn world and nothing else: its scores compare pictures of the embedded model, and mean
nothing beside those of a CLIP trained on photographs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, ClassVar, Literal

from diffsweep.metric.batch import Batch, Score
from diffsweep.model.clip import Clip


@dataclass(frozen=True)
class ClipScore:
    """clip: the network that judges."""

    direction: ClassVar[Literal["higher"]] = "higher"
    name: ClassVar[str] = "clip_score"
    needs: ClassVar[frozenset[str]] = frozenset({"prompt"})
    clip: Clip = field(default_factory=Clip)

    def definition(self) -> dict[str, Any]:
        return {
            "metric": "CLIP score: 100 x cosine of picture and prompt, at least 0",
            "direction": self.direction,
            "network": self.clip.path,
            "weights": self.clip.fingerprint(),
            "pictures": "as stored, 8 bit RGB, resized by the network's own processor",
            "prompt": "the cell's; of several, the first",
            "package": f"transformers {version('transformers')}",
        }

    def __call__(self, batch: Batch) -> list[Score]:
        assert batch.prompts is not None
        network = self.clip.network()
        texts = {prompt: network.of_texts([prompt]) for prompt in dict.fromkeys(batch.prompts)}
        scores = []
        for image, prompt in zip(
            batch.images, batch.prompts, strict=True
        ):  # each alone: bits owe nothing to neighbours
            cosine = (network.of_pictures(image[None]) * texts[prompt]).sum().item()
            scores.append(Score(round(max(100 * cosine, 0), 4)))
        return scores


METRICS = (ClipScore(),)
