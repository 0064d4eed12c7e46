"""Checkpoints in the layout that diffusers saves for DeepFloyd IF's stages in pixels.

A folder, or a repository of the hub, with `unet/` (UNet2DConditionModel), `text_encoder/` (T5), `tokenizer/` and
`scheduler/` (its configuration is the stage's noise process, thresholding and spacing); a super-resolution stage
has `image_noising_scheduler/` too, and a UNet that sees the noised low-resolution picture beside its own and its noise
level as class label. The text encoder may be another checkpoint's. Weights are read from safetensors only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffsweep.core.keys import AUTO, Auto
from diffsweep.core.problems import BadInput, one_of, require
from diffsweep.core.process import Table
from diffsweep.core.types import Stage
from diffsweep.model import memory, t5
from diffsweep.model.family.family import sides
from diffsweep.model.network import Network
from diffsweep.model.schedule import habits, noising, prediction, table
from diffsweep.model.source import TENSORS, Source, suited
from diffsweep.model.stored import Stored
from diffsweep.model.t5 import T5
from diffsweep.model.text import Cut, Embeddings
from diffsweep.model.vocabulary import unknown
from diffsweep.model.weights import Part

if TYPE_CHECKING:
    from torch import Tensor

NOISING = "image_noising_scheduler"
KIND, ENLARGING = "an IF checkpoint", "a super-resolution checkpoint of IF"
CHECKER = ("safety_checker", "feature_extractor")
WATERMARK = "watermarker"


@dataclass(frozen=True)
class DeepFloyd(Stored):
    """path: a folder, a repository of the hub (`owner/name@revision`), or `tiny`. variant: which of several weights.
    dtype: float32, or bfloat16 for the UNet alone. compile: by torch.compile, for long sweeps. text: the text
    encoder. safety_checker, watermark: IF's own, where the checkpoint has them in safetensors.
    """

    path: str = field(default="tiny", metadata={"decides": False})  # the weights' fingerprint does
    variant: Auto | str | None = field(default=AUTO, metadata={"decides": False})
    dtype: str = "float32"
    compile: bool = False
    text: T5 = field(default_factory=T5)
    safety_checker: bool = False
    watermark: bool = False
    enlarges: bool = field(default=False, metadata={"bound": True})  # a super-resolution stage

    def __post_init__(self) -> None:
        require(one_of("dtype", self.dtype, ("float32", "bfloat16")))

    @property
    def source(self) -> Source:
        return suited(self.path, self.variant, self.dtype)

    @property
    def text_source(self) -> Source:
        variant = self.source.variant if self.text.variant == AUTO else self.text.variant
        own = self.text.path == AUTO
        return Source(self.path, variant) if own else Source(self.text.path, variant, "text.path", t5.PARTS[:1])

    @property
    def parts(self) -> tuple[str, ...]:
        asked = (NOISING, *CHECKER, WATERMARK)
        wanted = (self.enlarges, self.safety_checker, self.safety_checker, self.watermark)
        return ("unet", "scheduler", *(part for part, there in zip(asked, wanted, strict=True) if there))

    def stage(self) -> Stage:
        return _stage(self)

    def noising(self) -> Table:
        """How a super-resolution stage's input is noised."""
        return noising(self.source, NOISING)

    def files(self) -> list[str]:
        """Those that decide the pictures, the text encoder's aside; BadInput where weights are missing."""
        self._require()
        return self.source.files(self.parts, {"unet", CHECKER[0], WATERMARK})

    def text_files(self) -> list[str]:
        return self.text_source.files(t5.PARTS, {t5.PARTS[0]})

    def _require(self) -> None:
        own = t5.PARTS if self.text.path == AUTO else ()
        optional = {*CHECKER, WATERMARK}
        kind = ENLARGING if self.enlarges else KIND
        if not self.enlarges:
            self.source.require((), "a checkpoint")  # of any family, as nothing is there
        self.source.require((*(part for part in self.parts if part not in optional), *own), kind)
        for key, parts in (("safety_checker", CHECKER), ("watermark", (WATERMARK,))):
            if getattr(self, key):
                self.source.require(parts, f"a checkpoint with what {key}=true needs")
        if self.text.path != AUTO:
            self.text_source.require(t5.PARTS, KIND)
        tokenizer = self.text_source.root / t5.PARTS[1]
        if (tokenizer / "spiece.model").is_file() and not (tokenizer / "tokenizer.json").is_file():
            require(t5.unless_installed(f"path={self.path}: its tokenizer", {"sentencepiece"}, "deepfloyd"))

    def places(self) -> list[tuple[Source, list[str]]]:
        return [(self.source, self.files()), (self.text_source, self.text_files())]

    def weighted(self) -> list[Part]:
        text = Part(self.text_source, t5.PARTS[0], "T5EncoderModel", "transformers")
        return [Part(self.source, "unet", "UNet2DConditionModel"), text]

    def unknown(self, prompt: str) -> tuple[str, ...]:
        """The prompt's words that the text encoder has no pieces for."""
        return unknown(self.text_source.root / t5.PARTS[1] / "tokenizer.json", prompt)

    def cuts(self, prompt: str) -> list[Cut]:
        """What of a prompt the text encoder does not see, where it is too long."""
        more = self.text.count(self.text_source.root, prompt) - self.text.max_length
        return [Cut(more, t5.PARTS[1:], self.text.max_length, t5.MOST)] if more > 0 else []

    def needs(self, device: str) -> memory.Needs:
        """The device's memory that the model takes."""
        return _needs(self, self.text.device not in (AUTO, device.partition(":")[0]))

    def load(self, device: str, kept: Path | None = None) -> LoadedDeepFloyd:
        """kept: where embeddings lie. The networks are loaded when there is something for them to do."""
        return LoadedDeepFloyd(self, device, kept)


