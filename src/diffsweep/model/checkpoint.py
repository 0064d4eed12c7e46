"""Checkpoints in the layouts that diffusers saves, of every family that `model/family/` knows.

A folder, or a repository of the hub, with `model_index.json`, which names the family, and a folder for each part: the
network, `scheduler/` (its configuration is the stage's noise process and spacing), text encoders and tokenizers, and
the autoencoder of a latent model. Weights are read from safetensors only.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakValueDictionary

from diffsweep import world
from diffsweep.core.files import is_file
from diffsweep.core.keys import AUTO, Auto, given
from diffsweep.core.problems import BadInput, one_of, require, within
from diffsweep.core.streams import placed
from diffsweep.core.text import printed
from diffsweep.core.types import AGAINST, Latents, Stage
from diffsweep.model import codec, memory
from diffsweep.model.codec import Codec
from diffsweep.model.deepfloyd import DeepFloyd
from diffsweep.model.family import families
from diffsweep.model.family.family import Configs, Family, Told
from diffsweep.model.labels import Labels
from diffsweep.model.layout import (
    IF,
    INDEX,
    KIND,
    class_of,
    configs_of,
    family_of,
    has,
    is_single,
    labels_of,
    places_of,
)
from diffsweep.model.lora import Bank, Delta, Lora, deltas, misfit
from diffsweep.model.network import Network
from diffsweep.model.offload import HOME, OFFLOADS, hook
from diffsweep.model.pipeline import pipeline_of, quiet, reading
from diffsweep.model.schedule import prediction
from diffsweep.model.source import EMBEDDED, Source, suited
from diffsweep.model.stored import Stored
from diffsweep.model.t5 import T5, unless_installed
from diffsweep.model.text import Cut, Embedding, Embeddings, Encoder, count, encoder, tokenizer
from diffsweep.model.vocabulary import words_of
from diffsweep.model.weights import Part, unweighted

if TYPE_CHECKING:
    from torch import Tensor

TYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class TextKeys:
    """dtype: of the text encoders, float32 or bfloat16. device: auto is the model's, cpu where the card is small.
    max_length: tokens of a prompt, where the family lets one choose; auto is the pipeline's own number. clip_skip: how
    many of CLIP's last layers are left out, of every prompt."""

    dtype: str = "float32"
    device: Auto | str = field(default=AUTO, metadata={"decides": False})
    max_length: Auto | int = AUTO
    clip_skip: int = 0

    def __post_init__(self) -> None:
        require(
            one_of("dtype", self.dtype, ("float32", "bfloat16")),
            one_of("device", self.device, (AUTO, "cpu", "cuda")),
            within("max_length", self.max_length, 1),
            within("clip_skip", self.clip_skip, 0),
        )

    @property
    def told(self) -> Told:
        return Told(given(self.max_length), self.clip_skip)


