#!/usr/bin/env python
"""Measure diffsweep against what it replaces; every arm is run in turn, in rounds, and ratios are pair by pair.

    python scripts/bench.py sweep       16 cells: fused, a loop over one IFPipeline, Hydra's basic launcher
    python scripts/bench.py latents     the same on tiny_sd and tiny_flow, in latents: a loop over one pipeline
    python scripts/bench.py overhead    everything around the model, over the bare UNet for the same rows
    python scripts/bench.py plan        planning 10,000 cells; a finished sweep of 1,000 again; padding of a mixed one
    python scripts/bench.py results     scoring 1,000 pictures; table, figures and report of 10,000 cells; --help
    python scripts/bench.py order       counted alone: calls, when cells end, what an interrupt loses
    python scripts/bench.py tracker     what tracker=wandb adds to a sweep, offline
    python scripts/bench.py core        the engine's and the loop's own work; --against another checkout
    python scripts/bench.py commands    whole commands, from --help to the quickstart; --against another checkout

Work is counted first (model rows, calls, encodes, loads), then timed. Each prints a page in Markdown; --write keeps it
in benchmarks/ under today's date.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
STEPS, SCALES, SEEDS = 30, (1.0, 3.0, 5.0, 7.0), (0, 1, 2, 3)
PROMPT = "a photo of a dog"
# what pipelines return of a prompt, in this order: some the first two
EMBEDDINGS = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
NEWLINE = "\n"  # no backslash within an f-string before Python 3.12


def command(*words: str, folder: Path, **environment: str) -> tuple[float, str]:
    """Wall seconds and output of a command that must succeed."""
    began = time.perf_counter()
    done = subprocess.run(
        words, cwd=folder, text=True, capture_output=True, env={**os.environ, **environment}, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} failed:\n{done.stdout}{done.stderr}")
    return time.perf_counter() - began, done.stdout + done.stderr


def diffsweep(*words: str, folder: Path) -> tuple[float, dict[str, Any]]:
    """Wall seconds of a multirun, and its newest sweep.json."""
    seconds, _ = command("diffsweep", "-m", *words, folder=folder)
    newest = max(folder.glob("*/sweeps/*/sweep.json"), key=lambda f: f.stat().st_mtime)
    return seconds, json.loads(newest.read_text())


def rounds(n: int, arms: dict[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Seconds of each arm, A B C A B C ..."""
    times: dict[str, list[float]] = {name: [] for name in arms}
    for i in range(n):
        for name, arm in arms.items():
            times[name].append(arm())
            print(f"round {i + 1}: {name} {times[name][-1]:.2f} s", file=sys.stderr)
    return times


def table(times: dict[str, list[float]], base: str, rows: int | None = None) -> str:
    lines = [f"| arm | median s | min | max | ratio to {base}, pair by pair |", "|---|---|---|---|---|"]
    for name, seconds in times.items():
        ratios = [a / b for a, b in zip(seconds, times[base], strict=True)]
        lines.append(
            f"| {name} | {statistics.median(seconds):.2f} | {min(seconds):.2f} | {max(seconds):.2f} "
            f"| {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |"
        )
    return "\n".join(lines)


def loaded() -> Any:
    from diffsweep.model.deepfloyd import DeepFloyd

    model = DeepFloyd().load("cpu")
    model.encode([PROMPT, ""])
    model.ready()
    return model


def looped(pipe: Any, **prompts: Any) -> Callable[[], float]:
    """A loop over one loaded pipeline, embeddings cached, each picture saved: what a script would do. prompts: further
    settings of how prompts are encoded."""
    import torch

    pipe.set_progress_bar_config(disable=True)
    with torch.inference_mode():
        told = dict(zip(EMBEDDINGS, pipe.encode_prompt(PROMPT, **prompts), strict=False))

    def arm() -> float:
        with tempfile.TemporaryDirectory() as place:
            began = time.perf_counter()
            for scale in SCALES:
                for seed in SEEDS:
                    picture = pipe(
                        **told,
                        guidance_scale=scale,
                        num_inference_steps=STEPS,
                        generator=torch.Generator().manual_seed(seed),
                    ).images[0]
                    picture.save(Path(place) / f"{scale}-{seed}.png")
            return time.perf_counter() - began

    return arm


