"""The drawn world as training data: pictures drawn once and kept on disk, labels and captions beside them."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from diffsweep.world import training
from diffsweep.world.captions import caption

SIZE = 64  # of the kept pictures, if not said; the first stage sees them halved


@dataclass(frozen=True)
class Batch:
    """pixels: B 3 H W in [-1, 1], mirrored at random; with subject, style and a fresh caption a row."""

    pixels: Tensor
    subjects: list[str]
    styles: list[str]
    captions: list[str]


class World:
    """n training pictures from the seeds first, first + 1, ...; drawn once into the folder and read as needed."""

    def __init__(self, folder: Path, n: int, workers: int, first: int = 0, size: int = SIZE) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        stem = folder / (f"world-{first}-{n}" if size == SIZE else f"world-{first}-{n}-{size}")
        pixels, labels = stem.with_suffix(".npy"), stem.with_suffix(".json")
        if not labels.exists():
            _draw(range(first, first + n), pixels, labels, workers, size)
        self.pixels = np.load(pixels, mmap_mode="r")
        self.labels = [(subject, style) for subject, style in json.loads(labels.read_text())]

    def batch(self, size: int, generator: torch.Generator, rng: random.Random) -> Batch:
        rows = torch.randint(len(self.labels), (size,), generator=generator).tolist()
        pixels = torch.from_numpy(self.pixels[sorted(rows)]).permute(0, 3, 1, 2).float() / 127.5 - 1
        mirrored = torch.rand(size, generator=generator) < 0.5
        labels = [self.labels[i] for i in sorted(rows)]
        return Batch(
            torch.where(mirrored[:, None, None, None], pixels.flip(-1), pixels),
            [subject for subject, _ in labels],
            [style for _, style in labels],
            [caption(subject, style, rng) for subject, style in labels],
        )


def _rendered(seed: int, size: int) -> tuple[np.ndarray, tuple[str, str]]:
    picture = training(seed, size)
    return picture.pixels, (picture.subject, picture.style)


def _draw(seeds: range, pixels: Path, labels: Path, workers: int, size: int) -> None:
    part = pixels.with_suffix(f".{os.getpid()}.part")
    kept = np.lib.format.open_memmap(part, "w+", np.uint8, (len(seeds), size, size, 3))
    names = []
    with ProcessPoolExecutor(workers) if workers > 1 else nullcontext() as pool:
        run: Callable = partial(pool.map, chunksize=64) if pool else map
        for i, (picture, label) in enumerate(
            tqdm(run(partial(_rendered, size=size), seeds), total=len(seeds), desc="drawing the world")
        ):
            kept[i] = picture
            names.append(label)
    kept.flush()
    os.replace(part, pixels)
    labels.write_text(json.dumps(names))
