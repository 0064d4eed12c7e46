"""One training loop for every part: a time or step budget, averaged weights, checkpoints to go on from, samples."""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import random
import time
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from tqdm import tqdm

WARMUP, DECAY_FROM, EMA = 300, 0.6, 0.998


class Data(Protocol):
    """labels: one a picture."""

    labels: list[tuple[str, str]]

    def batch(self, size: int, generator: torch.Generator, rng: random.Random) -> Any: ...


class Part(Protocol):
    """module: what is trained and averaged. rate: its learning rate. recipe: what the model card tells of it."""

    module: nn.Module
    rate: float
    recipe: dict[str, Any]

    def loss(self, batch: Any, generator: torch.Generator, rng: random.Random) -> tuple[Tensor, dict[str, float]]:
        """What is minimised, and the numbers of the curve."""
        ...

    def sample(self, average: nn.Module, file: Path) -> None:
        """Show what the averaged weights can do."""
        ...


def rate(share: float, step: int) -> float:
    """The learning rate after a share of the budget, as a share of its highest: cosine decay at the end."""
    decay = 0.5 * (1 + math.cos(math.pi * min(max((share - DECAY_FROM) / (1 - DECAY_FROM), 0), 1)))
    return min(1, (step + 1) / WARMUP) * max(decay, 0.01)


def train(part: Part, world: Data, args: argparse.Namespace) -> None:
    """Train until the budget is used, earlier runs in the same folder counted in."""
    args.out.mkdir(parents=True, exist_ok=True)
    module = part.module.to(args.device)
    average = copy.deepcopy(module).requires_grad_(False)
    optimiser = torch.optim.AdamW(module.parameters(), lr=part.rate, weight_decay=0.01, betas=(0.9, 0.995), fused=True)
    state: dict[str, Any] = {"step": 0, "seconds": 0.0, "seen": 0, "curve": []}
    file = args.out / "checkpoint.pt"
    if file.exists():
        saved = torch.load(file, map_location=args.device, weights_only=True)
        module.load_state_dict(saved["model"])
        average.load_state_dict(saved["average"])
        optimiser.load_state_dict(saved["optimiser"])
        state = saved["state"]
        print(f"going on from step {state['step']}")
    rng = random.Random(args.seed + state["step"])
    generator = torch.Generator().manual_seed(args.seed + state["step"])
    budget = args.minutes * 60 if args.steps is None else None
    recent: list[dict[str, float]] = []
    began, saved_at, shown_at = time.monotonic() - state["seconds"], time.monotonic(), time.monotonic()
    bar = tqdm(total=100, bar_format="{desc} {percentage:3.0f}% |{bar}| {elapsed} < {remaining}", mininterval=10)

    def save() -> None:
        """All that going on needs (the random streams are seeded by the step), and beside it what the card tells."""
        content = {"model": module.state_dict(), "average": average.state_dict(), "optimiser": optimiser.state_dict()}
        torch.save(content | {"state": state}, file.with_suffix(".part"))
        os.replace(file.with_suffix(".part"), file)
        facts = part.recipe | {"batch": args.batch, "pictures": len(world.labels), "device": device_name(args.device)}
        facts |= {"torch": torch.__version__, "minutes": round(state["seconds"] / 60, 1)} | state
        file.with_name("recipe.json").write_text(json.dumps(facts, indent=1))

    while True:
        state["seconds"] = time.monotonic() - began
        share = state["step"] / args.steps if budget is None else state["seconds"] / budget
        if share >= 1:
            break
        for group in optimiser.param_groups:
            group["lr"] = part.rate * rate(share, state["step"])
        loss, numbers = part.loss(world.batch(args.batch, generator, rng), generator, rng)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if nn.utils.clip_grad_norm_(module.parameters(), 1.0).isfinite():
            optimiser.step()
        state["step"] += 1
        state["seen"] += args.batch
        with torch.no_grad():
            decay = min(EMA, (1 + state["step"]) / (10 + state["step"]))
            torch._foreach_lerp_(list(average.parameters()), list(module.parameters()), 1 - decay)
            for kept, new in zip(average.buffers(), module.buffers(), strict=True):
                kept.copy_(new)
        recent.append(numbers)
        if state["step"] % 100 == 0:
            means = {name: round(sum(n[name] for n in recent) / len(recent), 5) for name in recent[0]}
            state["curve"].append({"step": state["step"], "seen": state["seen"], **means})
            told = " ".join(f"{name} {value:.4f}" for name, value in means.items())
            pace = state["seen"] / state["seconds"]
            bar.set_description_str(f"step {state['step']} {told} {pace:.1f}/s", refresh=False)
            bar.update(100 * share - bar.n)
            recent = []
        if time.monotonic() - saved_at > args.save_every * 60:
            save()
            saved_at = time.monotonic()
        if args.samples_every and time.monotonic() - shown_at > args.samples_every * 60:
            part.sample(average, args.out / f"samples-{state['step']:06d}.png")
            shown_at = time.monotonic()
    save()
    bar.close()
    if args.samples_every:
        part.sample(average, args.out / "samples-final.png")
    print(f"{state['step']} steps, {state['seen']} pictures, {state['seconds'] / 60:.0f} minutes")


def device_name(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name()
    return f"a CPU, torch threads: {torch.get_num_threads()}"


def averaged(folder: Path) -> dict[str, Tensor]:
    """The averaged weights of a checkpoint."""
    return torch.load(folder / "checkpoint.pt", map_location="cpu", weights_only=True)["average"]
