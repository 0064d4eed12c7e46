"""Small random checkpoints of each family, made in code and saved by diffusers itself: nothing is downloaded.

Tokenizers know letters. Weights are random, so pictures are texture; each component's seed is its own.
"""

from __future__ import annotations

import string
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import tokenizers
import torch
from diffusers import (
    AutoencoderDC,
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DiTPipeline,
    DiTTransformer2DModel,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
    FluxPipeline,
    FluxTransformer2DModel,
    Lumina2Pipeline,
    Lumina2Transformer2DModel,
    PixArtAlphaPipeline,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SanaPipeline,
    SanaTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    UNet2DModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    Gemma2Config,
    Gemma2Model,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
)

SCALED = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
LETTERS = [*string.ascii_lowercase, *string.digits, *" .,"]


def spelling(special: list[str], template: str) -> tokenizers.Tokenizer:
    """A tokenizer of letters. special: tokens before them, the last one for what is unknown."""
    vocabulary = {token: number for number, token in enumerate([*special, *LETTERS])}
    found = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token=special[-1]))
    found.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    named = [(token, vocabulary[token]) for token in special if token in template]
    found.post_processor = tokenizers.processors.TemplateProcessing(single=template, special_tokens=named)
    return found


def clip_tokenizer() -> PreTrainedTokenizerFast:
    begin, end = "<|startoftext|>", "<|endoftext|>"
    marks = {"bos_token": begin, "eos_token": end, "unk_token": end, "pad_token": end}
    spelled = spelling([begin, "<|pad|>", end], f"{begin} $A {end}")
    return PreTrainedTokenizerFast(tokenizer_object=spelled, model_max_length=77, **marks)


def clip(seed: int = 0, kind: type = CLIPTextModel) -> Any:
    torch.manual_seed(seed)
    sizes = {"hidden_size": 32, "projection_dim": 32, "intermediate_size": 37, "vocab_size": 100}
    layers = {"num_attention_heads": 4, "num_hidden_layers": 3, "max_position_embeddings": 77}
    return kind(CLIPTextConfig(bos_token_id=0, eos_token_id=2, pad_token_id=2, **sizes, **layers)).eval()


def t5_tokenizer() -> PreTrainedTokenizerFast:
    spelled = spelling(["<pad>", "</s>", "<unk>"], "$A </s>")
    marks = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=spelled, model_max_length=512, **marks)


def t5(width: int = 32, seed: int = 2) -> T5EncoderModel:
    torch.manual_seed(seed)
    sizes = {"vocab_size": 100, "d_model": width, "d_kv": 8, "d_ff": 37, "num_layers": 2, "num_heads": 4}
    return T5EncoderModel(T5Config(pad_token_id=0, eos_token_id=1, **sizes)).eval()


def vae(latent: int = 4, scaling: float = 0.18215, **more: Any) -> AutoencoderKL:
    """An autoencoder of factor 2."""
    torch.manual_seed(0)
    return AutoencoderKL(
        block_out_channels=[8, 8],
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        latent_channels=latent,
        norm_num_groups=2,
        layers_per_block=1,
        scaling_factor=scaling,
        sample_size=32,
        **more,
    ).eval()


def unet(**more: Any) -> UNet2DConditionModel:
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "block_out_channels": (16, 32),
        "layers_per_block": 1,
        "sample_size": 16,
        "in_channels": 4,
        "out_channels": 4,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "cross_attention_dim": 32,
        "norm_num_groups": 4,
        "attention_head_dim": 4,
    }
    return UNet2DConditionModel(**{**settings, **more}).eval()


def stable_diffusion(**schedule: Any) -> StableDiffusionPipeline:
    """schedule: of its DDIM scheduler, such as prediction_type."""
    settings = {**SCALED, "clip_sample": False, "set_alpha_to_one": False, **schedule}
    return StableDiffusionPipeline(
        vae(), clip(), clip_tokenizer(), unet(), DDIMScheduler(**settings), None, None, requires_safety_checker=False
    )


