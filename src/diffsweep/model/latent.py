"""The Stable Diffusion x4 upscaler (Rombach et al. 2022) in the layout that diffusers saves.

`unet/` sees latents beside the noised picture to enlarge, both of that picture's size; `vae/` decodes the latents in
float32, to a picture `2 ** (levels - 1)` times as large; `low_res_scheduler/` says how the picture is noised;
`text_encoder/` is CLIP's, as `StableDiffusionUpscalePipeline.encode_prompt` calls it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from diffsweep.core.keys import AUTO, Auto
from diffsweep.core.problems import BadInput, one_of, require
from diffsweep.core.process import Table
from diffsweep.core.types import Stage
from diffsweep.model import memory
from diffsweep.model.network import Network, noising, prediction, process
from diffsweep.model.source import Source
from diffsweep.model.text import Embeddings, network

if TYPE_CHECKING:
    from torch import Tensor

NOISING = "low_res_scheduler"
PARTS = ("unet", "vae", "scheduler", NOISING)
TEXT = ("text_encoder", "tokenizer")
KIND = "a Stable Diffusion x4 upscaler"
MOST_NOISE = 350  # where the checkpoint does not say


@dataclass(frozen=True)
class ClipText:
    """CLIP's text encoder. dtype: float32 or bfloat16. device: auto is the model's."""

    dtype: str = "float32"
    device: Auto | str = field(default=AUTO, metadata={"decides": False})

    def __post_init__(self) -> None:
        require(
            one_of("dtype", self.dtype, ("float32", "bfloat16")),
            one_of("device", self.device, (AUTO, "cpu", "cuda")),
        )

    @property
    def decides(self) -> tuple[Any, ...]:
        return (self.dtype,)

    def cleaned(self, prompt: str) -> str:
        return prompt

    def encoder(self, root: Path, variant: str | None, device: str) -> Callable[[str], Tensor]:
        import torch
        from transformers import CLIPTextModel

        tokenizer, encoder = network(CLIPTextModel, root, variant, self.dtype)
        encoder.to(device)

        @torch.no_grad()
        def encode(text: str) -> Tensor:
            length = tokenizer.model_max_length
            tokens = tokenizer(text, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
            masked = getattr(encoder.config, "use_attention_mask", False)
            mask = tokens.attention_mask.to(device) if masked else None
            return encoder(tokens.input_ids.to(device), attention_mask=mask)[0][0].cpu()

        return encode


class LatentUpscaler(NamedTuple):
    """No choice of the group `model`: it starts no cascade. low: height and width of the picture to enlarge."""

    path: str
    variant: str | None
    dtype: str
    compile: bool
    text: ClipText
    low: tuple[int, int]

    @property
    def source(self) -> Source:
        return Source(self.path, self.variant)

    def stage(self) -> Stage:
        return _stage(self)

    def noising(self) -> Table:
        return noising(self.source, NOISING)

    def most_noise(self) -> int:
        return _most_noise(self)

    def files(self) -> list[str]:
        self.source.require((*PARTS, *TEXT), KIND)
        return self.source.files(PARTS, {"unet", "vae"})

    def text_files(self) -> list[str]:
        return self.source.files(TEXT, {TEXT[0]})

    def fingerprint(self) -> str:
        """SHA-256 over names and contents of weights and configurations; BadInput where they are damaged."""
        return hashlib.sha256(f"{self.source.digest([*self.files(), *self.text_files()])}".encode()).hexdigest()

    def stamp(self) -> object:
        """Changes when a file does that the fingerprint is of."""
        return self.source.stamp([*self.files(), *self.text_files()])

    def missing(self) -> dict[str, int]:
        """Bytes to download, by file, before the model can be loaded."""
        return self.source.missing([*self.files(), *self.text_files()])

    def size(self) -> int:
        """Bytes of its files."""
        return self.source.size([*self.files(), *self.text_files()])

    def needs(self, device: str) -> memory.Needs:
        """The device's memory that the model takes; decoding one picture counts as a row."""
        unet = self.source.config("unet", "config.json")
        weights, row = memory.unet(unet, self.stage(), self.dtype)
        vae, decoding = memory.decoder(self.source.config("vae", "config.json"), self.low)
        elsewhere = self.text.device not in (AUTO, device.partition(":")[0])
        text = 0 if elsewhere else memory.encoder(self.source.root / TEXT[0], self.text.dtype)
        return memory.Needs(text, weights + vae, max(row, decoding), memory.embedding(unet, self.dtype))

    def load(self, device: str, kept: Path | None = None) -> LoadedUpscaler:
        return LoadedUpscaler(self, device, kept)


@lru_cache
def _most_noise(model: LatentUpscaler) -> int:
    source = model.source
    index = source.config(".", "model_index.json") if (source.root / "model_index.json").is_file() else {}
    return min(index.get("max_noise_level", MOST_NOISE), model.noising().T - 1)


@lru_cache
def _stage(model: LatentUpscaler) -> Stage:
    model.source.require((*PARTS, *TEXT), KIND)
    unet, vae = model.source.config("unet", "config.json"), model.source.config("vae", "config.json")
    config = model.source.config("scheduler", "scheduler_config.json")
    try:
        prediction(config)
        channels, levels = vae["latent_channels"], len(vae["block_out_channels"])
        if unet["in_channels"] != channels + 3:
            raise ValueError(f"in_channels={unet['in_channels']}: latents have {channels} and the picture has 3")
        return Stage(
            shape=(channels, *model.low),
            process=process(config),
            threshold="clip" if config.get("clip_sample", True) else "none",
            spacing=config.get("timestep_spacing", "leading"),
            offset=config.get("steps_offset", 0),
            factor=2 ** (levels - 1),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(f"path={model.path}: not {KIND}, its configuration says otherwise ({error})") from error


class LoadedUpscaler(Network):
    """UNet and autoencoder, in memory."""

    def __init__(self, model: LatentUpscaler, device: str, kept: Path | None) -> None:
        embeddings = Embeddings(model.text, model.source, model.text_files(), device, kept)
        super().__init__(model.source, model.files(), model.stage(), model.dtype, device, embeddings)
        self.vae: Any = None
        self.compiled = model.compile

    def ready(self) -> int:
        from diffusers import AutoencoderKL

        loads = super().ready()
        if loads:
            self.vae = self.part(AutoencoderKL, "vae")
        return loads

    def finish(self, x: Tensor) -> Tensor:
        return self.vae.decode(x[None] / self.vae.config.scaling_factor, return_dict=False)[0][0]