@lru_cache
def _needs(model: DeepFloyd, elsewhere: bool) -> memory.Needs:
    """elsewhere: prompts are encoded on another device."""
    root, keys = model.text_source.root / t5.PARTS[0], model.text
    text = 0 if elsewhere else memory.encoder(root, keys.dtype, keys.load_in_8bit)
    return memory.Needs(text, *memory.unet(model.source.config("unet", "config.json"), model.stage(), model.dtype))


@lru_cache
def _stage(model: DeepFloyd) -> Stage:
    model._require()
    unet = model.source.config("unet", "config.json")
    config = model.source.config("scheduler", "scheduler_config.json")
    try:
        prediction(config)
        stage = _read(unet, config, model.enlarges)
        source = model.text_source
        found = source.config(t5.PARTS[0], "config.json").get("d_model")
        width = unet.get("encoder_hid_dim") or unet["cross_attention_dim"]
        if found != width:
            width = f"{found}, and {width} is needed" if found else "missing: it is no T5"
            raise BadInput(f"{source.key}={source.path}: its text encoder's width is {width}")
        return stage
    except BadInput:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(f"path={model.path}: not {KIND}, its configuration says otherwise ({error})") from error


def _read(unet: dict[str, Any], config: dict[str, Any], enlarges: bool) -> Stage:
    size, channels, labels = sides(unet, "unet"), unet["in_channels"], unet.get("class_embed_type")
    if enlarges and (channels != 6 or labels != "timestep"):
        raise ValueError(f"in_channels={channels}: super-resolution stages in pixels have 6, and class labels")
    if not enlarges and (channels != 3 or labels):
        raise ValueError(
            f"in_channels={channels}: first stages in pixels have 3 and no class labels; a super-resolution stage is "
            "given as upscale.path"
        )
    return Stage(shape=(3, *size), process=table(config), **habits(config))


def _checker(source: Source, files: Sequence[str], device: str) -> tuple[Any, Any]:
    """IF's safety checker and its image processor. By hand: its class cannot be loaded by transformers 5."""
    from diffusers.pipelines.deepfloyd_if.safety_checker import IFSafetyChecker
    from safetensors.torch import load_file
    from transformers import CLIPConfig, CLIPImageProcessor

    root = source.root
    try:
        checker: Any = IFSafetyChecker(CLIPConfig.from_pretrained(root / CHECKER[0], local_files_only=True))
        weights = [name for name in files if name.startswith(CHECKER[0]) and name.endswith(TENSORS)]
        checker.load_state_dict({k: v.float() for name in weights for k, v in load_file(root / name).items()})
        extractor = CLIPImageProcessor.from_pretrained(root / CHECKER[1], local_files_only=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise BadInput(f"path={source.path}: the safety checker cannot be loaded: {error}") from error
    return checker.to(device).eval().requires_grad_(False), extractor


class LoadedDeepFloyd(Network):
    """A stage in pixels, in memory."""

    def __init__(self, model: DeepFloyd, device: str, kept: Path | None) -> None:
        embeddings = Embeddings(model.text, model.text_source, model.text_files(), device, kept)
        super().__init__(model.source, model.files(), model.stage(), model.dtype, device, embeddings)
        self.model, self.compiled = model, model.compile
        self._checker: Any = None
        self._watermarker: Any = None

    def ready(self) -> int:
        loads = super().ready()
        if loads and self.model.safety_checker:
            self._checker, self._extractor = _checker(self.source, self.files, self.device)
        if loads and self.model.watermark:
            from diffusers.pipelines.deepfloyd_if.watermark import IFWatermarker

            self._watermarker = self.part(IFWatermarker, WATERMARK)
        return loads

    def finish(self, x: Tensor) -> Tensor:
        """The picture, black where the safety checker finds it unsafe, with the watermark if the key asks for it."""
        if self._checker is None and self._watermarker is None:
            return x
        import numpy as np
        import torch
        from PIL import Image

        values = (x.float() / 2 + 0.5).clamp(0, 1).permute(1, 2, 0).cpu().numpy()
        picture = Image.fromarray((values * 255).round().astype(np.uint8))
        if self._checker is not None:
            seen = self._extractor(picture, return_tensors="pt").pixel_values.to(self.device)
            (values,), *_ = self._checker(images=values[None], clip_input=seen)
            picture = Image.fromarray((values * 255).round().astype(np.uint8))
        if self._watermarker is not None:
            self._watermarker.apply_watermark([picture], min(self.stage.shape[1:]))
        return torch.tensor(np.array(picture)).permute(2, 0, 1).float().to(x.device) / 127.5 - 1
