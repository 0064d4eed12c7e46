"""Whether a checkpoint's weights are those that its configurations describe, before any is read.

A safetensors file begins with the names and shapes of its tensors. They are held against the network that config.json
describes, built on torch's meta device, under the names that diffusers and transformers themselves give old tensors.
What these libraries would not load, or would load in part, is a contradiction. Not judged are quantised weights, which
have other shapes and types, and tensors that a text encoder leaves unread: its files may be a larger model's, and its
configuration may leave out the last layers on purpose.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from diffsweep.core.text import counted
from diffsweep.model.source import TENSORS, Source, header

Shape = tuple[int, ...]
FLOATING = re.compile("B?F")  # begins safetensors' names of floating types: F32, BF16, F8_E4M3
STEMS = {"diffusers": "diffusion_pytorch_model", "transformers": "model"}  # the names that the libraries look for


class Part(NamedTuple):
    """A network of a checkpoint. name: its folder. kind: its class in the library, diffusers or transformers."""

    source: Source
    name: str
    kind: str
    library: str = "diffusers"


class Apart(NamedTuple):
    """How tensors and configuration contradict each other. shapes: of a tensor, and as it is described, by name.
    network: as it is described."""

    lacking: Sequence[str]
    unread: Sequence[str]
    shapes: Mapping[str, tuple[Shape, Shape]]
    network: Any = None


def contradiction(part: Part) -> str | None:
    """What is wrong with a part's weights; None where nothing is, where they are still to be downloaded, or where that
    cannot be judged."""
    files = _files(part)
    return _contradiction(part, part.source.stamp(files)) if files and not part.source.missing(files) else None


def _files(part: Part) -> list[str]:
    """The files that the library reads, the configuration first; none where that is for it to choose."""
    chosen = part.source.files((part.name,), (part.name,))
    names = {PurePosixPath(name).name: name for name in chosen}
    stem, variant = STEMS[part.library], f".{part.source.variant}" if part.source.variant else ""
    whole, index = f"{stem}{variant}{TENSORS}", f"{stem}{TENSORS}.index{variant}.json"
    if (whole in names) == (index in names) or "config.json" not in names:
        return []
    read = [whole]
    if index in names:
        read = sorted({*part.source.config(part.name, index).get("weight_map", {}).values()})
    return [names["config.json"], *(names[name] for name in read)]


@lru_cache
def _contradiction(part: Part, files: tuple[tuple[str, int, int], ...]) -> str | None:
    """files: as `Source.stamp` has them, so that those that were written anew are read again."""
    source, name, config = part.source, part.name, part.source.config(part.name, "config.json")
    if "quantization_config" in config:
        return None
    _, *weights = (source.root / file for file, *_ in files)
    read = {key: tensor for file in weights for key, tensor in header(file)[0].items()}
    found: dict[str, Shape] = {key: tuple(tensor["shape"]) for key, tensor in read.items()}
    try:
        compared = _by_diffusers if part.library == "diffusers" else _by_transformers
        apart = compared(part, config, found, shards="-of-" in weights[0].name)
        odd = {key: str(tensor["dtype"]) for key, tensor in read.items() if not FLOATING.match(tensor["dtype"])}
        told = "; ".join([*_told(apart), *_of_other_types(apart.network, odd)])
    except RuntimeError:  # torch's own, of what the meta device cannot do
        return None
    except Exception as error:  # of a configuration that is none, the libraries raise any
        text = " ".join(str(error).split())
        return f"path={source.path}: {name}/config.json describes no {part.kind} ({type(error).__name__}: {text})"
    if not told:
        return None
    return f"path={source.path}: the weights in {name}/ are not those that its config.json describes: {told}"


def unweighted(kind: str, config: Mapping[str, Any]) -> Any:
    """A network of no contents. kind: its class in diffusers."""
    import diffusers
    import torch

    with torch.device("meta"):
        return getattr(diffusers, kind).from_config(config)


def _by_diffusers(part: Part, config: Mapping[str, Any], found: Mapping[str, Shape], shards: bool) -> Apart:
    network = unweighted(part.kind, config)
    described = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    named = dict(found)
    if not shards:  # old names of attention, as `from_pretrained` reads them
        network._fix_state_dict_keys_on_load(named)
    known, ignored = described.keys() | dict(network.named_buffers()), network._keys_to_ignore_on_load_unexpected or ()
    unread = [name for name in named if name not in known and not any(re.search(one, name) for one in ignored)]
    shapes = {name: (own, described[name]) for name, own in named.items() if described.get(name, own) != own}
    return Apart([name for name in described if name not in named], unread, shapes, network)


def _by_transformers(part: Part, config: Mapping[str, Any], found: Mapping[str, Shape], shards: bool) -> Apart:
    """By transformers' own report, of tensors without contents; accelerate has it load such."""
    import torch
    import transformers

    if find_spec("accelerate") is None:
        return Apart([], [], {})
    kind: Any = getattr(transformers, part.kind)
    logging: Any = transformers.utils.logging
    before = logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity(logging.CRITICAL)
    try:
        network, report = kind.from_pretrained(
            None,
            config=kind.config_class.from_pretrained(part.source.root / part.name, local_files_only=True),
            state_dict={name: torch.empty(shape, device="meta") for name, shape in found.items()},
            device_map={"": "meta"},
            local_files_only=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    finally:
        logging.set_verbosity(before)
    shapes = {name: (tuple(own), tuple(described)) for name, own, described in report["mismatched_keys"]}
    return Apart(sorted(report["missing_keys"] - shapes.keys()), [], shapes, network)


def _told(apart: Apart) -> Iterator[str]:
    for name, (own, described) in [*apart.shapes.items()][:1]:
        number = counted("tensor", len(apart.shapes))
        yield f"{number} of another shape, {name} is {_sides(own)} where {_sides(described)} is described"
    for names, what in ((apart.lacking, "missing"), (apart.unread, "that it does not have")):
        if names:
            yield f"{counted('tensor', len(names))} {what}, as {min(names)}"


def _of_other_types(network: Any, types: Mapping[str, str]) -> Iterator[str]:
    """types: of tensors that hold no floating-point numbers, as buffers may that count. A text encoder's file may call
    its parameters by longer or shorter names."""
    names = [name for name, _ in network.named_parameters()] if network is not None and types else []
    ends = {f".{name}" for name in names}
    wrong = [key for key in types if any(f".{key}".endswith(end) or end.endswith(f".{key}") for end in ends)]
    if wrong:
        number = counted("tensor", len(wrong))
        yield f"{number} of no floating-point numbers, {min(wrong)} is of type {types[min(wrong)]}"


def _sides(shape: Shape) -> str:
    return " x ".join(map(str, shape)) or "one number"
