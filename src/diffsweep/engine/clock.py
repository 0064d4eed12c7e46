"""Seconds of work. A call of CUDA returns before its work is done, and a wall clock would time the launch: events in
its stream time the work."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

Seconds = Callable[[], float]
"""How long something took; on CUDA, the call waits until it is done."""


def begun(device: torch.device) -> Callable[[], Seconds]:
    """Begin to time a device's work; the call of what this returns ends it."""
    if device.type == "cuda":
        return _on_stream(torch.cuda.current_stream(device))
    began = time.perf_counter()

    def ended() -> Seconds:
        seconds = time.perf_counter() - began
        return lambda: seconds

    return ended


def _on_stream(stream: torch.cuda.Stream) -> Callable[[], Seconds]:
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record(stream)

    def seconds() -> float:
        last.synchronize()
        return first.elapsed_time(last) / 1000

    def ended() -> Seconds:
        last.record(stream)
        return seconds

    return ended
