"""A stage's network, with the embeddings that it is conditioned on: what checkpoints of diffusers have in common."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from diffsweep.core.problems import BadInput
from diffsweep.core.streams import placed
from diffsweep.core.text import counted
from diffsweep.core.types import Estimate, Level, Stage
from diffsweep.model.memory import HELD, TOKENS
from diffsweep.model.offload import HOME
from diffsweep.model.schedule import prediction
from diffsweep.model.source import Source
from diffsweep.model.text import Embedding, Embeddings

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Network:
    """A stage's network, which computes in `dtype`; pictures and answers are float32. Prompts are encoded before it is
    loaded. kind: its class in diffusers; name: its folder. hosted: what of an embedding stays on the processor."""

    compiled = False
    offload = "none"
    kind, name = "UNet2DConditionModel", "unet"
    hosted: Sequence[str] = ()

    def __init__(
        self, source: Source, files: Sequence[str], stage: Stage, dtype: str, device: str, embeddings: Embeddings
    ) -> None:
        import torch

        self.source, self.files, self.stage, self.device, self.embeddings = source, files, stage, device, embeddings
        self.dtype = getattr(torch, dtype)
        self.network: Any = None
        self._placed: OrderedDict[str | None, Embedding] = OrderedDict()  # on the device, the last used at the end
        config = source.config("scheduler", "scheduler_config.json")
        self.learned = config.get("variance_type") in ("learned", "learned_range")  # else unused, as in IFPipeline
        self.prediction = prediction(config)

    def encode(self, prompts: Sequence[str | None]) -> int:
        return self.embeddings.encode(prompts)

    def assume(self, prompts: Sequence[str | None]) -> None:
        """Take zeros for these prompts' embeddings, and whole masks, so that calls can be timed without a text
        encoder."""
        import torch

        def made(key: str, shape: tuple[int, ...]) -> Tensor:
            if key == "mask":
                return torch.ones(shape, dtype=torch.bool, device=self._home(key))
            return torch.zeros(shape, dtype=self.dtype, device=self._home(key))

        assumed = {key: made(key, shape) for key, shape in self.told().items()}
        self._placed |= dict.fromkeys(prompts, assumed)

    def told(self) -> dict[str, tuple[int, ...]]:
        """The shapes of what the network is told of a prompt."""
        config = self.source.config(self.name, "config.json")
        return {"text": (TOKENS, config.get("encoder_hid_dim") or config["cross_attention_dim"])}

    def embedding(self, prompt: str | None) -> Embedding:
        """The prompt's embedding, on the device. Those of the HELD prompts used last stay there."""
        if prompt not in self._placed:
            known = self.embeddings[prompt].items()
            cast = {key: tensor.to(self.dtype) if tensor.is_floating_point() else tensor for key, tensor in known}
            self._placed[prompt] = {key: placed(tensor, self._home(key)) for key, tensor in cast.items()}
            if len(self._placed) > HELD:
                self._placed.popitem(last=False)
        self._placed.move_to_end(prompt)
        return self._placed[prompt]

    def _home(self, key: str) -> str:
        return "cpu" if key in self.hosted else self.device

    def lane(self, prompt: str | None) -> Hashable:
        """The tokens of a prompt's embedding: a call's have one shape. None where there are none, or not yet."""
        held = self._placed.get(prompt) or self.embeddings.get(prompt)
        return len(held["text"]) if "text" in held else None

    def ready(self) -> int:
        if self.network is not None:
            return 0
        import diffusers

        self.source.fetch(self.files)
        self.network = self.part(getattr(diffusers, self.kind), self.name, self.dtype)
        if self.compiled:
            self.network.compile(dynamic=False)  # at the first call, which then takes a minute or more
        return 1

    def part(self, kind: Any, name: str, dtype: torch.dtype | None = None) -> Any:
        """One of the checkpoint's networks, read from safetensors: on the device, or where it waits for hooks to
        bring it there."""
        import torch
        from safetensors import SafetensorError

        try:
            network, report = kind.from_pretrained(
                self.source.root / self.source.place(name),
                use_safetensors=True,
                variant=self.source.variant,
                torch_dtype=dtype or torch.float32,
                low_cpu_mem_usage=find_spec("accelerate") is not None,
                local_files_only=True,
                output_loading_info=True,
            )
            if lacking := report["missing_keys"]:  # else they would be random
                raise ValueError(f"{counted('weight', len(lacking))} missing in {name}/, as {min(lacking)}")
            return network.to(self.device if self.offload == "none" else HOME).eval().requires_grad_(False)
        except (OSError, ValueError, TypeError, RuntimeError, KeyError, SafetensorError) as error:
            raise BadInput(f"path={self.source.path}: the checkpoint cannot be loaded: {error}") from error

    def predict(
        self, x: Tensor, levels: Sequence[Level], prompts: Sequence[str | None], beside: Mapping[str, Tensor]
    ) -> Estimate:
        import torch

        told = [self.embedding(prompt) for prompt in prompts]
        given = {key: torch.stack([one[key] for one in told]) for key in told[0]}
        t = placed(torch.tensor([level.t for level in levels]), self.device)
        answer, channels = self.ask(x, t, given, beside), x.shape[1]
        output, rest = answer[:, :channels].float(), answer[:, channels:]
        variance = rest.float() if self.learned and rest.shape[1] == channels else None
        return Estimate(output, variance, self.prediction)

    def ask(self, x: Tensor, t: Tensor, given: Mapping[str, Tensor], beside: Mapping[str, Tensor]) -> Tensor:
        """One call. x: B C H W; t: B; given: B and the shapes of an embedding. beside: `low` (B C H W), which a
        super-resolution stage sees beside x, with its `noise_level` (B)."""
        import torch

        return self.network(
            (torch.cat([x, beside["low"]], dim=1) if "low" in beside else x).to(self.dtype),
            t,
            encoder_hidden_states=given["text"],
            class_labels=placed(beside["noise_level"], self.device) if "noise_level" in beside else None,
            return_dict=False,
        )[0]

    def finish(self, x: Tensor) -> Tensor:
        return x
