"""Sana (Xie et al. 2024): a transformer over latents of a deep autoencoder, Gemma's text under a mask.

A positive prompt is encoded behind an instruction, and the first and the last tokens of both are kept; a negative one
is encoded alone.
"""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from diffsweep.core.types import AGAINST, Stage
from diffsweep.model.family.family import Configs, Family, Read, Tensors, Told

if TYPE_CHECKING:
    from torch import Tensor

    from diffsweep.model.text import Embedding


class Sana(Family):
    pipeline: ClassVar[tuple[str, ...]] = ("SanaPipeline",)
    network: ClassVar[str] = "transformer"
    kind: ClassVar[str] = "SanaTransformer2DModel"
    vae: ClassVar[str | None] = "AutoencoderDC"
    multiple: ClassVar[int | None] = 32
    lengths: ClassVar[tuple[int, int] | None] = (2, 512)
    length: ClassVar[int] = 300

    def stage(self, configs: Configs, size: tuple[int | None, int | None]) -> Stage:
        return replace(super().stage(configs, size), against=True)

    def shapes(self, configs: Configs, told: Told) -> dict[str, tuple[int, ...]]:
        length = told.max_length or self.length
        return {"text": (length, configs.network["caption_channels"]), "mask": (length,)}

    def reads(self, pipeline: Any, prompt: str, told: Told) -> list[Read]:
        (text,), limit = pipeline._text_preprocessing(prompt.removeprefix(AGAINST)), told.max_length or self.length
        if not prompt.startswith(AGAINST):
            before = "\n".join(instruction(pipeline))
            text, limit = before + text, limit + len(pipeline.tokenizer.encode(before)) - 2
        return [Read("tokenizer", text, limit, chosen=True)]

    def embed(self, pipeline: Any, prompt: str | None, told: Told) -> Embedding:
        text, mask, *_ = pipeline.encode_prompt(
            (prompt or "").removeprefix(AGAINST),
            False,
            device=pipeline._execution_device,
            max_sequence_length=told.max_length or self.length,
            complex_human_instruction=None if (prompt or "").startswith(AGAINST) else instruction(pipeline),
        )
        return {"text": text[0], "mask": mask[0]}

    def ask(self, network: Any, x: Tensor, t: Tensor, given: Tensors, beside: Tensors, stage: Stage) -> Tensor:
        whole = stage.spacing.endswith("_above")  # DPM-Solver's class gives the network whole timesteps
        return network(
            x,
            encoder_hidden_states=given["text"],
            timestep=(t.floor() if whole else t) * network.config.timestep_scale,
            encoder_attention_mask=given["mask"],
            return_dict=False,
        )[0]


def instruction(pipeline: Any) -> list[str]:
    """What stands before a prompt, in lines."""
    default: list[str] = inspect.signature(pipeline.__call__).parameters["complex_human_instruction"].default
    return default
