"""LoRAs (Hu et al. 2021): a layer's output grows by s scale B A x, at a strength s of each row's own.

A call can hold rows of several strengths, so that a sweep over strengths shares its calls. Names and formats
(diffusers, peft, kohya) are read by diffusers' own loader. Of linear and convolutional layers; DoRA and LyCORIS are
refused.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from diffsweep.core.files import is_folder, is_there
from diffsweep.core.problems import BadInput
from diffsweep.model.source import TENSORS, Source

if TYPE_CHECKING:
    from torch import Tensor

DOWN, UP = "lora_A", "lora_B"  # as peft names a LoRA's halves


class Lora(NamedTuple):
    """path: a file, a folder with one, or a repository of the hub. strength: 1 as it was trained."""

    path: str
    strength: float

    @classmethod
    def read(cls, text: str) -> Lora:
        """`path:strength`, or the path alone at strength 1; BadInput where the strength is no number."""
        path, colon, last = text.rpartition(":")
        if not colon or "/" in last or (len(path) == 1 and path.isalpha()):  # a drive's letter
            return cls(text, 1.0)
        try:
            strength = float(last)
        except ValueError:
            strength = math.nan
        if not math.isfinite(strength):
            raise BadInput(f"lora={text}: the strength must be a number, as in {path}:0.8, not {last!r}")
        return cls(path, strength)

    @property
    def source(self) -> Source:
        file = Path(self.path).expanduser()
        alone = is_there(self.path) and not is_folder(file)
        return Source(str(file.parent) if alone else self.path, key="lora", weighted=())

    def files(self) -> list[str]:
        """Its one file; BadInput where there is none, or more than one."""
        file = Path(self.path).expanduser()
        if is_there(self.path) and not is_folder(file):
            names = [file.name]
        else:
            source = self.source
            if not source.hub and not is_there(self.path):
                raise BadInput(f"lora={self.path}: no such file or folder")
            source.require((), "a LoRA")
            names = [name for name in self.source.files((".",), (".",)) if name.endswith(TENSORS)]
        if len(names) != 1 or not names[0].endswith(TENSORS):
            found = f"there are {', '.join(names)}: name one of them" if names else "there is none"
            raise BadInput(f"lora={self.path}: one {TENSORS} file is needed; {found}")
        return names


class Delta(NamedTuple):
    """What a LoRA adds to one layer. down, up: its matrices, or convolutions; scale: alpha over rank."""

    down: Tensor
    up: Tensor
    scale: float


@lru_cache(maxsize=16)
def deltas(file: Path, pipeline: str, stamp: object) -> Mapping[str, Mapping[str, Delta]]:
    """What a LoRA's file adds, by part of the pipeline and layer; BadInput where it is none. stamp: so that a changed
    file is read anew."""
    import diffusers
    from safetensors import SafetensorError

    try:
        loader = getattr(diffusers, pipeline).lora_state_dict
    except AttributeError:
        raise BadInput(f"lora={file}: diffusers loads no LoRAs into a {pipeline}") from None
    try:
        weights, alphas, *_ = (*_pair(loader(str(file.parent), weight_name=file.name, local_files_only=True)),)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise BadInput(f"lora={file}: cannot be read as a LoRA of a {pipeline}: {error}") from None
    found: dict[str, dict[str, dict[str, Tensor]]] = defaultdict(lambda: defaultdict(dict))
    for key, tensor in _by_layer(weights).items():
        layer, mark, rest = _parted(key)
        if rest != "weight":
            raise BadInput(f"lora={file}: {key}: no plain LoRA; DoRA and LyCORIS are not known")
        part, _, name = layer.partition(".")
        found[part][name][mark] = tensor
    scales = {_parted(key.removesuffix(".alpha"))[0]: float(alpha) for key, alpha in _by_layer(alphas or {}).items()}
    whole: dict[str, dict[str, Delta]] = {}
    for part, layers in found.items():
        whole[part] = {}
        for name, sides in layers.items():
            if sides.keys() != {DOWN, UP}:
                raise BadInput(f"lora={file}: {part}.{name}: one half is missing")
            down, rank = sides[DOWN], len(sides[DOWN])
            whole[part][name] = Delta(down, sides[UP], scales.get(f"{part}.{name}", rank) / rank)
    if not whole:
        raise BadInput(f"lora={file}: holds no LoRA")
    return whole


def _pair(loaded: Any) -> tuple[Any, ...]:
    """Weights and alphas: some of diffusers' loaders return the weights alone."""
    return loaded if isinstance(loaded, tuple) else (loaded, None)


