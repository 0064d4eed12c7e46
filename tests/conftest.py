"""Shared fixtures: a composed configuration, and a random checkpoint in DeepFloyd IF's layout."""

from __future__ import annotations

import copy
import gc
import os
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault(
    "OMP_WAIT_POLICY", "passive"
)  # before torch: its threads, spinning, would starve their neighbours
# workers and commands start by the dozen: what Python has compiled, it keeps
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


def pytest_collection_finish() -> None:
    """What importing and collecting made stays to the end: the garbage collector need not look at it again."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    gc.unfreeze()


GROUPS = ("model", "scheduler", "guidance", "technique", "view", "mask", "input", "upscale", "metric", "tracker")


@cache
def root() -> dict[str, Any]:
    """What the command composes of these choices."""
    from diffsweep.app import composed

    words = ["model=analytic", "input=drawing", "metric=none", 'prompt="a photo of a dog"', "device=cpu"]
    ((config, _),) = composed(words)
    return config


@cache
def choices(group: str) -> dict[str, dict[str, Any]]:
    """What the command composes of each choice of a group."""
    from diffsweep.app import composed

    return {axes[group]: config[group] for config, axes in composed([f"{group}=glob(*)"])}


def composed(**changes: Any) -> dict[str, Any]:
    """A plain configuration; `technique="inpaint"` chooses, `guidance__scale=3.0` sets."""
    chosen = {group: choices(group)[changes[group]] for group in GROUPS if group in changes}
    config = copy.deepcopy({**root(), **chosen})
    for key, value in changes.items():
        if key in GROUPS:
            continue
        *path, last = key.split("__")
        node = config
        for word in path:
            node = node[word]
        node[last] = copy.deepcopy(value)
    return config


@pytest.fixture
def hydra_restore_singletons() -> Iterator[None]:
    """In the place of Hydra's own fixture, which looks for all plugins anew: every test starts as a process does."""
    from hydra._internal.sources_registry import SourcesRegistry
    from hydra.core.config_store import ConfigStore
    from hydra.core.plugins import Plugins
    from hydra.core.singleton import Singleton
    from omegaconf.basecontainer import BaseContainer

    found = Plugins, SourcesRegistry, ConfigStore  # what plugins add on import, which a process does once
    resolvers = dict(BaseContainer._resolvers)
    yield
    Singleton._instances = {kind: it for kind, it in Singleton._instances.items() if kind in found}
    BaseContainer._resolvers = resolvers


@pytest.fixture(scope="session")
def config() -> Callable[..., dict[str, Any]]:
    return composed


OBLONG = """
from dataclasses import dataclass

from diffsweep.core.types import Stage
from diffsweep.model.analytic import COLOURS, PROCESSES, GaussianMixture


@dataclass(frozen=True)
class Oblong:
    height: int = 9
    width: int = 16
    factor: int = 1

    def stage(self):
        return Stage((3, self.height, self.width), PROCESSES["ddpm"], factor=self.factor)

    def fingerprint(self):
        return f"{self}"

    def load(self, device, kept=None):
        import torch

        n = self.height * self.width
        ramp = torch.linspace(-0.3, 0.3, n).reshape(1, 1, self.height, self.width)
        means = torch.tensor(list(COLOURS.values()))[:, :, None, None] + ramp
        covariances = 0.04 * torch.eye(3 * n).expand(len(COLOURS), -1, -1)
        return GaussianMixture(means, covariances, [1 / 3] * 3, list(COLOURS), PROCESSES["ddpm"], device)
"""


@pytest.fixture(scope="session")
def oblong(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., dict[str, Any]]]:
    """A configuration of a model whose pictures are `height` x `width`, and whose pixels, row by row, are the same
    whatever the two are, as long as there are as many."""
    folder = tmp_path_factory.mktemp("plugins")
    (folder / "oblong_model" / "model").mkdir(parents=True)
    (folder / "oblong_model" / "model" / "oblong.py").write_text(OBLONG)

    def made(height: int = 9, width: int = 16, **changes: Any) -> dict[str, Any]:
        raw = composed(**changes)
        return raw | {"plugins": ["oblong_model"], "model": {"name": "oblong", "height": height, "width": width}}

    sys.path.insert(0, str(folder))
    yield made
    sys.path.remove(str(folder))


