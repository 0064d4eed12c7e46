#!/usr/bin/env python
"""Train each part of the embedded model from nothing, and export it.

    python scripts/train_tiny.py stage1 --minutes 100    # DeepFloyd IF's first stage, 32 x 32
    python scripts/train_tiny.py stage2 --minutes 40     # super-resolution to 64 x 64
    python scripts/train_tiny.py clip --minutes 20       # CLIP, 32 x 32
    python scripts/train_tiny.py judge --minutes 5       # a classifier that only scripts/measure_tiny.py uses
    python scripts/train_tiny.py export                  # write what is trained to where diffsweep looks for it

Each command goes on from its checkpoint when run again, keeps samples and its curve beside it (.train/PART), and runs
on a CPU or a GPU, in bfloat16 where that is right. The recipes stand in scripts/tiny/.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from tiny import export
from tiny.data import World
from tiny.trainer import Part, train

OTHER_PICTURES = 10_000_000  # the judge is trained on pictures that no other part has seen
DEFAULTS = {"stage1": (100, 24), "stage2": (40, 16), "clip": (20, 128), "judge": (5, 64)}  # minutes, batch


def part(args: argparse.Namespace) -> Part:
    if args.part in ("stage1", "stage2"):
        from tiny.diffusion import Diffusion

        return Diffusion(args.part, args.channels and tuple(args.channels), args.start)
    if args.part == "clip":
        from tiny.clip import Clip

        return Clip()
    from tiny.judge import Judge

    return Judge()


def run(args: argparse.Namespace) -> None:
    args.out = args.out or Path(".train") / args.part
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    first = OTHER_PICTURES if args.part == "judge" else 0
    train(part(args), World(args.cache, args.pictures, args.workers, first), args)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for name, (minutes, batch) in DEFAULTS.items():
        one = commands.add_parser(name, help=f"train {name}, or go on training it")
        one.add_argument("--out", type=Path, help=f"checkpoint, samples and recipe (default: .train/{name})")
        one.add_argument("--cache", type=Path, default=Path(".train/world"), help="where drawn pictures are kept")
        one.add_argument("--minutes", type=float, default=minutes, help="time budget, earlier runs counted in")
        one.add_argument("--steps", type=int, help="number of steps, instead of minutes")
        one.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
        one.add_argument("--threads", type=int, help="torch threads")
        one.add_argument("--workers", type=int, default=2, help="processes that draw the world")
        one.add_argument("--pictures", type=int, default=15000 if name == "judge" else 160000, help="pictures drawn")
        one.add_argument("--batch", type=int, default=batch)
        one.add_argument("--seed", type=int, default=0)
        one.add_argument("--save-every", type=float, default=5, help="minutes between checkpoints")
        one.add_argument("--samples-every", type=float, default=12, help="minutes between sample sheets, 0 for none")
        if name.startswith("stage"):
            one.add_argument("--channels", type=int, nargs="+", help="of the UNet's levels")
            one.add_argument("--start", type=Path, help="begin from an exported checkpoint of the same channels")
        one.set_defaults(run=run, part=name)
    export.options(commands.add_parser("export", help="write the averaged weights of what is trained"))
    args = parser.parse_args(arguments)
    args.run(args)


if __name__ == "__main__":
    main()
