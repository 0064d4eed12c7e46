"""Where something runs: `auto`, `cpu`, `cuda` or `cuda:N`."""

from __future__ import annotations

import os
import re

from diffsweep.core.keys import AUTO
from diffsweep.core.problems import BadInput


def not_a_device(asked: str) -> str | None:
    """A problem unless it names a device."""
    good = re.fullmatch(r"auto|cpu|cuda(:\d+)?", asked)
    return None if good else f"device={asked}: must be auto, cpu, cuda or cuda:N"


def _local() -> int:
    """The number of this process among those that srun or torchrun has started on this machine, which all may see the
    same cards."""
    numbers = (os.environ.get(name, "") for name in ("LOCAL_RANK", "SLURM_LOCALID"))
    return next((int(number) for number in numbers if number.isdecimal()), 0)


def present(asked: str, key: str = "device", instead: str = "device=cpu runs on the processor") -> str:
    """The device that `auto` means, or the one that is asked for; BadInput where it is not there. Imports torch."""
    import torch

    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if asked == AUTO:
        own = _local() % there if there else 0
        return f"cuda:{own}" if own else "cuda" if there else "cpu"
    if asked.startswith("cuda") and int(asked.partition(":")[2] or 0) >= there:
        found = f"torch finds {there}" if there else "no CUDA device is available to torch"
        raise BadInput(f"{key}={asked}: {found}; {instead}")
    return asked
