#!/usr/bin/env python
"""Measure the engine on a GPU, with DeepFloyd IF's first stages in their real shapes and random weights.

    python scripts/bench_gpu.py                            # M, L and XL on the GPU
    python scripts/bench_gpu.py --models xl --cells 1 16
    python scripts/bench_gpu.py --device cpu --shrink 16   # the whole path, small, without a GPU

First the card's own rates in bfloat16 (a matrix product, a convolution). Then, for each model and number of cells,
pictures a second of (a) a loop over one loaded IFPipeline, (b) this engine, (c) this engine with the compiled UNet; in
turn, round after round. Beside them peak memory, waits for the GPU within the loop, whether a picture's bits depend on
its neighbours at one batch shape, and how far pictures drift between batch shapes.
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
from dataclasses import replace
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from diffsweep.app import composed
from diffsweep.engine import Engine
from diffsweep.runner.cell import Cell
from diffsweep.runner.freeze import freeze
from diffsweep.runner.ingredients import to_pixels, work

ROOT = Path(__file__).resolve().parents[1]
WIDTHS = {"m": 192, "l": 320, "xl": 704}  # of the first level; M's and L's are inferred from their sizes
PROMPT, SCALE = "a photo of a dog", 7.0


def synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def seconds(call: Callable[[], Any], device: str) -> float:
    synchronize(device)
    began = time.perf_counter()
    call()
    synchronize(device)
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


# -- checkpoints -------------------------------------------------------------------------------------------------------
def checkpoint(size: str, shrink: int, device: str, to: Path) -> Path:
    """IF's first stage of this size, random weights; divided in width by `shrink`."""
    from diffusers import DDPMScheduler, IFPipeline, UNet2DConditionModel
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    base, hidden = max(WIDTHS[size] // shrink, 16) // 16 * 16, 4096 // shrink
    torch.manual_seed(0)
    with torch.device(device):
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.bfloat16)
        unet = UNet2DConditionModel(
            sample_size=64 if shrink == 1 else 32,
            in_channels=3,
            out_channels=6,
            block_out_channels=(base, 2 * base, 3 * base, 4 * base),
            layers_per_block=3 if shrink == 1 else 1,
            norm_num_groups=32 if shrink == 1 else 8,
            attention_head_dim=64 if shrink == 1 else 16,
            down_block_types=("ResnetDownsampleBlock2D", *["SimpleCrossAttnDownBlock2D"] * 3),
            up_block_types=(*["SimpleCrossAttnUpBlock2D"] * 3, "ResnetUpsampleBlock2D"),
            mid_block_type="UNetMidBlock2DSimpleCrossAttn",
            resnet_time_scale_shift="scale_shift",
            act_fn="gelu",
            encoder_hid_dim=hidden,
            encoder_hid_dim_type="text_proj",
            cross_attention_dim=4 * base,
            addition_embed_type="text",
            addition_embed_type_num_heads=4,
        )
        torch.set_default_dtype(before)
    pieces = ["<pad>", "</s>", "<unk>", "▁", *"abcdefghijklmnopqrstuvwxyz"]
    tokens = T5Tokenizer(vocab=[(piece, -float(i)) for i, piece in enumerate(pieces)], extra_ids=0)
    text = T5EncoderModel(T5Config(vocab_size=len(tokens), d_model=hidden, d_kv=64, d_ff=64, num_layers=1, num_heads=1))
    schedule = DDPMScheduler(
        beta_schedule="squaredcos_cap_v2",
        variance_type="learned_range",
        thresholding=True,
        dynamic_thresholding_ratio=0.95,
        sample_max_value=1.5,
    )
    pipeline = IFPipeline(tokens, text, unet, schedule, None, None, None, requires_safety_checker=False)
    pipeline.save_pretrained(to)
    return to


def cells(folder: Path, n: int, steps: int) -> list[Cell]:
    """n seeds, as the command line freezes them."""
    model = [f"model.path={folder}", "model.dtype=bfloat16"]
    rest = [f'prompt="{PROMPT}"', f"scheduler.steps={steps}", f"guidance.scale={SCALE}", "input=none"]
    return [freeze(*one) for one in composed([f"seed=range(0,{n})", *model, *rest])]


# -- the arms ----------------------------------------------------------------------------------------------------------
def engine(model: Any, own: list[Cell], rows: int, device: str) -> dict[int, Any]:
    """Pictures by seed."""
    runs = Engine({"base": model}, rows)
    pictures = {}
    for finished in runs.run(work(cell, device) for cell in own):
        if finished.error:
            raise finished.error
        pictures[finished.owner.seed] = finished.result.image
    return pictures


def pipeline(model: Any, steps: int) -> Callable[[int], None]:
    from diffusers import IFPipeline

    pipe = IFPipeline.from_pretrained(model.source.root, unet=model.network, text_encoder=None, dtype=torch.bfloat16)
    pipe.set_progress_bar_config(disable=True)
    told = [model.embeddings[p][None].to(model.device, torch.bfloat16) for p in (PROMPT, "")]

    @torch.inference_mode()
    def loop(n: int) -> None:
        for seed in range(n):
            pipe(
                prompt_embeds=told[0],
                negative_prompt_embeds=told[1],
                guidance_scale=SCALE,
                num_inference_steps=steps,
                generator=torch.Generator().manual_seed(seed),
                output_type="pt",
            )

    return loop


def waits(model: Any, own: list[Cell], rows: int, device: str) -> str:
    """Whether anything waits for the GPU between the first call and the last."""
    if not device.startswith("cuda"):
        return "no GPU"
    programs = [work(cell, device) for cell in own]
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for finished in Engine({"base": model}, rows).run(programs):
            if finished.error:
                return str(finished.error).splitlines()[0]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return "none"


