"""Checks before anything is downloaded or loaded: device, disk space, what weights are, memory."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from diffsweep.core.device import present
from diffsweep.core.problems import BadInput, under
from diffsweep.core.text import counted
from diffsweep.model.memory import HELD, Needs
from diffsweep.runner.cell import Cell

GB, MB = 1e9, 1e6
SPARE = 1.5e9  # bytes of a CUDA device for its context and its libraries' workspaces
BESIDE = 4e9  # bytes free on a CUDA device: what the metrics' networks may need while the model is at work
LARGER = "a device with more memory is needed"
SMALL = 10  # times the size of its files: what a model takes on a processor at the very most, in a usual call
LARGE = 512 * 512  # pixels of a picture that may take more than that
USUAL = 16  # rows of such a call
VALUE = 256  # bytes of a call, for each number of a row's picture, of a model that does not state its needs
PADDED = 1024  # rows of a call that may be padding: a sweep that grows into its shape may begin with so many
HALF = {"avx512_bf16", "amx_bf16", "bf16"}  # a processor's flags, of which one says that it computes in bfloat16


def device(asked: str, cells: Iterable[Cell]) -> str:
    """The device to use; BadInput where the requested one is missing."""
    found = present(asked)
    for cell in cells:
        text = getattr(cell.network, "text", None)
        if text is not None and text.device == "cuda":
            present("cuda", f"{cell.config_key}.text.device", "auto is the model's device")
    return found


def kind(device: str) -> str:
    """What a device is, in words: cards of one name round alike."""
    if not device.startswith("cuda"):
        return device
    import torch

    return str(torch.cuda.get_device_name(device))


def disk(cells: Iterable[Cell]) -> None:
    """BadInput where the weights still to be downloaded do not fit the cache's disk."""
    sizes: dict[str, int] = {}
    for model in dict.fromkeys(cell.network for cell in cells):
        sizes |= model.missing() if hasattr(model, "missing") else {}
    if not sizes:
        return
    from huggingface_hub.constants import HF_HUB_CACHE

    cache = Path(HF_HUB_CACHE)
    free = shutil.disk_usage(next(folder for folder in (cache, *cache.parents) if folder.exists())).free
    total = sum(sizes.values())
    if total > free:
        raise BadInput(
            f"{_gb(total)} to download, {_gb(free)} free in {cache}: make room, or set HF_HOME to a larger disk"
        )


def weights(cells: Iterable[Cell]) -> None:
    """BadInput where weights that are there are not those that their configurations describe."""
    keys = {cell.network: cell.config_key for cell in cells if hasattr(cell.network, "check")}
    for model, key in keys.items():
        with under(key):
            model.check()


