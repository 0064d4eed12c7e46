"""FLUX.2 klein (Black Forest Labs 2026): a transformer over latents in patches of 2 x 2 that learned a flow; Qwen3.

The patches are the latents here: noise is drawn in their shape. The shift of the noise levels depends on the tokens of
a picture and on the number of steps. Distilled checkpoints are made for few steps and run unguided.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from diffsweep.core.process import Flow, StepsShift
from diffsweep.core.types import CLASSIFIER_FREE, Stage
from diffsweep.model import codec
from diffsweep.model.family.family import Configs, Family, Read, Tensors, Told, chat

if TYPE_CHECKING:
    from torch import Tensor

    from diffsweep.model.text import Embedding

LAYERS = 3  # of Qwen3, side by side
SIDE = 64  # of the patches, where nobody says otherwise


class Flux2Klein(Family):
    pipeline: ClassVar[tuple[str, ...]] = ("Flux2KleinPipeline", "Flux2KleinInpaintPipeline")
    network: ClassVar[str] = "transformer"
    kind: ClassVar[str] = "Flux2Transformer2DModel"
    vae: ClassVar[str | None] = "AutoencoderKLFlux2"
    multiple: ClassVar[int | None] = 16
    lengths: ClassVar[tuple[int, int] | None] = (1, 512)
    length: ClassVar[int] = 512

    def stage(self, configs: Configs, size: tuple[int | None, int | None]) -> Stage:
        stage = super().stage(configs, size)
        if configs.scheduler.get("use_dynamic_shifting"):
            _, height, width = stage.shape
            stage = replace(stage, process=Flow(stage.process.T, StepsShift(height * width)))
        distilled = configs.index.get("is_distilled", False)
        own: dict[str, Any] = {"steps": 4, "scale": 1.0} if distilled else {"steps": 50, "scale": 4.0}
        steers = frozenset(() if distilled else {CLASSIFIER_FREE})
        return replace(stage, partial_steps=True, steers=steers, **own)

    def latents(self, configs: Configs) -> tuple[int, int]:
        return configs.network["in_channels"], 2 * codec.factor(configs.vae)

    def sides(self, configs: Configs) -> tuple[int, int]:
        return SIDE, SIDE

    def widths(self, configs: Configs) -> dict[str, int | None]:
        return {"text": configs.width(*("text_encoder",) * LAYERS)}

    def shapes(self, configs: Configs, told: Told) -> dict[str, tuple[int, ...]]:
        return {"text": (told.max_length or self.length, configs.network["joint_attention_dim"])}

    def reads(self, pipeline: Any, prompt: str, told: Told) -> list[Read]:
        return [Read("tokenizer", chat(pipeline, prompt, thinks=False), told.max_length or self.length, chosen=True)]

    def embed(self, pipeline: Any, prompt: str | None, told: Told) -> Embedding:
        length, device = told.max_length or self.length, pipeline._execution_device
        text, _ = pipeline.encode_prompt(prompt or "", device, max_sequence_length=length)
        return {"text": text[0]}

    def ask(self, network: Any, x: Tensor, t: Tensor, given: Tensors, beside: Tensors, stage: Stage) -> Tensor:
        import torch

        text, (height, width) = given["text"], x.shape[-2:]
        none, rows, columns, tokens = (torch.arange(n, device=x.device) for n in (1, height, width, text.shape[1]))
        answer = network(
            x.flatten(2).mT,
            text,
            t.to(x.dtype) / 1000,  # which the network multiplies by 1000 again
            torch.cartesian_prod(none, rows, columns, none),
            torch.cartesian_prod(none, none, none, tokens),
            return_dict=False,
        )[0]
        return answer.mT.unflatten(2, (height, width))
