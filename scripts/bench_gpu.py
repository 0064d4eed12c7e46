#!/usr/bin/env python
"""Measure the engine on a GPU, with public checkpoints in their real shapes and random weights, in bfloat16.

    python scripts/bench_gpu.py --models sd15 sdxl --write       # a page in benchmarks/
    python scripts/bench_gpu.py --models flux --cells 1 16 --steps 4
    python scripts/bench_gpu.py --device cpu --shrink 16         # the whole path, small, without a GPU

m, l, xl are DeepFloyd IF's first stages; the others are called as diffsweep's choices of `model`. First the card's own
rates (a matrix product, a convolution). Then, for each model and number of cells, pictures a second of

    loop      a loop over one loaded pipeline of diffusers: the same network, type and attention
    bare      the network alone, called as the engine calls it, for as many rows: what no engine can pass
    engine    this engine, decoding included
    compiled  this engine, its network compiled

in turn, round after round. Beside them peak memory and what `model.needs` foretold, waits for the GPU within the loop,
whether a picture's bits depend on its neighbours, how far pictures drift between batch shapes.

Left out: text encoders (embeddings are random numbers of the right shapes), reading weights, and storing pictures. The
engine decodes in float32, the loop in bfloat16, as a script would.
"""

from __future__ import annotations

import argparse
import copy
import gc
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch

from diffsweep.engine import Engine
from diffsweep.model import codec
from diffsweep.runner.cell import Cell
from diffsweep.runner.ingredients import to_pixels, work
from diffsweep.runner.translation import with_translators
from gpu import models
from gpu.shapes import SHAPES, Shape

ROOT = Path(__file__).resolve().parents[1]
ALIKE = 8  # pictures, and rows of a call, whose bits are compared
TIMED = 5  # calls of the bare network
COLUMNS = "cells, rows a call, loop, bare, engine, compiled, engine over loop, compiled over loop, engine over bare"
DECODED, MEMORY = "engine over bare, decoding aside", "peak GB, peak GB foretold"


def on_gpu(device: str) -> bool:
    return device.startswith("cuda")


def seconds(call: Callable[[], Any], device: str) -> float:
    if on_gpu(device):
        torch.cuda.synchronize()
    began = time.perf_counter()
    call()
    if on_gpu(device):
        torch.cuda.synchronize()
    return time.perf_counter() - began


# -- the card ----------------------------------------------------------------------------------------------------------
def rates(device: str, shrink: int) -> dict[str, float]:
    """TFLOP/s in bfloat16: a square matrix product, a 3 x 3 convolution of 1,408 channels on 32 x 32."""
    n, channels, rows = 8192 // shrink, 1408 // shrink, 32
    a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))
    layer = torch.nn.Conv2d(channels, channels, 3, padding=1, device=device, dtype=torch.bfloat16)
    x = torch.randn(rows, channels, 32, 32, device=device, dtype=torch.bfloat16)
    work = {"matrix": (lambda: a @ b, 2 * n**3), "convolution": (lambda: layer(x), 18 * rows * 32 * 32 * channels**2)}
    found = {}
    for name, (call, operations) in work.items():
        with torch.inference_mode():
            call()
            best = min(seconds(lambda call=call: [call() for _ in range(10)], device) for _ in range(5))
        found[name] = 10 * operations / best / 1e12
    return found


# -- the arms ----------------------------------------------------------------------------------------------------------
def engine(model: Any, own: list[Cell], rows: int) -> dict[int, torch.Tensor]:
    """Pictures by seed."""
    runs = Engine(*with_translators({"base": model}, {"base": rows}))
    pictures = {}
    for finished in runs.run(work(cell, model.device, model=model) for cell in own):
        if finished.error:
            raise finished.error
        pictures[finished.owner.seed] = finished.result.image
    return pictures


def loop(shape: Shape, model: Any, cell: Cell) -> Callable[[int], None]:
    pipe, told = models.pipeline(shape, model), models.told(shape, model, cell)

    @torch.inference_mode()
    def drawn(n: int) -> None:
        for seed in range(n):
            generator = torch.Generator().manual_seed(seed)
            pipe(**told, num_inference_steps=len(cell.levels), generator=generator, output_type="pt")

    return drawn


def bare(model: Any, own: list[Cell], rows: int) -> float:
    """Seconds of a call of the network alone, with what the engine gives it."""
    seen: list[Any] = []
    hook = model.network.register_forward_pre_hook(lambda _, *given: seen.append(given), with_kwargs=True)
    engine(model, own, rows)
    hook.remove()
    (arguments, options), *_ = seen
    with torch.no_grad():
        calls = [seconds(lambda: model.network(*arguments, **options), model.device) for _ in range(TIMED + 1)]
    return statistics.median(calls[1:])