@dataclass(frozen=True)
class Checkpoint(Stored):
    """path: a folder, a repository of the hub (`owner/name@revision`), or an embedded one. variant: which of several
    weights. dtype: of the network; the autoencoder computes in float32. compile: by torch.compile, for long sweeps.
    height, width: of the picture in pixels; auto is the checkpoint's own. lora: LoRAs, `path:strength` each. tiling:
    encode and decode in tiles, for large pictures. offload: what waits in the processor's memory while it is not asked,
    a whole network (`model`) or each layer (`layers`), so that a smaller card does. text: how prompts are encoded.
    default_steps, default_scale: what `scheduler.steps=auto` and `guidance.scale=auto` stand for; auto is what suits
    most models. default_for: the pipeline whose dtype, steps and scale the choice has; auto is any.
    """

    path: str = field(default="tiny_sd", metadata={"decides": False})  # the weights' fingerprint does
    variant: Auto | str | None = field(default=AUTO, metadata={"decides": False})
    dtype: str = "float32"
    compile: bool = False
    height: Auto | int = AUTO
    width: Auto | int = AUTO
    # the fingerprint and `decided` decide
    lora: tuple[str, ...] = field(default=(), metadata={"decides": False, "entry": "{}:0.8"})
    tiling: bool = False
    offload: str = field(default="none", metadata={"decides": False})
    text: TextKeys = field(default_factory=TextKeys)
    default_steps: Auto | int = field(default=AUTO, metadata={"decides": False})
    default_scale: Auto | float = field(default=AUTO, metadata={"decides": False})
    default_for: Auto | str = field(default=AUTO, metadata={"decides": False})

    def __post_init__(self) -> None:
        require(
            one_of("dtype", self.dtype, TYPES),
            within("height", self.height, 1),
            within("width", self.width, 1),
            within("default_steps", self.default_steps, 1),
            within("default_scale", self.default_scale, 0),
            one_of("offload", self.offload, OFFLOADS),
        )
        if self.offload != "none":
            asked = f"offload={self.offload}"
            require(
                f"compile=true: what is compiled stays on the device; leave it or {asked} out"
                if self.compile
                else None,
                unless_installed(f"{asked}:", {"accelerate"}, "offload"),
            )
        _ = self.loras

    @property
    def source(self) -> Source:
        return replace(suited(self.path, self.variant, self.dtype), weighted=places_of(str(self.default_for)))

    @property
    def family(self) -> Family:
        return family_of(self.source)

    @property
    def configs(self) -> Configs:
        return configs_of(self.source)

    def settled(self) -> Self:
        """With the weights' variant, the picture's size, and the tokens of a prompt, as they come out."""
        height, width = self.stage().size
        length = given(self.text.max_length) or self.family.length
        text = replace(self.text, max_length=length) if self.family.lengths else self.text
        return replace(self, variant=self.source.variant, height=height, width=width, text=text)

    @property
    def loras(self) -> tuple[Lora, ...]:
        return tuple(map(Lora.read, self.lora))

    def decided(self) -> dict[str, Any]:
        """What decides pictures beside the keys."""
        return {"lora_strengths": [lora.strength for lora in self.loras]} if self.lora else {}

    def shared(self) -> Self:
        """The model that serves every strength of the LoRAs in the same calls. Those that change a text encoder keep
        their strengths: they decide embeddings."""
        if not self.lora or any(part != self.family.network for added in self.added() for part in added):
            return self
        return replace(self, lora=tuple(lora.path for lora in self.loras))

    def beside(self) -> dict[str, float]:
        """What a question tells the network of this model."""
        return {lora_key(number): lora.strength for number, lora in enumerate(self.loras)}

    def added(self) -> list[Mapping[str, Mapping[str, Delta]]]:
        """What each LoRA adds, by part and layer."""
        name = class_of(self.source)
        read = [(lora.source, lora.source.fetch(lora.files()), lora.files()) for lora in self.loras]
        return [deltas(root / files[0], name, source.stamp(files)) for source, root, files in read]

    @property
    def encoders(self) -> tuple[str, ...]:
        """The parts that encode prompts, those that the checkpoint has."""
        return tuple(name for name in self.family.text if has(self.configs.index, name))

    @property
    def labels(self) -> Labels | None:
        return labels_of(self.source)

    def read(self, prompt: str, key: str = "prompt") -> str:
        """The prompt in its plainest form; BadInput where the network cannot be told of it. key: what it is called in
        messages."""
        return prompt if self.labels is None else self.labels.read(prompt, key)

    def unknown(self, prompt: str) -> tuple[str, ...]:
        """The prompt's words that an embedded model never met: those of the drawn world's captions are all it knows."""
        if self.source.path not in EMBEDDED:
            return ()
        return tuple(word for word in words_of(prompt.removeprefix(AGAINST)) if not world.knows(word))

    def cuts(self, prompt: str) -> list[Cut]:
        """What of a prompt its text encoders do not see, where it is too long for them."""
        if not self.networks:
            return []
        family, pipeline = self.family, reading(self.source)
        found: dict[tuple[int, int, int | None], list[str]] = defaultdict(list)
        for one in family.reads(pipeline, prompt, self.text.told):
            if (more := count(getattr(pipeline, one.tokenizer), one.text) - one.limit) > 0:
                kept = (self.text.told.max_length or family.length) if one.chosen else one.limit
                found[more, kept, family.lengths[1] if one.chosen and family.lengths else None].append(one.tokenizer)
        return [Cut(more, tuple(names), kept, most) for (more, kept, most), names in found.items()]

    def stage(self) -> Stage:
        return _stage(self)

    def places(self) -> Sequence[tuple[Source, list[str]]]:
        own = [(self.source, sorted({*self.files(), *self.text_files()}))]
        return own + [(lora.source, lora.files()) for lora in self.loras]

    def weighted(self) -> list[Part]:
        family, index = self.family, self.configs.index
        own = {family.network: family.kind, **({"vae": family.vae} if family.vae else {})}
        texts = [Part(self.source, name, index[name][1], "transformers") for name in self.networks]
        return [*(Part(self.source, name, kind) for name, kind in own.items()), *texts]

    def files(self) -> list[str]:
        """Those that decide the pictures, of prompts' encoders aside; BadInput where weights are missing."""
        family = self.family
        weighted = [family.network, *(["vae"] if family.vae else [])]
        parts = [*weighted, "scheduler"]
        self.source.require([*parts, *self.encoders], KIND)
        return [*self._index(), *self.source.files(parts, weighted)]

    def text_files(self) -> list[str]:
        return [*self._index(), *self.source.files(self.encoders, self.networks)] if self.encoders else []

    def _index(self) -> list[str]:
        return [INDEX] if is_file(self.source.root / INDEX) else []

    def needs(self, device: str) -> memory.Needs:
        """The device's memory that the model takes; what decodes its latents counts as weights, unless it is there in
        the network's place. A processor's memory holds what waits elsewhere too."""
        model = self if device.startswith("cuda") else replace(self, offload="none")
        return _needs(model, self.text.device not in (AUTO, device.partition(":")[0]))

    @property
    def networks(self) -> tuple[str, ...]:
        """Of the encoders, those with weights."""
        return tuple(self.configs.texts)

    def load(self, device: str, kept: Path | None = None) -> LoadedCheckpoint:
        """kept: where embeddings lie. The networks are loaded when there is something for them to do."""
        return LoadedCheckpoint(self, device, kept)


