"""DeepFloyd IF's text encoder: T5, as `IFPipeline.encode_prompt` calls it.

A prompt is made lower case and stripped (or cleaned as captions were in training), cut to 77 tokens, and encoded with
its attention mask; the UNet sees all 77 without one. The encoder is in memory only while there are new prompts to
encode: embeddings are cached on disk, by the content of encoder and prompt.

T5-XXL overflows in float16, which diffsweep therefore does not offer.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from diffsweep.core.keys import AUTO, Auto
from diffsweep.core.problems import one_of, require, within
from diffsweep.model.text import Embedding, Encoder, count, encoder, tokenizer

PARTS = ("text_encoder", "tokenizer")
MOST = 512  # tokens


@dataclass(frozen=True)
class T5:
    """path: another checkpoint's text encoder. variant: its weights', None for those without one. device: cpu where
    the card is small. Of these three, auto is the model's. dtype: float32 or bfloat16. load_in_8bit: through
    bitsandbytes, on a CUDA device. clean_caption: as IF's training captions were, by beautifulsoup4 and ftfy.
    max_length: tokens, 77 in training.
    """

    path: Auto | str = field(default=AUTO, metadata={"decides": False})  # the model's fingerprint does
    variant: Auto | str | None = field(default=AUTO, metadata={"decides": False})
    dtype: str = "float32"
    device: Auto | str = field(default=AUTO, metadata={"decides": False})
    load_in_8bit: bool = False
    clean_caption: bool = False
    max_length: int = 77

    def __post_init__(self) -> None:
        require(
            one_of("dtype", self.dtype, ("float32", "bfloat16")),
            one_of("device", self.device, (AUTO, "cpu", "cuda")),
            within("max_length", self.max_length, 1, MOST),
            unless_installed("clean_caption=true:", {"bs4", "ftfy"}, "deepfloyd") if self.clean_caption else None,
            unless_installed("load_in_8bit=true:", {"bitsandbytes", "accelerate"}, "int8")
            if self.load_in_8bit
            else None,
        )

    @property
    def decides(self) -> tuple[Any, ...]:
        return self.dtype, self.load_in_8bit, self.max_length

    def cleaned(self, prompt: str | None) -> str:
        prompt = prompt or ""
        if not self.clean_caption:
            return prompt.lower().strip()
        from diffusers import IFPipeline

        cleaner: Any = IFPipeline  # the method asks for nothing but a constant of its class
        return IFPipeline._clean_caption(cleaner, IFPipeline._clean_caption(cleaner, prompt))

    def count(self, root: Path, prompt: str) -> int:
        """The tokens of a prompt, however many are kept. root: the folder of the tokenizer's own."""
        return count(_tokenizer(root), self.cleaned(prompt))

    def encoder(self, root: Path, variant: str | None, device: str) -> Encoder:
        import torch
        from transformers import BitsAndBytesConfig

        more: dict[str, Any] = {}
        if self.load_in_8bit:
            more = {"quantization_config": BitsAndBytesConfig(load_in_8bit=True), "device_map": device}
        tokens_of, network = tokenizer(root), encoder(root, PARTS[0], "T5EncoderModel", variant, self.dtype, **more)
        if not self.load_in_8bit:
            network.to(device)

        @torch.no_grad()
        def encode(text: str | None) -> Embedding:
            length = {"padding": "max_length", "max_length": self.max_length, "truncation": True}
            tokens = tokens_of(text, add_special_tokens=True, return_tensors="pt", **length).to(device)
            return {"text": network(tokens.input_ids, attention_mask=tokens.attention_mask)[0][0].cpu()}

        return encode


@lru_cache
def _tokenizer(root: Path) -> Any:
    """One that counts."""
    return tokenizer(root)


def unless_installed(what: str, modules: Set[str], extra: str) -> str | None:
    """A problem unless these can be imported, with the extra of this project that brings them."""
    lacking = sorted(module for module in modules if find_spec(module) is None)
    return f"{what} needs {', '.join(lacking)}: pip install 'diffsweep[{extra}]'" if lacking else None
