"""Stable Diffusion 1 and 2 (Rombach et al. 2022): a UNet, CLIP's text encoder, all 77 tokens attended to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from diffsweep.core.types import Stage
from diffsweep.model.family.family import Configs, Family, Tensors, Told

if TYPE_CHECKING:
    from torch import Tensor

    from diffsweep.model.text import Embedding

TOKENS = 77
TELLING = ("time_cond_proj_dim", "class_embed_type", "num_class_embeds", "encoder_hid_dim_type")


class StableDiffusion(Family):
    pipeline: ClassVar[tuple[str, ...]] = (
        "StableDiffusionPipeline",
        "StableDiffusionImg2ImgPipeline",
        "StableDiffusionInpaintPipeline",
    )
    skips: ClassVar[bool] = True
    odd: ClassVar[tuple[str, ...]] = (*TELLING, "addition_embed_type")

    def shapes(self, configs: Configs, told: Told) -> dict[str, tuple[int, ...]]:
        return {"text": (TOKENS, configs.network["cross_attention_dim"])}

    def embed(self, pipeline: Any, prompt: str | None, told: Told) -> Embedding:
        if told.clip_skip and not hasattr(encoder := pipeline.text_encoder, "text_model"):
            encoder.__dict__["text_model"] = encoder  # where diffusers looks for its last norm; transformers 5 has none
        text, _ = pipeline.encode_prompt(
            prompt or "", pipeline._execution_device, 1, False, clip_skip=told.clip_skip or None
        )
        return {"text": text[0]}

    def ask(self, network: Any, x: Tensor, t: Tensor, given: Tensors, beside: Tensors, stage: Stage) -> Tensor:
        return network(x, t, encoder_hidden_states=given["text"], return_dict=False)[0]