def _by_layer(named: Mapping[str, Any]) -> dict[str, Any]:
    """What is named by diffusers' older conventions, by peft's."""
    from diffusers.utils import state_dict_utils

    known: Any = state_dict_utils
    found = {}
    for key, value in named.items():
        part, _, rest = key.partition(".")
        older = part.startswith("text_encoder") and ("lora_linear" in rest or "to_out_lora" in rest)
        convert = known.convert_state_dict_to_peft if older else known.convert_unet_state_dict_to_peft
        (name,) = convert({rest: value})
        found[f"{part}.{name}"] = value
    return found


def _parted(key: str) -> tuple[str, str, str]:
    """A tensor's layer, which half it is, and what of that."""
    for mark in (DOWN, UP):
        layer, found, rest = key.partition(f".{mark}.")
        if found:
            return layer, mark, rest
    return key, "", ""


def misfit(network: Any, added: Mapping[str, Delta]) -> str | None:
    """Why a network cannot have these, None where it can. network: it, or its shape on the meta device."""
    layers = _layers(network)
    for name, delta in added.items():
        weight = getattr(layers.get(name), "weight", None)
        if weight is None:
            return f"it changes {name}, and there is no such layer"
        if (len(delta.up), delta.down.shape[1]) != tuple(weight.shape[:2]):
            return f"of {name} it has {delta.down.shape[1]} to {len(delta.up)} channels, the network {_sizes(weight)}"
        if (down := (len(delta.down), *weight.shape[1:])) != tuple(delta.down.shape):
            return f"of {name} it has a {_by(delta.down.shape)} matrix, the network needs {_by(down)}"
        if (up := (len(delta.up), len(delta.down), *[1] * (weight.ndim - 2))) != tuple(delta.up.shape):
            return f"of {name} it has a {_by(delta.up.shape)} matrix, the network needs {_by(up)}"
    return None


def _layers(network: Any) -> dict[str, Any]:
    """By name; those of CLIP also as older versions of transformers called them, whose names LoRAs keep."""
    found = dict(network.named_modules())
    return {**{f"text_model.{name}": layer for name, layer in found.items()}, **found}


def _sizes(weight: Any) -> str:
    return f"{weight.shape[1]} to {weight.shape[0]}"


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


class Bank:
    """LoRAs on a network, in a fixed order. While no strengths are set, the network is as it was. device: where it
    computes, and they stay."""

    def __init__(self, network: Any, loras: Sequence[Mapping[str, Delta]], device: str) -> None:
        self.strengths: Tensor | None = None  # B x number of LoRAs
        layers = _layers(network)
        by_layer: dict[str, list[tuple[int, Delta]]] = defaultdict(list)
        for number, added in enumerate(loras):
            for name, delta in added.items():
                to = {"device": device, "dtype": layers[name].weight.dtype}
                moved = Delta(delta.down.to(**to), delta.up.to(**to), delta.scale)
                by_layer[name].append((number, moved))
        for name, own in by_layer.items():
            layers[name].register_forward_hook(self._hook(own))

    def _hook(self, own: Sequence[tuple[int, Delta]]) -> Any:
        def grown(layer: Any, given: tuple[Tensor, ...], output: Tensor) -> Tensor:
            if self.strengths is None:
                return output
            for number, delta in own:
                strength = self.strengths[:, number].to(output.dtype) * delta.scale
                output = output + strength.reshape(-1, *[1] * (output.ndim - 1)) * _through(layer, delta, given[0])
            return output

        return grown

    @contextmanager
    def at(self, strengths: Tensor) -> Iterator[None]:
        """Within, each row has its strengths."""
        self.strengths = strengths
        try:
            yield
        finally:
            self.strengths = None


def _through(layer: Any, delta: Delta, x: Tensor) -> Tensor:
    """B A x, with a convolution's own stride and padding."""
    from torch.nn import functional

    if delta.down.ndim == 2:
        return functional.linear(functional.linear(x, delta.down), delta.up)
    low = functional.conv2d(x, delta.down, None, layer.stride, layer.padding, layer.dilation)
    return functional.conv2d(low, delta.up)
