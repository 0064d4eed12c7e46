#!/usr/bin/env python
"""Measure an embedded model: every figure of its cards, by diffsweep itself, on held-out pictures and fresh seeds.

    python scripts/measure_tiny.py                        # all of tiny; some 370,000 model rows: an hour or more
    python scripts/measure_tiny.py clip restoration       # some parts
    python scripts/measure_tiny.py --model tiny_sd        # the latent model, or tiny_flow
    python scripts/measure_tiny.py --write                # keep the page in benchmarks/, figures on the model cards

Pictures are cells of a store (--root): a second run samples only what is missing. Figures are kept beside it, so that
parts can be measured one by one. The second judge comes from `python scripts/train_tiny.py judge`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import date
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image

from diffsweep.model.clip import Clip
from diffsweep.store.cells import Store
from diffsweep.world import SCENES, STYLES, SUBJECTS, held_out
from diffsweep.world.captions import STYLE_WORDS, subject_words
from tiny import judge
from tiny.export import FIGURES, PLACES, fidelity
from tiny.trainer import averaged

ROOT = Path(__file__).resolve().parents[1]
SCALE, STEPS = 4.0, 50
PAIRED = (
    "campfire",
    "old man",
    "snowy village",
    "dog",
    "skull",
    "man wearing a hat",
    "waterfall",
    "penguin",
    "owl",
    "mushroom",
)


class Sweeps:
    """Runs sweeps into one store, and reads their pictures back."""

    def __init__(self, root: Path, settings: Sequence[str]) -> None:
        self.root, self.settings, self.store = root, settings, Store(root)

    def __call__(self, name: str, *words: str) -> list[tuple[dict[str, Any], str]]:
        """Axes and cell id of every cell, sampled where it is missing."""
        there = [f"sweep.name={name}", f"output_dir={self.root}", "metric=none"]
        command = [str(Path(sys.executable).parent / "diffsweep"), "-m", *there, *self.settings, *words]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        sweep = json.loads((self.root / "sweeps" / name / "sweep.json").read_bytes())
        return [(cell["axes"], cell["cell_id"]) for cell in sweep["cells"]]

    def pixels(self, ids: Sequence[str], name: str = "image") -> np.ndarray:
        return np.stack([self.store.pixels(cell_id, name) for cell_id in ids])


def listed(values: Sequence[Any]) -> str:
    """Hydra's grammar for several values."""
    return ",".join(json.dumps(value) for value in values)


def prompt(subject: str, style: str) -> str:
    return STYLE_WORDS[style][0].format(subject_words(subject)[0])


# -- judges ------------------------------------------------------------------------------------------------------------
@cache
@torch.inference_mode()
def _texts(style: str | None) -> torch.Tensor:
    words = [prompt(s, style) if style else subject_words(s)[0] for s in SUBJECTS]
    return Clip().network().of_texts(words)


@torch.inference_mode()
def clip_names(pictures: np.ndarray, style: str | None = None) -> np.ndarray:
    """The subject that CLIP names for each picture, of all, asked in a style or in none: indices of SUBJECTS."""
    return (Clip().network().of_pictures(pictures) @ _texts(style).T).argmax(1).numpy()