def fused(model: Any, work: list[tuple[dict[str, Any], dict[str, Any]]]) -> Callable[[], float]:
    """The same cells through the runner, stored with their records; planning is in, reports are not."""
    from diffsweep.runner.plan import plan
    from diffsweep.runner.sampling import Run, Sampler, _models
    from diffsweep.runner.shape import fitting, wanted
    from diffsweep.store.cells import Store

    class Nobody:
        def waits(self, what: str) -> None: ...
        def begins(self) -> None: ...
        def rows(self, number: int) -> None: ...

    def arm() -> float:
        with tempfile.TemporaryDirectory() as place:
            for config, _ in work:
                config["output_dir"] = place
            began = time.perf_counter()
            whole = plan(work)
            _models[whole.cells[0].model, "cpu"] = model
            given, counted = iter([whole.cells]), Run()
            rows = fitting(wanted(whole.cells), None, "cpu")
            sampler = Sampler(Store(Path(place)), "cpu", rows, 0, counted)
            for ended in sampler.run(whole.cells, lambda: next(given, None), Nobody()):
                assert ended.error is None
            seconds = time.perf_counter() - began
            arm.run = counted  # type: ignore[attr-defined]
            return seconds

    return arm


def cells(*words: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The sweep's cells as the command line composes them. words: further ones."""
    from diffsweep.app import composed

    axes = [f"guidance.scale={','.join(map(str, SCALES))}", f"seed={','.join(map(str, SEEDS))}"]
    return composed([*axes, f"scheduler.steps={STEPS}", f'prompt="{PROMPT}"', "device=cpu", "metric=none", *words])


def bench_latents(args: argparse.Namespace) -> str:
    return "\n".join(
        [
            beside(args, "tiny_sd", "ddim", "StableDiffusionPipeline"),
            beside(args, "tiny_flow", "euler", "StableDiffusion3Pipeline", prompt_2=None, prompt_3=None),
        ]
    )


def beside(args: argparse.Namespace, name: str, scheduler: str, kind: str, **prompts: Any) -> str:
    """A latent model's section. kind: its pipeline; prompts: as of `looped`."""
    import diffusers
    import torch

    from diffsweep.runner.freeze import freeze

    work = cells(f"model={name}", f"scheduler={scheduler}")
    model = freeze(*work[0]).model.load("cpu")
    model.encode([PROMPT, ""])
    model.ready()
    parts = {model.name: model.network, "vae": model.codec.vae}
    pipe = getattr(diffusers, kind).from_pretrained(model.source.root, dtype=torch.float32, **parts)
    mine = fused(model, work)
    loop = looped(pipe, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=True, **prompts)
    times = rounds(args.rounds, {"fused": mine, f"loop over one {kind}": loop})
    run = mine.run  # type: ignore[attr-defined]
    return f"""# 4 seeds x 4 guidance scales on {name}, {STEPS} steps of {scheduler}

128 x 128 pixels, 16 x 16 latents, in float32. Counted, fused: {run.model_rows} model rows in {run.model_calls} calls of
{run.rows} rows, {run.padded_rows} padded; pictures are decoded {len(work)} to a call at most. The loop:
{len(work) * STEPS} calls of 1 or 2 rows, the same rows, and a decoding each. In one process, networks loaded and
shared, embeddings cached; pictures saved in both arms.

{table(times, "fused")}
"""


def bench_sweep(args: argparse.Namespace) -> str:
    import torch
    from diffusers import IFPipeline

    model = loaded()
    mine = fused(model, cells())
    pipe = IFPipeline.from_pretrained(model.source.root, unet=model.network, dtype=torch.float32)
    first = rounds(args.rounds, {"fused": mine, "loop over one IFPipeline": looped(pipe, clean_caption=False)})
    run = mine.run  # type: ignore[attr-defined]

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        axes = [f"seed={','.join(map(str, SEEDS))}", f"guidance.scale={','.join(map(str, SCALES))}"]
        number = iter(range(1000))

        def whole() -> float:
            own = folder / str(next(number))
            own.mkdir()
            return diffsweep(*axes, f"scheduler.steps={STEPS}", "metric=none", "device=cpu", folder=own)[0]

        job = [sys.executable, str(ROOT / "scripts" / "bench_hydra_job.py")]

        def hydra() -> float:
            own = folder / str(next(number))
            own.mkdir()
            return command(*job, "-m", *(axis.replace("guidance.", "") for axis in axes), folder=own)[0]

        def processes() -> float:
            own = folder / str(next(number))
            own.mkdir()
            words = [(f"seed={seed}", f"scale={scale}") for scale in SCALES for seed in SEEDS]
            return sum(command(*job, *one, folder=own)[0] for one in words)

        arms = {
            "diffsweep, whole command": whole,
            "Hydra's basic launcher, model loaded in each job": hydra,
            "a process for each job": processes,
        }
        second = rounds(max(1, args.rounds // 4), arms)
    return f"""# 4 seeds x 4 guidance scales on the embedded model, {STEPS} steps

Counted, fused: {run.model_rows} model rows in {run.model_calls} calls of {run.rows} rows, {run.padded_rows} padded,
{run.encodes} encodes. The loop: {len(SEEDS) * len(SCALES) * STEPS} calls of 1 or 2 rows, the same rows. In one process,
model loaded, embeddings cached for the loop; pictures saved in both arms.

{table(first, "fused")}

Whole commands, start-up included; the other arms are a Hydra application whose job loads an IFPipeline and saves one
picture: under the basic launcher, which runs all jobs in one process, and in a process for each job, one by one.

{table(second, "diffsweep, whole command")}
"""


def bench_overhead(args: argparse.Namespace) -> str:
    import torch

    model = loaded()
    mine = fused(model, cells())
    mine()
    run = mine.run  # type: ignore[attr-defined]
    generator = torch.Generator().manual_seed(0)
    times: dict[int, list[float]] = {}

    def bare(rows: int) -> Callable[[], float]:
        calls = round(run.model_rows / rows)
        x = torch.randn(rows, 3, 32, 32, generator=generator)
        t = torch.randint(1000, (rows,), generator=generator)
        embeddings = torch.stack([model.embeddings[PROMPT]] * rows)

        @torch.inference_mode()
        def arm() -> float:
            began = time.perf_counter()
            for _ in range(calls):
                model.network(x, t, encoder_hidden_states=embeddings, return_dict=False)
            seconds = time.perf_counter() - began
            times.setdefault(rows, []).append(seconds * run.model_rows / (calls * rows))
            return times[rows][-1]

        return arm

    result = rounds(
        args.rounds, {"diffsweep": mine, **{f"bare UNet, {rows} rows a call": bare(rows) for rows in (8, 16, 32)}}
    )
    best = min((name for name in result if name != "diffsweep"), key=lambda name: statistics.median(result[name]))
    return f"""# Everything around the model

{run.model_rows} model rows through the runner (plan, encode, loop, engine, store, PNG; metrics and reports aside),
against the bare UNet for as many rows at its best batch.

{table(result, best)}
"""


def bench_plan(args: argparse.Namespace) -> str:
    probe = """
import resource, sys, time
began = time.perf_counter()
from diffsweep import app
from diffsweep.runner import run
from diffsweep.runner.plan import plan
def measured(raw, name, *rest):
    whole = plan(raw, name)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"planned {len(whole.cells)} {time.perf_counter() - began:.2f} {peak:.0f} {'torch' in sys.modules}")
    return run.Outcome([cell.id for cell in whole.cells], ["done"] * len(raw), whole.root)
run.run_sweep = measured
sys.argv = ["diffsweep", "-m", "seed=range(0,100)", "guidance.scale=range(0,100)"]
sys.exit(app.main())
"""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        planned = []
        for _ in range(args.rounds):
            _, output = command(sys.executable, "-c", probe, folder=folder)
            found = re.search(r"planned (\d+) ([\d.]+) (\d+) (\w+)", output)
            assert found
            planned.append((float(found[2]), int(found[3]), found[4]))
        bare = "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
        empty = float(command(sys.executable, "-c", bare, folder=folder)[1])

        words = ["model=analytic", "model.size=4", "seed=range(0,1000)", "scheduler.steps=2", "sweep.name=thousand"]
        diffsweep(*words, folder=folder)
        again = []
        for _ in range(args.rounds):
            seconds, document = diffsweep(*words, folder=folder)
            again.append(seconds)
        loads = sum(run["model_loads"] for run in document["runs"]) - 1
        words = ["model=analytic", "scheduler.steps=10,20,50", "guidance.scale=1,4", "seed=range(0,7)", "metric=none"]
        mixed = []
        for rows in (8, 12, 16):
            _, document = diffsweep(*words, f"engine.rows={rows}", f"output_dir=mixed{rows}", folder=folder)
            run = document["runs"][-1]
            share = run["padded_rows"] / (run["padded_rows"] + run["model_rows"])
            mixed.append(
                f"  - {rows} rows a call: {run['model_rows']} rows in {run['model_calls']} calls, "
                f"{run['padded_rows']} padded, {share:.1%}."
            )
    return f"""# Planning, running again, padding

* Planning 10,000 cells (100 seeds x 100 guidance scales), the process's start included: median
  {statistics.median(s for s, _, _ in planned):.1f} s, peak memory {max(m for _, m, _ in planned)} MB
  (an empty Python process: {empty:.0f} MB), torch imported: {planned[0][2]}.
* A finished sweep of 1,000 cells again, whole command: median {statistics.median(again):.1f} s, {loads} model loads.
* A mixed sweep of 10, 20 and 50 steps, with guidance and without, 7 seeds each:
{NEWLINE.join(mixed)}
"""


def bench_order(args: argparse.Namespace) -> str:
    """Programs of known steps and rows on a model that answers at once: the counts depend on their order alone."""
    import torch

    from diffsweep.core.types import Estimate, Level, Query
    from diffsweep.engine import Engine, Work

    class Echo:
        def predict(self, x: Any, *asked: Any) -> Estimate:
            return Estimate(x)

    def asking(steps: int, rows: int) -> Any:
        for t in range(steps):
            yield [Query(torch.zeros(1, 1, 1), Level(t, 1.0, 0.0))] * rows

    def counted(cells: list[tuple[int, int]], rows: int) -> str:
        engine, total = Engine({"base": Echo()}, rows), sum(steps * own for steps, own in cells)
        answered = lost = most = 0
        ends = []

        def heard(number: int) -> None:
            nonlocal answered, lost, most
            answered, lost = answered + number, lost + number
            most = max(most, lost)

        works = [Work(i, lambda i=i: asking(*cells[i]), *cells[i]) for i in range(len(cells))]  # type: ignore[misc]
        for end in engine.run(works, heard):
            lost -= end.nfe
            ends.append(answered / total)
        fewest = max(max(steps for steps, _ in cells), -(-total // rows))
        counts = f"{rows} | {engine.counts.model_calls} | {fewest} | {engine.counts.padded_rows}"
        return f"{counts} | {ends[0]:.0%} | {ends[len(ends) // 2]:.0%} | {most} of {total}"

    mixes = {
        "quickstart: 24 cells of 25 x 2 rows, 12 of 25 x 1": [(25, 2)] * 24 + [(25, 1)] * 12,
        "10, 20, 50 steps x 1, 2, 4 rows, 12 each": [(s, r) for s in (10, 20, 50) for r in (1, 2, 4)] * 12,
        "1,000 cells of 30 x 2 rows": [(30, 2)] * 1000,
    }
    lines = [f"| {name} | {counted(cells, rows)} |" for name, cells in mixes.items() for rows in (8, 16, 32)]
    return f"""# The order in which cells are served

*Fewest* calls: rows of all cells over rows of a call, or the longest cell's steps. *First* and *half*: the share of all
rows that is answered when the first and the middle cell end. *Lost*: the most answered rows whose cells have not ended,
which is what an interrupt at the worst moment loses.

| cells | rows a call | calls | fewest | padded rows | first | half | lost |
|---|---|---|---|---|---|---|---|
{NEWLINE.join(lines)}
"""


def stored(folder: Path, scales: int, seeds: int, side: int, numbers: dict[str, float] | None = None) -> None:
    """A sweep `made` in the folder's outputs: world pictures under noise, with inputs and prompts. numbers: metrics,
    and what theirs are about; unmeasured without."""
    import numpy as np

    from diffsweep.store.cells import Store
    from diffsweep.store.schema import to_json
    from diffsweep.world import held_out

    store, cells = Store(folder / "outputs"), []
    world = [held_out(number, side) for number in range(100)]
    for scale in range(scales):
        for seed in range(seeds):
            drawn = world[seed % 100]
            noise = np.random.default_rng((scale, seed)).normal(0, 4 + scale / 4, drawn.pixels.shape)
            cell_id = f"{scale * seeds + seed:020x}"
            pictures = {"image": (drawn.pixels + noise).clip(0, 255).astype(np.uint8), "input": drawn.pixels}
            values = {
                name: value * (1 + noise.flat[i] / 100) for i, (name, value) in enumerate((numbers or {}).items())
            }
            metrics = {n: {"value": v, "definition": {"metric": n, "direction": "higher"}} for n, v in values.items()}
            record = {"config": {"seed": seed, "prompt": drawn.caption}, "metrics": metrics, "nfe": 50, "seconds": 1.0}
            store.save(cell_id, pictures, {**record, "facts": {}})
            axes = {"guidance.scale": float(scale), "seed": seed}
            cells.append({"cell_id": cell_id, "axes": axes, "seed": seed, "status": "done", "reason": None})
    document = {
        "command": "diffsweep -m ...",
        "created": "2026-01-01T00:00:00+00:00",
        "axes": {"guidance.scale": [float(scale) for scale in range(scales)], "seed": [*range(seeds)]},
        "cells": cells,
        "grid": {},
        "metrics": list(numbers or ()),
        "notes": [],
        "runs": [],
    }
    place = folder / "outputs" / "sweeps" / "made"
    place.mkdir(parents=True)
    (place / "sweep.json").write_bytes(to_json({"name": "made", **document}))


def bench_results(args: argparse.Namespace) -> str:
    scoring = """
import sys, time
began = time.perf_counter()
from pathlib import Path
from diffsweep.metric import choose, score
from diffsweep.store.cells import Store
store = Store(Path("outputs"))
ids = [folder.name for folder in sorted(Path("outputs/cells").glob("*/*"))]
score(store, ids, choose(sys.argv[1].split(",")).metrics, "cpu")
print("seconds", time.perf_counter() - began)
"""
    measured: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as place:
        for number in range(args.rounds):
            for names in ("psnr", "psnr,ssim,clip_score"):
                folder = Path(place) / f"{number}-{names}"
                folder.mkdir()
                stored(folder, 10, 100, 64)
                output = command(sys.executable, "-c", scoring, names, folder=folder)[1]
                measured.setdefault(f"scoring by {names}", []).append(
                    float(output.rpartition("seconds ")[2].split()[0])
                )
        folder = Path(place) / "large"
        folder.mkdir()
        stored(folder, 100, 100, 32, {"psnr": 28.0, "ssim": 0.9, "clip_score": 80.0})
        for _ in range(args.rounds):
            for words in (("--help",), ("table", "made"), ("compare", "made"), ("report", "made")):
                seconds = command("diffsweep-results", *words, folder=folder)[0]
                measured.setdefault(f"diffsweep-results {words[0]}", []).append(seconds)
        size = (folder / "outputs" / "sweeps" / "made" / "report.html").stat().st_size / 1e6
    lines = [f"| {name} | {statistics.median(s):.1f} | {min(s):.1f} | {max(s):.1f} |" for name, s in measured.items()]
    return f"""# Measuring and showing

Scoring: 1,000 pictures of 64 x 64 with their inputs and prompts, a process each, its imports included. The commands: a
sweep of 10,000 cells (100 guidance scales x 100 seeds) with three metrics; whole commands. Its page: {size:.1f} MB.

| what | median s | min | max |
|---|---|---|---|
{NEWLINE.join(lines)}
"""


def bench_tracker(args: argparse.Namespace) -> str:
    probe = """
import os, time
from collections import defaultdict
began = time.perf_counter()
from diffsweep import app
from diffsweep.tracker.session import Session
spent = defaultdict(float)
def timed(name):
    real = getattr(Session, name)
    def call(*arguments):
        start = time.perf_counter()
        try:
            return real(*arguments)
        finally:
            spent[name] += time.perf_counter() - start
    setattr(Session, name, call)
for name in ("cells", "report", "close"):
    timed(name)
app.main()
times = os.times()
print("measured", time.perf_counter() - began, sum(times[:4]), spent["cells"], spent["report"] + spent["close"])
"""
    always = ["device=cpu", "technique=image_to_image"]
    analytic = [*always, "model=analytic", "scheduler.steps=2"]
    seeds, scales = (",".join(map(str, values)) for values in (SEEDS, SCALES))
    arms = {
        "none": [],
        **{g: ["tracker=wandb", "tracker.mode=offline", f"tracker.granularity={g}"] for g in ("sweep", "cell")},
    }
    lines = []
    sweeps = {
        "1 cell of model=analytic": [*analytic, "seed=0"],
        "300 cells of model=analytic": [*analytic, "seed=range(0,100)", "guidance.scale=1,3,5"],
        "16 cells of the embedded model": [
            *always,
            f"seed={seeds}",
            f"guidance.scale={scales}",
            f"scheduler.steps={STEPS}",
        ],
    }
    for name, words in sweeps.items():
        found: dict[str, list[list[float]]] = {arm: [] for arm in arms}
        for _ in range(args.rounds):
            for arm, more in arms.items():
                with tempfile.TemporaryDirectory() as place:
                    output = command(sys.executable, "-c", probe, "-m", *words, *more, folder=Path(place))[1]
                found[arm].append([float(word) for word in output.rpartition("measured ")[2].split()[:4]])
        cells = int(name.split()[0])
        for arm, rounds in found.items():
            whole, processor, beside, after = (statistics.median(column) for column in zip(*rounds, strict=True))
            ratios = [
                statistics.median(mine[k] / none[k] for mine, none in zip(rounds, found["none"], strict=True))
                for k in (0, 1)
            ]
            lines.append(
                f"| {name} | {arm} | {whole:.1f} | {ratios[0]:.3f} | {processor:.1f} | {ratios[1]:.3f} "
                f"| {beside:.2f} | {after:.2f} | {after / cells:.4f} |"
            )
    return f"""# What tracker=wandb adds

Offline; PSNR and SSIM measured. Arms in turn, ratios to the one without a tracker, round by round. Processor seconds
are those of the command and wandb's service. Beside: in the tracker, while the model is at work; after: when it has
ended, which is all that the sweep waits for. The import of wandb and the start of its service are in: they take the
same however many cells there are.

| sweep | granularity | wall s | ratio | processor s | ratio | beside s | after s | after, s a cell |
|---|---|---|---|---|---|---|---|---|
{NEWLINE.join(lines)}
"""


def bench_core(args: argparse.Namespace) -> str:
    """Cells on a model that answers at once, in processes of their own, so that another checkout can be an arm."""
    probe = """
import json, sys, time
import torch
from torch.profiler import profile
from diffsweep.core.types import Estimate
from diffsweep.engine import Engine
try:
    from diffsweep.runner.freeze import freeze
    from diffsweep.runner.ingredients import work
except ModuleNotFoundError:  # before 2026-11-29
    from diffsweep.sweep.cell import freeze
    from diffsweep.sweep.work import work
number, scheduler, scale, steps = int(sys.argv[1]), sys.argv[2], float(sys.argv[3]), 20
class Echo:
    def predict(self, x, *asked):
        return Estimate(x)
raw = {"model": {"name": "analytic"}, "scheduler": {"name": scheduler, "steps": steps}, "prompt": "red"}
raw |= {"guidance": {"name": "classifier_free", "scale": scale}, "technique": {"name": "text_to_image"}}
raw |= {group: {"name": name} for group, name in (("view", "flip"), ("mask", "half"), ("input", "none"))}
raw["upscale"] = {"name": "none"}
cells = [freeze({**raw, "seed": seed}, {}) for seed in range(number)]
def run():
    engine = Engine({"base": Echo()}, 16)
    began = time.perf_counter()
    ended = list(engine.run([work(cell, "cpu") for cell in cells]))
    seconds = time.perf_counter() - began
    assert len(ended) == number and not any(end.error for end in ended)
    return seconds
run()
seconds = min(run() for _ in range(3))
with profile() as seen:
    run()
ops = sum(event.count for event in seen.key_averages() if event.key.startswith("aten::"))
print("measured", json.dumps([1e6 * seconds / (number * steps), ops / (number * steps)]))
"""
    arms = {"this checkout": ROOT, **({"the other": args.against.resolve()} if args.against else {})}
    lines = []
    for scheduler in ("ddpm", "ddim", "dpm_solver"):
        for scale in ("1", "4"):
            for number in ("16", "64", "256"):
                found: dict[str, list[list[float]]] = {arm: [] for arm in arms}
                for _ in range(args.rounds):
                    for arm, place in arms.items():
                        words = (sys.executable, "-c", probe, number, scheduler, scale)
                        output = command(*words, folder=ROOT, PYTHONPATH=str(place / "src"))[1]
                        found[arm].append(json.loads(output.rpartition("measured ")[2].splitlines()[0]))
                for arm, runs in found.items():
                    base = found[next(reversed(arms))]
                    ratio = statistics.median(mine[0] / other[0] for mine, other in zip(runs, base, strict=True))
                    micro, ops = (statistics.median(column) for column in zip(*runs, strict=True))
                    lines.append(
                        f"| {scheduler} | {scale} | {number} | {arm} | {ops:.1f} | {micro:.0f} | {ratio:.2f} |"
                    )
    return f"""# The engine's and the loop's own work

text_to_image on 8 x 8 pictures, 20 steps, 16 rows a call; the model answers at once. Calls of torch's operators
(counted by torch.profiler) and microseconds a step of a cell, the best of three runs in a process, processes in turn.

| scheduler | guidance scale | cells | | operators | microseconds | ratio |
|---|---|---|---|---|---|---|
{NEWLINE.join(lines)}
"""


def bench_commands(args: argparse.Namespace) -> str:
    """Whole commands of one checkout and another, in turn."""
    arms = {"this checkout": ROOT, **({"the other": args.against.resolve()} if args.against else {})}
    run = "import sys; from diffsweep.app import main; sys.exit(main())"
    thousand = ("-m", "model=analytic", "model.size=4", "seed=range(0,1000)", "scheduler.steps=2", "sweep.name=again")
    planned = (
        "-m",
        "seed=range(0,100)",
        "guidance.scale=range(0,100)",
        "technique=iterative_denoise",
        "technique.t=-1",
    )
    asked = {  # words, and the exit code
        "--help": (("--help",), 0),
        "10,000 cells planned, and refused": (planned, 2),
        "a finished sweep of 1,000 cells again": (thousand, 0),
        "the quickstart, from nothing": (("-m", "+sweeps=quickstart"), 0),
    }
    with tempfile.TemporaryDirectory() as place:

        def called(arm: str, words: tuple[str, ...], code: int, folder: Path) -> float:
            folder.mkdir(exist_ok=True)
            wrapped = f"import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', {run!r}, *sys.argv[1:]])"
            words = (sys.executable, "-c", f"{wrapped}.returncode != {code})", *words)
            return command(*words, folder=folder, PYTHONPATH=str(arms[arm] / "src"))[0]

        for arm in arms:
            called(arm, thousand, 0, Path(place, arm))
        lines, counted = [], []
        for name, (words, code) in asked.items():
            fresh = iter(range(args.rounds * len(arms)))

            def timed(arm: str, words: Any = words, code: int = code, name: str = name, fresh: Any = fresh) -> float:
                own = Path(place, arm if "again" in name else f"{len(name)}-{next(fresh)}-{arm}")
                return called(arm, words, code, own)

            times = rounds(args.rounds, {arm: lambda arm=arm: timed(arm) for arm in arms})  # type: ignore[misc]
            base = times[next(reversed(arms))]
            for arm, seconds in times.items():
                ratio = statistics.median(mine / other for mine, other in zip(seconds, base, strict=True))
                lines.append(f"| {name} | {arm} | {statistics.median(seconds):.2f} | {ratio:.2f} |")
        for arm in arms:
            file = next(Path(place).glob(f"*-{arm}/outputs/sweeps/quickstart/sweep.json"))
            (one,) = json.loads(file.read_text())["runs"]
            counted.append(f"{arm}: {one['model_rows']} rows in {one['model_calls']} calls of {one['rows']}")
    return f"""# Whole commands

Start and imports included; arms in turn, ratios round by round. The quickstart, counted: {"; ".join(counted)}.

| command | | median s | ratio |
|---|---|---|---|
{NEWLINE.join(lines)}
"""


BENCHES = {
    "core": bench_core,
    "commands": bench_commands,
    "sweep": bench_sweep,
    "latents": bench_latents,
    "overhead": bench_overhead,
    "plan": bench_plan,
    "results": bench_results,
    "order": bench_order,
    "tracker": bench_tracker,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=tuple(BENCHES))
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument(
        "--against", type=Path, metavar="CHECKOUT", help="of `core` and `commands`: another checkout as a second arm"
    )
    parser.add_argument("--write", action="store_true", help="keep the page in benchmarks/")
    args = parser.parse_args()
    page = BENCHES[args.what](args)
    commit = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True
    ).stdout
    from importlib.metadata import version

    page += f"""
{date.today()}, {platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch {version("torch")},
diffusers {version("diffusers")}, commit {commit.strip()}; `python scripts/bench.py {args.what} --rounds {args.rounds}`
"""
    print(page)
    if args.write:
        (ROOT / "benchmarks").mkdir(exist_ok=True)
        (ROOT / "benchmarks" / f"{date.today()}-{args.what}.md").write_text(page)


if __name__ == "__main__":
    main()
