#!/usr/bin/env python
"""Train each part of the embedded model from nothing, and export it.

    python scripts/train_tiny.py stage1 --minutes 100    # DeepFloyd IF's first stage, 32 x 32
    python scripts/train_tiny.py stage2 --minutes 40     # super-resolution to 64 x 64
    python scripts/train_tiny.py clip --minutes 20       # CLIP, 32 x 32
    python scripts/train_tiny.py judge --minutes 5       # a classifier that only scripts/measure_tiny.py uses
    python scripts/train_tiny.py vae --minutes 55        # the latent models' autoencoder, 128 x 128 to 4 x 16 x 16
    python scripts/train_tiny.py latent --minutes 60     # on its latents, in Stable Diffusion's layout
    python scripts/train_tiny.py flow --minutes 60       # on its latents, in Stable Diffusion 3's
    python scripts/train_tiny.py export                  # write what is trained to where diffsweep looks for it

Each command goes on from its checkpoint when run again, keeps samples and its curve beside it (.train/PART), and runs
on a CPU or a GPU, in bfloat16 where that is right. The recipes stand in scripts/tiny/.

Without a checkpoint, exported weights are gone on from by --start, into a new budget:

    python scripts/train_tiny.py latent --start src/diffsweep/model/tiny_sd --minutes 120
    python scripts/train_tiny.py vae --start src/diffsweep/model/tiny_sd --decoder

The latent models take the autoencoder trained beside them (.train/vae), or else the one that `tiny_sd` ships. With
another encoder they must be trained anew; a decoder may be trained on at any time: --out .train/FOLDER/vae, and when it
is better, its folder in the place of .train/vae.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from tiny import export
from tiny.data import SIZE, World
from tiny.trainer import Data, Part, train

OTHER_PICTURES = 10_000_000  # the judge is trained on pictures that no other part has seen
LARGE = 128  # pixels of the latent models' pictures
DEFAULTS = {  # minutes, batch, pictures
    "stage1": (100, 24, 160_000),
    "stage2": (40, 16, 160_000),
    "clip": (20, 128, 160_000),
    "judge": (5, 64, 15_000),
    "vae": (55, 8, 60_000),
    "latent": (60, 24, 30_000),
    "flow": (60, 24, 30_000),
}


def part(args: argparse.Namespace) -> tuple[Part, Data]:
    """The part that the command names, and what it is trained on."""
    if args.part in ("clip", "judge"):
        from tiny.clip import Clip
        from tiny.judge import Judge

        return (Clip(), world(args)) if args.part == "clip" else (Judge(), world(args, OTHER_PICTURES))
    channels = args.channels and tuple(args.channels)
    if args.part in ("stage1", "stage2"):
        from tiny.diffusion import Diffusion

        return Diffusion(args.part, channels, args.start), world(args)
    if args.part == "vae":
        from tiny.vae import Autoencoder

        return Autoencoder(channels, args.start, args.decoder), world(args, size=LARGE)
    from tiny.latent import KINDS, Latents, codec

    autoencoder = codec(args.out.parent, args.start)
    latents = Latents(world(args, size=LARGE), autoencoder, args.cache, args.device)
    return KINDS[args.part](autoencoder, latents.scale, channels, args.start), latents


def world(args: argparse.Namespace, first: int = 0, size: int = SIZE) -> World:
    return World(args.cache, args.pictures, args.workers, first, size)


def run(args: argparse.Namespace) -> None:
    args.out = args.out or Path(".train") / args.part
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    train(*part(args), args)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for name, (minutes, batch, pictures) in DEFAULTS.items():
        one = commands.add_parser(name, help=f"train {name}, or go on training it")
        one.add_argument("--out", type=Path, help=f"checkpoint, samples and recipe (default: .train/{name})")
        one.add_argument("--cache", type=Path, default=Path(".train/world"), help="where drawn pictures are kept")
        one.add_argument("--minutes", type=float, default=minutes, help="time budget, earlier runs counted in")
        one.add_argument("--steps", type=int, help="number of steps, instead of minutes")
        one.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
        one.add_argument("--threads", type=int, help="torch threads")
        one.add_argument("--workers", type=int, default=2, help="processes that draw the world")
        one.add_argument("--pictures", type=int, default=pictures, help="pictures drawn")
        one.add_argument("--batch", type=int, default=batch)
        one.add_argument("--seed", type=int, default=0)
        one.add_argument("--save-every", type=float, default=5, help="minutes between checkpoints")
        one.add_argument("--samples-every", type=float, default=12, help="minutes between sample sheets, 0 for none")
        if name not in ("clip", "judge"):
            one.add_argument("--channels", type=int, nargs="+", help="of the network's levels")
            one.add_argument("--start", type=Path, help="begin from an exported checkpoint of the same channels")
        if name == "vae":
            one.add_argument("--decoder", action="store_true", help="keep the encoder, so that latents stay the same")
        one.set_defaults(run=run, part=name)
    export.options(commands.add_parser("export", help="write the averaged weights of what is trained"))
    args = parser.parse_args(arguments)
    args.run(args)


if __name__ == "__main__":
    main()