@torch.inference_mode()
def second_judge(pictures: np.ndarray) -> np.ndarray:
    """The subject that the second judge names for each picture, seen at its size: indices of SUBJECTS."""
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
    seen = torch.nn.functional.avg_pool2d(pixels, pixels.shape[-1] // judge.SIZE)
    return _judge()(seen).argmax(1).numpy()


@cache
def _judge() -> torch.nn.Module:
    module = judge.network()
    module.load_state_dict(averaged(Path(".train/judge")))
    return module.eval()


def share(found: np.ndarray, asked: Sequence[str]) -> float:
    return float(np.mean([SUBJECTS[i] == subject for i, subject in zip(found, asked, strict=True)]))


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Mean over pictures, dB."""
    error = ((a.astype(float) - b) ** 2).mean((1, 2, 3)).clip(min=1e-3)
    return float((10 * np.log10(255**2 / error)).mean())


def sharpness(a: np.ndarray, b: np.ndarray) -> float:
    """Mean gradient of a over that of b."""

    def gradient(x: np.ndarray) -> float:
        return float(np.abs(np.diff(x.astype(float), axis=1)).mean() + np.abs(np.diff(x.astype(float), axis=2)).mean())

    return gradient(a) / gradient(b)


# -- the figures -------------------------------------------------------------------------------------------------------
def autoencoder(run: Sweeps, each: int) -> dict[str, Any]:
    """Held-out pictures, one of every subject in every style, encoded and decoded: PSNR in dB."""
    return fidelity(AutoencoderKL.from_pretrained(PLACES["latent"] / "vae", dtype=torch.float32).eval())


def clip(run: Sweeps, each: int) -> dict[str, Any]:
    """Zero-shot over all subjects, on held-out renders."""
    pictures = [held_out(i) for i in range(20 * len(SUBJECTS) * len(STYLES))]
    pixels, subjects = np.stack([p.pixels for p in pictures]), [p.subject for p in pictures]
    return {
        "n": len(pictures),
        "subjects": len(SUBJECTS),
        "zero-shot": share(clip_names(pixels), subjects),
        "zero-shot, scenes alone": share(
            clip_names(pixels[(scenes := [s in SCENES for s in subjects])]),
            [s for s, kept in zip(subjects, scenes, strict=True) if kept],
        ),
        "second judge": share(second_judge(pixels), subjects),
    }


def generated(run: Sweeps, each: int) -> dict[str, Any]:
    """Scenes from noise: who names them rightly?"""
    asked = {prompt(subject, style): (subject, style) for subject in SCENES for style in STYLES}
    seeds = max(1, round(each / len(STYLES)))
    cells = run("generated", f"prompt={listed(list(asked))}", f"seed=range({seeds})", f"guidance.scale={SCALE}")
    pixels, labels = run.pixels([i for _, i in cells]), [asked[axes["prompt"]] for axes, _ in cells]
    subjects = [subject for subject, _ in labels]
    by_clip, by_judge = clip_names(pixels), second_judge(pixels)
    figures: dict[str, Any] = {"n": len(cells), "CLIP": share(by_clip, subjects), "judge": share(by_judge, subjects)}
    for style in STYLES:
        rows = [i for i, (_, s) in enumerate(labels) if s == style]
        own = [subjects[i] for i in rows]
        figures[style] = {"CLIP": share(by_clip[rows], own), "judge": share(by_judge[rows], own)}
    missed = {s: share(by_clip[rows], [s] * len(rows)) for s in SCENES if (rows := _where(subjects, s))}
    figures["weakest by CLIP"] = dict(sorted(missed.items(), key=lambda item: item[1])[:4])
    return figures


def _where(labels: Sequence[str], label: str) -> list[int]:
    return [i for i, own in enumerate(labels) if own == label]


def guidance(run: Sweeps, each: int) -> dict[str, Any]:
    """CLIP accuracy and diversity over the scale: the mean distance of two seeds' pictures, of one prompt, in levels a
    value and as 1 - cosine of their CLIP embeddings.
    """
    asked = {prompt(subject, style): subject for subject in SCENES for style in ("photo",)}
    scales, seeds = (1.0, 2.0, 3.0, 4.0), max(2, each // 6)
    axes = (f"prompt={listed(list(asked))}", f"seed=range({seeds})")
    cells = run("guidance", *axes, f"guidance.scale={listed(scales)}")
    figures: dict[str, Any] = {"n": len(cells), "seeds": seeds}
    for scale in scales:
        own = [(axes["prompt"], i) for axes, i in cells if axes["guidance.scale"] == scale]
        pixels = run.pixels([i for _, i in own])
        names = clip_names(pixels)
        grouped = pixels.astype(float).reshape(len(asked), seeds, -1)
        apart = [
            np.sqrt(((group[a] - group[b]) ** 2).mean())
            for group in grouped
            for a, b in itertools.combinations(range(seeds), 2)
        ]
        with torch.inference_mode():
            seen = Clip().network().of_pictures(pixels).reshape(len(asked), seeds, -1)
        similar = (seen @ seen.mT).triu(1).sum((1, 2)) / (seeds * (seeds - 1) / 2)
        accuracy = share(names, [asked[p] for p, _ in own])
        figures[str(scale)] = {
            "CLIP": accuracy,
            "judge": share(second_judge(pixels), [asked[p] for p, _ in own]),
            "diversity, levels": float(np.mean(apart)),
            "diversity, CLIP": float(1 - similar.mean()),
        }
    return figures


def restoration(run: Sweeps, each: int) -> dict[str, Any]:
    """The best Gaussian blur against one step and iterative denoising, each against the clean held-out render."""
    ids = [held_out(i).id for i in np.linspace(0, len(SUBJECTS) * len(STYLES) * 2 - 1, 4 * each, dtype=int)]
    inputs, levels = f"input.id={listed(ids)}", "technique.t=250,500,750"
    figures: dict[str, Any] = {"n": len(ids)}
    for technique in ("gaussian_denoise", "one_step_denoise", "iterative_denoise"):
        cells = run(technique, f"technique={technique}", inputs, levels, "guidance.scale=1")
        for t in (250, 500, 750):
            own = [i for axes, i in cells if axes["technique.t"] == t]
            pixels, clean = run.pixels(own), run.pixels(own, "input")
            figures.setdefault(str(t), {})[technique] = {"PSNR": psnr(pixels, clean), "sharp": sharpness(pixels, clean)}
    return figures


def _pairs() -> dict[str, tuple[str, str]]:
    style = "oil painting"
    return {json.dumps([prompt(a, style), prompt(b, style)]): (a, b) for a, b in itertools.combinations(PAIRED, 2)}


Reading = Callable[[Sweeps, Sequence[str]], np.ndarray]  # the pictures that CLIP is shown of these cells


def stored(name: str) -> Reading:
    return lambda run, ids: run.pixels(ids, name)


def high_band(run: Sweeps, ids: Sequence[str]) -> np.ndarray:
    """What a hybrid's low band leaves, around grey."""
    rest = run.pixels(ids).astype(float) - run.pixels(ids, "low")
    return (127.5 + rest).clip(0, 255).round().astype(np.uint8)


def _both(run: Sweeps, name: str, readings: tuple[Reading, Reading], each: int, *words: str) -> dict[str, Any]:
    """For every pair of prompts and its seeds: are both readings named rightly?"""
    pairs, seeds = _pairs(), max(1, each // 5)
    cells = run(name, f"technique.prompts={','.join(pairs)}", f"seed=range({seeds})", f"guidance.scale={SCALE}", *words)
    ids = [i for _, i in cells]
    asked = [pairs[json.dumps(axes["technique.prompts"])] for axes, _ in cells]
    right = []
    for k, reading in enumerate(readings):
        names = clip_names(reading(run, ids), "oil painting")
        right.append([SUBJECTS[i] == pair[k] for i, pair in zip(names, asked, strict=True)])
    both = np.all(right, axis=0).reshape(len(pairs), -1)
    return {
        "pairs": len(pairs),
        "seeds": seeds,
        "both right, best of the seeds": float(both.any(1).mean()),
        "both right, mean": float(both.mean()),
        "first right, mean": float(np.mean(right[0])),
        "second right, mean": float(np.mean(right[1])),
    }


def anagrams(run: Sweeps, each: int) -> dict[str, Any]:
    """Vertical flips: each way up, does CLIP name what was asked?"""
    return _both(run, "anagrams", (stored("view_0"), stored("view_1")), each, "technique=anagram", "view=flip")


def hybrids(run: Sweeps, each: int) -> dict[str, Any]:
    """From far (the low band) the first prompt, from near the second: named in the high band, or in the whole picture,
    whose colours are the first's.
    """
    near = {"near: the high band": high_band, "near: the whole picture": stored("image")}
    return {
        name: _both(run, "hybrids", (stored("low"), reading), each, "technique=hybrid")
        for name, reading in near.items()
    }


def upscale(run: Sweeps, each: int) -> dict[str, Any]:
    """Held-out renders of 32 x 32, enlarged, against those of 64 x 64; bicubic as the baseline."""
    ids = [held_out(i).id for i in np.linspace(0, len(SUBJECTS) * len(STYLES) - 1, 2 * each, dtype=int)]
    words = ("technique=forward_noise", "technique.t=0", f"input.id={listed(ids)}")
    cells = run("upscale", *words, "upscale=tiny", "upscale.noise_level=0,100")
    figures: dict[str, Any] = {"n": len(ids)}
    for level in (0, 100):
        own = [i for axes, i in cells if axes["upscale.noise_level"] == level]
        pixels, clean = run.pixels(own), run.pixels(own, "input")
        figures[f"noise_level {level}"] = {"PSNR": psnr(pixels, clean), "sharp": sharpness(pixels, clean)}
    low = run.pixels([run.store.record(i)["facts"]["base"] for i in own])
    larger = np.stack([np.asarray(Image.fromarray(p).resize(clean.shape[1:3], Image.Resampling.BICUBIC)) for p in low])
    figures["bicubic"] = {"PSNR": psnr(larger, clean), "sharp": sharpness(larger, clean)}
    return figures


def speed(run: Sweeps, each: int) -> dict[str, Any]:
    """Seconds a picture: 16 cells of 30 steps with guidance, in both types, in turn; needs an idle machine."""
    figures: dict[str, Any] = {"cores": os.cpu_count()}
    for turn, dtype in itertools.product(range(3), ("float32", "bfloat16")):
        seeds = f"seed=range({1000 + 16 * turn},{1016 + 16 * turn})"
        name = f"speed-{dtype}-{turn}"
        run(name, seeds, f"model.dtype={dtype}", "scheduler.steps=30", f"guidance.scale={SCALE}")
        (entry, *_) = json.loads((run.root / "sweeps" / name / "sweep.json").read_bytes())["runs"]
        figures.setdefault(dtype, []).append(round(entry["sampling_seconds"] / 16, 3))
    return figures


FIGURED = (clip, autoencoder, restoration, generated, anagrams, hybrids, guidance, upscale, speed)
PARTS: dict[str, Callable[[Sweeps, int], dict[str, Any]]] = {part.__name__: part for part in FIGURED}
LATENT = ("autoencoder", "generated", "guidance", "restoration", "hybrids", "speed")
MEASURED = {  # what each part's card tells
    "stage1": ("generated", "guidance", "restoration", "anagrams", "hybrids", "speed"),
    "stage2": ("upscale",),
    "clip": ("clip",),
    "latent": LATENT,
    "flow": LATENT,
}
MODELS = {  # the parts whose cards tell of a model, and its own update rule
    "tiny": (("stage1", "stage2", "clip"), "ddpm"),
    "tiny_sd": (("latent",), "ddim"),
    "tiny_flow": (("flow",), "euler"),
}
PICTURE = "guidance.png"


# -- the page and the cards --------------------------------------------------------------------------------------------
def page(figures: dict[str, Any], picture: str, model: str = "tiny") -> str:
    return f"# The embedded model {model}\n\n{sections(figures, picture, tuple(PARTS), '##')}"


def sections(figures: dict[str, Any], picture: str, parts: Sequence[str], level: str) -> str:
    """What is measured so far of these parts, in Markdown."""
    told = []
    for name in (name for name in parts if name in figures):
        title = "CLIP" if name == "clip" else name.capitalize()
        told.append(f"{level} {title}\n\n{' '.join((PARTS[name].__doc__ or '').split())}\n")
        own = figures[name]
        told += [f"* {key}: {_shown(value)}" for key, value in own.items() if not isinstance(value, dict)]
        nested = {key: value for key, value in own.items() if isinstance(value, dict)}
        told.append("")
        told += _table({k: v for k, v in nested.items() if not any(isinstance(x, dict) for x in v.values())})
        for key, value in nested.items():
            if any(isinstance(x, dict) for x in value.values()):
                told += [f"t = {key}\n", *_table(value)]
        if name == "guidance":
            told.append(f"![CLIP accuracy rises with guidance, diversity falls]({picture})\n")
    settings = figures["settings"]
    told.append(
        f"{settings['date']}, {platform.machine()}, {os.cpu_count()} cores, torch {version('torch')}, diffusers "
        f"{version('diffusers')}, commit {settings['commit']}; guidance {SCALE}, {STEPS} steps, {settings['words']}; "
        f"`python scripts/measure_tiny.py`"
    )
    return "\n".join(told) + "\n"


def carded(figures: dict[str, Any], part: str, folder: Path) -> None:
    """Put an exported part's figures on its model card, in place of those that were there."""
    if "guidance" in MEASURED[part] and "guidance" in figures:
        drawn(figures["guidance"], folder / PICTURE)
    card = folder / "README.md"
    above, title, _ = card.read_text().partition(FIGURES)
    card.write_text(f"{above}{title}\n{sections(figures, PICTURE, MEASURED[part], '###')}")


def _shown(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _table(rows: dict[str, dict[str, Any]]) -> list[str]:
    lines = []
    for columns, group in itertools.groupby(rows.items(), key=lambda item: tuple(item[1])):
        lines += [f"| | {' | '.join(columns)} |", f"|---{'|---' * len(columns)}|"]
        lines += [f"| {key} | {' | '.join(_shown(v) for v in values.values())} |" for key, values in group]
        lines.append("")
    return lines


def drawn(figures: dict[str, Any], file: Path) -> None:
    """Accuracy and diversity over the guidance scale."""
    from matplotlib.figure import Figure

    scales = [key for key in figures if re.fullmatch(r"[\d.]+", key)]
    figure = Figure(figsize=(6, 3.2), layout="constrained")
    left = figure.subplots()
    right = left.twinx()
    for axis, key, label, style in (
        (left, "CLIP", "CLIP accuracy", "o-"),
        (left, "judge", "second judge's accuracy", "s--"),
        (right, "diversity, CLIP", "diversity (1 - cosine by CLIP)", "^:"),
    ):
        colour = {"CLIP": "#0072b2", "judge": "#009e73", "diversity, CLIP": "#d55e00"}[key]
        axis.plot([float(s) for s in scales], [figures[s][key] for s in scales], style, color=colour, label=label)
    left.set(xlabel="guidance scale", ylabel="named rightly", ylim=(0, 1.02))
    right.set(ylabel="mean distance of two seeds", ylim=(0, None))
    lines = [*left.get_lines(), *right.get_lines()]
    left.legend(lines, [str(line.get_label()) for line in lines], loc="lower right", fontsize=8)
    figure.savefig(file, dpi=150)


def commit() -> str:
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    return subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--model", default="tiny", choices=MODELS, help="which (default: tiny)")
    parser.add_argument(
        "--root", type=Path, default=Path(".train/measured"), help="a folder a model: store, figures.json"
    )
    parser.add_argument("--each", type=int, default=50, help="pictures a subject; the other numbers follow from it")
    parser.add_argument("--dtype", default="float32", help="of the UNet: float32 or bfloat16")
    parser.add_argument("--write", action="store_true", help="keep the page in benchmarks/, figures on the cards")
    args = parser.parse_args(arguments)
    carded_parts, scheduler = MODELS[args.model]
    known = [part for part in PARTS if any(part in MEASURED[own] for own in carded_parts)]
    if wrong := [part for part in args.parts if part not in known]:
        parser.error(f"no part {', '.join(wrong)}: there are {', '.join(known)}")
    chosen = [f"model={args.model}", f"scheduler={scheduler}"]
    settings = [*chosen, f"scheduler.steps={STEPS}", f"model.dtype={args.dtype}"]
    root = args.root / args.model
    file = root / "figures.json"
    figures = json.loads(file.read_text()) if file.exists() else {}
    figures["settings"] = {
        "date": date.today().isoformat(),
        "commit": commit(),
        "words": f"{scheduler}, network in {args.dtype}",
    }
    for name in args.parts or known:
        figures[name] = PARTS[name](Sweeps(root.resolve(), settings), args.each)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(figures, indent=1))
        print(f"{name}: {json.dumps(figures[name], indent=1)}", flush=True)
    stem = (
        ROOT / "benchmarks" if args.write else root
    ) / f"{figures['settings']['date']}-{args.model.replace('_', '-')}"
    if "guidance" in figures:
        drawn(figures["guidance"], stem.with_suffix(".png"))
    text = page(figures, f"{stem.name}.png", args.model)
    if args.write:
        stem.with_suffix(".md").write_text(text)
        for part in carded_parts:
            carded(figures, part, PLACES[part])
    print(text)


if __name__ == "__main__":
    main()