def decoding(model: Any) -> float:
    """Seconds of a picture's decoding, in calls as the engine's."""
    stage = model.stage
    if stage.factor == 1:
        return 0.0
    n = codec.rows(*stage.size)
    x = torch.randn(n, *stage.shape, device=model.device)
    with torch.no_grad():
        return statistics.median(seconds(lambda: model.decode(x), model.device) for _ in range(3)) / n


def waits(model: Any, own: list[Cell], rows: int) -> str:
    """Whether anything waits for the GPU between the first call and the last."""
    if not on_gpu(model.device):
        return "no GPU"
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        engine(model, own, rows)
    except RuntimeError as error:
        return str(error).splitlines()[0]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return "none"


def apart(a: dict[int, torch.Tensor], b: dict[int, torch.Tensor]) -> str:
    """Levels of 255 between the pictures of both."""
    levels = [abs(to_pixels(a[s]).astype(int) - to_pixels(b[s])) for s in a.keys() & b.keys()]
    return f"at most {max(d.max() for d in levels)}, {max((d > 0).mean() for d in levels):.2%} of values"


# -- a model -----------------------------------------------------------------------------------------------------------
class Subject(NamedTuple):
    """A model that is measured: its cells by their number, and its arms. compiled: None where that is left out."""

    name: str
    model: Any
    compiled: Any
    cells: Callable[[int], list[Cell]]
    loop: Callable[[int], None]

    def branches(self) -> int:
        (cell,) = self.cells(1)
        return len(cell.prompts)


def subject(name: str, args: argparse.Namespace, folder: Path) -> Subject:
    shape = SHAPES[name](args.shrink)
    models.written(shape, folder)
    cells = partial(models.cells, shape, folder, steps=args.steps)
    (cell,) = cells(1)
    model = models.loaded(cell, args.device)
    compiled = None
    if args.compiled:
        compiled = copy.copy(model)
        compiled.network = torch.compile(model.network, dynamic=False)
    return Subject(name, model, compiled, cells, loop(shape, model, cell))


def measured(it: Subject, args: argparse.Namespace) -> str:
    """The model's part of the page."""
    model = it.model
    parameters = sum(p.numel() for p in model.network.parameters()) / 1e9
    height, width = model.stage.size
    columns = [*COLUMNS.split(", "), DECODED, *MEMORY.split(", ")]
    lines = [f"## {it.name}: {parameters:.3f} billion parameters, {width} x {height} pixels\n"]
    lines += [f"| {' | '.join(columns)} |", f"{'|---' * len(columns)}|"]
    decoded = decoding(model)
    for n in args.cells:
        lines.append(row(it, n, decoded, args))
    return "\n".join([*lines, "", *checks(it, args), f"* A picture's decoding, in float32: {decoded:.3f} s.", ""])


def row(it: Subject, n: int, decoded: float, args: argparse.Namespace) -> str:
    """The table's line of so many cells."""
    own, rows, looped = it.cells(n), min(it.branches() * n, args.rows), min(n, args.looped)
    peak = peaked(it.model, own, rows)
    arms: dict[str, Callable[[], Any]] = {
        "loop": lambda: it.loop(looped),
        "engine": lambda: engine(it.model, own, rows),
    }
    if it.compiled:
        arms["compiled"] = lambda: engine(it.compiled, own, rows)
    for arm in arms.values():  # warm: libraries choose their kernels, the compiler works
        arm()
    call = bare(it.model, own, rows)
    times: dict[str, list[float]] = {name: [] for name in arms}
    for i in range(args.rounds):
        for name, arm in arms.items():
            times[name].append(seconds(arm, args.device) / (looped if name == "loop" else n))
            told = f"{it.name}, {n} cells, round {i + 1}: {name} {times[name][-1]:.3f} s a picture"
            print(told, file=sys.stderr, flush=True)
    times.setdefault("compiled", [float("nan")] * args.rounds)
    once = {name: statistics.median(taken) for name, taken in times.items()}
    network = sum(len(cell.prompts) * cell.rounds for cell in own) / n * call / rows  # seconds of it, a picture
    over = [
        statistics.median(a / b for a, b in zip(times["loop"], times[arm], strict=True))
        for arm in ("engine", "compiled")
    ]
    speeds = [1 / second for second in (once["loop"], network, once["engine"], once["compiled"])]
    over += [network / once["engine"], network / (once["engine"] - decoded)]
    foretold = foreseen(own[0], rows) if on_gpu(args.device) else float("nan")
    told = [*(f"{value:.3g}" for value in speeds), *(f"{value:.2f}" for value in over)]
    return f"| {n} | {rows} | {' | '.join(told)} | {peak:.1f} | {foretold:.1f} |"


