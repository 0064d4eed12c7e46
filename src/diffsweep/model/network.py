"""A stage's UNet, with the embeddings that it is conditioned on: what every checkpoint of diffusers has in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from diffsweep.core.problems import BadInput
from diffsweep.core.schedule import NoiseSchedule, from_betas, named_schedule
from diffsweep.core.streams import placed
from diffsweep.core.text import counted
from diffsweep.core.types import Estimate, Given, Stage
from diffsweep.model.source import Source
from diffsweep.model.text import Embeddings

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def schedule(config: dict[str, Any]) -> NoiseSchedule:
    """The training schedule that a scheduler's configuration names."""
    if config.get("trained_betas"):
        named = from_betas(config["trained_betas"])
    else:
        kind, T = config.get("beta_schedule", "linear"), config.get("num_train_timesteps", 1000)
        named = named_schedule(kind, T, config.get("beta_start", 1e-4), config.get("beta_end", 0.02))
    return named if config.get("set_alpha_to_one", True) else replace(named, end=named.a(0))


@lru_cache
def noising(source: Source, part: str) -> NoiseSchedule:
    """How a super-resolution stage's input is noised, by the scheduler in this part; BadInput where it is not known."""
    config = source.config(part, "scheduler_config.json")
    try:
        return schedule(config)
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(f"path={source.path}: {part} cannot be read ({error})") from error


def prediction(config: dict[str, Any]) -> str:
    """What the network is trained to predict; ValueError where that is not known."""
    kind = config.get("prediction_type", "epsilon")
    if kind not in ("epsilon", "v_prediction", "sample"):
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
        self._prompts: dict[str, Tensor] = {}
        config = source.config("scheduler", "scheduler_config.json")
        self.learned = config.get("variance_type") in ("learned", "learned_range")  # else unused, as in IFPipeline
        self.prediction = prediction(config)
        self.a = torch.tensor(stage.schedule.alphas_cumprod, dtype=torch.float64)

    def encode(self, prompts: Sequence[str]) -> int:
        encoded = self.embeddings.encode(prompts)
        for prompt in prompts:
            if prompt not in self._prompts:
                self._prompts[prompt] = self.embeddings[prompt].to(self.device, self.dtype)
        return encoded

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
            network, told = kind.from_pretrained(
                self.source.root / name,
                use_safetensors=True,
                variant=self.source.variant,
                torch_dtype=dtype or torch.float32,
                low_cpu_mem_usage=find_spec("accelerate") is not None,
                local_files_only=True,
                output_loading_info=True,
            )
            if lacking := told["missing_keys"]:  # else they would be random
                raise ValueError(f"{counted('weight', len(lacking))} missing in {name}/, as {min(lacking)}")
            return network.to(self.device).eval().requires_grad_(False)
        except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
            raise BadInput(f"path={self.source.path}: the checkpoint cannot be loaded: {error}") from error

    def predict(self, x: Tensor, t: Tensor, prompts: Sequence[str], given: Given | None = None) -> Estimate:
        import torch

        seen, labels = x, None
        if given is not None:
            seen, labels = torch.cat([x, given.image], dim=1), placed(torch.as_tensor(given.noise_level), self.device)
        answer = self.unet(
            seen.to(self.dtype),
            placed(t, self.device),
            encoder_hidden_states=torch.stack([self._prompts[p] for p in prompts]),
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
        a = placed(self.a[t].float(), self.device)[:, None, None, None]
        if self.prediction == "v_prediction":  # Salimans and Ho 2022, appendix D
            return a.sqrt() * output + (1 - a).sqrt() * x
        return (x - a.sqrt() * output) / (1 - a).sqrt()

    def finish(self, x: Tensor) -> Tensor:
        return x
