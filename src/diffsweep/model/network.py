"""A stage's UNet, with the embeddings that it is conditioned on: what every checkpoint of diffusers has in common."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from diffsweep.core.problems import BadInput
from diffsweep.core.process import Table, from_betas, named_table, zero_snr
from diffsweep.core.streams import placed
from diffsweep.core.text import counted
from diffsweep.core.types import EPSILON, SAMPLE, VELOCITY, Estimate, Level, Stage
from diffsweep.model.memory import HELD, TOKENS
from diffsweep.model.source import Source
from diffsweep.model.text import Embeddings

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def process(config: dict[str, Any]) -> Table:
    """The noise process that a scheduler's configuration names; ValueError where it is not known."""
    if config.get("trained_betas"):
        named = from_betas(config["trained_betas"])
    else:
        kind, T = config.get("beta_schedule", "linear"), config.get("num_train_timesteps", 1000)
        named = named_table(kind, T, config.get("beta_start", 1e-4), config.get("beta_end", 0.02))
    if config.get("rescale_betas_zero_snr"):
        if config.get("prediction_type", EPSILON) == EPSILON:
            raise ValueError("rescale_betas_zero_snr=true: noise predicted without any signal gives no clean picture")
        named = zero_snr(named)
    return named if config.get("set_alpha_to_one", True) else replace(named, end=named.alphas_cumprod[0])


@lru_cache
def noising(source: Source, part: str) -> Table:
    """How a super-resolution stage's input is noised, by the scheduler in this part; BadInput where it is not known."""
    config = source.config(part, "scheduler_config.json")
    try:
        return process(config)
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(f"path={source.path}: {part} cannot be read ({error})") from error


def prediction(config: dict[str, Any]) -> str:
    """What the network is trained to predict; ValueError where that is not known."""
    kind = config.get("prediction_type", EPSILON)
    if kind not in (EPSILON, VELOCITY, SAMPLE):
        raise ValueError(f"prediction_type {kind} is not known")
    return kind


class Network:
    """The UNet computes in `dtype`; pictures and answers are float32. Prompts are encoded before it is loaded."""

    compiled = False

    def __init__(
        self, source: Source, files: Sequence[str], stage: Stage, dtype: str, device: str, embeddings: Embeddings
    ) -> None:
        import torch

        self.source, self.files, self.stage, self.device, self.embeddings = source, files, stage, device, embeddings
        self.dtype = getattr(torch, dtype)
        self.unet: Any = None
        self._placed: OrderedDict[str, Tensor] = OrderedDict()  # embeddings on the device, the last used at the end
        config = source.config("scheduler", "scheduler_config.json")
        self.learned = config.get("variance_type") in ("learned", "learned_range")  # else unused, as in IFPipeline
        self.prediction = prediction(config)

    def encode(self, prompts: Sequence[str]) -> int:
        return self.embeddings.encode(prompts)

    def assume(self, prompts: Sequence[str]) -> None:
        """Take zeros for these prompts' embeddings, so that calls can be timed without a text encoder."""
        import torch

        config = self.source.config("unet", "config.json")
        width = config.get("encoder_hid_dim") or config["cross_attention_dim"]
        zeros = torch.zeros(TOKENS, width, dtype=self.dtype, device=self.device)
        self._placed |= dict.fromkeys(prompts, zeros)

    def embedding(self, prompt: str) -> Tensor:
        """The prompt's embedding (tokens x width), on the device. Those of the HELD prompts used last stay there."""
        if prompt not in self._placed:
            self._placed[prompt] = placed(self.embeddings[prompt].to(self.dtype), self.device)
            if len(self._placed) > HELD:
                self._placed.popitem(last=False)
        self._placed.move_to_end(prompt)
        return self._placed[prompt]

    def ready(self) -> int:
        if self.unet is not None:
            return 0
        from diffusers import UNet2DConditionModel

        self.source.fetch(self.files)
        self.unet = self.part(UNet2DConditionModel, "unet", self.dtype)
        if self.compiled:
            self.unet.compile(dynamic=False)  # at the first call, which then takes a minute or more
        return 1

    def part(self, kind: Any, name: str, dtype: torch.dtype | None = None) -> Any:
        """One of the checkpoint's networks, read from safetensors."""
        import torch
        from safetensors import SafetensorError

        try:
            network, report = kind.from_pretrained(
                self.source.root / name,
                use_safetensors=True,
                variant=self.source.variant,
                torch_dtype=dtype or torch.float32,
                low_cpu_mem_usage=find_spec("accelerate") is not None,
                local_files_only=True,
                output_loading_info=True,
            )
            if lacking := report["missing_keys"]:  # else they would be random
                raise ValueError(f"{counted('weight', len(lacking))} missing in {name}/, as {min(lacking)}")
            return network.to(self.device).eval().requires_grad_(False)
        except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
            raise BadInput(f"path={self.source.path}: the checkpoint cannot be loaded: {error}") from error

    def predict(
        self, x: Tensor, levels: Sequence[Level], prompts: Sequence[str], beside: Mapping[str, Tensor]
    ) -> Estimate:
        """beside: `low` (B C H W), which a super-resolution stage sees beside x, with its `noise_level` (B)."""
        import torch

        seen = torch.cat([x, beside["low"]], dim=1) if "low" in beside else x
        answer = self.unet(
            seen.to(self.dtype),
            placed(torch.tensor([level.t for level in levels]), self.device),
            encoder_hidden_states=torch.stack([self.embedding(prompt) for prompt in prompts]),
            class_labels=placed(beside["noise_level"], self.device) if "noise_level" in beside else None,
            return_dict=False,
        )[0]
        channels = x.shape[1]
        output, rest = answer[:, :channels].float(), answer[:, channels:]
        variance = rest.float() if self.learned and rest.shape[1] == channels else None
        return Estimate(output, variance, self.prediction)

    def finish(self, x: Tensor) -> Tensor:
        return x
