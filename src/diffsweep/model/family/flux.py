"""FLUX.1 (Black Forest Labs 2024): a transformer over patches of 2 x 2 latents that learned a flow; T5, a pooled CLIP.

dev is told a guidance scale, schnell takes none and is made for few steps. dev's noise levels are shifted by the number
of tokens that a picture has. T5's padding is attended to.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from diffsweep.core.streams import placed
from diffsweep.core.types import CLASSIFIER_FREE, EMBEDDED, Stage
from diffsweep.model.family.family import Configs, Family, Read, Tensors, Told

if TYPE_CHECKING:
    from torch import Tensor

    from diffsweep.model.text import Embedding

SIDE = 128  # of the latents, where nobody says otherwise


class Flux(Family):
    pipeline: ClassVar[tuple[str, ...]] = ("FluxPipeline", "FluxImg2ImgPipeline", "FluxInpaintPipeline")
    network: ClassVar[str] = "transformer"
    kind: ClassVar[str] = "FluxTransformer2DModel"
    text: ClassVar[tuple[str, ...]] = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
    multiple: ClassVar[int | None] = 16
    patch: ClassVar[int] = 2
    folded: ClassVar[int] = 4
    lengths: ClassVar[tuple[int, int] | None] = (1, 512)
    length: ClassVar[int] = 512

    def stage(self, configs: Configs, size: tuple[int | None, int | None]) -> Stage:
        told = configs.network["guidance_embeds"]
        own: dict[str, Any] = {"steps": 28, "scale": 3.5} if told else {"steps": 4, "scale": 1.0}
        steers = frozenset({CLASSIFIER_FREE, EMBEDDED} if told else ())
        return replace(super().stage(configs, size), partial_steps=True, steers=steers, **own)

    def sides(self, configs: Configs) -> tuple[int, int]:
        return SIDE, SIDE

    def widths(self, configs: Configs) -> dict[str, int | None]:
        return {"text": configs.width("text_encoder_2"), "pooled": configs.width("text_encoder")}

    def shapes(self, configs: Configs, told: Told) -> dict[str, tuple[int, ...]]:
        network = configs.network
        text = (told.max_length or self.length, network["joint_attention_dim"])
        return {"text": text, "pooled": (network["pooled_projection_dim"],)}

    def reads(self, pipeline: Any, prompt: str, told: Told) -> list[Read]:
        clip, t5 = super().reads(pipeline, prompt, told)
        return [clip, t5._replace(limit=told.max_length or self.length, chosen=True)]

    def embed(self, pipeline: Any, prompt: str | None, told: Told) -> Embedding:
        length, device = told.max_length or self.length, pipeline._execution_device
        text, pooled, _ = pipeline.encode_prompt(prompt or "", None, device, max_sequence_length=length)
        return {"text": text[0], "pooled": pooled[0]}

    def ask(self, network: Any, x: Tensor, t: Tensor, given: Tensors, beside: Tensors, stage: Stage) -> Tensor:
        text, (height, width) = given["text"], x.shape[-2:]
        answer = network(
            packed(x),
            text,
            given["pooled"],
            t.to(x.dtype) / 1000,  # which the network multiplies by 1000 again
            places(x, height // 2, width // 2),
            x.new_zeros(text.shape[1], 3),
            told_scale(x, beside, stage),
            return_dict=False,
        )[0]
        return unpacked(answer, height, width)


def told_scale(x: Tensor, beside: Tensors, stage: Stage) -> Tensor | None:
    """The guidance scale of each row, B, where the network takes one; the checkpoint's where no question says it."""
    if EMBEDDED not in stage.steers:
        return None
    if EMBEDDED not in beside:
        return x.new_full((len(x),), stage.scale)
    return placed(beside[EMBEDDED], str(x.device))


def packed(x: Tensor) -> Tensor:
    """Patches of 2 x 2 as tokens: B h/2*w/2 4C of B C h w."""
    batch, channels, height, width = x.shape
    patches = x.view(batch, channels, height // 2, 2, width // 2, 2)
    return patches.permute(0, 2, 4, 1, 3, 5).reshape(batch, height * width // 4, channels * 4)


def unpacked(tokens: Tensor, height: int, width: int) -> Tensor:
    """B C h w of its patches as tokens."""
    batch, _, channels = tokens.shape
    patches = tokens.view(batch, height // 2, width // 2, channels // 4, 2, 2)
    return patches.permute(0, 3, 1, 4, 2, 5).reshape(batch, channels // 4, height, width)


def places(x: Tensor, height: int, width: int) -> Tensor:
    """Where each token is, h*w 3: nothing, its row, its column."""
    import torch

    found = x.new_zeros(height, width, 3)
    found[..., 1] += torch.arange(height, dtype=x.dtype, device=x.device)[:, None]
    found[..., 2] += torch.arange(width, dtype=x.dtype, device=x.device)
    return found.view(-1, 3)
