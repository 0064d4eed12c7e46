"""Both diffusion stages, of DeepFloyd IF's component types, and how they are trained.

A pixel-space UNet and a small T5 are trained together. The noise loss is weighted min-SNR-5 (Hang et al. 2023), with
one timestep from each stratum of a batch; 0.1 of the variational bound trains the learned variance with the noise
detached (iDDPM (15)), and a small penalty holds its interpolation within [-1, 1]. Towards high noise levels a
picture's noise is also shifted as a whole (offset noise, Guttenberg 2023), or the mean colour of the starting noise
would stay in the picture. A tenth of the prompts are empty, for classifier-free guidance.

The second stage sees, beside its own noised picture, the first stage's size enlarged (bilinear, corners aligned) and
noised to a level of its own, which the network is told as a class label (Ho et al. 2021, IF's stage II). Its clean
picture is nearly known at any noise level; it therefore predicts the velocity (Salimans and Ho 2022), from which that
picture follows at high levels too. Three batches in four are crops of half the side, as Imagen's super-resolution is
trained.
"""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler, IFPipeline, IFSuperResolutionPipeline, UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import T5Config, T5EncoderModel, T5Tokenizer

from diffsweep.world import SCENES, STYLES, SUBJECTS, picture
from diffsweep.world.captions import STYLE_WORDS, SUBJECT_WORDS
from tiny.data import SIZE, Batch

WIDTH, TOKENS = 128, 77
EMPTY, BOUND, CLAMP, OFFSET = 0.1, 0.1, 0.05, 0.1
CROPS = 0.75  # of the second stage
CHANNELS = {"stage1": (48, 96, 144), "stage2": (32, 64, 96)}


def tokenizer() -> T5Tokenizer:
    """Every word of the world as one piece, and letters for all others."""
    subjects = [*sum(SUBJECT_WORDS.values(), ()), *SUBJECTS]
    text = " ".join([*sum(STYLE_WORDS.values(), ()), *subjects, "an"])
    words = sorted({word.strip("{},.") for word in text.lower().split()} - {""})
    letters = [chr(c) for c in range(33, 127) if not chr(c).isupper()]
    pieces = ["<pad>", "</s>", "<unk>", "▁", *(f"▁{word}" for word in words), *letters]
    scores = [0.0, 0.0, 0.0, -4.0, *(-1.0 for _ in words), *(-8.0 for _ in letters)]
    return T5Tokenizer(vocab=list(zip(dict.fromkeys(pieces), scores, strict=False)), extra_ids=0)


