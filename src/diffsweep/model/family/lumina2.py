"""Lumina-Image 2.0 (Qin et al. 2025): one transformer over text and patches of 2 x 2 latents that learned a flow.

Gemma 2 encodes the text: a positive prompt behind a system prompt, a negative one alone. The network puts a picture
right behind its text and pads to the longest text of a call. A guided answer keeps the length that each row of latents
has in the conditional one, as the pipeline does by default (`cfg_normalization`). Where the shift of the noise levels
depends on the picture, it does on the number of its channels: a bug of the pipeline's (diffusers' issue 12913), kept.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from diffsweep.core.types import AGAINST, Stage
from diffsweep.model.family.family import Configs, Family, Read, Tensors, Told, bucketed, require_places
from diffsweep.model.schedule import process

if TYPE_CHECKING:
    from torch import Tensor

    from diffsweep.model.text import Embedding

MULTIPLE = 64  # tokens


class Lumina2(Family):
    pipeline: ClassVar[tuple[str, ...]] = ("Lumina2Pipeline",)
    network: ClassVar[str] = "transformer"
    kind: ClassVar[str] = "Lumina2Transformer2DModel"
    multiple: ClassVar[int | None] = 16
    patch: ClassVar[int] = 2
    lengths: ClassVar[tuple[int, int] | None] = (1, 256)
    length: ClassVar[int] = 256  # at most

    def stage(self, configs: Configs, size: tuple[int | None, int | None]) -> Stage:
        stage, row = super().stage(configs, size), (1, 1, 0)
        require_places(stage, min(configs.network["axes_lens"][1:]) * self.patch)
        own = process(configs.scheduler, stage.shape[0])
        return replace(stage, process=own, partial_steps=True, steps=30, against=True, keeps=row)

    def shapes(self, configs: Configs, told: Told) -> dict[str, tuple[int, ...]]:
        length = -(-(told.max_length or self.length) // MULTIPLE) * MULTIPLE
        return {"text": (length, configs.network["cap_feat_dim"]), "mask": (length,)}

    def reads(self, pipeline: Any, prompt: str, told: Told) -> list[Read]:
        before = "" if prompt.startswith(AGAINST) else f"{pipeline.system_prompt} <Prompt Start> "
        limit = told.max_length or self.length
        return [Read("tokenizer", before + prompt.removeprefix(AGAINST), limit, chosen=True)]

    def embed(self, pipeline: Any, prompt: str | None, told: Told) -> Embedding:
        length, device = told.max_length or self.length, pipeline._execution_device
        own = (prompt or "").removeprefix(AGAINST)
        both = pipeline.encode_prompt(own, negative_prompt=own, device=device, max_sequence_length=length)
        (text,), (mask,) = both[2:] if (prompt or "").startswith(AGAINST) else both[:2]
        return bucketed(text[: mask.sum()], MULTIPLE)

    def ask(self, network: Any, x: Tensor, t: Tensor, given: Tensors, beside: Tensors, stage: Stage) -> Tensor:
        places = network.rope_embedder
        with places.register_forward_pre_hook(readable), places.register_forward_hook(steady):
            return -network(x, 1 - t / 1000, given["text"], given["mask"].bool(), return_dict=False)[0]


def readable(places: Any, told: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Latents and mask as the network can count the mask's tokens: on the meta device nothing can."""
    x, mask = told
    return x, mask.new_ones(mask.shape, device="cpu") if mask.is_meta else mask


def steady(places: Any, told: tuple[Tensor, Tensor], found: tuple[Any, ...]) -> tuple[Any, ...]:
    """What the network finds of a call's places, with one length more, which no row has: of the longest text of the
    lane and one token. It pads every call of a lane to one shape, with a mask, so that a row's bits depend on its own
    length alone."""
    import torch

    (x, mask), (*others, turns, texts, lengths) = told, found
    longest = mask.shape[1] + x.shape[2] * x.shape[3] // places.patch_size**2 + 1
    turns = torch.nn.functional.pad(turns, (0, 0, 0, longest - turns.shape[1]))
    return *others, turns, texts, [*lengths, longest]