def resolved(model: Any) -> Any:
    """The model that its folder holds, whichever choice names that; BadInput where keys have no meaning for it."""
    if isinstance(model, Checkpoint) and class_of(model.source) == IF:
        if model.default_for != AUTO:
            raise BadInput(foreign(model))
        text = T5(dtype=model.text.dtype, device=model.text.device)
        return _as(model, DeepFloyd(model.path, model.variant, model.dtype, model.compile, text))
    if isinstance(model, DeepFloyd) and not model.enlarges and not _as_ifs(model.source):
        text_keys = TextKeys(model.text.dtype, model.text.device)
        made = AUTO if model.dtype == "float32" else IF
        other = Checkpoint(model.path, model.variant, model.dtype, model.compile, text=text_keys, default_for=made)
        return _as(model, other)
    return model


def foreign(model: Any) -> list[str]:
    """That a folder is not of the family that the choice is for, if so."""
    if not isinstance(model, Checkpoint) or model.default_for == AUTO:
        return []
    try:
        own = class_of(model.source)
    except BadInput:  # it is no checkpoint, as whoever reads it tells
        return []
    if own == IF:
        mend = "choose model=if_m, if_l or if_xl"
    elif own in (known := families()) and known.get(str(model.default_for)) is not known[own]:
        mend = "leave model= out, or choose one for that"
    else:
        return []
    return [f"path={model.path}: {own}, and this choice is for {model.default_for}: {mend}"]


def _as_ifs(source: Source) -> bool:
    """Whether nothing says that a folder is no checkpoint of IF."""
    told = is_single(source) or any(is_file(source.root / name) for name in (INDEX, "config.json"))
    return not told or class_of(source).startswith("IF")


def _as(model: Any, other: Any) -> Any:
    """The other model; BadInput where keys are set that it does not have."""
    usual = type(model)(path=model.path)
    for key, own in _set(model, usual):
        if key not in {name for name, _ in _keys(other)}:
            raise BadInput(f"{key}={printed(own)}: no key of such a checkpoint; leave it out")
    return other


def _set(model: Any, usual: Any) -> Iterator[tuple[str, Any]]:
    """The keys that are not as usual."""
    yield from ((key, own) for (key, own), (_, other) in zip(_keys(model), _keys(usual), strict=True) if own != other)


def _keys(part: Any, under: str = "") -> Iterator[tuple[str, Any]]:
    for one in fields(part):
        value = getattr(part, one.name)
        yield from _keys(value, f"{one.name}.") if is_dataclass(value) else [(under + one.name, value)]


@lru_cache
def _stage(model: Checkpoint) -> Stage:
    family, told = model.family, model.text
    needed = [name for name in family.text if name not in family.optional]
    lacking = [name for name in needed if not has(model.configs.index, name)]
    asked = {"height": given(model.height), "width": given(model.width)}
    require(
        *(_uneven(key, side, family.multiple) for key, side in asked.items() if side),
        f"path={model.path}: {', '.join(lacking)} missing in it, by its {INDEX}" if lacking else None,
        "dtype=float16: a transformer's numbers overflow in it; give bfloat16 or float32"
        if family.network == "transformer" and model.dtype == "float16"
        else None,
        f"text.clip_skip={told.clip_skip}: this family's text encoders have no layers to leave out"
        if told.clip_skip and not family.skips
        else None,
        _length(family, told),
    )
    require(_skipped(model))
    try:
        family.fit(model.configs)
        prediction(model.configs.scheduler)
        size = (asked["height"], asked["width"]) if family.multiple else (None, None)
        stage = family.stage(model.configs, size)
    except BadInput:
        raise
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise BadInput(f"path={model.path}: not {KIND}, its configuration says otherwise ({error})") from error
    sides = zip(asked.items(), stage.size, strict=True)
    require(*(_other(model.path, key, side, own) for (key, side), own in sides if side))
    if (labels := model.labels) is not None:
        steers = stage.steers if labels.null is not None else frozenset()
        stage = replace(stage, assumed=labels.assumed, steers=steers)
    for lora, added in zip(model.loras, model.added(), strict=True):
        if why := _misfit(model, added):
            raise BadInput(f"lora={lora.path}: made for another base: {why}")
    steps, scale = given(model.default_steps), given(model.default_scale)
    return replace(stage, steps=steps or stage.steps, scale=stage.scale if scale is None else scale)


