"""Stable Diffusion XL (Podell et al. 2023): two CLIPs' penultimate layers, a pooled vector, and the picture's size.

No prompt at all is zeros where the checkpoint says so (`force_zeros_for_empty_prompt`); an empty one is encoded.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from diffsweep.core.streams import like
from diffsweep.core.types import Stage
from diffsweep.model.family.family import Configs, Family, Tensors, Told
from diffsweep.model.family.stable_diffusion import TELLING, TOKENS

if TYPE_CHECKING:
    from torch import Tensor

    from diffsweep.model.text import Embedding


class StableDiffusionXl(Family):
    pipeline: ClassVar[tuple[str, ...]] = (
        "StableDiffusionXLPipeline",
        "StableDiffusionXLImg2ImgPipeline",
        "StableDiffusionXLInpaintPipeline",
    )
    text: ClassVar[tuple[str, ...]] = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
    skips: ClassVar[bool] = True
    odd: ClassVar[tuple[str, ...]] = TELLING

    def stage(self, configs: Configs, size: tuple[int | None, int | None]) -> Stage:
        zeros = configs.index.get("force_zeros_for_empty_prompt", True)
        return replace(super().stage(configs, size), unconditional=None if zeros else "")

    def widths(self, configs: Configs) -> dict[str, int | None]:
        pooled = configs.width("text_encoder_2", keys=("projection_dim",))
        return {"text": configs.width("text_encoder", "text_encoder_2"), "pooled": pooled}

    def shapes(self, configs: Configs, told: Told) -> dict[str, tuple[int, ...]]:
        network = configs.network
        pooled = network["projection_class_embeddings_input_dim"] - 6 * network["addition_time_embed_dim"]
        return {"text": (TOKENS, network["cross_attention_dim"]), "pooled": (pooled,)}

    def embed(self, pipeline: Any, prompt: str | None, told: Told) -> Embedding:
        skip = told.clip_skip or None
        text, none, pooled, no_pooled = pipeline.encode_prompt(
            prompt or "", None, pipeline._execution_device, 1, prompt is None, clip_skip=skip
        )
        if prompt is None:
            text, pooled = none, no_pooled
        return {"text": text[0], "pooled": pooled[0]}

    def ask(self, network: Any, x: Tensor, t: Tensor, given: Tensors, beside: Tensors, stage: Stage) -> Tensor:
        height, width = stage.size  # original and target size; nothing is cropped
        sizes = like(x, [[height, width, 0, 0, height, width]]).expand(len(x), -1)
        added = {"text_embeds": given["pooled"], "time_ids": sizes}
        return network(x, t, encoder_hidden_states=given["text"], added_cond_kwargs=added, return_dict=False)[0]
