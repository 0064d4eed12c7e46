"""Checkpoints in the layout that diffusers saves for DeepFloyd IF's stages.

A folder with `unet/` (UNet2DConditionModel), `text_encoder/` (T5), `tokenizer/` and `scheduler/` (its configuration
is the stage's training schedule, thresholding and spacing); a super-resolution stage has `image_noising_scheduler/`
too, and a UNet that sees the noised low-resolution picture beside its own and its noise level as class label. Prompts
are encoded as `IFPipeline.encode_prompt` does: lower case, stripped, 77 tokens, T5 with its attention mask, the UNet
without. Weights are read from safetensors only. A folder's SHA256SUMS, where it has one, is held against its files.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffsweep.core.problems import BadInput, one_of, require
from diffsweep.core.schedule import NoiseSchedule, from_betas, named_schedule
from diffsweep.core.types import Estimate, Given, Stage
from diffsweep.model.files import complete, digest, folder

if TYPE_CHECKING:
    import torch
    from torch import Tensor

PARTS = ("unet", "text_encoder", "tokenizer", "scheduler")
NOISING = "image_noising_scheduler"
MAX_TOKENS = 77
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DeepFloyd:
    """path: the folder, or `tiny` for the embedded weights. dtype: float32, or bfloat16 for the UNet alone."""

    path: str = "tiny"
    dtype: str = "float32"
    enlarges: bool = field(default=False, metadata={"bound": True})  # a super-resolution stage

    def __post_init__(self) -> None:
        require(one_of("dtype", self.dtype, ("float32", "bfloat16")))

    def config(self, part: str, name: str) -> dict[str, Any]:
        root = folder(self.path)
        if not root.is_dir():
            raise BadInput(f"path={self.path}: no such folder; give a checkpoint in the layout diffusers saves for IF")
        if missing := [p for p in self.parts if not (root / p).is_dir()]:
            raise BadInput(f"path={self.path}: not an IF checkpoint, {', '.join(missing)} missing in it")
        try:
            return json.loads((root / part / name).read_text())
        except (OSError, ValueError) as error:
            raise BadInput(f"path={self.path}: {part}/{name} cannot be read ({error})") from None

    @property
    def parts(self) -> tuple[str, ...]:
        return (*PARTS, NOISING) if self.enlarges else PARTS

    def stage(self) -> Stage:
        return _stage(self)

    def noising(self) -> NoiseSchedule:
        """How a super-resolution stage's input is noised."""
        return _noising(self)

    def weights(self) -> list[Path]:
        """The files that decide the model's answers; BadInput where a part has no safetensors."""
        root = folder(self.path)
        self.config("unet", "config.json")
        complete(self.path)
        for part in ("unet", "text_encoder"):
            if not list((root / part).glob("*.safetensors")):
                found = ", ".join(p.name for p in (root / part).glob("*.bin"))
                pickle = f"; {found} is a pickle, which is never loaded" if found else ""
                raise BadInput(f"path={self.path}: no .safetensors file in {part}/{pickle}")
        kinds = {".safetensors", ".json", ".model"}
        return sorted(f for part in self.parts for f in (root / part).iterdir() if f.suffix in kinds)

    def fingerprint(self) -> str:
        """SHA-256 over names and contents of the weights and configurations; BadInput where SHA256SUMS disagrees."""
        return digest(self.path, self.weights())

    def load(self, device: str) -> Loaded:
        return Loaded(self, device)


@lru_cache
def _stage(model: DeepFloyd) -> Stage:
    unet, config = model.config("unet", "config.json"), model.config("scheduler", "scheduler_config.json")
    try:
        return _read(unet, config, model.enlarges)
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(
            f"path={model.path}: not an IF checkpoint, its configuration says otherwise ({error})"
        ) from error


@lru_cache
def _noising(model: DeepFloyd) -> NoiseSchedule:
    return _schedule(model.config(NOISING, "scheduler_config.json"))


def _read(unet: dict[str, Any], config: dict[str, Any], enlarges: bool) -> Stage:
    size, channels, labels = unet["sample_size"], unet["in_channels"], unet.get("class_embed_type")
    if enlarges and (channels != 6 or labels != "timestep"):
        raise ValueError(f"in_channels={channels}: super-resolution stages in pixels have 6, and class labels")
    if not enlarges and (channels != 3 or labels):
        raise ValueError(
            f"in_channels={channels}: first stages in pixels have 3 and no class labels; a super-resolution stage is "
            "given as upscale.path"
        )
    kind = "dynamic" if config.get("thresholding") else "clip" if config.get("clip_sample", True) else "none"
    return Stage(
        shape=(3, size, size),
        schedule=_schedule(config),
        threshold=kind,
        threshold_ratio=config.get("dynamic_thresholding_ratio", 0.995),
        threshold_max=config.get("sample_max_value", 1.0),
        spacing=config.get("timestep_spacing", "leading"),
        offset=config.get("steps_offset", 0),
    )


