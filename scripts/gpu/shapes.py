"""The configurations of public checkpoints, as their repositories have them, or in small.

`d` divides the widths; above 1, layers and pictures are few and small too, so that a processor runs the whole path.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Shape:
    """A checkpoint's configurations. pipeline: its class in diffusers; part, kind: its network's folder and class;
    texts: the classes of its text encoders, of which no weights are made; choices: words of the command line; scale:
    of its guidance, that of `guidance.embedded` where the network takes it."""

    pipeline: str
    part: str
    kind: str
    network: Config
    scheduler: Config
    vae: Config | None
    texts: tuple[str, ...]
    choices: tuple[str, ...]
    scale: float
    index: Config = field(default_factory=dict)
    embedded: bool = False


def wide(channels: int, d: int) -> int:
    return max(channels // d, 16) // 16 * 16


def many(number: int, d: int, least: int = 1) -> int:
    """Of layers, blocks and the like: few in small."""
    return number if d == 1 else least


def groups(d: int) -> int:
    return 32 if d == 1 else 8


def autoencoder(d: int, channels: int, scaling: float, shift: float | None = None) -> Config:
    base = wide(128, d)
    convolved = {} if shift is None else {"shift_factor": shift, "use_quant_conv": False, "use_post_quant_conv": False}
    return {
        "block_out_channels": [base, 2 * base, 4 * base, 4 * base],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "layers_per_block": many(2, d),
        "latent_channels": channels,
        "norm_num_groups": groups(d),
        "scaling_factor": scaling,
        **convolved,
    }


# the schedules of their training; DDIM and Euler are the engine's own rules for them, and the loop's
SCALED = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
DDIM = {"_class_name": "DDIMScheduler", "clip_sample": False, "set_alpha_to_one": False, **SCALED}
EULER = {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading", **SCALED}
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}
IF = {
    "_class_name": "DDPMScheduler",
    "beta_schedule": "squaredcos_cap_v2",
    "variance_type": "learned_range",
    "thresholding": True,
    "dynamic_thresholding_ratio": 0.95,
    "sample_max_value": 1.5,
}
CLIP, PROJECTED, T5 = "CLIPTextModel", "CLIPTextModelWithProjection", "T5EncoderModel"


def deepfloyd(channels: int) -> Callable[[int], Shape]:
    """IF's first stages. channels: of the first level; M's and L's are inferred from their sizes."""

    def made(d: int) -> Shape:
        base = wide(channels, d)
        unet = {
            "sample_size": many(64, d, 32),
            "in_channels": 3,
            "out_channels": 6,
            "block_out_channels": [base, 2 * base, 3 * base, 4 * base],
            "layers_per_block": many(3, d),
            "norm_num_groups": groups(d),
            "attention_head_dim": many(64, d, 16),
            "down_block_types": ["ResnetDownsampleBlock2D", *["SimpleCrossAttnDownBlock2D"] * 3],
            "up_block_types": [*["SimpleCrossAttnUpBlock2D"] * 3, "ResnetUpsampleBlock2D"],
            "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
            "resnet_time_scale_shift": "scale_shift",
            "act_fn": "gelu",
            "encoder_hid_dim": 4096 // d,
            "encoder_hid_dim_type": "text_proj",
            "cross_attention_dim": 4 * base,
            "addition_embed_type": "text",
            "addition_embed_type_num_heads": 4,
        }
        choices = ("model=if_m", "scheduler=ddpm")
        return Shape("IFPipeline", "unet", "UNet2DConditionModel", unet, IF, None, (T5,), choices, 7.0)

    return made


def sd15(d: int) -> Shape:
    base = wide(320, d)
    unet = {
        "sample_size": many(64, d, 16),
        "block_out_channels": [base, 2 * base, 4 * base, 4 * base],
        "layers_per_block": many(2, d),
        "norm_num_groups": groups(d),
        "attention_head_dim": 8,
        "cross_attention_dim": 768 // d,
    }
    vae = autoencoder(d, 4, 0.18215)
    choices = ("model=sd15", "scheduler=ddim")
    return Shape("StableDiffusionPipeline", "unet", "UNet2DConditionModel", unet, DDIM, vae, (CLIP,), choices, 7.5)


def sdxl(d: int) -> Shape:
    base, pooled, timed = wide(320, d), 1280 // d, 256 // d
    unet = {
        "sample_size": many(128, d, 16),
        "block_out_channels": [base, 2 * base, 4 * base],
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "layers_per_block": many(2, d),
        "norm_num_groups": groups(d),
        "attention_head_dim": [n * base // min(64, base) for n in (1, 2, 4)],  # how many heads, not their width
        "transformer_layers_per_block": [1, many(2, d), many(10, d)],
        "use_linear_projection": True,
        "cross_attention_dim": 2048 // d,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": timed,
        "projection_class_embeddings_input_dim": pooled + 6 * timed,
    }
    vae, texts = autoencoder(d, 4, 0.13025), (CLIP, PROJECTED)
    choices, index = ("model=sdxl", "scheduler=euler"), {"force_zeros_for_empty_prompt": True}
    name, kind = "StableDiffusionXLPipeline", "UNet2DConditionModel"
    return Shape(name, "unet", kind, unet, EULER, vae, texts, choices, 5.0, index)


def sd35_medium(d: int) -> Shape:
    heads = max(24 // d, 1)
    transformer = {
        "sample_size": many(128, d, 16),
        "patch_size": 2,
        "in_channels": 16,
        "out_channels": 16,
        "num_layers": many(24, d, 2),
        "num_attention_heads": heads,
        "attention_head_dim": 64,
        "caption_projection_dim": 64 * heads,
        "joint_attention_dim": 4096 // d,
        "pooled_projection_dim": 2048 // d,
        "pos_embed_max_size": many(384, d, 24),
        "dual_attention_layers": list(range(many(13, d))),
        "qk_norm": "rms_norm",
    }
    vae, texts = autoencoder(d, 16, 1.5305, 0.0609), (PROJECTED, PROJECTED, T5)
    name, kind = "StableDiffusion3Pipeline", "SD3Transformer2DModel"
    choices = ("model=sd35_medium", "scheduler=euler")
    return Shape(name, "transformer", kind, transformer, FLOW, vae, texts, choices, 4.5)


def flux(d: int) -> Shape:
    transformer = {
        "patch_size": 1,
        "in_channels": 64,
        "num_layers": many(19, d),
        "num_single_layers": many(38, d, 2),
        "num_attention_heads": max(24 // d, 1),
        "attention_head_dim": 128,
        "joint_attention_dim": 4096 // d,
        "pooled_projection_dim": 768 // d,
        "axes_dims_rope": [16, 56, 56],
        "guidance_embeds": True,
    }
    shifts = {"base_shift": 0.5, "max_shift": 1.15, "base_image_seq_len": 256, "max_image_seq_len": 4096}
    schedule = {**FLOW, "use_dynamic_shifting": True, **shifts}
    vae, name, kind = autoencoder(d, 16, 0.3611, 0.1159), "FluxPipeline", "FluxTransformer2DModel"
    size = [f"model.{side}={many(1024, d, 128)}" for side in ("height", "width")]
    choices = ("model=flux_dev", "scheduler=euler", *size)
    return Shape(name, "transformer", kind, transformer, schedule, vae, (CLIP, T5), choices, 3.5, embedded=True)


SHAPES: dict[str, Callable[[int], Shape]] = {
    "m": deepfloyd(192),
    "l": deepfloyd(320),
    "xl": deepfloyd(704),
    "sd15": sd15,
    "sdxl": sdxl,
    "sd35_medium": sd35_medium,
    "flux": flux,
}
