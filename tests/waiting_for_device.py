"""What makes the processor wait for a device, found without one.

torch's meta device has shapes and no numbers: who reads one fails. A copy to it or from it counts as a wait, as on
CUDA, unless it is `non_blocking`; so does a choice of elements by a mask, for how many they are must be read.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

DEVICE = "meta"
COPIES = ("aten._to_copy.", "aten.copy_.")
CHOOSES = ("aten.index.", "aten.index_put", "aten._index_put_impl_", "aten.nonzero", "aten.masked_select")


class Waits(AssertionError):
    """Something would wait for the device."""


class NoWaits(TorchDispatchMode):
    """Within, nothing may wait for the device, but for what is `excused`."""

    def __init__(self) -> None:
        super().__init__()
        self.strict = True

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        options = options or {}
        if self.strict and (why := _wait(str(function), arguments, options)):
            raise Waits(f"{function}: {why}")
        return function(*arguments, **options)

    @contextmanager
    def excused(self) -> Iterator[None]:
        self.strict = False
        try:
            yield
        finally:
            self.strict = True


def _wait(name: str, arguments: Any, options: dict[str, Any]) -> str | None:
    given = [one for one in tree_iter((arguments, options)) if isinstance(one, torch.Tensor)]
    there, here = ([one for one in given if one.is_meta == meta] for meta in (True, False))
    if name.startswith(COPIES):
        to = torch.device(options.get("device") or given[0].device)
        patient = not (options.get("non_blocking") or (name.startswith(COPIES[1]) and arguments[2:] == (True,)))
        return "a copy that is waited for" if given[-1].is_meta != (to.type == DEVICE) and patient else None
    if there and name.startswith("aten.lift_fresh"):
        return "numbers of Python's, whose copy is waited for"
    if there and name.startswith(CHOOSES) and any(one.dtype in (torch.bool, torch.uint8) for one in given[1:]):
        return "a mask chooses, and how many is read"
    return "tensors here and there" if there and any(one.ndim for one in here) else None