def _schedule(config: dict[str, Any]) -> NoiseSchedule:
    if config.get("trained_betas"):
        return from_betas(config["trained_betas"])
    kind, T = config.get("beta_schedule", "linear"), config.get("num_train_timesteps", 1000)
    return named_schedule(kind, T, config.get("beta_start", 1e-4), config.get("beta_end", 0.02))


class Loaded:
    """The networks, in memory. The text encoder answers in float32; the UNet computes in the asked type."""

    def __init__(self, model: DeepFloyd, device: str) -> None:
        import torch
        from diffusers import UNet2DConditionModel
        from safetensors import SafetensorError
        from transformers import AutoTokenizer, T5EncoderModel
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()
        root = folder(model.path)
        self.stage = model.stage()
        self.device = device
        self.dtype = getattr(torch, model.dtype)
        config = model.config("scheduler", "scheduler_config.json")
        self.learned = config.get("variance_type") in ("learned", "learned_range")  # else unused, as in IFPipeline
        prediction = config.get("prediction_type", "epsilon")
        if prediction not in ("epsilon", "v_prediction", "sample"):
            raise BadInput(f"path={model.path}: prediction_type {prediction} is not known")
        self.prediction = prediction
        a = self.stage.schedule.alphas_cumprod
        self.a = torch.tensor(a, dtype=torch.float64)
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(root / "tokenizer", local_files_only=True)
            self.text_encoder = _ready(
                T5EncoderModel.from_pretrained(root / "text_encoder", use_safetensors=True, dtype=torch.float32), device
            )
            self.unet = _ready(
                UNet2DConditionModel.from_pretrained(
                    root / "unet", use_safetensors=True, torch_dtype=self.dtype, low_cpu_mem_usage=False
                ),
                device,
            )
        except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
            raise BadInput(f"path={model.path}: the checkpoint cannot be loaded: {error}") from error
        self._embeddings: dict[str, Tensor] = {}

    def encode(self, prompts: Sequence[str]) -> int:
        """Each new prompt on its own, so that an embedding does not depend on what else is encoded."""
        import torch

        fresh = [p for p in dict.fromkeys(prompts) if p not in self._embeddings]
        for prompt in fresh:
            tokens = self.tokenizer(
                prompt.lower().strip(),
                padding="max_length",
                max_length=MAX_TOKENS,
                truncation=True,
                add_special_tokens=True,
                return_tensors="pt",
            ).to(self.device)
            if tokens.attention_mask.all() and len(self.tokenizer(prompt.lower().strip()).input_ids) > MAX_TOKENS:
                log.warning("a prompt is cut after %d tokens: %.60s...", MAX_TOKENS, prompt)
            with torch.inference_mode():
                encoded = self.text_encoder(tokens.input_ids, attention_mask=tokens.attention_mask)[0][0]
            self._embeddings[prompt] = encoded.to(self.dtype)
        return len(fresh)

    def predict(self, x: Tensor, t: Tensor, prompts: Sequence[str], given: Given | None = None) -> Estimate:
        import torch

        seen, labels = x, None
        if given is not None:
            seen, labels = torch.cat([x, given.image], dim=1), torch.as_tensor(given.noise_level, device=self.device)
        answer = self.unet(
            seen.to(self.dtype),
            t.to(self.device),
            encoder_hidden_states=torch.stack([self._embeddings[p] for p in prompts]),
            class_labels=labels,
            return_dict=False,
        )[0]
        channels = x.shape[1]
        output, rest = answer[:, :channels].float(), answer[:, channels:]
        variance = rest.float() if self.learned and rest.shape[1] == channels else None
        return Estimate(self._noise(output, x, t), variance)

    def _noise(self, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """The noise that the network's output means, for what it was trained to predict."""
        if self.prediction == "epsilon":
            return output
        a = self.a[t].float().to(x.device)[:, None, None, None]
        if self.prediction == "v_prediction":  # Salimans and Ho 2022, appendix D
            return a.sqrt() * output + (1 - a).sqrt() * x
        return (x - a.sqrt() * output) / (1 - a).sqrt()


def _ready(module: Any, device: str) -> torch.nn.Module:
    return module.to(device).eval().requires_grad_(False)