def lora_key(number: int) -> str:
    """What a LoRA's strength is called beside a question."""
    return f"lora_{number}"


def _misfit(model: Checkpoint, added: Mapping[str, Mapping[str, Delta]]) -> str | None:
    """Why a checkpoint cannot have what a LoRA adds, None where it can."""
    for part, layers in added.items():
        if part == model.family.network:
            shape = _shape(model.source)
        elif part in model.networks:
            shape = memory.unweighted(model.source.root / part, model.configs.index[part][1])
        else:
            return f"it changes {part}, and there are {', '.join([model.family.network, *model.networks])}"
        if why := misfit(shape, layers):
            return why
    return None


@lru_cache
def _shape(source: Source) -> Any:
    """A checkpoint's network without its weights."""
    return unweighted(family_of(source).kind, configs_of(source).network)


@lru_cache
def _needs(model: Checkpoint, elsewhere: bool) -> memory.Needs:
    """elsewhere: prompts are encoded on another device."""
    family, configs, stage, keys = model.family, model.configs, model.stage(), model.text
    shapes = family.shapes(configs, keys.told)
    weights, row = memory.network(
        family.kind,
        configs.network,
        model.dtype,
        stage.shape,
        shapes,
        lambda network, x, t, given: family.ask(network, x, t, given, {}, stage),
        model.offload,
    )
    decoding = 0
    if family.vae:
        latents = [side // codec.factor(configs.vae) for side in stage.size]
        own, each = memory.decoder(configs.vae, latents, model.tiling, model.offload)
        decoding = own + each * codec.rows(*stage.size)
    loras = sum(lora.source.size(lora.files()) for lora in model.loras)
    encoders = {} if elsewhere else {name: configs.index[name][1] for name in model.networks}
    texts = [
        memory.encoder(model.source.root / name, keys.dtype, kind=kind, offload=model.offload)
        for name, kind in encoders.items()
    ]
    prompt = memory.told(shapes, model.dtype)
    if model.offload == "none":
        return memory.Needs(sum(texts), weights + loras + decoding, row, prompt)
    return memory.Needs(max(texts, default=0), weights + loras, row, prompt, decoding + loras)


def _other(path: str, key: str, side: int, own: int) -> str | None:
    """A problem with a side where the checkpoint has one of its own."""
    return f"{key}={side}: {path} draws {own} pixels alone; leave it out" if side != own else None


def _uneven(key: str, side: int, multiple: int | None) -> str | None:
    """A problem with a side that the family cannot have."""
    if multiple is None:
        return None
    near = max(multiple, round(side / multiple) * multiple)
    return f"{key}={side}: must be a multiple of {multiple} for this family, such as {near}" if side != near else None


def _skipped(model: Checkpoint) -> str | None:
    """A problem with how many layers of its text encoders are left out; BadInput where they have no configuration."""
    model.source.require(model.encoders, KIND)
    configs = model.configs.texts.values()
    layers = [config["num_hidden_layers"] for config in configs if "num_hidden_layers" in config]  # of a T5: num_layers
    return within("text.clip_skip", model.text.clip_skip, 0, min(layers) - 1) if layers else None


def _length(family: Family, told: TextKeys) -> str | None:
    """A problem with the tokens that are asked for."""
    if told.max_length == AUTO:
        return None
    if family.lengths is None:
        return f"text.max_length={told.max_length}: this family's prompts have a fixed length; leave it out"
    return within("text.max_length", told.max_length, *family.lengths)


@dataclass(frozen=True)
class PipelineText:
    """Text by diffusers' own pipeline, without its network and autoencoder."""

    model: Checkpoint

    @property
    def device(self) -> str:
        return self.model.text.device

    @property
    def decides(self) -> tuple[Any, ...]:
        keys, changed = self.model.text, [part for added in self.model.added() for part in added if part in self.parts]
        loras = self.model.fingerprint(), [lora.strength for lora in self.model.loras]
        own = class_of(self.model.source), keys.dtype, keys.max_length, keys.clip_skip
        return (*own, *loras) if changed else own

    @property
    def parts(self) -> tuple[str, ...]:
        return self.model.networks

    def cleaned(self, prompt: str | None) -> str | None:
        return prompt

    def encoder(self, root: Path, variant: str | None, device: str) -> Encoder:
        import torch

        model, index = self.model, self.model.configs.index
        parts: dict[str, Any] = {name: tokenizer(root, name) for name in model.encoders if name not in model.networks}
        for name in model.networks:
            parts[name] = encoder(root, name, index[name][1], variant, model.text.dtype)
            parts[name].to(device if model.offload == "none" else HOME)
            bank = Bank(parts[name], [added.get(name, {}) for added in model.added()], device)
            bank.strengths = torch.tensor([[lora.strength for lora in model.loras]], device=device)
        hook([parts[name] for name in model.networks], model.offload, device)
        pipeline = pipeline_of(model.source, parts)

        @torch.no_grad()
        def encode(prompt: str | None) -> Embedding:
            with quiet():
                embedding = model.family.embed(pipeline, prompt, model.text.told)
            return {key: tensor.cpu() for key, tensor in embedding.items()}

        return encode


class Weights:
    """A checkpoint's networks in memory, which its models of every size share."""

    network: Any = None
    codec: Codec | None = None

    def __init__(self) -> None:
        self.banks: dict[object, Bank] = {}  # by the LoRAs' files, as they were read


_weights: WeakValueDictionary[object, Weights] = WeakValueDictionary()


class LoadedCheckpoint(Network):
    """A checkpoint in memory, for pictures of one size."""

    def __init__(self, model: Checkpoint, device: str, kept: Path | None) -> None:
        text = PipelineText(model) if model.labels is None else model.labels
        embeddings = Embeddings(text, model.source, model.text_files(), device, kept if model.encoders else None)
        super().__init__(model.source, model.files(), model.stage(), model.dtype, device, embeddings)
        self.model, self.compiled, self.offload = model, model.compile, model.offload
        self.kind, self.name, self.hosted = model.family.kind, model.family.network, model.family.hosted
        shared = (model.source, model.dtype, model.compile, model.tiling, model.offload, device)
        self.weights = _weights.setdefault(shared, Weights())
        self.bank = tuple((lora.path, lora.source.stamp(lora.files())) for lora in model.loras)
        self._latents: dict[Hashable, Latents] = {}

    def told(self) -> dict[str, tuple[int, ...]]:
        return self.model.family.shapes(self.model.configs, self.model.text.told)

    def ready(self) -> int:
        import diffusers

        family = self.model.family
        self.network = self.weights.network
        loads = super().ready()
        if loads:
            self.weights.network = self.network
            networks = [self.network]
            if family.vae:
                networks.append(self.part(getattr(diffusers, family.vae), "vae"))
                self.weights.codec = Codec(networks[-1], self.device)
                if self.model.tiling:
                    networks[-1].enable_tiling()
            hook(networks, self.offload, self.device, ahead=self.network)
        if self.model.lora and self.bank not in self.weights.banks:
            added = [own.get(family.network, {}) for own in self.model.added()]
            self.weights.banks[self.bank] = Bank(self.network, added, self.device)
        return loads

    def ask(self, x: Tensor, t: Tensor, given: Mapping[str, Tensor], beside: Mapping[str, Tensor]) -> Tensor:
        import torch

        number = len(self.model.lora)
        if not number:
            return self.model.family.ask(self.network, x.to(self.dtype), t, given, beside, self.stage)
        strengths = torch.stack([placed(beside[lora_key(k)], self.device) for k in range(number)], dim=1)
        with self.weights.banks[self.bank].at(strengths):
            return self.model.family.ask(self.network, x.to(self.dtype), t, given, beside, self.stage)

    @property
    def codec(self) -> Codec:
        assert self.weights.codec is not None, "loaded by `ready`"
        return self.weights.codec

    def decode(self, x: Tensor) -> Tensor:
        return self.codec.decode(x)

    def encoded(self, pictures: Tensor) -> Tensor:
        return self.codec.encode(pictures)[0]

    def latents(self, picture: Tensor, key: Hashable) -> Latents:
        """Those of the pictures used last are kept."""
        if key not in self._latents:
            self._latents[key] = self.codec.latents(picture)
            if len(self._latents) > memory.HELD:
                del self._latents[next(iter(self._latents))]
        return self._latents[key]
