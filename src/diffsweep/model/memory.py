"""How much memory a network takes, from its configuration alone.

The network is built and called once on torch's meta device, where tensors have sizes and no contents; the peak of what
lives at one time is counted. Workspaces of a device's libraries come on top.
"""

from __future__ import annotations

import math
import weakref
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from diffsweep.core.problems import BadInput
from diffsweep.model.codec import is_framed

if TYPE_CHECKING:
    from torch import Tensor

    from diffsweep.core.types import Stage

TOKENS = 77
HELD = 512  # embeddings on a device, some 0.6 MB each of T5-XXL in half precision


class Needs(NamedTuple):
    """Bytes of a model: its text encoder, there before all else; its networks' weights; a call's every row; a prompt's
    embedding, of which at most HELD are on the device at once; and the autoencoder at work, where the network is away
    meanwhile, 0 where it counts as weights."""

    text: int
    weights: int
    row: int
    prompt: int = 0
    decoding: int = 0

    @property
    def least(self) -> int:
        """What is needed however few rows a call has."""
        return max(self.weights, self.decoding)


def there(sizes: Mapping[str, int], offload: str) -> int:
    """Bytes of a network's weights that are on the device while it computes. sizes: of each, by name. Of `layers`: one
    with all that it is part of, whose own weights wait for its end, and the next one, which is on its way."""
    if offload != "layers":
        return sum(sizes.values())
    layers: dict[str, int] = defaultdict(int)
    for name, size in sizes.items():
        layers[name.rpartition(".")[0]] += size
    along = (sum(layers.get(part, 0) for part in _within(layer)) for layer in layers)
    return min(sum(sizes.values()), max(along, default=0) + max(layers.values(), default=0))


def _within(layer: str) -> Sequence[str]:
    """The layer and all that it is part of, the network itself at the end."""
    return [layer, *_within(layer.rpartition(".")[0])] if layer else [""]


def encoder(root: Path, dtype: str, eight_bit: bool = False, kind: str | None = None, offload: str = "none") -> int:
    """Bytes of a text encoder's weights. Of a T5 in half precision, transformers keeps some in single (`wo`). kind: its
    class in transformers; None is what its configuration is mostly used for."""
    import torch

    network = unweighted(root, kind)
    width = 1 if eight_bit else getattr(torch, dtype).itemsize
    kept = [name for name, _ in network.named_parameters() if width < 4 and name.endswith("wo.weight")]
    sizes = {name: p.numel() * (4 if name in kept else width) for name, p in network.named_parameters()}
    return there(sizes, offload)


def unweighted(root: Path, kind: str | None) -> Any:
    """A text encoder of no contents. kind: as of `encoder`; BadInput where its configuration is none."""
    import torch
    import transformers

    try:
        config = transformers.AutoConfig.from_pretrained(root, local_files_only=True)
        make: Any = getattr(transformers, kind) if kind else transformers.AutoModelForTextEncoding.from_config
        with torch.device("meta"):
            return make(config)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadInput(f"path={root.parent}: {root.name}/ cannot be loaded: {error}") from error


Shapes = Mapping[str, Sequence[int]]


def told(shapes: Shapes, dtype: str) -> int:
    """Bytes of a prompt's embedding, of tensors of these shapes."""
    import torch

    return sum(math.prod(shape) for shape in shapes.values()) * getattr(torch, dtype).itemsize


def unet(config: Mapping[str, Any], stage: Stage, dtype: str) -> tuple[int, int, int]:
    """Bytes of a UNet2DConditionModel's weights, of all else at the peak of a call, for each row, and of a prompt's
    embedding."""
    labelled = config.get("class_embed_type") or config.get("num_class_embeds")

    def ask(network: Any, x: Tensor, t: Tensor, given: Mapping[str, Tensor]) -> Tensor:
        return network(x, t, encoder_hidden_states=given["text"], class_labels=t.long() if labelled else None)

    shapes = {"text": (TOKENS, config.get("encoder_hid_dim") or config["cross_attention_dim"])}
    shape = (config["in_channels"], *stage.shape[1:])
    return *network("UNet2DConditionModel", config, dtype, shape, shapes, ask), told(shapes, dtype)


Ask = Callable[[Any, "Tensor", "Tensor", Mapping[str, "Tensor"]], "Tensor"]


def network(
    kind: str,
    config: Mapping[str, Any],
    dtype: str,
    shape: Sequence[int],
    shapes: Shapes,
    ask: Ask,
    offload: str = "none",
) -> tuple[int, int]:
    """Bytes of the weights of a network of diffusers' class `kind`, and of all else at a call's peak, for each row.
    shape: a picture's; shapes: those of an embedding; ask: calls a network about x, t and embeddings."""
    import diffusers
    import torch

    of = getattr(torch, dtype)
    with torch.device("meta"):
        network: Any = getattr(diffusers, kind).from_config(config).eval()
        for tensor in chain(network.parameters(), network.buffers()):
            tensor.data = tensor.data.to(of) if tensor.is_floating_point() else tensor.data
        given = {key: torch.empty(1, *own, dtype=of) for key, own in shapes.items()}
        x, t = torch.empty(1, *shape, dtype=of), torch.zeros(1)
        return there(_sizes(network), offload), peak(lambda: ask(network, x, t, given))


def decoder(
    config: Mapping[str, Any], size: Sequence[int], tiling: bool = False, offload: str = "none"
) -> tuple[int, int]:
    """Bytes of an autoencoder's weights in float32, and of all else while it decodes latents of this height and
    width, in tiles or at once."""
    import diffusers
    import torch

    kind = getattr(diffusers, config.get("_class_name", "AutoencoderKL"))
    with torch.device("meta"):
        network: Any = kind.from_config(config).eval()
        if tiling:
            network.enable_tiling()
        channels = config.get("latent_channels") or config["z_dim"]
        latents = torch.empty(1, channels, *([1] if is_framed(config) else []), *size)
        return there(_sizes(network), offload), peak(lambda: network.decode(latents))


def _sizes(network: Any) -> dict[str, int]:
    return {
        name: tensor.numel() * tensor.element_size()
        for name, tensor in chain(network.named_parameters(), network.named_buffers())
    }


def peak(call: Any) -> int:
    """Bytes of the tensors made in a call that live at one time, at most."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_iter

    class Living(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()  # type: ignore[no-untyped-call]
            self.now = self.most = 0
            self.sizes: dict[int, int] = {}

        def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
            given = (t for t in tree_iter((arguments, options)) if isinstance(t, torch.Tensor))
            for tensor in given:  # made before, as weights are: views of them take nothing
                self.sizes.setdefault(tensor.untyped_storage()._cdata, 0)
            made = function(*arguments, **(options or {}))
            for tensor in tree_iter(made):
                if isinstance(tensor, torch.Tensor) and (storage := tensor.untyped_storage())._cdata not in self.sizes:
                    self.sizes[storage._cdata] = storage.nbytes()
                    self.now += storage.nbytes()
                    self.most = max(self.most, self.now)
                    weakref.finalize(storage, self.end, storage._cdata)
            return made

        def end(self, storage: int) -> None:
            self.now -= self.sizes.pop(storage)

    with torch.inference_mode(), Living() as living:
        call()
    return living.most
