"""Prompts' embeddings: each made once, and cached on disk by the content of encoder and prompt.

An embedding is one tensor or several by name, as the network takes them: the text, its mask, a pooled vector.

A text encoder is in memory only while there are new prompts to encode. It is unloaded before the first call of a UNet.
"""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from diffsweep.core.files import write_atomic
from diffsweep.core.keys import given
from diffsweep.core.problems import BadInput
from diffsweep.core.text import counted, in_one_line
from diffsweep.model.source import Source

if TYPE_CHECKING:
    from torch import Tensor


LAYOUT = 2  # of the cached files, raised when they hold something else


class Cut(NamedTuple):
    """What is cut from a prompt's end. tokens: how many; tokenizers: which of them cut these; kept: the tokens that
    they read, by `text.max_length` where it sets that; most: to what that can be set, None where it cannot."""

    tokens: int
    tokenizers: tuple[str, ...]
    kept: int
    most: int | None = None


Embedding = Mapping[str, "Tensor"]
"""What a network is told of a prompt, by name. `text`: tokens x width."""

Encoder = Callable[[str | None], Embedding]


class Text(Protocol):
    """A text encoder, as it is configured."""

    @property
    def device(self) -> str:
        """Where it runs; auto is the model's device."""
        ...

    def cleaned(self, prompt: str | None) -> str | None:
        """The prompt as the encoder reads it; None is the checkpoint's own."""
        ...

    @property
    def decides(self) -> tuple[Any, ...]:
        """What, beside its files, decides an embedding."""
        ...

    def encoder(self, root: Path, variant: str | None, device: str) -> Encoder:
        """The encoder in memory, of one cleaned prompt."""
        ...


class Embeddings:
    """Prompts' embeddings, made once. kept: the folder on disk, None for memory alone."""

    def __init__(self, text: Text, source: Source, files: Sequence[str], device: str, kept: Path | None) -> None:
        self.text, self.source, self.files, self.kept = text, source, files, kept
        self.device = given(text.device) or device
        self._encoder = json.dumps([LAYOUT, source.digest(files), *text.decides])
        self._known: dict[str | None, Embedding] = {}

    def __getitem__(self, prompt: str | None) -> Embedding:
        return self._known[prompt]

    def get(self, prompt: str | None) -> Embedding:
        """Nothing of a prompt that was not encoded."""
        return self._known.get(prompt, {})

    def encode(self, prompts: Sequence[str | None]) -> int:
        """Each new prompt on its own, so that an embedding does not depend on what else is encoded; how many were."""
        cleaned = {prompt: self.text.cleaned(prompt) for prompt in prompts if prompt not in self._known}
        stored = {text: self._read(text) for text in dict.fromkeys(cleaned.values())}
        fresh = [text for text, embedding in stored.items() if embedding is None]
        if fresh:
            encoder = self.text.encoder(self.source.fetch(self.files), self.source.variant, self.device)
            for text in fresh:
                embedding = stored[text] = encoder(text)
                if not all(bool(tensor.isfinite().all()) for tensor in embedding.values()):
                    raise BadInput(f"path={self.source.path}: the text encoder gives NaN or infinite values: {text!r}")
                self._write(text, embedding)
            del encoder
            _free(self.device)
        self._known |= {prompt: known for prompt, text in cleaned.items() if (known := stored[text]) is not None}
        return len(fresh)

    def _file(self, text: str | None) -> Path | None:
        if self.kept is None:
            return None
        name = hashlib.sha256((self._encoder + ("" if text is None else f" {text}")).encode()).hexdigest()[:20]
        return self.kept / name[:2] / f"{name}.safetensors"

    def _read(self, text: str | None) -> Embedding | None:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        file = self._file(text)
        if file is None or not file.is_file():
            return None
        try:
            return load_file(file)
        except (SafetensorError, OSError, KeyError):
            return None  # damaged: encoded again

    def _write(self, text: str | None, embedding: Embedding) -> None:
        from safetensors.torch import save

        if file := self._file(text):
            tensors = {key: tensor.contiguous() for key, tensor in embedding.items()}
            write_atomic(file, save(tensors, {} if text is None else {"prompt": text}))


def tokenizer(root: Path, name: str = "tokenizer") -> Any:
    """A checkpoint's tokenizer; BadInput where it cannot be loaded."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(root / name, local_files_only=True)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise BadInput(f"path={root}: {name}/ cannot be loaded ({in_one_line(error)})") from error


def count(tokenizer: Any, text: str) -> int:
    """The tokens of a text, however many a tokenizer keeps."""
    return len(tokenizer(text, verbose=False).input_ids)


def encoder(root: Path, name: str, kind: str, variant: str | None, dtype: str, **more: Any) -> Any:
    """A checkpoint's text encoder, a class of transformers; BadInput where it cannot be loaded."""
    import torch
    import transformers
    from safetensors import SafetensorError

    transformers.utils.logging.disable_progress_bar()
    more |= {"use_safetensors": True, "variant": variant, "dtype": getattr(torch, dtype), "local_files_only": True}
    try:
        network, report = getattr(transformers, kind).from_pretrained(root / name, output_loading_info=True, **more)
        if lacking := report["missing_keys"]:  # else they would be random
            raise ValueError(f"{counted('weight', len(lacking))} missing in {name}/, as {min(lacking)}")
    except (OSError, ValueError, TypeError, RuntimeError, KeyError, AttributeError, SafetensorError) as error:
        raise BadInput(f"path={root}: the text encoder cannot be loaded: {error}") from error
    return network.eval().requires_grad_(False)


def _free(device: str) -> None:
    gc.collect()
    if device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()
