"""Both latent models, of Stable Diffusion's layout and of Stable Diffusion 3's, and how they are trained.

Both see the autoencoder's latents (one drawn from each posterior at every visit, scaled to unit variance) and read the
prompt by the embedded CLIP's text encoder, which is not trained; what they are conditioned on is what diffusers'
own pipeline makes of the prompt. A tenth of the prompts are empty, for classifier-free guidance, and the times of a
batch are one from each of its strata.

`latent` is a UNet2DConditionModel that predicts the velocity (Salimans and Ho 2022) under Stable Diffusion's noise
schedule. `flow` is an SD3Transformer2DModel that predicts the velocity of a rectified flow, at logit-normal times
(Esser et al. 2024). Where Stable Diffusion 3 has T5, it has one that says nothing: its last norm's weight is zero, so
that its 256 tokens are those zeros that diffusers' pipeline puts in the place of none. They stay equal from layer to
layer, and in training one of them stands for all, its attention weighted by their number.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from diffusers.models.attention_processor import Attention, AttnProcessor
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm
from transformers import (
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)
from transformers.utils import logging

from diffsweep.world import SCENES, STYLES
from diffsweep.world.captions import STYLE_WORDS, SUBJECT_WORDS, caption
from tiny import vae
from tiny.data import World
from tiny.trainer import averaged

MODELS = Path(__file__).parents[2] / "src" / "diffsweep" / "model"
CLIP, SD = MODELS / "tiny_clip", MODELS / "tiny_sd"
SIZE, WIDTH, TOKENS, ZEROS = 16, 128, 77, 256  # of a latent; of CLIP's embedding; of a prompt; of T5
EMPTY = 0.1
CHANNELS = (64, 128, 128)
LAYERS, HEADS = 6, 4  # of the transformer, whose width --channels says
FLOW_CHANNELS = (160,)


# -- what is trained on ------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Codec:
    """The autoencoder, its weights those that are shipped. facts: its recipe. id: of what makes the latents."""

    vae: AutoencoderKL
    facts: dict[str, Any]

    @property
    def id(self) -> str:
        digest = hashlib.sha256()
        for name, value in sorted(self.vae.state_dict().items()):
            if name.startswith(("encoder", "quant_conv")):
                digest.update(name.encode() + (value.half() + 0).cpu().numpy().tobytes())  # no negative zero
        return digest.hexdigest()


def codec(root: Path, start: Path | None = None) -> Codec:
    """The autoencoder trained in this folder, or else the one of an exported latent model."""
    if (root / "vae" / "checkpoint.pt").exists():
        facts = json.loads((root / "vae" / "recipe.json").read_text())
        network, weights = vae.network(tuple(facts["channels"])), averaged(root / "vae")
    else:
        start = start or SD
        facts = json.loads((start / "recipe.json").read_text())["vae"]
        network = vae.network(tuple(facts["channels"]))
        weights = load_file(start / "vae" / "diffusion_pytorch_model.safetensors")
    network.load_state_dict({name: value.half() for name, value in weights.items()})
    return Codec(network.eval().requires_grad_(False), {k: v for k, v in facts.items() if k != "curve"})


@dataclass(frozen=True)
class Batch:
    """latents: B 4 SIZE SIZE, scaled; a fresh caption a row."""

    latents: Tensor
    captions: list[str]


class Latents:
    """The posteriors of a world's pictures, every other one mirrored: encoded once into the folder."""

    def __init__(self, world: World, codec: Codec, folder: Path, device: str) -> None:
        stem = folder / f"latents-{len(world.labels)}-{codec.id[:16]}"
        file, scale = stem.with_suffix(".npy"), stem.with_suffix(".json")
        if not scale.exists():
            self._encode(world, codec.vae.to(device), file)
            scale.write_text(json.dumps(self._scale(np.load(file, mmap_mode="r"))))
        self.posteriors, self.labels = np.load(file, mmap_mode="r"), world.labels
        self.scale: float = json.loads(scale.read_text())

    def batch(self, size: int, generator: torch.Generator, rng: random.Random) -> Batch:
        rows = torch.randint(len(self.labels), (size,), generator=generator).tolist()
        mean, std = torch.from_numpy(self.posteriors[rows]).float().unbind(1)
        latents = self.scale * (mean + std * torch.randn(mean.shape, generator=generator))
        return Batch(latents, [caption(*self.labels[i], rng) for i in rows])

    @staticmethod
    @torch.no_grad()
    def _encode(world: World, network: AutoencoderKL, file: Path) -> None:
        part = file.with_suffix(f".{os.getpid()}.part")
        n, at_once = len(world.labels), 16
        kept = np.lib.format.open_memmap(part, "w+", np.float16, (n, 2, vae.LATENTS, SIZE, SIZE))
        for i in tqdm(range(0, n, at_once), desc="encoding the world"):
            pixels = torch.from_numpy(world.pixels[i : i + at_once].copy()).permute(0, 3, 1, 2).float() / 127.5 - 1
            pixels[1::2] = pixels[1::2].flip(-1)
            with torch.autocast(network.device.type, torch.bfloat16):
                latent = network.encode(pixels.to(network.device)).latent_dist
            kept[i : i + at_once] = torch.stack([latent.mean, latent.std], dim=1).half().cpu().numpy()
        kept.flush()
        os.replace(part, file)

    @staticmethod
    def _scale(posteriors: np.ndarray) -> float:
        """1 / the latents' standard deviation, over a few thousand pictures."""
        mean, std = (posteriors[:4000, i].astype(np.float64) for i in (0, 1))
        return round(float(1 / math.sqrt(mean.var() + np.square(std).mean())), 5)


