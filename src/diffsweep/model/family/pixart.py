"""PixArt-alpha and PixArt-Sigma (Chen et al. 2023, 2024): a transformer over latents, T5's text under a mask.

Of the answer's eight channels four are the noise. Some networks are told the picture's size too. Prompts are put in
lower case; `clean_caption`, which changes more where two packages are installed, is off.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from diffsweep.core.streams import like
from diffsweep.core.types import Stage
from diffsweep.model.family.family import Configs, Family, Read, Tensors, Told

if TYPE_CHECKING:
    from torch import Tensor

    from diffsweep.model.text import Embedding


class PixArtSigma(Family):
    pipeline: ClassVar[tuple[str, ...]] = ("PixArtSigmaPipeline",)
    network: ClassVar[str] = "transformer"
    kind: ClassVar[str] = "PixArtTransformer2DModel"
    multiple: ClassVar[int | None] = 16
    patch: ClassVar[int] = 2
    lengths: ClassVar[tuple[int, int] | None] = (1, 512)
    length: ClassVar[int] = 300

    def shapes(self, configs: Configs, told: Told) -> dict[str, tuple[int, ...]]:
        length = told.max_length or self.length
        return {"text": (length, configs.network["caption_channels"]), "mask": (length,)}

    def reads(self, pipeline: Any, prompt: str, told: Told) -> list[Read]:
        (text,) = pipeline._text_preprocessing(prompt)
        return [Read("tokenizer", text, told.max_length or self.length, chosen=True)]

    def embed(self, pipeline: Any, prompt: str | None, told: Told) -> Embedding:
        device, length = pipeline._execution_device, told.max_length or self.length
        text, mask, *_ = pipeline.encode_prompt(prompt or "", False, device=device, max_sequence_length=length)
        return {"text": text[0], "mask": mask[0]}

    def ask(self, network: Any, x: Tensor, t: Tensor, given: Tensors, beside: Tensors, stage: Stage) -> Tensor:
        height, width = stage.size
        sized = {"resolution": like(x, [[height, width]]), "aspect_ratio": like(x, [[height / width]])}
        told = network.use_additional_conditions
        return network(
            x,
            encoder_hidden_states=given["text"],
            timestep=t,
            added_cond_kwargs={key: one.expand(len(x), -1) if told else None for key, one in sized.items()},
            encoder_attention_mask=given["mask"],
            return_dict=False,
        )[0]


class PixArtAlpha(PixArtSigma):
    pipeline: ClassVar[tuple[str, ...]] = ("PixArtAlphaPipeline",)
    length: ClassVar[int] = 120
