"""What differs between the families of checkpoints that diffusers saves.

One file beside this one describes a family: what its network is told, how it is asked, and what its stage is. All else
(files, text, latents, memory) is alike. Text is encoded by diffusers' own pipeline, loaded without network and
autoencoder, so that templates, layers and padding are its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from diffsweep.core.problems import require
from diffsweep.core.types import Stage
from diffsweep.model import codec
from diffsweep.model.labels import Labels
from diffsweep.model.schedule import habits, process

if TYPE_CHECKING:
    from torch import Tensor

    from diffsweep.model.text import Embedding

Tensors = Mapping[str, "Tensor"]
RENAMED = {"UNet2DModel": ("UNetUnconditionalModel",), "DiTTransformer2DModel": ("Transformer2DModel",)}
RENAMED |= {"PixArtTransformer2DModel": ("Transformer2DModel",)}  # as diffusers called a class once


@dataclass(frozen=True)
class Configs:
    """A checkpoint's configurations: of the pipeline (`model_index.json`) and of each part that has one; texts: of
    each text encoder."""

    index: Mapping[str, Any]
    network: Mapping[str, Any]
    scheduler: Mapping[str, Any]
    vae: Mapping[str, Any] = field(default_factory=dict)
    texts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def width(self, *names: str, keys: tuple[str, ...] = ("hidden_size", "d_model")) -> int | None:
        """How wide the answers of text encoders are, side by side, by the first of these keys that each configuration
        has; None where one does not say."""
        own = [self.texts.get(name, {}) for name in names]
        own = [config.get("text_config", config) for config in own]  # of one that sees pictures too
        found: list[Any] = [next((config[key] for key in keys if key in config), None) for config in own]
        return None if None in found else sum(found)


@dataclass(frozen=True)
class Told:
    """How prompts are encoded. max_length: tokens, None for the pipeline's own number; clip_skip: how many of CLIP's
    last layers are left out."""

    max_length: int | None = None
    clip_skip: int = 0


class Read(NamedTuple):
    """What a tokenizer is given to read. limit: how many tokens of it are kept. chosen: whether `text.max_length` sets
    that."""

    tokenizer: str
    text: str
    limit: int
    chosen: bool = False


class Family:
    """pipeline: the classes that diffusers gives such a checkpoint. network, kind: its network's part and class. text:
    the parts that encode prompts, none where the network reads no text; optional: those that a checkpoint may lack.
    multiple: what a picture's sides must be multiples of, None where they cannot be chosen. patch: latents of a side to
    one of the network's tokens. lengths: the fewest and the most tokens that `text.max_length` may ask for, None where
    the length is fixed; length: how many there are else. skips: whether CLIP's last layers can be left out. folded:
    how many latents of a channel the network takes as channels of one place. odd: what in a network's configuration
    asks for more than `ask` tells it. hosted: what of an embedding stays on the processor, because its values are read,
    for which a device would have to be waited for.
    """

    pipeline: ClassVar[tuple[str, ...]]
    network: ClassVar[str] = "unet"
    kind: ClassVar[str] = "UNet2DConditionModel"
    vae: ClassVar[str | None] = "AutoencoderKL"
    text: ClassVar[tuple[str, ...]] = ("text_encoder", "tokenizer")
    optional: ClassVar[tuple[str, ...]] = ()
    multiple: ClassVar[int | None] = 8
    patch: ClassVar[int] = 1
    lengths: ClassVar[tuple[int, int] | None] = None
    length: ClassVar[int] = 77
    skips: ClassVar[bool] = False
    hosted: ClassVar[tuple[str, ...]] = ()
    folded: ClassVar[int] = 1
    odd: ClassVar[tuple[str, ...]] = ()

    def fit(self, configs: Configs) -> None:
        """ValueError where the parts are of other classes than this family's, or the network is to be told of more."""
        parts = [(self.network, configs.network, (self.kind, *RENAMED.get(self.kind, ())))]
        parts += [("vae", configs.vae, (self.vae,))] if self.vae else []
        for name, config, kinds in parts:
            if (found := config.get("_class_name", kinds[0])) not in kinds:
                raise ValueError(f"{name} is of class {found}, this family's of {kinds[0]}")
        scale = configs.vae.get("scaling_factor", 1.0)
        if not isinstance(scale, int | float) or not 0 < scale < math.inf:
            raise ValueError(f"scaling_factor={scale} of the autoencoder: must be above 0")
        if told := [key for key in self.odd if configs.network.get(key) is not None]:
            raise ValueError(f"{told[0]}={configs.network[told[0]]}: this network is told more than the family's is")
        taken = self.shapes(configs, Told())
        for name, width in self.widths(configs).items():
            needed: Any = taken[name][-1]
            if width is not None and isinstance(needed, int) and width != needed:
                encoders = " and ".join(configs.texts)
                gives = f"{encoders} give{'s' * (len(configs.texts) == 1)}"
                raise ValueError(f"{gives} {name} embeddings {width} wide, {self.network} takes {needed}")
        channels = self.latents(configs)[0] * self.folded
        if (taken := configs.network.get("in_channels", channels)) != channels:
            raise ValueError(
                f"in_channels={taken}: its latents have {channels}; networks that see a mask or a picture beside, for "
                "inpainting or edits, are not known"
            )

    def widths(self, configs: Configs) -> dict[str, int | None]:
        """How wide the text encoders make what the network is told, by its names in `shapes`; None where that is not
        known."""
        return {"text": configs.width("text_encoder")} if self.text else {}

    def stage(self, configs: Configs, size: tuple[int | None, int | None]) -> Stage:
        """The stage of pictures of this height and width, None for the checkpoint's own; KeyError, TypeError or
        ValueError where the configurations are not such a checkpoint's."""
        channels, factor = self.latents(configs)
        own = (0, 0) if all(size) else self.sides(configs)
        height, width = (given // factor if given else side for given, side in zip(size, own, strict=True))
        if uneven := [side for side in (height, width) if side * factor % (self.multiple or 1)]:
            raise ValueError(
                f"sample_size={uneven[0]} in {self.network}/config.json: {uneven[0] * factor} pixels, and pictures of "
                f"this family have a multiple of {self.multiple}; mend it, or choose both height and width"
            )
        return Stage(
            shape=(channels, height, width),
            process=process(configs.scheduler, height * width // self.patch**2),
            factor=factor,
            **habits(configs.scheduler),
        )

    def latents(self, configs: Configs) -> tuple[int, int]:
        """Channels of the latents, and pixels of a side to one; of pixels themselves without an autoencoder."""
        if not self.vae:
            return configs.network["in_channels"], 1
        return configs.vae["latent_channels"], codec.factor(configs.vae)

    def sides(self, configs: Configs) -> tuple[int, int]:
        """Height and width that the network is made for, of its input."""
        return sides(configs.network, self.network)

    def labels(self, configs: Configs) -> Labels | None:
        """What a prompt can be where the network reads no text."""
        return None

    def shapes(self, configs: Configs, told: Told) -> dict[str, tuple[int, ...]]:
        """The shapes of what `embed` gives."""
        raise NotImplementedError

    def reads(self, pipeline: Any, prompt: str, told: Told) -> list[Read]:
        """What `embed` gives each tokenizer to read of a prompt, and how many tokens of that it keeps. pipeline: of
        which the tokenizers alone are there."""
        names = [name for name in self.text if name.startswith("tokenizer") and getattr(pipeline, name) is not None]
        return [Read(name, prompt, getattr(pipeline, name).model_max_length) for name in names]

    def embed(self, pipeline: Any, prompt: str | None, told: Told) -> Embedding:
        """What the network is told of a text, on the processor. pipeline: without network and autoencoder."""
        raise NotImplementedError

    def ask(
        self,
        network: Any,
        x: Tensor,
        t: Tensor,
        given: Mapping[str, Tensor],
        beside: Mapping[str, Tensor],
        stage: Stage,
    ) -> Tensor:
        """One call: x, B C H W in the network's type; t: B; given: what `embed` gives, of each row; beside: as of
        `Query`. The answer may have channels after those of x, for a learned variance."""
        raise NotImplementedError


def sides(config: Mapping[str, Any], part: str) -> tuple[int, int]:
    """Height and width of a network's input, by its configuration; ValueError where these are no sides."""
    size = config.get("sample_size")
    pair = size if isinstance(size, list | tuple) else (size, size)
    if len(pair) != 2 or not all(type(side) is int and side > 0 for side in pair):
        told = "null" if size is None else size
        raise ValueError(f"sample_size={told} in {part}/config.json: a whole number above 0 is needed, or two of them")
    return pair[0], pair[1]


def require_places(stage: Stage, most: int) -> None:
    """BadInput where a side of a picture has more latents than the network has places for."""
    most *= stage.factor
    require(
        *(
            f"{key}={side}: at most {most}, the network knows no places beyond"
            for key, side in zip(("height", "width"), stage.size, strict=True)
            if side > most
        )
    )


def bucketed(text: Tensor, step: int) -> dict[str, Tensor]:
    """A text (tokens x width) of its own length, padded with zeros to a multiple of `step` tokens, and the mask that
    leaves these out. Calls have texts of one such length, so that a row's bits depend on its own alone."""
    import torch

    padding = -len(text) % step
    mask = torch.ones(len(text), dtype=torch.bool, device=text.device)
    pad = torch.nn.functional.pad
    return {"text": pad(text, (0, 0, 0, padding)), "mask": pad(mask, (0, padding))}


def chat(pipeline: Any, prompt: str, thinks: bool) -> str:
    """A prompt as a user's message in the tokenizer's template. thinks: whether the answer begins with thoughts."""
    message, how = {"role": "user", "content": prompt}, {"add_generation_prompt": True, "enable_thinking": thinks}
    text: str = pipeline.tokenizer.apply_chat_template([message], tokenize=False, **how)
    return text