def apart(a: dict[int, Any], b: dict[int, Any]) -> str:
    """Levels of 255 between the pictures of both."""
    levels = [abs(to_pixels(a[s]).astype(int) - to_pixels(b[s])) for s in a.keys() & b.keys()]
    return f"at most {max(d.max() for d in levels)}, {max((d > 0).mean() for d in levels):.2%} of values"


def measured(size: str, args: argparse.Namespace, folder: Path) -> str:
    device, steps = args.device, args.steps
    model = model_of(checkpoint(size, args.shrink, device, folder), device, "bfloat16")
    compiled = copy.copy(model)
    compiled.network = torch.compile(model.network, dynamic=False)
    loop = pipeline(model, steps)
    parameters = sum(p.numel() for p in model.network.parameters()) / 1e9
    lines = [f"## {size.upper()}: {parameters:.3f} billion parameters\n"]
    columns = ["cells", "rows a call", "loop, pictures/s", "engine", "compiled", "engine over loop"]
    columns += ["compiled over loop", "peak GB"]
    lines += [f"| {' | '.join(columns)} |", f"{'|---' * len(columns)}|"]
    for n in args.cells:
        own, rows = cells(folder, n, steps), min(2 * n, args.rows)
        arms: dict[str, Callable[[], Any]] = {
            "loop": lambda n=n: loop(n),
            "engine": lambda own=own, rows=rows: engine(model, own, rows, device),
            "compiled": lambda own=own, rows=rows: engine(compiled, own, rows, device),
        }
        for arm in arms.values():  # warm: libraries choose their kernels, the compiler works
            arm()
        if device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats()
        times: dict[str, list[float]] = {name: [] for name in arms}
        for i in range(args.rounds):
            for name, arm in arms.items():
                times[name].append(seconds(arm, device))
                print(f"{size} {n} cells, round {i + 1}: {name} {times[name][-1]:.2f} s", file=sys.stderr, flush=True)
        speed = {name: n / statistics.median(taken) for name, taken in times.items()}
        peak = torch.cuda.max_memory_allocated() / 1e9 if device.startswith("cuda") else float("nan")
        over = [
            statistics.median(a / b for a, b in zip(times["loop"], times[arm], strict=True))
            for arm in ("engine", "compiled")
        ]
        lines.append(
            f"| {n} | {rows} | {speed['loop']:.2f} | {speed['engine']:.2f} | {speed['compiled']:.2f} "
            f"| {over[0]:.2f} | {over[1]:.2f} | {peak:.1f} |"
        )
    own, rows = cells(folder, max(2, min(args.cells[-1], 8)), steps), min(8, args.rows)
    together = engine(model, own, rows, device)
    alone = {cell.seed: engine(model, [cell], rows, device)[cell.seed] for cell in own[:2]}
    same = all(torch.equal(alone[seed], together[seed]) for seed in alone)
    other = engine(model, own, 2 * rows, device)
    exact = engine(model_of(folder, device, "float32"), own, rows, device)
    lines += [
        "",
        f"* Waits for the GPU within the loop: {waits(model, own, rows, device)}.",
        f"* A picture alone and among others, {rows} rows a call: {'the same bits' if same else 'DIFFERENT BITS'}.",
        f"* Between {rows} and {2 * rows} rows a call: {apart(together, other)}.",
        f"* Between engine and compiled: {apart(together, engine(compiled, own, rows, device))}.",
        f"* Between engine and the same in float32: {apart(together, exact)}: random weights carry rounding far.",
        "",
    ]
    return "\n".join(lines)


def model_of(folder: Path, device: str, dtype: str) -> Any:
    (cell,) = cells(folder, 1, 2)
    model = replace(cell.model, dtype=dtype).load(device)
    model.encode([PROMPT, ""])
    model.ready()
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=tuple(WIDTHS), default=tuple(WIDTHS))
    parser.add_argument("--cells", nargs="+", type=int, default=[1, 4, 16, 64])
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rows", type=int, default=32, help="most rows a call")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--shrink", type=int, default=1, help="divide the widths, for a machine without a GPU")
    parser.add_argument("--write", action="store_true", help="keep the page in benchmarks/ under today's date")
    args = parser.parse_args()
    card = torch.cuda.get_device_name() if args.device.startswith("cuda") else f"a CPU, {os.cpu_count()} cores"
    lines = [f"# The engine on {card}\n"]
    if args.shrink > 1:
        told = "this shows that the script runs; a GPU's figures are still to be taken"
        lines.append(f"**Widths divided by {args.shrink}: {told}.**\n")
    rate = rates(args.device, args.shrink)
    told = ", ".join(f"{name} {value:.2f}" for name, value in rate.items())
    lines.append(f"bfloat16, TFLOP/s: {told}. {args.steps} steps, guidance {SCALE}, {args.rounds} rounds in turn.\n")
    for size in args.models:
        with tempfile.TemporaryDirectory() as folder:
            lines.append(measured(size, args, Path(folder)))
        gc.collect()
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
    lines.append(
        f"{date.today()}, {card}, {platform.machine()}, torch {version('torch')}, diffusers {version('diffusers')}, "
        f"commit {commit}; `python scripts/bench_gpu.py {' '.join(sys.argv[1:])}`\n"
    )
    page = "\n".join(lines)
    print(page)
    if args.write:
        (ROOT / "benchmarks" / f"{date.today()}-gpu.md").write_text(page)


if __name__ == "__main__":
    main()
