"""The Stable Diffusion x4 upscaler (Rombach et al. 2022) in the layout that diffusers saves.

`unet/` sees latents beside the noised picture to enlarge, both of that picture's size; `vae/` decodes the latents in
float32, to a picture `2 ** (levels - 1)` times as large; `low_res_scheduler/` says how the picture is noised;
`text_encoder/` is CLIP's, as `StableDiffusionUpscalePipeline.encode_prompt` calls it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from diffsweep.core.keys import AUTO, Auto
from diffsweep.core.problems import BadInput, one_of, require
from diffsweep.core.process import Table
from diffsweep.core.types import Stage
from diffsweep.model import codec, memory
from diffsweep.model.codec import Codec
from diffsweep.model.network import Network
from diffsweep.model.schedule import habits, noising, prediction, table, whole
from diffsweep.model.source import Source
from diffsweep.model.stored import Stored
from diffsweep.model.text import Cut, Embedding, Embeddings, Encoder, count, encoder, tokenizer
from diffsweep.model.weights import Part

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

    def cleaned(self, prompt: str | None) -> str:
        return prompt or ""

    def encoder(self, root: Path, variant: str | None, device: str) -> Encoder:
        import torch

        tokens_of = tokenizer(root)
        network = encoder(root, TEXT[0], "CLIPTextModel", variant, self.dtype).to(device)

        @torch.no_grad()
        def encode(text: str | None) -> Embedding:
            length = tokens_of.model_max_length
            tokens = tokens_of(text, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
            masked = getattr(network.config, "use_attention_mask", False)
            mask = tokens.attention_mask.to(device) if masked else None
            return {"text": network(tokens.input_ids.to(device), attention_mask=mask)[0][0].cpu()}

        return encode


class _Keys(NamedTuple):
    path: str
    variant: str | None
    dtype: str
    compile: bool
    text: ClipText
    low: tuple[int, int]


class LatentUpscaler(_Keys, Stored):
    """No choice of the group `model`: it starts no cascade. low: height and width of the picture to enlarge."""

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

    def places(self) -> list[tuple[Source, list[str]]]:
        return [(self.source, [*self.files(), *self.text_files()])]

    def cuts(self, prompt: str) -> list[Cut]:
        """What of a prompt CLIP does not see, where it is too long."""
        tokens_of = _tokenizer(self.source.root)
        more = count(tokens_of, prompt) - tokens_of.model_max_length
        return [Cut(more, TEXT[1:], tokens_of.model_max_length)] if more > 0 else []

    def weighted(self) -> list[Part]:
        text = Part(self.source, TEXT[0], "CLIPTextModel", "transformers")
        return [Part(self.source, "unet", "UNet2DConditionModel"), Part(self.source, "vae", "AutoencoderKL"), text]

    def needs(self, device: str) -> memory.Needs:
        """The device's memory that the model takes; decoding one picture counts as a row."""
        return _needs(self, self.text.device not in (AUTO, device.partition(":")[0]))

    def load(self, device: str, kept: Path | None = None) -> LoadedUpscaler:
        return LoadedUpscaler(self, device, kept)


@lru_cache
def _needs(model: LatentUpscaler, elsewhere: bool) -> memory.Needs:
    """elsewhere: prompts are encoded on another device."""
    source = model.source
    weights, row, prompt = memory.unet(source.config("unet", "config.json"), model.stage(), model.dtype)
    vae, decoding = memory.decoder(source.config("vae", "config.json"), model.low)
    text = 0 if elsewhere else memory.encoder(source.root / TEXT[0], model.text.dtype)
    return memory.Needs(text, weights + vae, max(row, decoding), prompt)


@lru_cache
def _tokenizer(root: Path) -> Any:
    """One that counts."""
    return tokenizer(root)


@lru_cache
def _most_noise(model: LatentUpscaler) -> int:
    source = model.source
    index = source.config(".", "model_index.json") if (source.root / "model_index.json").is_file() else {}
    try:
        return min(whole(index, "max_noise_level", MOST_NOISE, 0), model.noising().T - 1)
    except BadInput:
        raise
    except ValueError as error:
        raise BadInput(f"path={model.path}: model_index.json: {error}") from error


@lru_cache
def _stage(model: LatentUpscaler) -> Stage:
    model.source.require((*PARTS, *TEXT), KIND)
    unet, vae = model.source.config("unet", "config.json"), model.source.config("vae", "config.json")
    config = model.source.config("scheduler", "scheduler_config.json")
    try:
        prediction(config)
        channels = vae["latent_channels"]
        if unet["in_channels"] != channels + 3:
            raise ValueError(f"in_channels={unet['in_channels']}: latents have {channels} and the picture has 3")
        return Stage(
            shape=(channels, *model.low),
            process=table(config),
            factor=codec.factor(vae),
            **habits(config),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(f"path={model.path}: not {KIND}, its configuration says otherwise ({error})") from error


class LoadedUpscaler(Network):
    """UNet and autoencoder, in memory."""

    def __init__(self, model: LatentUpscaler, device: str, kept: Path | None) -> None:
        embeddings = Embeddings(model.text, model.source, model.text_files(), device, kept)
        super().__init__(model.source, model.files(), model.stage(), model.dtype, device, embeddings)
        self.codec: Any = None
        self.compiled = model.compile

    def ready(self) -> int:
        from diffusers import AutoencoderKL

        loads = super().ready()
        if loads:
            self.codec = Codec(self.part(AutoencoderKL, "vae"), self.device)
        return loads

    def decode(self, x: Tensor) -> Tensor:
        return self.codec.decode(x)

    def encoded(self, pictures: Tensor) -> Tensor:
        return self.codec.encode(pictures)[0]