class Network(nn.Module):
    """UNet and text encoder as one module, so that one optimiser and one average serve both."""

    def __init__(self, stage: str, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.stage, self.tokens = stage, tokenizer()
        enlarging = stage == "stage2"
        self.unet = UNet2DConditionModel(
            sample_size=SIZE if enlarging else SIZE // 2,
            in_channels=6 if enlarging else 3,
            out_channels=6,
            block_out_channels=channels,
            layers_per_block=1,
            norm_num_groups=16,
            attention_head_dim=channels[0],
            down_block_types=(*["ResnetDownsampleBlock2D"] * (len(channels) - 1), "SimpleCrossAttnDownBlock2D"),
            up_block_types=("SimpleCrossAttnUpBlock2D", *["ResnetUpsampleBlock2D"] * (len(channels) - 1)),
            mid_block_type="UNetMidBlock2DSimpleCrossAttn",
            resnet_time_scale_shift="scale_shift",
            encoder_hid_dim=WIDTH,
            encoder_hid_dim_type="text_proj",
            cross_attention_dim=WIDTH,
            addition_embed_type="text",
            addition_embed_type_num_heads=4,
            class_embed_type="timestep" if enlarging else None,
        )
        self.t5 = T5EncoderModel(
            T5Config(
                vocab_size=len(self.tokens),
                d_model=WIDTH,
                d_kv=32,
                d_ff=256,
                num_layers=2,
                num_heads=4,
                feed_forward_proj="gated-gelu",
                dropout_rate=0.0,
            )
        )

    def forward(self, x: Tensor, t: Tensor, prompts: list[str], noise_level: Tensor | None = None) -> Tensor:
        distinct = list(dict.fromkeys(prompts))
        batch = self.tokens(distinct, padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt").to(
            x.device
        )
        encoded = self.t5(batch.input_ids, attention_mask=batch.attention_mask)[0]
        rows = torch.tensor([distinct.index(p) for p in prompts], device=x.device)
        return self.unet(x, t, encoder_hidden_states=encoded[rows], class_labels=noise_level, return_dict=False)[0]

    def start_from(self, folder: Path) -> None:
        """Take over an exported checkpoint of the same channels; words it knew keep their embedding."""
        self.unet.load_state_dict(load_file(folder / "unet" / "diffusion_pytorch_model.safetensors"))
        t5 = load_file(folder / "text_encoder" / "model.safetensors")
        old = T5Tokenizer.from_pretrained(folder / "tokenizer").get_vocab()
        embedding = self.t5.get_input_embeddings().weight.detach().clone()
        (name,) = [n for n in t5 if n.endswith(("shared.weight", "embed_tokens.weight"))]
        for piece, i in self.tokens.get_vocab().items():
            if piece in old:
                embedding[i] = t5[name][old[piece]]
        self.t5.load_state_dict(t5 | {name: embedding}, strict=False)

    def pipeline(self) -> IFPipeline | IFSuperResolutionPipeline:
        if self.stage == "stage1":
            return IFPipeline(
                self.tokens, self.t5, self.unet, scheduler(1.5), None, None, None, requires_safety_checker=False
            )
        parts = (self.tokens, self.t5, self.unet, scheduler(1.0, "v_prediction"), noising(), None, None, None)
        return IFSuperResolutionPipeline(*parts, requires_safety_checker=False)


def scheduler(most: float, prediction: str = "epsilon") -> DDPMScheduler:
    """IF's own: cosine schedule, learned variance, dynamic thresholding up to `most`."""
    return DDPMScheduler(
        beta_schedule="squaredcos_cap_v2",
        variance_type="learned_range",
        thresholding=True,
        dynamic_thresholding_ratio=0.95,
        sample_max_value=most,
        prediction_type=prediction,
    )


def noising() -> DDPMScheduler:
    """How the second stage's input is noised."""
    return DDPMScheduler(beta_schedule="squaredcos_cap_v2")


def losses(
    output: Tensor, x0: Tensor, x: Tensor, eps: Tensor, t: Tensor, a: Tensor, velocity: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss of the noise or of the velocity; variational bound of the variance in bits, noise detached; the clamp's
    penalty."""
    told, v = output.float().chunk(2, dim=1)
    a_t = a[t][:, None, None, None]
    a_s = torch.where(t > 0, a[(t - 1).clamp(min=0)], torch.ones_like(a[t]))[:, None, None, None]
    snr = a_t / (1 - a_t)
    if velocity:
        noise, weight = a_t.sqrt() * told + (1 - a_t).sqrt() * x, torch.ones_like(snr)
        target = a_t.sqrt() * eps - (1 - a_t).sqrt() * x0
    else:
        noise, weight, target = told, snr.clamp(max=5) / snr, eps
    simple = ((told - target).square().mean((1, 2, 3)) * weight.flatten()).mean()

    beta = 1 - a_t / a_s
    low = ((1 - a_s) / (1 - a_t) * beta).clamp(min=1e-20).log()
    log_variance = (v + 1) / 2 * beta.log() + (1 - v) / 2 * low
    clean = ((x - (1 - a_t).sqrt() * noise.detach()) / a_t.sqrt()).clamp(-1, 1)
    shift = a_s.sqrt() * beta / (1 - a_t) * (x0 - clean)  # between the posterior's mean and the model's, DDPM (7)
    kl = 0.5 * (log_variance - low - 1 + (low - log_variance).exp() + shift.square() * (-log_variance).exp())
    bound = (kl.mean((1, 2, 3)) / math.log(2) * (t > 0)).clamp(max=10).mean()
    return simple, bound, (v.abs() - 1).clamp(min=0).square().mean()


class Diffusion:
    """The part that the training loop trains: stage1 or stage2."""

    rate = 5e-4

    def __init__(self, stage: str, channels: tuple[int, ...] | None, start: Path | None) -> None:
        channels = channels or CHANNELS[stage]
        self.module = Network(stage, channels)
        self.recipe: dict[str, Any] = {"part": stage, "channels": list(channels)}
        self.a = scheduler(1).alphas_cumprod
        if start is not None:
            self.module.start_from(start)
            before = json.loads(file.read_text()) if (file := start / "recipe.json").exists() else None
            self.recipe["start"] = before

    def loss(self, batch: Batch, generator: torch.Generator, rng: random.Random) -> tuple[Tensor, dict[str, float]]:
        n, device = len(batch.captions), next(self.module.parameters()).device
        low, enlarging = F.avg_pool2d(batch.pixels, 2), self.module.stage == "stage2"
        large = F.interpolate(low, batch.pixels.shape[-2:], mode="bilinear", align_corners=True)
        x0 = batch.pixels if enlarging else low
        if enlarging and rng.random() < CROPS:
            side = SIZE // 2
            y, left = rng.randrange(side + 1), rng.randrange(side + 1)
            x0, large = (p[..., y : y + side, left : left + side] for p in (x0, large))
        x0 = x0.to(device)
        prompts = ["" if rng.random() < EMPTY else words for words in batch.captions]
        spread = (torch.rand(1, generator=generator) + torch.arange(n) / n) % 1
        eps = torch.randn(x0.shape, generator=generator)
        shift = OFFSET * spread.square()[:, None, None, None]
        eps = (eps + shift * torch.randn(n, 3, 1, 1, generator=generator)).to(device)
        t = (spread * len(self.a)).long()
        x = noised(x0, eps, self.a[t].to(device))
        seen, level = x, None
        if enlarging:
            level = (torch.rand(n, generator=generator).pow(1.5) * len(self.a)).long()
            given = noised(large, torch.randn(large.shape, generator=generator), noising().alphas_cumprod[level])
            seen, level = torch.cat([x, given.to(device)], dim=1), level.to(device)
        with torch.autocast(device.type, torch.bfloat16):
            output = self.module(seen, t.to(device), prompts, level)
        simple, bound, penalty = losses(output, x0, x, eps, t.to(device), self.a.to(device), enlarging)
        numbers = {"loss": simple.item(), "bound": bound.item(), "|v|": output.chunk(2, dim=1)[1].abs().max().item()}
        return simple + BOUND * bound + CLAMP * penalty, numbers

    @torch.no_grad()
    def sample(self, average: nn.Module, file: Path) -> None:
        """Stage I: every scene in every style. Stage II: enlarged held-out pictures, between input and original."""
        assert isinstance(average, Network)
        drawn = average.eval().pipeline()
        drawn.set_progress_bar_config(disable=True)
        settings: dict[str, Any] = {"num_inference_steps": 30, "clean_caption": False}
        with torch.autocast(average.unet.device.type, torch.bfloat16):
            rows = [self._row(drawn, settings, style) for style in STYLES]
        sheet = np.concatenate(rows)
        Image.fromarray(sheet).resize((sheet.shape[1] * 3, sheet.shape[0] * 3), Image.Resampling.NEAREST).save(file)

    def _row(self, drawn: Any, settings: dict[str, Any], style: str) -> np.ndarray:
        generators = [torch.Generator().manual_seed(i) for i in range(len(SCENES))]
        if self.module.stage == "stage1":
            prompts = [STYLE_WORDS[style][0].format(SUBJECT_WORDS[s][0]) for s in SCENES]
            images = drawn(prompts, guidance_scale=4.0, generator=generators, **settings).images
            return np.concatenate([np.asarray(image) for image in images], axis=1)
        originals = [picture(s, style, 1, SIZE) for s in SCENES[::3]]
        smaller = [Image.fromarray(picture(s, style, 1, SIZE // 2).pixels) for s in SCENES[::3]]
        images = drawn(
            [p.caption for p in originals],
            image=smaller,
            noise_level=100,
            guidance_scale=1.0,
            generator=generators[: len(smaller)],
            **settings,
        ).images
        enlarged = [np.asarray(image.resize((SIZE, SIZE), Image.Resampling.NEAREST)) for image in smaller]
        triples = zip(enlarged, images, originals, strict=True)
        return np.concatenate([np.concatenate([a, np.asarray(b), c.pixels], axis=1) for a, b, c in triples], axis=1)


def noised(x0: Tensor, eps: Tensor, a: Tensor) -> Tensor:
    """q(x_t | x_0), a: alphas_cumprod at each row's timestep."""
    a = a[:, None, None, None]
    return a.sqrt() * x0 + (1 - a).sqrt() * eps


def save(weights: dict[str, Tensor], stage: str, channels: tuple[int, ...], to: Path) -> None:
    """Weights in half precision, in the layout diffusers saves; text encoder read as single."""
    network = Network(stage, channels)
    network.load_state_dict(weights)
    network.half().pipeline().save_pretrained(to, safe_serialization=True)
    config = to / "text_encoder" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"dtype": "float32"}, indent=2) + "\n")
