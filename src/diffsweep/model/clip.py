"""CLIP (Radford et al. 2021) in the layout that transformers saves; weights from safetensors only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffsweep.core.problems import BadInput
from diffsweep.model.source import EMBEDDED, TENSORS, Source

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Clip:
    """path: a folder, a repository of the hub, or `tiny_clip` for the embedded weights, which know the drawn world and
    nothing else. key: what the path is called in messages."""

    path: str = "tiny_clip"
    key: str = "path"

    @property
    def source(self) -> Source:
        return Source(self.path, key=self.key, weighted=())

    def fingerprint(self) -> str:
        """SHA-256 over the folder's weights and configurations; BadInput where they are missing or damaged."""
        self.source.require((), "a CLIP", "transformers")
        kind = self.source.config(".", "config.json").get("model_type") if self.files() else None
        if kind != "clip":
            raise BadInput(f"{self.key}={self.path}: not a CLIP; its config.json has model_type {kind}")
        return self.source.digest(self.files())

    def definition(self) -> dict[str, Any]:
        """Its part of a metric's definition: a folder by its name, wherever it lies, and its weights' hash."""
        local = self.source.hub is None and self.path not in EMBEDDED
        return {
            "network": Path(self.path).expanduser().resolve().name if local else self.path,
            "weights": self.fingerprint(),
            "pictures": "as stored, 8 bit RGB, resized by the network's own processor",
            "package": f"transformers {version('transformers')}",
        }

    def files(self) -> list[str]:
        """Those of transformers' layout; other tools' weights may lie beside them."""
        names = self.source.files((".",), (".",))
        return [name for name in names if TENSORS not in name or name.startswith("model")]

    def fetch(self) -> Path:
        """The folder, its files downloaded where they are not there."""
        return self.source.fetch(self.files())

    def network(self, device: str = "cpu") -> ClipNetwork:
        return _network(self, device)


class ClipNetwork:
    """The network in float32, and its processor. Embeddings are of unit length."""

    def __init__(self, clip: Clip, device: str) -> None:
        import torch
        from safetensors import SafetensorError
        from transformers import CLIPModel, CLIPProcessor
        from transformers.utils import logging as transformers_logging

        clip.fingerprint()
        transformers_logging.disable_progress_bar()
        root, self.device = clip.fetch(), device
        try:
            loaded: Any = CLIPModel.from_pretrained(
                root, use_safetensors=True, dtype=torch.float32, local_files_only=True, output_loading_info=True
            )
            model, report = loaded
            if lacks := [*report["missing_keys"], *report["mismatched_keys"]]:
                raise ValueError(f"{len(lacks)} of its tensors are missing or of another shape, {lacks[0]} among them")
            self.processor: Any = CLIPProcessor.from_pretrained(root, local_files_only=True)
        except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
            raise BadInput(f"{clip.key}={clip.path}: the checkpoint cannot be loaded: {error}") from error
        self.model = model.to(device).eval().requires_grad_(False)
        self.texts: dict[str, Tensor] = {}

    @property
    def scale(self) -> float:
        """1 / its temperature."""
        return self.model.logit_scale.exp().item()

    def of_pictures(self, pictures: np.ndarray) -> Tensor:
        """B D from uint8 B H W 3, resized by the checkpoint's own processor."""
        pixels = self.processor.image_processor(list(np.array(pictures)), return_tensors="pt").pixel_values
        return _unit(self.model.get_image_features(pixel_values=pixels.to(self.device)).pooler_output)

    def of_texts(self, texts: Sequence[str]) -> Tensor:
        """B D; each text alone and once, one that is too long cut."""
        import torch

        for text in dict.fromkeys(texts):
            if text not in self.texts:
                cut = {"truncation": True, "max_length": self.model.config.text_config.max_position_embeddings}
                tokens = self.processor.tokenizer([text], return_tensors="pt", **cut).to(self.device)
                self.texts[text] = _unit(self.model.get_text_features(**tokens).pooler_output)[0]
        return torch.stack([self.texts[text] for text in texts])


@lru_cache(maxsize=2)
def _network(clip: Clip, device: str) -> ClipNetwork:
    return ClipNetwork(clip, device)


def _unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True)