# -- the two models ----------------------------------------------------------------------------------------------------
def tokenizer() -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(CLIP, model_max_length=TOKENS)


def text(kind: type[Any]) -> Any:
    """The embedded CLIP's text encoder, in float32."""
    logging.set_verbosity_error()  # else it lists what is the vision tower's
    return kind.from_pretrained(CLIP, dtype=torch.float32)


def schedule() -> DDIMScheduler:
    """Stable Diffusion's own, for a network that predicts the velocity."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="v_prediction",
    )


def unet(channels: tuple[int, ...]) -> UNet2DConditionModel:
    """Text is attended to everywhere but at the first level."""
    attending = len(channels) - 1
    return UNet2DConditionModel(
        sample_size=SIZE,
        in_channels=vae.LATENTS,
        out_channels=vae.LATENTS,
        block_out_channels=channels,
        layers_per_block=1,
        norm_num_groups=16,
        attention_head_dim=HEADS,
        cross_attention_dim=WIDTH,
        down_block_types=("DownBlock2D", *["CrossAttnDownBlock2D"] * attending),
        up_block_types=(*["CrossAttnUpBlock2D"] * attending, "UpBlock2D"),
    )


def transformer(width: int) -> SD3Transformer2DModel:
    return SD3Transformer2DModel(
        sample_size=SIZE,
        patch_size=2,
        in_channels=vae.LATENTS,
        out_channels=vae.LATENTS,
        num_layers=LAYERS,
        attention_head_dim=width // HEADS,
        num_attention_heads=HEADS,
        joint_attention_dim=2 * WIDTH,
        caption_projection_dim=width,
        pooled_projection_dim=2 * WIDTH,
        pos_embed_max_size=2 * SIZE,
    )


def sd(network: UNet2DConditionModel | None, decoder: AutoencoderKL | None) -> StableDiffusionPipeline:
    encoder = text(CLIPTextModel)
    return StableDiffusionPipeline(
        decoder, encoder, tokenizer(), network, schedule(), None, None, requires_safety_checker=False
    )


def sd3(network: SD3Transformer2DModel | None, decoder: AutoencoderKL | None) -> StableDiffusion3Pipeline:
    first, second = (text(CLIPTextModelWithProjection) for _ in range(2))
    scheduler = FlowMatchEulerDiscreteScheduler()
    return StableDiffusion3Pipeline(
        network, scheduler, decoder, first, tokenizer(), second, tokenizer(), silent(), words()
    )


def silent() -> T5EncoderModel:
    """A T5 whose answer is zero, whatever it is asked: Stable Diffusion 3's pipeline wants one."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = T5EncoderModel(
            T5Config(
                vocab_size=len(words()), d_model=2 * WIDTH, d_kv=8, d_ff=8, num_layers=1, num_heads=1, dropout_rate=0.0
            )
        )
    nn.init.zeros_(encoder.encoder.final_layer_norm.weight)
    return encoder.eval().requires_grad_(False)


