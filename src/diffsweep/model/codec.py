"""An autoencoder of latents: pictures in, pictures out, in float32 whatever the network computes in.

Latents are scaled as the checkpoint's network is trained on them: z = scale (code - shift), by one number each or by
one for each channel (`latents_mean`, `latents_std`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from diffsweep.core.types import Latents

if TYPE_CHECKING:
    from torch import Tensor


def factor(config: Mapping[str, Any]) -> int:
    """Pixels of a picture's side to one latent, of an AutoencoderKL or an AutoencoderDC."""
    channels = config.get("block_out_channels") or config["encoder_block_out_channels"]
    return 2 ** (len(channels) - 1)


class Codec:
    """vae: diffusers' AutoencoderKL, or its AutoencoderDC, on its device."""

    def __init__(self, vae: Any) -> None:
        import torch

        self.vae, config = vae, vae.config
        mean, std = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
        each = {"device": vae.device, "dtype": torch.float32}
        shift = torch.tensor(mean, **each)[:, None, None] if mean else getattr(config, "shift_factor", None) or 0.0
        self.shift: Any = shift
        self.scale: Any = config.scaling_factor / (torch.tensor(std, **each)[:, None, None] if std else 1.0)

    def decode(self, x: Tensor) -> Tensor:
        """Pictures (B 3 H W) of latents (B C h w)."""
        return self.vae.decode(x / self.scale + self.shift, return_dict=False)[0]

    def encode(self, pictures: Tensor) -> tuple[Tensor, Tensor | None]:
        """Mean and standard deviation of the latents of pictures (B 3 H W), B C h w each; None where nothing is
        drawn."""
        found = self.vae.encode(pictures)
        if not hasattr(found, "latent_dist"):
            return (found.latent - self.shift) * self.scale, None
        code = found.latent_dist
        return (code.mean - self.shift) * self.scale, code.std * self.scale

    def latents(self, picture: Tensor) -> Latents:
        """The latents of one picture (3 H W in [-1, 1]), and how well they hold it."""
        import torch

        with torch.no_grad():
            mean, std = self.encode(picture[None])
            (seen,) = self.decode(mean)
        error = (_eight_bit(seen) - _eight_bit(picture)).square().mean()
        return Latents(
            mean[0], None if std is None else std[0], float(10 * torch.log10(255**2 / error.clamp_min(1e-10)))
        )


def _eight_bit(picture: Tensor) -> Tensor:
    """As stored: 0 to 255."""
    return ((picture.double() / 2 + 0.5).clamp(0, 1) * 255).round()