def peaked(model: Any, own: list[Cell], rows: int) -> float:
    """GB of the device, at most, while the engine runs."""
    if not on_gpu(model.device):
        engine(model, own, rows)
        return float("nan")
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() - sum(p.numel() * p.element_size() for p in _parameters(model))
    engine(model, own, rows)
    return (torch.cuda.max_memory_allocated() - before) / 1e9


def _parameters(model: Any) -> list[torch.Tensor]:
    networks = [model.network, *([model.codec.vae] if model.stage.factor > 1 else [])]
    return [parameter for network in networks for parameter in network.parameters()]


def foreseen(cell: Cell, rows: int) -> float:
    """GB of the device, as preflight counts them."""
    need = cell.model.needs("cuda")
    return (need.weights + rows * need.row + len(cell.prompts) * need.prompt) / 1e9


def checks(it: Subject, args: argparse.Namespace) -> list[str]:
    """What holds whatever the speed."""
    own, rows = it.cells(max(2, min(args.cells[-1], ALIKE))), min(ALIKE, args.rows)
    together, other = engine(it.model, own, rows), engine(it.model, own, 2 * rows)
    alone = {cell.seed: engine(it.model, [cell], rows)[cell.seed] for cell in own[:2]}
    same = all(torch.equal(alone[seed], together[seed]) for seed in alone)
    lines = [
        f"* Waits for the GPU within the loop: {waits(it.model, own, rows)}.",
        f"* A picture alone and among others, {rows} rows a call: {'the same bits' if same else 'DIFFERENT BITS'}.",
        f"* Between {rows} and {2 * rows} rows a call: {apart(together, other)}; random weights carry rounding far.",
    ]
    if it.compiled:
        lines.append(f"* Between engine and compiled: {apart(together, engine(it.compiled, own, rows))}.")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=tuple(SHAPES), default=tuple(SHAPES))
    parser.add_argument("--cells", nargs="+", type=int, default=[1, 4, 16])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rows", type=int, default=32, help="most rows a call")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--looped", type=int, default=2, help="most pictures of the loop, whose speed is that of one")
    told = "leave the compiled arm out: compiling takes a minute or more for each model and number of rows"
    parser.add_argument("--no-compiled", dest="compiled", action="store_false", help=told)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--shrink", type=int, default=1, help="divide the widths, for a machine without a GPU")
    parser.add_argument("--write", action="store_true", help="keep the page in benchmarks/ under today's date")
    args = parser.parse_args()
    page = Page(args)
    for name in args.models:
        with tempfile.TemporaryDirectory() as folder:
            page.add(measured(subject(name, args, Path(folder)), args))
        gc.collect()
        torch.compiler.reset()
        if on_gpu(args.device):
            torch.cuda.empty_cache()
    print(page.foot)


class Page:
    """What is found, shown at once and kept as far as it goes: a card may be lent for a time."""

    def __init__(self, args: argparse.Namespace) -> None:
        card = torch.cuda.get_device_name() if on_gpu(args.device) else f"a CPU, {os.cpu_count()} cores"
        git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
        commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
        self.foot = (
            f"{date.today()}, {card}, {platform.machine()}, torch {version('torch')}, diffusers "
            f"{version('diffusers')}, commit {commit}; `python scripts/bench_gpu.py {' '.join(sys.argv[1:])}`\n"
        )
        self.file = ROOT / "benchmarks" / f"{date.today()}-gpu.md" if args.write else None
        self.parts: list[str] = []
        self.add(f"# The engine on {card}\n")
        if args.shrink > 1:
            told = "this shows that the script runs; a GPU's figures are still to be taken"
            self.add(f"**Widths divided by {args.shrink}: {told}.**\n")
        rate = ", ".join(f"{name} {value:.2f}" for name, value in rates(args.device, args.shrink).items())
        self.add(
            f"bfloat16, TFLOP/s: {rate}. {args.steps} steps, {args.rounds} rounds in turn; speeds in pictures/s.\n"
            "Random weights and embeddings, no text encoders. The engine decodes in float32, the loop in bfloat16.\n"
        )

    def add(self, part: str) -> None:
        self.parts.append(part)
        print(part, flush=True)
        if self.file:
            self.file.write_text("\n".join([*self.parts, self.foot]))


if __name__ == "__main__":
    main()
