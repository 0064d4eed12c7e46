"""Write what is trained to where diffsweep looks for it: averaged weights in half precision, a model card beside them,
the recipe and the hash of every file."""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from diffsweep.model.source import SUMS
from diffsweep.world import STYLES, SUBJECTS, held_out
from tiny.trainer import averaged

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

MODELS = Path(__file__).parents[2] / "src" / "diffsweep" / "model"
PLACES = {"stage1": MODELS / "tiny", "stage2": MODELS / "tiny_upscale", "clip": MODELS / "tiny_clip"}
PLACES |= {"latent": MODELS / "tiny_sd", "flow": MODELS / "tiny_flow"}
ABOUT = {
    "stage1": (
        "The embedded model, first stage",
        "A pixel-space diffusion model of DeepFloyd IF's component types (tokenizer, T5 encoder, UNet2DConditionModel "
        "with learned variance, DDPM configuration), 32 x 32 pixels, in the layout that diffusers saves: "
        "`diffusers.IFPipeline.from_pretrained` loads it.",
    ),
    "stage2": (
        "The embedded model, second stage",
        "Super-resolution from 32 x 32 to 64 x 64 pixels as DeepFloyd IF's stage II does it: the noised low-resolution "
        "picture is concatenated, its noise level is the class label. `diffusers.IFSuperResolutionPipeline.from_"
        "pretrained` loads it.",
    ),
    "clip": (
        "The embedded CLIP",
        "A CLIP of the drawn world (32 x 32 pixels, patches of 4, four layers a tower), in the layout that "
        "transformers saves: `CLIPModel.from_pretrained` and `CLIPProcessor.from_pretrained` load it.",
    ),
    "latent": (
        "The embedded latent model",
        "A latent diffusion model in Stable Diffusion's layout (AutoencoderKL, the embedded CLIP's CLIPTextModel, "
        "UNet2DConditionModel), 128 x 128 pixels from 4 x 16 x 16 latents, as diffusers saves it: `diffusers."
        "StableDiffusionPipeline.from_pretrained` loads it.",
    ),
    "flow": (
        "The embedded rectified flow",
        "A small transformer in Stable Diffusion 3's layout (SD3Transformer2DModel, the embedded CLIP as both text "
        "encoders, a T5 that says nothing), on the latents of `tiny_sd`, 128 x 128 pixels, as diffusers saves it: "
        "`diffusers.StableDiffusion3Pipeline.from_pretrained` loads it.",
    ),
}
FIGURES = "\n## Figures\n"  # the last section of a card
UNMEASURED = "Not measured yet: `python scripts/measure_tiny.py --write` does."
USE = (
    "It knows the subjects, shapes and styles of that world and nothing else. It shows what guidance, starting noise, "
    "masks, anagrams and hybrids do on a computer without a graphics card; it says nothing about the quality of models "
    "trained on photographs."
)


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("parts", nargs="*", help=f"which (default: all that are trained): {', '.join(PLACES)}")
    parser.add_argument("--root", type=Path, default=Path(".train"), help="where the trained parts lie")
    parser.add_argument("--to", type=Path, help="another folder for the one part named")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    there = [part for part in PLACES if (args.root / part / "checkpoint.pt").exists()]
    wanted = args.parts or there
    if wrong := [part for part in wanted if part not in there]:
        raise SystemExit(
            f"{args.root}: nothing trained of {', '.join(wrong)}; there is {', '.join(there) or 'nothing'}"
        )
    if args.to and len(wanted) != 1:
        raise SystemExit("--to: name one part")
    for part in wanted:
        export(part, args.root / part, args.to or PLACES[part])


