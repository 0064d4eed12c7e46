"""An autoencoder of latents: pictures in, pictures out, in float32 whatever the network computes in.

Latents are scaled as the checkpoint's network is trained on them: z = scale (code - shift), by one number each or by
one for each channel (`latents_mean`, `latents_std`). FLUX.2's are patches of 2 x 2, each of their channels scaled by
the statistics of a batch norm, and its pipelines take the encoder's mean for a picture's latents.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from diffsweep.core.types import Latents

if TYPE_CHECKING:
    from torch import Tensor


MOST = 1024 * 1024  # pixels of a call, unless one picture has more: an autoencoder takes some 3 kB a pixel


def rows(height: int, width: int) -> int:
    """How many pictures of this size a call translates at most."""
    return max(1, MOST // (height * width))


def factor(config: Mapping[str, Any]) -> int:
    """Pixels of a picture's side to one latent, of an AutoencoderKL, an AutoencoderDC or Qwen-Image's."""
    if is_framed(config):
        return int(2 ** len(config["temperal_downsample"]))
    channels = config.get("block_out_channels") or config["encoder_block_out_channels"]
    return 2 ** (len(channels) - 1)


def is_framed(config: Mapping[str, Any]) -> bool:
    """Whether an autoencoder is one of videos, of which a picture is a frame."""
    return "temperal_downsample" in config


class Codec:
    """vae: diffusers' AutoencoderKL, AutoencoderKLFlux2, AutoencoderDC or AutoencoderKLQwenImage. device: where it
    computes."""

    shift: Any
    scale: Any

    def __init__(self, vae: Any, device: str) -> None:
        import torch

        self.vae, config = vae, vae.config
        self.patched, self.framed = hasattr(vae, "bn"), is_framed(config)
        if self.patched:
            mean, variance = vae.bn.running_mean.to(device), vae.bn.running_var.to(device)
            self.shift = mean[:, None, None]
            self.scale = (variance + config.batch_norm_eps).rsqrt()[:, None, None]
            return
        mean, std = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
        each: dict[str, Any] = {"device": device, "dtype": torch.float32}
        self.shift = torch.tensor(mean, **each)[:, None, None] if mean else getattr(config, "shift_factor", None) or 0.0
        self.scale = getattr(config, "scaling_factor", 1.0) / (torch.tensor(std, **each)[:, None, None] if std else 1.0)

    def decode(self, x: Tensor) -> Tensor:
        """Pictures (B 3 H W) of latents (B C h w)."""
        code = x / self.scale + self.shift
        if self.framed:
            return self.vae.decode(code.unsqueeze(2), return_dict=False)[0][:, :, 0]
        return self.vae.decode(opened(code) if self.patched else code, return_dict=False)[0]

    def encode(self, pictures: Tensor) -> tuple[Tensor, Tensor | None]:
        """Mean and standard deviation of the latents of pictures (B 3 H W), B C h w each; the latter None where nothing
        is drawn."""
        found = self.vae.encode(pictures.unsqueeze(2) if self.framed else pictures)
        if not hasattr(found, "latent_dist"):
            return (found.latent - self.shift) * self.scale, None
        code = found.latent_dist
        if self.patched:
            return (gathered(code.mean) - self.shift) * self.scale, None
        mean, std = (code.mean[:, :, 0], code.std[:, :, 0]) if self.framed else (code.mean, code.std)
        return (mean - self.shift) * self.scale, std * self.scale

    def latents(self, picture: Tensor) -> Latents:
        """The latents of one picture (3 H W in [-1, 1]), and how well they hold it."""
        import torch

        with torch.no_grad():
            mean, std = self.encode(picture[None])
            (seen,) = self.decode(mean)
        error = (_eight_bit(seen) - _eight_bit(picture)).square().mean()
        spread = None if std is None else std[0]
        return Latents(mean[0], spread, float(10 * torch.log10(255**2 / error.clamp_min(1e-10))))


def gathered(code: Tensor) -> Tensor:
    """Patches of 2 x 2 as channels: B 4C h/2 w/2 of B C h w."""
    batch, channels, height, width = code.shape
    patches = code.view(batch, channels, height // 2, 2, width // 2, 2)
    return patches.permute(0, 1, 3, 5, 2, 4).reshape(batch, 4 * channels, height // 2, width // 2)


def opened(code: Tensor) -> Tensor:
    """B C h w of its patches as channels."""
    batch, channels, height, width = code.shape
    patches = code.view(batch, channels // 4, 2, 2, height, width)
    return patches.permute(0, 1, 4, 2, 5, 3).reshape(batch, channels // 4, 2 * height, 2 * width)


def _eight_bit(picture: Tensor) -> Tensor:
    """As stored: 0 to 255."""
    return ((picture.double() / 2 + 0.5).clamp(0, 1) * 255).round()
