"""Z-Image (Tongyi-MAI 2025): one transformer over text and patches of 2 x 2 latents that learned a flow; Qwen3's text.

The network pads a text to a multiple of 32 tokens with a token that it learned, and the picture's places begin behind
that. Rows of such a length share calls, which then need no mask. Turbo is made for few steps, unguided. diffusers'
`guidance_scale` of this family is w - 1.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from diffsweep.core.types import Stage
from diffsweep.model.family.family import Configs, Family, Read, Tensors, Told, bucketed, chat, require_places

if TYPE_CHECKING:
    from torch import Tensor

    from diffsweep.model.text import Embedding

SIDE = 128  # of the latents, where nobody says otherwise
MULTIPLE = 32  # tokens


class ZImage(Family):
    pipeline: ClassVar[tuple[str, ...]] = ("ZImagePipeline", "ZImageImg2ImgPipeline", "ZImageInpaintPipeline")
    network: ClassVar[str] = "transformer"
    kind: ClassVar[str] = "ZImageTransformer2DModel"
    multiple: ClassVar[int | None] = 16
    patch: ClassVar[int] = 2
    lengths: ClassVar[tuple[int, int] | None] = (1, 512)
    length: ClassVar[int] = 512  # at most
    hosted: ClassVar[tuple[str, ...]] = ("mask",)  # read for the texts' lengths

    def stage(self, configs: Configs, size: tuple[int | None, int | None]) -> Stage:
        stage = super().stage(configs, size)
        require_places(stage, min(configs.network["axes_lens"][1:]) * self.patch)
        return replace(stage, partial_steps=True, scale=6.0)

    def sides(self, configs: Configs) -> tuple[int, int]:
        return SIDE, SIDE

    def shapes(self, configs: Configs, told: Told) -> dict[str, tuple[int, ...]]:
        length = -(-(told.max_length or self.length) // MULTIPLE) * MULTIPLE
        return {"text": (length, configs.network["cap_feat_dim"]), "mask": (length,)}

    def reads(self, pipeline: Any, prompt: str, told: Told) -> list[Read]:
        return [Read("tokenizer", chat(pipeline, prompt, thinks=True), told.max_length or self.length, chosen=True)]

    def embed(self, pipeline: Any, prompt: str | None, told: Told) -> Embedding:
        length, device = told.max_length or self.length, pipeline._execution_device
        (text,), _ = pipeline.encode_prompt(prompt or "", device, False, max_sequence_length=length)
        return bucketed(text, MULTIPLE)

    def ask(self, network: Any, x: Tensor, t: Tensor, given: Tensors, beside: Tensors, stage: Stage) -> Tensor:
        import torch

        text, mask = given["text"], given["mask"]
        lengths = [text.shape[1]] * len(x) if mask.is_meta else mask.sum(1).tolist()
        texts = [own[:length] for own, length in zip(text, lengths, strict=True)]
        answers = network([*x.unsqueeze(2)], (1000 - t) / 1000, texts, return_dict=False)[0]
        return -torch.stack(answers).squeeze(2)
