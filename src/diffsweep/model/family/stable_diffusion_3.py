"""Stable Diffusion 3 and 3.5 (Esser et al. 2024): a transformer that learned a flow, two CLIPs and T5.

The T5 may be left out of a checkpoint, which zeros then stand for. Its padding is attended to, so that the number of
tokens is part of a picture.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from diffsweep.core.types import Stage
from diffsweep.model.family.family import Configs, Family, Read, Tensors, Told, require_places
from diffsweep.model.family.stable_diffusion import TOKENS

if TYPE_CHECKING:
    from torch import Tensor

    from diffsweep.model.text import Embedding

EULER = "FlowMatchEulerDiscreteScheduler"  # which the pipeline leaves to find sigmas of its own


class StableDiffusion3(Family):
    pipeline: ClassVar[tuple[str, ...]] = (
        "StableDiffusion3Pipeline",
        "StableDiffusion3Img2ImgPipeline",
        "StableDiffusion3InpaintPipeline",
    )
    network: ClassVar[str] = "transformer"
    kind: ClassVar[str] = "SD3Transformer2DModel"
    text: ClassVar[tuple[str, ...]] = (
        "text_encoder",
        "tokenizer",
        "text_encoder_2",
        "tokenizer_2",
        "text_encoder_3",
        "tokenizer_3",
    )
    optional: ClassVar[tuple[str, ...]] = ("text_encoder_3", "tokenizer_3")
    multiple: ClassVar[int | None] = 16
    patch: ClassVar[int] = 2
    lengths: ClassVar[tuple[int, int] | None] = (1, 512)
    length: ClassVar[int] = 256  # of T5, behind CLIP's
    skips: ClassVar[bool] = True

    def stage(self, configs: Configs, size: tuple[int | None, int | None]) -> Stage:
        stage = super().stage(configs, size)
        require_places(stage, configs.network["pos_embed_max_size"] * self.patch)
        own = "linspace" if configs.scheduler.get("use_dynamic_shifting") else "sd3"
        spacing = own if configs.scheduler.get("_class_name") == EULER else stage.spacing
        return replace(stage, spacing=spacing, partial_steps=True, steps=28, scale=7.0)

    def widths(self, configs: Configs) -> dict[str, int | None]:
        pooled = configs.width("text_encoder", "text_encoder_2", keys=("projection_dim",))
        return {"text": configs.width("text_encoder_3"), "pooled": pooled}

    def shapes(self, configs: Configs, told: Told) -> dict[str, tuple[int, ...]]:
        network = configs.network
        tokens = TOKENS + (told.max_length or self.length)
        return {"text": (tokens, network["joint_attention_dim"]), "pooled": (network["pooled_projection_dim"],)}

    def reads(self, pipeline: Any, prompt: str, told: Told) -> list[Read]:
        own = super().reads(pipeline, prompt, told)
        return [
            one._replace(limit=told.max_length or self.length, chosen=True) if one.tokenizer == "tokenizer_3" else one
            for one in own
        ]

    def embed(self, pipeline: Any, prompt: str | None, told: Told) -> Embedding:
        length, skip = told.max_length or self.length, told.clip_skip or None
        text, _, pooled, _ = pipeline.encode_prompt(
            prompt or "",
            None,
            None,
            pipeline._execution_device,
            1,
            False,
            clip_skip=skip,
            max_sequence_length=length,
        )
        return {"text": text[0], "pooled": pooled[0]}

    def ask(self, network: Any, x: Tensor, t: Tensor, given: Tensors, beside: Tensors, stage: Stage) -> Tensor:
        return network(x, given["text"], given["pooled"], t, return_dict=False)[0]