def stable_diffusion_xl(**index: Any) -> StableDiffusionXLPipeline:
    """index: what model_index.json holds beside the parts."""
    network = unet(
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        transformer_layers_per_block=(1, 2),
        projection_class_embeddings_input_dim=80,
        cross_attention_dim=64,
    )
    scheduler = EulerDiscreteScheduler(**SCALED, timestep_spacing="leading")
    texts = clip(0), clip(1, CLIPTextModelWithProjection), clip_tokenizer(), clip_tokenizer()
    return StableDiffusionXLPipeline(vae(scaling=0.13025), *texts, network, scheduler, **index)


def shifted_vae(scaling: float, shift: float) -> AutoencoderKL:
    """Of 16 channels, as flow models have it."""
    return vae(16, scaling, shift_factor=shift, use_quant_conv=False, use_post_quant_conv=False)


def stable_diffusion_3(third: bool = True, moved: float = 0.0609, **schedule: Any) -> StableDiffusion3Pipeline:
    """third: whether it has the T5. moved: by how much its latents are. schedule: of its scheduler."""
    torch.manual_seed(0)
    network = SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=16,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_projection_dim=32,
        joint_attention_dim=64,
        pooled_projection_dim=64,
        out_channels=16,
        pos_embed_max_size=24,
    ).eval()
    kind = CLIPTextModelWithProjection
    texts = [clip(0, kind), clip_tokenizer(), clip(1, kind), clip_tokenizer()]
    texts += [t5(64), t5_tokenizer()] if third else [None, None]
    scheduler = FlowMatchEulerDiscreteScheduler(**{"shift": 3.0, **schedule})
    return StableDiffusion3Pipeline(network, scheduler, shifted_vae(1.5305, moved), *texts)


def flux(guidance: bool = True, dynamic: bool = True) -> FluxPipeline:
    """dev, or without both schnell. guidance: whether it is told a scale. dynamic: whether its shift depends on the
    size."""
    torch.manual_seed(0)
    network = FluxTransformer2DModel(
        patch_size=1,
        in_channels=64,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        axes_dims_rope=(4, 4, 8),
        guidance_embeds=guidance,
    ).eval()
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0 if dynamic else 1.0, use_dynamic_shifting=dynamic)
    texts = clip(), clip_tokenizer(), t5(), t5_tokenizer()
    return FluxPipeline(scheduler, shifted_vae(0.3611, 0.1159), *texts, network)


CHAT = "{% for message in messages %}{{ message['content'] }}{% endfor %}{% if add_generation_prompt %} so.{% endif %}"