def words() -> T5Tokenizer:
    """It tells words apart from spaces, and no more."""
    return T5Tokenizer(vocab=[("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -1.0)], extra_ids=0)


class Weighted:
    """Attention of SD3's blocks in which the last token of the text counts as `many` equal ones."""

    def __init__(self, many: int) -> None:
        self.more = math.log(many)

    def __call__(
        self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        def heads(x: Tensor) -> Tensor:
            return x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)

        x, text = hidden_states, encoder_hidden_states
        query = torch.cat([heads(attn.to_q(x)), heads(attn.add_q_proj(text))], dim=2)
        key = torch.cat([heads(attn.to_k(x)), heads(attn.add_k_proj(text))], dim=2)
        value = torch.cat([heads(attn.to_v(x)), heads(attn.add_v_proj(text))], dim=2)
        logits = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        last = F.one_hot(torch.tensor(key.shape[2] - 1, device=x.device), key.shape[2])
        seen = (logits + self.more * last).softmax(-1).to(value.dtype) @ value
        of_x, of_text = seen.transpose(1, 2).flatten(2).split([x.shape[1], text.shape[1]], dim=1)
        return attn.to_out[0](of_x), of_text if attn.context_pre_only else attn.to_add_out(of_text)


class Latent:
    """The part that the training loop trains: `latent`."""

    rate = 8e-4

    def __init__(self, codec: Codec, scale: float, channels: tuple[int, ...] | None, start: Path | None) -> None:
        self.channels = channels or self.default
        self.module = self.network(self.channels)
        self.vae = codec.vae
        self.vae.register_to_config(scaling_factor=scale)
        self.recipe: dict[str, Any] = {"part": self.part, "channels": list(self.channels)}
        self.recipe |= {"scaling_factor": scale, "vae": codec.facts, "vae_id": codec.id}
        self.words = self.pipeline(None, None)
        self.embeddings: dict[str, tuple[Tensor, ...]] = {}
        if start is not None:
            file = start / self.folder / "diffusion_pytorch_model.safetensors"
            self.module.load_state_dict(load_file(file))
            self.recipe["start"] = json.loads((start / "recipe.json").read_text())

    part, folder, default = "latent", "unet", CHANNELS
    network, pipeline = staticmethod(unet), staticmethod(sd)

    def embedded(self, prompts: list[str]) -> list[Tensor]:
        """What the pipeline makes of the prompts, stacked."""
        for prompt in set(prompts) - set(self.embeddings):
            self.embeddings[prompt] = self.embed(prompt)
        return [torch.cat(parts) for parts in zip(*(self.embeddings[prompt] for prompt in prompts), strict=True)]

    @torch.no_grad()
    def embed(self, prompt: str) -> tuple[Tensor, ...]:
        return (self.words.encode_prompt(prompt, "cpu", 1, False)[0],)

    def loss(self, batch: Batch, generator: torch.Generator, rng: random.Random) -> tuple[Tensor, dict[str, float]]:
        n, device = len(batch.captions), self.module.device
        given = self.embedded(["" if rng.random() < EMPTY else words for words in batch.captions])
        spread = (torch.rand(1, generator=generator) + torch.arange(n) / n) % 1
        eps = torch.randn(batch.latents.shape, generator=generator)
        x, t, target = self.noised(batch.latents, eps, spread)
        with torch.autocast(device.type, torch.bfloat16):
            told = self.predict(x.to(device), t.to(device), [e.to(device) for e in given])
        loss = F.mse_loss(told.float(), target.to(device))
        return loss, {"loss": loss.item()}

    def noised(self, x0: Tensor, eps: Tensor, spread: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x, its time and what the network is to say; spread: in [0, 1)."""
        scheduler = self.words.scheduler
        t = (spread * len(scheduler.alphas_cumprod)).long()
        return scheduler.add_noise(x0, eps, t), t, scheduler.get_velocity(x0, eps, t)

    def predict(self, x: Tensor, t: Tensor, given: list[Tensor]) -> Tensor:
        self.module.set_attn_processor(AttnProcessor())  # in training faster on a CPU
        return self.module(x, t, encoder_hidden_states=given[0], return_dict=False)[0]

    @torch.no_grad()
    def sample(self, average: nn.Module, file: Path) -> None:
        """Every second scene in every style."""
        drawn = self.pipeline(average.eval(), self.vae.to(average.device)).to(average.device)
        drawn.set_progress_bar_config(disable=True)
        rows = []
        for style in STYLES:
            prompts = [STYLE_WORDS[style][0].format(SUBJECT_WORDS[s][0]) for s in SCENES[::2]]
            generators = [torch.Generator().manual_seed(i) for i in range(len(prompts))]
            images = drawn(prompts, num_inference_steps=25, guidance_scale=4.0, generator=generators).images
            rows.append(np.concatenate([np.asarray(image) for image in images], axis=1))
        Image.fromarray(np.concatenate(rows)).save(file)


class Flow(Latent):
    """The part that the training loop trains: `flow`."""

    part, folder, default = "flow", "transformer", FLOW_CHANNELS
    network, pipeline = staticmethod(lambda channels: transformer(*channels)), staticmethod(sd3)

    def __init__(self, codec: Codec, scale: float, channels: tuple[int, ...] | None, start: Path | None) -> None:
        super().__init__(codec, scale, channels, start)
        self.vae.register_to_config(shift_factor=0.0)
        self.words.register_modules(transformer=self.module)  # whose configuration says how wide the zeros are

    @torch.no_grad()
    def embed(self, prompt: str) -> tuple[Tensor, ...]:
        words, _, pooled, _ = self.words.encode_prompt(
            prompt, None, None, device="cpu", do_classifier_free_guidance=False, max_sequence_length=1
        )
        return words, pooled

    def noised(self, x0: Tensor, eps: Tensor, spread: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        sigma = torch.special.ndtri(spread.double().clamp(1e-4, 1 - 1e-4)).sigmoid().float()
        share = sigma[:, None, None, None]
        return (1 - share) * x0 + share * eps, 1000 * sigma, eps - x0

    def predict(self, x: Tensor, t: Tensor, given: list[Tensor]) -> Tensor:
        self.module.set_attn_processor(Weighted(ZEROS))
        return self.module(x, given[0], given[1], t, return_dict=False)[0]


KINDS: dict[str, type[Latent]] = {"latent": Latent, "flow": Flow}


def save(weights: dict[str, Tensor], recipe: dict[str, Any], codec: Codec, to: Path) -> None:
    """Weights in half precision, in the layout diffusers saves; text encoders read as single."""
    if codec.id != recipe["vae_id"]:
        raise SystemExit(f"{recipe['part']} was trained on the latents of another autoencoder: train it again")
    part = KINDS[recipe["part"]](codec, recipe["scaling_factor"], tuple(recipe["channels"]), None)
    part.module.load_state_dict(weights)
    pipeline = part.pipeline(part.module, part.vae).to(torch.float16)
    pipeline.save_pretrained(to, safe_serialization=True)
    for config in to.glob("text_encoder*/config.json"):
        config.write_text(json.dumps(json.loads(config.read_text()) | {"dtype": "float32"}, indent=2) + "\n")