def export(part: str, trained: Path, to: Path) -> None:
    recipe = json.loads((trained / "recipe.json").read_text())
    weights, figures = averaged(trained), UNMEASURED
    if part == "clip":
        from tiny.clip import Clip

        Clip().save(weights, to)
    elif part in ("latent", "flow"):
        from tiny.latent import codec, save

        autoencoder = codec(trained.parent)
        figures = kept(fidelity(autoencoder.vae))
        save(weights, recipe, autoencoder, to)
    else:
        from tiny.diffusion import save

        save(weights, part, tuple(recipe["channels"]), to)
    (to / "recipe.json").write_text(json.dumps({k: v for k, v in recipe.items() if k != "curve"}, indent=1) + "\n")
    (to / "README.md").write_text(card(part, recipe, figures))
    files = sorted(f for f in to.rglob("*") if f.is_file() and f.name not in (SUMS, "README.md", "recipe.json"))
    sums = [f"{hashlib.sha256(f.read_bytes()).hexdigest()}  {f.relative_to(to).as_posix()}\n" for f in files]
    (to / SUMS).write_text("".join(sums))
    print(f"{to}: {sum(f.stat().st_size for f in files) / 1e6:.1f} MB")


def fidelity(vae: AutoencoderKL) -> dict[str, float]:
    """How well held-out pictures, one of every subject in every style, are encoded and decoded: PSNR in dB."""
    from tiny.vae import SIZE, given_back, psnr

    pictures = [held_out(i, SIZE).pixels for i in range(len(SUBJECTS) * len(STYLES))]
    each = [psnr(float(np.square((given_back(vae, p) - p.astype(float)) / 127.5).mean())) for p in pictures]
    return {"n": len(each), "mean": float(np.mean(each)), "median": float(np.median(each)), "worst": min(each)}


def kept(psnr: dict[str, float]) -> str:
    return (
        f"Held-out pictures encoded and decoded, n = {psnr['n']}: PSNR {psnr['mean']:.2f} dB in the mean, "
        f"{psnr['median']:.2f} the median, {psnr['worst']:.2f} the worst."
    )


def card(part: str, recipe: dict[str, Any], figures: str) -> str:
    from tiny import clip, diffusion, latent

    title, about = ABOUT[part]
    curve = recipe["curve"]
    shown = [curve[round(i * (len(curve) - 1) / 11)] for i in range(12)] if len(curve) > 12 else curve
    columns = list(shown[0]) if shown else []  # without the bars of |v|, which part columns
    rows = [[c.strip("|") for c in columns], ["---"] * len(columns)]
    rows += [[str(entry[c]) for c in columns] for entry in shown]
    how = {"clip": clip, "latent": latent, "flow": latent}.get(part, diffusion).__doc__ or ""
    size = f"channels {recipe['channels']}" if "channels" in recipe else f"towers {recipe['tower']}"
    points = [
        f"**Data**: the drawn world of `diffsweep.world`, training seeds only: {recipe['pictures']} pictures, mirrored "
        "at random, captions worded anew at every visit.",
        f"**Recipe**: `python scripts/train_tiny.py {part}`: {size}, batch {recipe['batch']}, AdamW, cosine decay at "
        f"the end, averaged weights, stored in half precision. {how}",
        f"**Trained**: {recipe['step']} steps, {recipe['seen']} pictures seen, {recipe['minutes']} minutes, "
        f"{recipe['device']}.{started(recipe)}{encoded(recipe)}",
        f"**Use**: {USE}",
    ]
    listed = [fill(" ".join(f"* {point}".split()), 100, subsequent_indent="  ") for point in points]
    table = [f"| {' | '.join(row)} |" for row in rows if row]
    lines = [f"# {title}", "", fill(about, 100), "", *listed, "", *table, FIGURES, fill(figures, 100), ""]
    return "\n".join(lines)


def started(recipe: dict[str, Any]) -> str:
    """What was trained before, where the part did not begin from nothing."""
    before = recipe.get("start")
    if not before:
        return ""
    steps = before.get("step", before.get("steps"))
    return (
        f" Began from earlier weights: {steps} steps, {before['seen']} pictures seen, "
        f"{before['minutes']} minutes, {before['device']}."
    )


def encoded(recipe: dict[str, Any]) -> str:
    """The autoencoder of a latent model."""
    vae = recipe.get("vae")
    if not vae:
        return ""
    return (
        f" Its autoencoder, `python scripts/train_tiny.py vae`: channels {vae['channels']}, batch {vae['batch']}, "
        f"{vae['step']} steps, {vae['seen']} pictures seen, {vae['minutes']} minutes, {vae['device']}.{started(vae)}"
    )
