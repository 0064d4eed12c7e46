"""A card that is not there: torch takes `cuda:0` for a device whose memory is the processor's.

Tensors lie on it where they were moved or made there; numbers are the processor's. As on a real card, an operation of
tensors that lie apart raises. What lies there at one time is counted, and so are the weights that come there.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._pytree import tree_iter

CARD, HOST = torch.device("cuda:0"), torch.device("cpu")
READ = ("__get__", "__set__", "__repr__", "_has_compatible_shallow_copy_type")


def tensors(tree: Any) -> Iterator[torch.Tensor]:
    return (one for one in tree_iter(tree) if isinstance(one, torch.Tensor))


class Card(TorchFunctionMode):
    """bytes: on it now; most: at one time; moved: of what came from the processor, all together; loaded, most_loaded:
    those of it that are there now, and at one time."""

    def __init__(self) -> None:
        super().__init__()
        self.there: dict[int, int] = {}  # bytes, by storage
        self.loads: set[int] = set()
        self.bytes = self.most = self.moved = self.loaded = self.most_loaded = 0

    def has(self, tensor: torch.Tensor) -> bool:
        with torch._C.DisableTorchFunction():
            return tensor.untyped_storage()._cdata in self.there

    def add(self, tensor: torch.Tensor) -> None:
        with torch._C.DisableTorchFunction():
            storage = tensor.untyped_storage()
            if storage._cdata not in self.there:
                self.there[storage._cdata] = storage.nbytes()
                self.bytes += storage.nbytes()
                self.most = max(self.most, self.bytes)
                weakref.finalize(storage, self.gone, storage._cdata)

    def gone(self, storage: int) -> None:
        size = self.there.pop(storage)
        self.bytes -= size
        if storage in self.loads:
            self.loads.remove(storage)
            self.loaded -= size

    def load(self, tensor: torch.Tensor) -> None:
        self.add(tensor)
        with torch._C.DisableTorchFunction():
            if not tensor.is_floating_point():  # a text's tokens, say
                return
            storage = tensor.untyped_storage()
        self.loads.add(storage._cdata)
        self.moved += storage.nbytes()
        self.loaded += storage.nbytes()
        self.most_loaded = max(self.most_loaded, self.loaded)

    def placed(self, tensor: torch.Tensor, onto: bool, copy: torch.Tensor) -> torch.Tensor:
        """copy: the tensor in its new type, which may be itself."""
        if self.has(tensor) == onto:
            if onto:
                self.add(copy)
            return copy
        with torch._C.DisableTorchFunction():
            fresh = copy.clone() if copy.untyped_storage()._cdata == tensor.untyped_storage()._cdata else copy
        if onto:
            self.load(fresh)
        return fresh

    def __torch_function__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        options, name = dict(options or {}), resolve_name(function) or getattr(function, "__name__", "")
        if function == torch.Tensor.device.__get__:
            return CARD if self.has(arguments[0]) else function(*arguments)
        if function == torch.Tensor.is_cuda.__get__:
            return self.has(arguments[0])
        if name in ("torch.Tensor.pin_memory", "torch.Tensor.record_stream"):
            return arguments[0]
        if name == "torch.Tensor.is_pinned":
            return True
        if name in ("torch.Tensor.to", "torch.Tensor.cpu", "torch.Tensor.cuda"):
            return self.to(name, function, arguments, options)
        if any(name.endswith(word) for word in READ):
            return function(*arguments, **options)
        made_there = _is_card(options.get("device"))
        if "device" in options:
            options["device"] = HOST if made_there else options["device"]
        given = [one for one in tensors((arguments, options)) if one.ndim or self.has(one)]
        apart = {self.has(one) for one in given}
        if len(apart) > 1 and not _copies(name):
            raise RuntimeError(f"{name}: tensors lie apart, on {CARD} and {HOST}")
        made = function(*arguments, **options)
        if made_there or True in apart:
            for one in tensors(made):
                self.add(one)
        return made

    def to(self, name: str, function: Any, arguments: Any, options: dict[str, Any]) -> torch.Tensor:
        tensor, *rest = arguments
        onto = {"cpu": False, "cuda": True}.get(name.rpartition(".")[2], self.has(tensor))
        for one in (*rest, options.get("device"), options.get("other")):
            if isinstance(one, torch.Tensor):
                onto = self.has(one)
            elif isinstance(one, (str, torch.device)):
                onto = _is_card(one)
        host = [HOST if isinstance(one, (str, torch.device)) else one for one in rest]
        if "device" in options:
            options["device"] = HOST
        with torch._C.DisableTorchFunction():
            copy = tensor if name != "torch.Tensor.to" else function(tensor, *host, **options)
        return self.placed(tensor, onto, copy)


def _is_card(device: Any) -> bool:
    return device is not None and torch.device(device).type == "cuda"


def _copies(name: str) -> bool:
    return name.endswith(("copy_", "__set__"))


class Stream:
    """Of a real one, what copies wait for: here they are done at once."""

    def synchronize(self) -> None:
        pass


@contextmanager
def card(patched: pytest.MonkeyPatch) -> Iterator[Card]:
    patched.setattr(torch.cuda, "Stream", Stream)
    patched.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    patched.setattr(torch.cuda, "current_stream", lambda: Stream())
    with Card() as found:
        yield found