def flux2_klein(distilled: bool = False) -> Flux2KleinPipeline:
    torch.manual_seed(0)
    network = Flux2Transformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=48,
        timestep_guidance_channels=16,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=False,
    ).eval()
    for parameter in network.parameters():  # else a text would change next to nothing
        torch.nn.init.normal_(parameter, std=0.2)
    levels = {"down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2}
    codec = AutoencoderKLFlux2(
        block_out_channels=[8, 8], latent_channels=4, norm_num_groups=2, layers_per_block=1, sample_size=32, **levels
    ).eval()
    codec.bn.running_mean.normal_()
    codec.bn.running_var.uniform_(0.5, 2.0)
    layers = {"num_hidden_layers": 28, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8}
    sizes = {"vocab_size": 100, "hidden_size": 16, "intermediate_size": 16, "max_position_embeddings": 512}
    text = Qwen3ForCausalLM(Qwen3Config(pad_token_id=0, bos_token_id=1, eos_token_id=1, **sizes, **layers)).eval()
    tokens = t5_tokenizer()
    tokens.chat_template = CHAT
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    return Flux2KleinPipeline(scheduler, codec, text, tokens, network, is_distilled=distilled)


def z_image(**schedule: Any) -> ZImagePipeline:
    """schedule: of its scheduler."""
    torch.manual_seed(0)
    network = ZImageTransformer2DModel(
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=16,
        axes_dims=[4, 4, 8],
        axes_lens=[1024, 64, 64],
    )
    for token in (network.x_pad_token, network.cap_pad_token):
        torch.nn.init.normal_(token)
    layers = {"num_hidden_layers": 3, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8}
    sizes = {"vocab_size": 100, "hidden_size": 16, "intermediate_size": 16, "max_position_embeddings": 512}
    text = Qwen3Model(Qwen3Config(pad_token_id=0, bos_token_id=1, eos_token_id=1, **sizes, **layers)).eval()
    tokens = t5_tokenizer()
    tokens.chat_template = CHAT
    scheduler = FlowMatchEulerDiscreteScheduler(**{"shift": 3.0, **schedule})
    return ZImagePipeline(scheduler, shifted_vae(0.3611, 0.1159), text, tokens, network.eval())


def qwen_image() -> QwenImagePipeline:
    torch.manual_seed(0)
    network = QwenImageTransformer2DModel(
        in_channels=64,
        out_channels=16,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        axes_dims_rope=(4, 4, 8),
    )
    for parameter in network.parameters():  # else a text would change next to nothing
        torch.nn.init.normal_(parameter, std=0.2)
    codec = AutoencoderKLQwenImage(base_dim=8, dim_mult=[1, 1], num_res_blocks=1, temperal_downsample=[False])
    sizes = {"vocab_size": 100, "hidden_size": 16, "intermediate_size": 16, "max_position_embeddings": 2048}
    heads = {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    marks = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16}
    words = {**sizes, **heads, **marks, "rope_parameters": rope}
    config = Qwen2_5_VLConfig(text_config=words, vision_config=vision)
    text = Qwen2_5_VLForConditionalGeneration(config).eval()
    dynamic = {"use_dynamic_shifting": True, "max_shift": 0.9, "max_image_seq_len": 8192, "shift_terminal": 0.02}
    scheduler = FlowMatchEulerDiscreteScheduler(**dynamic)
    return QwenImagePipeline(scheduler, codec.eval(), text, t5_tokenizer(), network.eval())


def ddpm(network: dict[str, Any] | None = None, **schedule: Any) -> DDPMPipeline:
    """A model of pixels. network: of its UNet, such as num_class_embeds; schedule: of its DDPM scheduler."""
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "sample_size": 16,
        "block_out_channels": (16, 32),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "norm_num_groups": 4,
        "attention_head_dim": 8,
    }
    return DDPMPipeline(UNet2DModel(**{**settings, **(network or {})}).eval(), DDPMScheduler(**schedule))


def dit(**schedule: Any) -> DiTPipeline:
    """schedule: of its DDIM scheduler."""
    torch.manual_seed(0)
    network = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        sample_size=16,
    )
    for parameter in network.parameters():  # some are zero, and a label would change nothing
        torch.nn.init.normal_(parameter, std=0.2)
    names = {0: "tench, Tinca tinca", 1: "crane", 2: "goldfish", 3: "crane", 4: "great white shark, white shark"}
    pipeline = DiTPipeline(network.eval(), vae(), DDIMScheduler(**{"clip_sample": False, **schedule}))
    pipeline.register_to_config(id2label=names)
    return pipeline


def pixart(kind: type = PixArtSigmaPipeline, network: dict[str, Any] | None = None, **schedule: Any) -> Any:
    """network: of its transformer; schedule: of its DPM-Solver."""
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "num_attention_heads": 3,
        "attention_head_dim": 8,
        "in_channels": 4,
        "out_channels": 8,
        "num_layers": 2,
        "sample_size": 16,
        "caption_channels": 32,
        "cross_attention_dim": 24,
    }
    transformer = PixArtTransformer2DModel(**{**settings, **(network or {})}).eval()
    parts = {
        "vae": vae(scaling=0.13025),
        "transformer": transformer,
        "scheduler": DPMSolverMultistepScheduler(**schedule),
    }
    return kind(tokenizer=t5_tokenizer(), text_encoder=t5(32), **parts)


