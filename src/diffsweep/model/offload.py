"""Networks that are on the device only while they are asked, by the hooks of accelerate and diffusers.

`model` keeps one network of several there, until another is asked. `layers` keeps one layer there, while it computes;
on a CUDA device the next one is on its way meanwhile. Numbers are the same wherever weights wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

OFFLOADS = ("none", "model", "layers")
HOME = "cpu"  # where weights wait


def hook(networks: Sequence[Any], offload: str, device: str, ahead: Any = None) -> None:
    """Have hooks bring networks, which lie at HOME, to the device and back; nothing where they stay there. ahead: the
    one of which a layer is on its way while the one before it computes, on a CUDA device: it is asked by `forward`, as
    an autoencoder is not, and every call has all its layers, in one order. diffusers says of DiT that it has not, whose
    first block's embedding is asked twice."""
    if offload == "none":
        return
    onto = _numbered(device)
    if offload == "model":
        _in_turn(networks, onto)
        return
    from diffusers.hooks.group_offloading import apply_group_offloading

    for network in networks:
        streams = network is ahead and onto.type == "cuda" and network._supports_group_offloading
        apply_group_offloading(network, onto, offload_type="leaf_level", use_stream=streams)


def _in_turn(networks: Sequence[Any], onto: torch.device) -> None:
    """Each network leaves the device when the one after it is asked, the last one when the first is."""
    from accelerate import cpu_offload_with_hook

    hooks = [cpu_offload_with_hook(network, onto)[1] for network in networks]
    for own, before in zip(hooks, [hooks[-1], *hooks[:-1]], strict=True):
        if own is not before:
            own.hook.prev_module_hook = before


def _numbered(device: str) -> torch.device:
    """As a tensor tells its device: hooks compare the two."""
    import torch

    return torch.empty(0, device=device).device