def saved_checkpoint(folder: Path, enlarges: bool) -> Path:
    """A randomly initialised checkpoint of IF's component types, as diffusers itself saves it."""
    import torch
    from diffusers import DDPMScheduler, IFPipeline, IFSuperResolutionPipeline, UNet2DConditionModel
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    torch.manual_seed(7)
    words = ["a", "photo", "of", "dog", "red", "oil", "painting", "skull"]
    pieces = ["<pad>", "</s>", "<unk>", "▁", *(f"▁{w}" for w in words), *"abcdefghijklmnopqrstuvwxyz"]
    tokenizer = T5Tokenizer(vocab=[(piece, -float(i)) for i, piece in enumerate(pieces)], extra_ids=0)
    text_encoder = T5EncoderModel(
        T5Config(vocab_size=len(tokenizer), d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    )
    unet = UNet2DConditionModel(
        sample_size=32 if enlarges else 16,
        in_channels=6 if enlarges else 3,
        out_channels=6,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=8,
        attention_head_dim=8,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        resnet_time_scale_shift="scale_shift",
        encoder_hid_dim=16,
        encoder_hid_dim_type="text_proj",
        cross_attention_dim=16,
        addition_embed_type="text",
        addition_embed_type_num_heads=2,
        class_embed_type="timestep" if enlarges else None,
    )
    scheduler = DDPMScheduler(
        beta_schedule="squaredcos_cap_v2",
        variance_type="learned_range",
        thresholding=True,
        dynamic_thresholding_ratio=0.95,
        sample_max_value=1.0 if enlarges else 1.5,
    )
    parts = [tokenizer, text_encoder, unet, scheduler]
    if enlarges:
        parts.append(DDPMScheduler(beta_schedule="linear"))
    kind = IFSuperResolutionPipeline if enlarges else IFPipeline
    kind(*parts, None, None, None, requires_safety_checker=False).save_pretrained(folder, safe_serialization=True)
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A first stage, 16 x 16."""
    return saved_checkpoint(tmp_path_factory.mktemp("checkpoint"), enlarges=False)


def saved_latent_checkpoint(folder: Path) -> Path:
    """A randomly initialised x4 upscaler in latents of Stable Diffusion's component types, as diffusers saves it."""
    import torch
    from diffusers import (
        AutoencoderKL,
        DDIMScheduler,
        DDPMScheduler,
        StableDiffusionUpscalePipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(9)
    letters = [*"abcdefghijklmnopqrstuvwxyz", *(f"{c}</w>" for c in "abcdefghijklmnopqrstuvwxyz")]
    pieces = ["<|startoftext|>", "<|endoftext|>", *letters]
    tokenizer = CLIPTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[], model_max_length=77)
    text = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    ends = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    text_encoder = CLIPTextModel(CLIPTextConfig(vocab_size=len(tokenizer), projection_dim=16, **text, **ends))
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=7,
        out_channels=4,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=8,
        attention_head_dim=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16,
        num_class_embeds=1000,
        use_linear_projection=True,
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=4,
        norm_num_groups=8,
        scaling_factor=0.08333,
    )
    betas = {"beta_schedule": "scaled_linear", "beta_start": 0.0001, "beta_end": 0.02}
    scheduler = DDIMScheduler(
        **betas, prediction_type="v_prediction", set_alpha_to_one=False, steps_offset=1, clip_sample=False
    )
    StableDiffusionUpscalePipeline(
        vae, text_encoder, tokenizer, unet, DDPMScheduler(**betas), scheduler, max_noise_level=350
    ).save_pretrained(folder, safe_serialization=True)
    return folder


@pytest.fixture(scope="session")
def latent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stage in latents: enlarges four times."""
    return saved_latent_checkpoint(tmp_path_factory.mktemp("latent"))


@pytest.fixture(scope="session")
def enlarging(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A super-resolution stage, 32 x 32."""
    return saved_checkpoint(tmp_path_factory.mktemp("enlarging"), enlarges=True)


@pytest.fixture(scope="session")
def loaded(checkpoint: Path) -> Any:
    """The checkpoint's networks, in memory."""
    from diffsweep.model.deepfloyd import DeepFloyd

    model = DeepFloyd(str(checkpoint)).load("cpu")
    model.ready()  # for tests that ask it without an engine
    return model


@pytest.fixture
def sampled() -> Callable[..., list[Any]]:
    """Cells through one engine, as what became of each in the cells' order; an error is raised unless expected."""
    from dataclasses import replace

    from diffsweep.engine import Engine
    from diffsweep.runner.ingredients import work
    from diffsweep.runner.translation import with_translators

    def run(cells: list[Any], model: Any, rows: int = 8, errors: bool = False) -> list[Any]:
        engine = Engine(*with_translators({"base": model}, {"base": rows}))
        engine.encode(prompt for cell in cells for prompt in cell.prompts)
        model.ready()
        finished = list(engine.run(replace(work(cell, "cpu", model=model), owner=i) for i, cell in enumerate(cells)))
        for end in finished:
            if end.error is not None and not errors:
                raise end.error
        return sorted(finished, key=lambda end: end.owner)

    return run


@pytest.fixture
def picture(sampled: Callable[..., list[Any]]) -> Callable[..., Any]:
    """One cell's picture, C H W, from `model` and a configuration's changes."""
    from diffsweep.runner.freeze import freeze

    def draw(model: Any, **changes: Any) -> Any:
        return sampled([freeze(composed(**changes), {})], model)[0].result.image

    return draw