def deep_compression(latent: int = 4) -> AutoencoderDC:
    """Sana's autoencoder, here of factor 2, which draws nothing."""
    torch.manual_seed(0)
    blocks = ("ResBlock", "EfficientViTBlock")
    sizes = {"encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8)}
    layers = {"encoder_layers_per_block": (1, 1), "decoder_layers_per_block": (1, 1)}
    scales = {"encoder_qkv_multiscales": ((), (5,)), "decoder_qkv_multiscales": ((), (5,))}
    kinds = {"encoder_block_types": blocks, "decoder_block_types": blocks, "attention_head_dim": 2}
    sampling = {"downsample_block_type": "conv", "upsample_block_type": "interpolate", "scaling_factor": 0.41407}
    return AutoencoderDC(latent_channels=latent, **sizes, **layers, **scales, **kinds, **sampling).eval()


def gemma() -> Gemma2Model:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "vocab_size": 100, "head_dim": 8}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    return Gemma2Model(Gemma2Config(**sizes, **heads, bos_token_id=2, eos_token_id=1, pad_token_id=0)).eval()


def gemma_tokenizer() -> PreTrainedTokenizerFast:
    marks = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}
    spelled = spelling(["<pad>", "<eos>", "<bos>", "<unk>"], "<bos> $A")
    return PreTrainedTokenizerFast(tokenizer_object=spelled, model_max_length=8192, **marks)


def sana(scheduler: Any = None) -> SanaPipeline:
    """scheduler: its own, else DPM-Solver over a flow's noise levels."""
    torch.manual_seed(0)
    network = SanaTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=2,
        num_attention_heads=2,
        attention_head_dim=8,
        num_cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=16,
        caption_channels=16,
        sample_size=16,
        timestep_scale=0.5,
    )
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
    scheduler = scheduler or DPMSolverMultistepScheduler(**flow)
    return SanaPipeline(gemma_tokenizer(), gemma(), deep_compression(), network.eval(), scheduler)


def lumina2(**schedule: Any) -> Lumina2Pipeline:
    """schedule: of its scheduler."""
    torch.manual_seed(0)
    network = Lumina2Transformer2DModel(
        sample_size=16,
        hidden_size=24,
        num_layers=2,
        num_refiner_layers=1,
        num_attention_heads=2,
        num_kv_heads=1,
        multiple_of=16,
        axes_dim_rope=(4, 4, 4),
        axes_lens=(300, 32, 32),
        cap_feat_dim=16,
    )
    for parameter in network.parameters():  # some are zero, and a text would change nothing
        torch.nn.init.normal_(parameter, std=0.2)
    scheduler = FlowMatchEulerDiscreteScheduler(**{"shift": 6.0, **schedule})
    return Lumina2Pipeline(network.eval(), scheduler, shifted_vae(0.3611, 0.1159), gemma(), gemma_tokenizer())


FAMILIES: dict[str, Callable[..., Any]] = {
    "sd": stable_diffusion,
    "sdxl": stable_diffusion_xl,
    "sd3": stable_diffusion_3,
    "flux": flux,
    "klein": flux2_klein,
    "z_image": z_image,
    "qwen_image": qwen_image,
    "lumina2": lumina2,
    "ddpm": ddpm,
    "dit": dit,
    "pixart": pixart,
    "sana": sana,
    "pixart_alpha": partial(pixart, PixArtAlphaPipeline),
}


def saved(folder: Path, name: str, **more: Any) -> Path:
    """The folder of a family's checkpoint, which is made there."""
    pipeline = FAMILIES[name](**more)
    pipeline.save_pretrained(folder)
    return folder
