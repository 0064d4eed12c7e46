"""Qwen-Image (Qwen 2025): a transformer over text and patches of 2 x 2 latents that learned a flow; Qwen2.5-VL's text.

Texts have lengths of their own; they are padded to a multiple of 64 tokens and masked. The autoencoder is one of
videos, here of one frame. A guided answer keeps the length that each token has in the conditional one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from diffsweep.core.types import Stage
from diffsweep.model.family.family import Configs, Family, Read, Tensors, Told, bucketed
from diffsweep.model.family.flux import packed, unpacked

if TYPE_CHECKING:
    from torch import Tensor

    from diffsweep.model.text import Embedding

SIDE = 128  # of the latents, where nobody says otherwise
MULTIPLE = 64  # tokens
NOTHING = " "  # the prompt that the model's authors give for none


class QwenImage(Family):
    pipeline: ClassVar[tuple[str, ...]] = ("QwenImagePipeline", "QwenImageImg2ImgPipeline", "QwenImageInpaintPipeline")
    network: ClassVar[str] = "transformer"
    kind: ClassVar[str] = "QwenImageTransformer2DModel"
    vae: ClassVar[str | None] = "AutoencoderKLQwenImage"
    multiple: ClassVar[int | None] = 16
    patch: ClassVar[int] = 2
    folded: ClassVar[int] = 4
    lengths: ClassVar[tuple[int, int] | None] = (1, 1024)
    length: ClassVar[int] = 512  # at most

    def stage(self, configs: Configs, size: tuple[int | None, int | None]) -> Stage:
        if odd := [key for key in ("guidance_embeds", "use_layer3d_rope") if configs.network.get(key)]:
            raise ValueError(f"{odd[0]}={configs.network[odd[0]]} is not known")
        token = (0, self.patch, self.patch)
        return replace(super().stage(configs, size), partial_steps=True, unconditional=NOTHING, keeps=token)

    def latents(self, configs: Configs) -> tuple[int, int]:
        return configs.vae["z_dim"], 2 ** len(configs.vae["temperal_downsample"])

    def sides(self, configs: Configs) -> tuple[int, int]:
        return SIDE, SIDE

    def shapes(self, configs: Configs, told: Told) -> dict[str, tuple[int, ...]]:
        length = -(-(told.max_length or self.length) // MULTIPLE) * MULTIPLE
        return {"text": (length, configs.network["joint_attention_dim"]), "mask": (length,)}

    def reads(self, pipeline: Any, prompt: str, told: Told) -> list[Read]:
        limit = pipeline.prompt_template_encode_start_idx + (told.max_length or self.length)
        return [Read("tokenizer", pipeline.prompt_template_encode.format(prompt), limit, chosen=True)]

    def embed(self, pipeline: Any, prompt: str | None, told: Told) -> Embedding:
        length, device = told.max_length or self.length, pipeline._execution_device
        text, _ = pipeline.encode_prompt(NOTHING if prompt is None else prompt, device, max_sequence_length=length)
        return bucketed(text[0], MULTIPLE)

    def ask(self, network: Any, x: Tensor, t: Tensor, given: Tensors, beside: Tensors, stage: Stage) -> Tensor:
        height, width = x.shape[-2:]
        answer = network(
            hidden_states=packed(x),
            timestep=t.to(x.dtype) / 1000,
            encoder_hidden_states=given["text"],
            encoder_hidden_states_mask=given["mask"],
            img_shapes=[[(1, height // 2, width // 2)]] * len(x),
            return_dict=False,
        )[0]
        return unpacked(answer, height, width)