def memory(cells: Iterable[Cell], device: str, rows: Mapping[str, int], chosen: bool) -> dict[str, int]:
    """The rows of a call that fit the device, by a stage's key, at most `rows`; BadInput where the weights or the
    chosen rows do not fit. cells: those whose models are in memory together."""
    stages: dict[Any, Cell] = {}
    asked: dict[str, set[str | None]] = {}  # the prompts, by a stage's key
    for cell in cells:
        stages[cell.network] = cell
        asked.setdefault(cell.config_key, set()).update(cell.prompts)
    models = {model: cell.config_key for model, cell in stages.items() if hasattr(model, "needs")}
    free, calls = available(device), max(1, max(rows.values()) / USUAL)
    usual = all(math.prod(cell.stage.size) <= LARGE for cell in stages.values())
    small = usual and not device.startswith("cuda") and SMALL * calls * sum(model.size() for model in models) < free
    by_key = {} if small else {key: model for model, key in models.items()}
    needs = [(key, model.needs(device)) for key, model in by_key.items()]
    if chosen:  # else a call of a model that does not state its needs has few rows
        needs += [(cell.config_key, _guessed(cell)) for model, cell in stages.items() if model not in models]
    for key, need in needs:
        if need.text > free:
            mends = _less(f"{key}.text", getattr(by_key[key], "text", None), {"device": "cpu", "load_in_8bit": "true"})
            mends += _less(key, by_key[key], {"offload": "layers"})
            told = f"{' or '.join(mends)} takes less there" if mends and device.startswith("cuda") else LARGER
            raise BadInput(f"{key}: its text encoder takes {_gb(need.text)}, {_gb(free)} are free on {device}: {told}")
    prompts = {key: min(HELD, len(own)) for key, own in asked.items()}
    lasting = [(key, need.least + need.prompt * prompts.get(key, 0)) for key, need in needs]
    weights = sum(own for _, own in lasting)
    if weights > free:
        told = ", ".join(f"{key} {_gb(own)}" for key, own in lasting)
        halves = [f"{key}.dtype=bfloat16" for key, model in by_key.items() if model.dtype == "float32"]
        away = [mend for key, model in by_key.items() for mend in _less(key, model, {"offload": "layers"})]
        mends = [f"{' or '.join(halves)} takes half"] if halves else []
        mends += [f"{' or '.join(away)} keeps them elsewhere"] if away and device.startswith("cuda") else []
        mend = "; ".join(mends) or f"choose a smaller model; {LARGER}"
        raise BadInput(f"the weights take {_gb(weights)} ({told}), {_gb(free)} are free on {device}: {mend}")
    fitting = dict(rows)
    for key, need in needs:
        beside = weights - need.least + need.weights  # without the autoencoder, where that is away meanwhile
        if need.row:
            fitting[key] = min(fitting[key], int((free - beside) // need.row))
        if fitting[key] < (rows[key] if chosen else 1):
            raise BadInput(
                f"engine.rows={rows[key] if chosen else 1}: {key} takes {need.row / MB:.2f} MB a row beside "
                f"{_gb(beside)} of weights, {_gb(free)} are free on {device}"
                + (f"; {counted('row', fitting[key])} fit{'s' * (fitting[key] == 1)}" if fitting[key] else "")
            )
    return fitting


def _less(key: str, part: Any, values: Mapping[str, str]) -> list[str]:
    """What takes less memory, of those keys that the part has and that are set otherwise."""
    return [f"{key}.{own}={value}" for own, value in values.items() if getattr(part, own, value) != value]


def idle(cells: Iterable[Cell], device: str) -> str | None:
    """A note where a key keeps weights in the processor's memory, and that is the device's own."""
    offloads = {cell.config_key: getattr(cell.network, "offload", "none") for cell in cells}
    told = [f"{key}.offload={how}" for key, how in offloads.items() if how != "none"]
    return f"{told[0]}: saves no memory on {device}" if told and not device.startswith("cuda") else None


def padding(most: Mapping[str, int], rows: int | None) -> str | None:
    """A note where the chosen rows are more than the sweep can fill; BadInput where they are far more. most: the rows
    that the whole sweep can ask for at once, by a stage's key."""
    there, key = min(((n, key) for key, n in most.items() if n), default=(0, ""))
    if rows is None or not there or rows <= there:
        return None
    told = f"engine.rows={rows}: {rows - there} of them are padding, this sweep asks {key} for at most {there} at once"
    if rows - there > PADDED:
        raise BadInput(f"{told}; at most {PADDED} may be, so up to {there + PADDED} rows")
    return told


def slow(cells: Iterable[Cell], device: str, flags: Collection[str] | None = None) -> str | None:
    """A note where a processor computes in bfloat16 without instructions for it. flags: the processor's."""
    keys = [cell.config_key for cell in cells if getattr(cell.network, "dtype", None) == "bfloat16"]
    found = _flags() if flags is None else flags
    if device != "cpu" or not keys or not found or HALF & {*found}:
        return None
    return (
        f"{keys[0]}.dtype=bfloat16: this processor has no bfloat16 instructions ({', '.join(sorted(HALF))}) and may "
        f"take tens of times as long; {keys[0]}.dtype=float32 is the faster type here"
    )


def _flags() -> list[str]:
    """The processor's flags, as Linux lists them; none where it does not."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
    return next((line.split() for line in lines if line.startswith(("flags", "Features"))), [])


def available(device: str) -> float:
    """Bytes free on a CUDA device but for what its libraries take; of all memory on a processor."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - SPARE
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (ValueError, OSError, AttributeError):  # a system that does not say
        return float("inf")


def beside(device: str) -> bool:
    """Whether pictures can be measured while others are sampled."""
    if not device.startswith("cuda"):
        return True
    import torch

    return torch.cuda.mem_get_info(device)[0] >= BESIDE


def _guessed(cell: Cell) -> Needs:
    """The least that a row takes, of a model that does not state its needs: a few dozen numbers for each of its
    picture's."""
    return Needs(0, 0, VALUE * math.prod(cell.stage.shape))


def _gb(size: float) -> str:
    return f"{max(size, 0) / GB:.1f} GB"
