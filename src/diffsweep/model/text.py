"""Prompts' embeddings: each made once, and cached on disk by the content of encoder and prompt.

A text encoder is in memory only while there are new prompts to encode. It is unloaded before the first call of a UNet.
"""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from diffsweep.core.files import write_atomic
from diffsweep.core.keys import given
from diffsweep.core.problems import BadInput
from diffsweep.core.text import counted
from diffsweep.model.source import Source

if TYPE_CHECKING:
    from torch import Tensor


class Text(Protocol):
    """A text encoder, as it is configured."""

    @property
    def device(self) -> str:
        """Where it runs; auto is the model's device."""
        ...

    def cleaned(self, prompt: str) -> str:
        """The prompt as the encoder reads it."""
        ...

    @property
    def decides(self) -> tuple[Any, ...]:
        """What, beside its files, decides an embedding."""
        ...

    def encoder(self, root: Path, variant: str | None, device: str) -> Callable[[str], Tensor]:
        """The encoder in memory: tokens x width of one cleaned prompt."""
        ...


class Embeddings:
    """Prompts' embeddings (tokens x width), made once. kept: the folder on disk, None for memory alone."""

    def __init__(self, text: Text, source: Source, files: Sequence[str], device: str, kept: Path | None) -> None:
        self.text, self.source, self.files, self.kept = text, source, files, kept
        self.device = given(text.device) or device
        self._encoder = json.dumps([source.digest(files), *text.decides])
        self._known: dict[str, Tensor] = {}

    def __getitem__(self, prompt: str) -> Tensor:
        return self._known[prompt]

    def encode(self, prompts: Sequence[str]) -> int:
        """Each new prompt on its own, so that an embedding does not depend on what else is encoded; how many were."""
        cleaned = {prompt: self.text.cleaned(prompt) for prompt in prompts if prompt not in self._known}
        stored = {text: self._read(text) for text in dict.fromkeys(cleaned.values())}
        fresh = [text for text, embedding in stored.items() if embedding is None]
        if fresh:
            encoder = self.text.encoder(self.source.fetch(self.files), self.source.variant, self.device)
            for text in fresh:
                embedding = stored[text] = encoder(text)
                if not bool(embedding.isfinite().all()):
                    raise BadInput(f"path={self.source.path}: the text encoder gives NaN or infinite values: {text!r}")
                self._write(text, embedding)
            del encoder
            _free(self.device)
        self._known |= {prompt: known for prompt, text in cleaned.items() if (known := stored[text]) is not None}
        return len(fresh)

    def _file(self, text: str) -> Path | None:
        if self.kept is None:
            return None
        name = hashlib.sha256(f"{self._encoder} {text}".encode()).hexdigest()[:20]
        return self.kept / name[:2] / f"{name}.safetensors"

    def _read(self, text: str) -> Tensor | None:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        file = self._file(text)
        if file is None or not file.is_file():
            return None
        try:
            return load_file(file)["embedding"]
        except (SafetensorError, OSError, KeyError):
            return None  # damaged: encoded again

    def _write(self, text: str, embedding: Tensor) -> None:
        from safetensors.torch import save

        if file := self._file(text):
            write_atomic(file, save({"embedding": embedding.contiguous()}, {"prompt": text}))


def network(kind: Any, root: Path, variant: str | None, dtype: str, **more: Any) -> tuple[Any, Any]:
    """A checkpoint's tokenizer and its text encoder, a class of transformers; BadInput where they cannot be loaded."""
    import torch
    from safetensors import SafetensorError
    from transformers import AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    more |= {"use_safetensors": True, "variant": variant, "dtype": getattr(torch, dtype), "local_files_only": True}
    try:
        tokenizer = AutoTokenizer.from_pretrained(root / "tokenizer", local_files_only=True)
        encoder, report = kind.from_pretrained(root / "text_encoder", output_loading_info=True, **more)
        if lacking := report["missing_keys"]:  # else they would be random
            raise ValueError(f"{counted('weight', len(lacking))} missing in text_encoder/, as {min(lacking)}")
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise BadInput(f"path={root}: the text encoder cannot be loaded: {error}") from error
    return tokenizer, encoder.eval().requires_grad_(False)


def _free(device: str) -> None:
    gc.collect()
    if device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()
