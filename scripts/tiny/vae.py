"""The latent models' autoencoder, of Stable Diffusion's own layout (Rombach et al. 2022): 128 x 128 to 4 x 16 x 16.

It is trained to give back pictures by L1 and squared error, their edges by L1 of the differences of neighbours, and
their colours by L1 of the means of 8 x 8 pixels; a very small KL term keeps the latents near a unit normal. Of the
world's colours, green against magenta varies least and would be found last: the fourth latent is drawn towards it.
There is no adversary: the drawn world is flat. Three batches in four are crops of half the side, the fourth is a
quarter as many whole pictures, so that each costs the same.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from diffsweep.world import SUBJECTS, held_out
from tiny.data import Batch

SIZE, LATENTS = 128, 4
CHANNELS = (16, 32, 64, 128)
EDGES, COLOURS, GREEN, KL, CROPS = 0.5, 2.0, 0.05, 3e-5, 0.75


def network(channels: tuple[int, ...]) -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        block_out_channels=channels,
        layers_per_block=1,
        latent_channels=LATENTS,
        norm_num_groups=8,
        sample_size=SIZE,
        force_upcast=False,
    )


class Autoencoder:
    rate = 1e-3

    def __init__(self, channels: tuple[int, ...] | None, start: Path | None, decoder: bool = False) -> None:
        """decoder: train nothing else."""
        channels = channels or CHANNELS
        self.module = network(channels)
        self.recipe: dict[str, Any] = {"part": "vae", "channels": list(channels)}
        if start is not None:
            self.module.load_state_dict(load_file(start / "vae" / "diffusion_pytorch_model.safetensors"))
            self.recipe["start"] = json.loads((start / "recipe.json").read_text())["vae"]
        if decoder:
            if start is None:
                raise SystemExit("--decoder: give the autoencoder whose encoder is kept, by --start")
            for kept in (self.module.encoder, self.module.quant_conv):
                kept.requires_grad_(False)
            self.recipe["decoder_only"] = True

    def loss(self, batch: Batch, generator: torch.Generator, rng: random.Random) -> tuple[Tensor, dict[str, float]]:
        pixels, half = batch.pixels, batch.pixels.shape[-1] // 2
        if rng.random() < CROPS:
            y, left = rng.randrange(half + 1), rng.randrange(half + 1)
            pixels = pixels[..., y : y + half, left : left + half]
        else:
            pixels = pixels[: max(1, len(pixels) // 4)]
        pixels = pixels.to(self.module.device)
        with torch.autocast(pixels.device.type, torch.bfloat16):
            latent = self.module.encode(pixels).latent_dist
            noise = torch.randn(latent.mean.shape, generator=generator).to(pixels.device)
            again = self.module.decode(latent.mean + latent.std * noise).sample
        again, mean, log_variance = again.float(), latent.mean.float(), latent.logvar.float()
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        square = F.mse_loss(again, pixels)
        loss = F.l1_loss(again, pixels) + square + EDGES * edges(again - pixels) + KL * kl
        loss = loss + COLOURS * F.avg_pool2d(again - pixels, 8).abs().mean()
        loss = loss + GREEN * (mean[:, 3] - greenness(pixels)).abs().mean()
        return loss, {"loss": loss.item(), "PSNR": psnr(square.item()), "kl": kl.item()}

    @torch.no_grad()
    def sample(self, average: nn.Module, file: Path) -> None:
        """Held-out pictures above what the autoencoder makes of them."""
        assert isinstance(average, AutoencoderKL)
        pictures = [held_out(i, SIZE).pixels for i in range(0, 3 * len(SUBJECTS), 5)]
        again = [given_back(average, pixels) for pixels in pictures]
        rows = [np.concatenate(row[:12], axis=1) for row in (pictures, again, pictures[12:], again[12:])]
        Image.fromarray(np.concatenate([row[:, : rows[-1].shape[1]] for row in rows])).save(file)
        errors = [np.square(a / 127.5 - b / 127.5).mean() for a, b in zip(pictures, again, strict=True)]
        each = [psnr(float(error)) for error in errors]
        print(f"\nheld out: PSNR {np.mean(each):.2f} dB, the worst {min(each):.2f}, of all {psnr(np.mean(errors)):.2f}")


@torch.no_grad()
def given_back(vae: AutoencoderKL, pixels: np.ndarray) -> np.ndarray:
    """A picture (uint8) encoded, without noise, and decoded."""
    x = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].to(vae.device, vae.dtype) / 127.5 - 1
    return levels(vae.decode(vae.encode(x).latent_dist.mode()).sample)[0]


def levels(x: Tensor) -> np.ndarray:
    """Pictures B C H W in [-1, 1] as uint8 B H W C."""
    return ((x.float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def greenness(pixels: Tensor) -> Tensor:
    """Green against magenta in the means of 8 x 8 pixels, near unit variance in the drawn world."""
    red, green, blue = F.avg_pool2d(pixels, 8).unbind(1)
    return 10 * (green - (red + blue) / 2)


def edges(difference: Tensor) -> Tensor:
    """How wrong the steps between neighbours are, in the mean."""
    return (difference.diff(dim=-1).abs().mean() + difference.diff(dim=-2).abs().mean()) / 2


def psnr(error: float) -> float:
    """In dB, of a mean squared error of values in [-1, 1]."""
    return float(10 * np.log10(4 / error))
