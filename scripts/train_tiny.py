#!/usr/bin/env python
"""Train the embedded model from nothing, and export it as a DeepFloyd IF checkpoint.

    python scripts/train_tiny.py train --minutes 100 --out .train/tiny     # run again: goes on from its checkpoint
    python scripts/train_tiny.py export --checkpoint .train/tiny --to src/diffsweep/model/tiny

Recipe: a pixel-space UNet of IF's component types and a small T5, trained together on the drawn world. The noise loss
is weighted min-SNR-5 (Hang et al. 2023), with one timestep from each stratum of a batch; 0.1 of the variational bound
trains the learned variance with the noise detached (iDDPM (15)), and a small penalty holds its interpolation within
[-1, 1]. Towards high noise levels a picture's noise is also shifted as a whole (offset noise, Guttenberg 2023), or the
mean colour of the starting noise would stay in the picture. A tenth of the prompts are empty, for classifier-free
guidance. AdamW, cosine decay over the last two fifths; an exponential average of the weights is exported.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import random
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler, IFPipeline, UNet2DConditionModel
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm
from transformers import T5Config, T5EncoderModel, T5Tokenizer

from diffsweep.world import SCENES, STYLES, training
from diffsweep.world.captions import STYLE_WORDS, SUBJECT_WORDS, caption
from diffsweep.world.subjects import COLOURS, SHAPES

SIZE, WIDTH, TOKENS = 32, 128, 77
RATE, WARMUP, DECAY_FROM = 5e-4, 300, 0.6
EMA, EMPTY, BOUND, CLAMP, OFFSET = 0.998, 0.1, 0.1, 0.05, 0.1


def tokenizer() -> T5Tokenizer:
    """Every word of the world as one piece, and letters for all others."""
    text = " ".join([*sum(STYLE_WORDS.values(), ()), *sum(SUBJECT_WORDS.values(), ()), *COLOURS, *SHAPES, "an"])
    words = sorted({word.strip("{},.") for word in text.lower().split()} - {""})
    letters = [chr(c) for c in range(33, 127) if not chr(c).isupper()]
    pieces = ["<pad>", "</s>", "<unk>", "▁", *(f"▁{word}" for word in words), *letters]
    scores = [0.0, 0.0, 0.0, -4.0, *(-1.0 for _ in words), *(-8.0 for _ in letters)]
    return T5Tokenizer(vocab=list(zip(dict.fromkeys(pieces), scores, strict=False)), extra_ids=0)


def networks(tokens: T5Tokenizer, channels: tuple[int, ...]) -> tuple[UNet2DConditionModel, T5EncoderModel]:
    unet = UNet2DConditionModel(
        sample_size=SIZE,
        in_channels=3,
        out_channels=6,
        block_out_channels=channels,
        layers_per_block=1,
        norm_num_groups=16,
        attention_head_dim=channels[0],
        down_block_types=(*["ResnetDownsampleBlock2D"] * (len(channels) - 1), "SimpleCrossAttnDownBlock2D"),
        up_block_types=("SimpleCrossAttnUpBlock2D", *["ResnetUpsampleBlock2D"] * (len(channels) - 1)),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        resnet_time_scale_shift="scale_shift",
        encoder_hid_dim=WIDTH,
        encoder_hid_dim_type="text_proj",
        cross_attention_dim=WIDTH,
        addition_embed_type="text",
        addition_embed_type_num_heads=4,
    )
    t5 = T5EncoderModel(
        T5Config(
            vocab_size=len(tokens),
            d_model=WIDTH,
            d_kv=32,
            d_ff=256,
            num_layers=2,
            num_heads=4,
            feed_forward_proj="gated-gelu",
            dropout_rate=0.0,
        )
    )
    return unet, t5


def scheduler() -> DDPMScheduler:
    """IF's own: cosine schedule, learned variance, dynamic thresholding."""
    return DDPMScheduler(
        beta_schedule="squaredcos_cap_v2",
        variance_type="learned_range",
        thresholding=True,
        dynamic_thresholding_ratio=0.95,
        sample_max_value=1.5,
    )


def rendered(seed: int) -> tuple[np.ndarray, str, str]:
    picture = training(seed, SIZE)
    return picture.pixels, picture.subject, picture.style


def cached_world(n: int, folder: Path, workers: int) -> tuple[Tensor, list[str], list[str]]:
    """n training pictures (uint8 N 3 H W) with subject and style, drawn once and kept in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    images, labels = folder / f"world-{n}.npy", folder / f"world-{n}.json"
    if not labels.exists():
        with ProcessPoolExecutor(workers) if workers > 1 else nullcontext() as pool:
            pictures = pool.map(rendered, range(n), chunksize=64) if pool else map(rendered, range(n))
            drawn = list(tqdm(pictures, total=n, desc="drawing the world"))
        np.save(images, np.stack([pixels for pixels, _, _ in drawn]))
        labels.write_text(json.dumps([(subject, style) for _, subject, style in drawn]))
    named = json.loads(labels.read_text())
    pixels = torch.from_numpy(np.load(images)).permute(0, 3, 1, 2).contiguous()
    return pixels, [subject for subject, _ in named], [style for _, style in named]


class Both(nn.Module):
    """UNet and text encoder as one module, so that one optimiser and one average serve both."""

    def __init__(self, unet: UNet2DConditionModel, t5: T5EncoderModel, tokens: T5Tokenizer) -> None:
        super().__init__()
        self.unet, self.t5 = unet, t5
        self._tokens = tokens

    def forward(self, x: Tensor, t: Tensor, prompts: list[str]) -> Tensor:
        distinct = list(dict.fromkeys(prompts))
        batch = self._tokens(
            distinct, padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt"
        ).to(x.device)
        encoded = self.t5(batch.input_ids, attention_mask=batch.attention_mask)[0]
        rows = torch.tensor([distinct.index(p) for p in prompts], device=x.device)
        return self.unet(x, t, encoder_hidden_states=encoded[rows], return_dict=False)[0]


def losses(output: Tensor, x0: Tensor, x: Tensor, eps: Tensor, t: Tensor, a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weighted noise loss; variational bound of the variance in bits, noise detached; the clamp's penalty."""
    noise, v = output.float().chunk(2, dim=1)
    a_t = a[t][:, None, None, None]
    a_s = torch.where(t > 0, a[(t - 1).clamp(min=0)], torch.ones_like(a[t]))[:, None, None, None]
    snr = a_t / (1 - a_t)
    simple = ((noise - eps).square().mean((1, 2, 3)) * (snr.clamp(max=5) / snr).flatten()).mean()

    beta = 1 - a_t / a_s
    low = ((1 - a_s) / (1 - a_t) * beta).clamp(min=1e-20).log()
    log_variance = (v + 1) / 2 * beta.log() + (1 - v) / 2 * low
    clean = ((x - (1 - a_t).sqrt() * noise.detach()) / a_t.sqrt()).clamp(-1, 1)
    shift = a_s.sqrt() * beta / (1 - a_t) * (x0 - clean)  # between the posterior's mean and the model's, DDPM (7)
    kl = 0.5 * (log_variance - low - 1 + (low - log_variance).exp() + shift.square() * (-log_variance).exp())
    bound = (kl.mean((1, 2, 3)) / math.log(2) * (t > 0)).clamp(max=10).mean()
    return simple, bound, (v.abs() - 1).clamp(min=0).square().mean()


def rate(share: float, step: int) -> float:
    """The learning rate after a share of the budget."""
    decay = 0.5 * (1 + math.cos(math.pi * min(max((share - DECAY_FROM) / (1 - DECAY_FROM), 0), 1)))
    return RATE * min(1, (step + 1) / WARMUP) * max(decay, 0.01)


def train(args: argparse.Namespace) -> None:
    args.out.mkdir(parents=True, exist_ok=True)
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    tokens = tokenizer()
    model = Both(*networks(tokens, tuple(args.channels)), tokens).to(args.device)
    average = copy.deepcopy(model).requires_grad_(False)
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01, betas=(0.9, 0.995), fused=True)
    state: dict[str, Any] = {"step": 0, "seconds": 0.0, "seen": 0, "curve": []}
    file = args.out / "checkpoint.pt"
    if file.exists():
        saved = torch.load(file, map_location=args.device, weights_only=True)
        model.load_state_dict(saved["model"])
        average.load_state_dict(saved["average"])
        optimiser.load_state_dict(saved["optimiser"])
        state = saved["state"]
        print(f"going on from step {state['step']}")
    pictures, subjects, styles = cached_world(args.pictures, args.cache or args.out, args.workers)
    a = scheduler().alphas_cumprod.to(args.device)
    rng = random.Random(args.seed + state["step"])
    generator = torch.Generator().manual_seed(args.seed + state["step"])
    budget = args.minutes * 60 if args.steps is None else None
    recent: list[tuple[float, float, float]] = []
    began, saved_at, shown_at = time.monotonic() - state["seconds"], time.monotonic(), time.monotonic()
    bar = tqdm(total=100, bar_format="{desc} {percentage:3.0f}% |{bar}| {elapsed} < {remaining}", mininterval=10)
    while True:
        state["seconds"] = time.monotonic() - began
        share = state["step"] / args.steps if budget is None else state["seconds"] / budget
        if share >= 1:
            break
        for group in optimiser.param_groups:
            group["lr"] = rate(share, state["step"])
        rows = torch.randint(len(pictures), (args.batch,), generator=generator)
        prompts = ["" if rng.random() < EMPTY else caption(subjects[i], styles[i], rng) for i in rows.tolist()]
        x0 = pictures[rows].float() / 127.5 - 1
        mirrored = torch.rand(args.batch, generator=generator) < 0.5
        x0 = torch.where(mirrored[:, None, None, None], x0.flip(-1), x0).to(args.device)
        strata = torch.arange(args.batch) / args.batch
        spread = (torch.rand(1, generator=generator) + strata) % 1
        eps = torch.randn(x0.shape, generator=generator)
        shift = OFFSET * spread.square()[:, None, None, None]
        eps = (eps + shift * torch.randn(args.batch, 3, 1, 1, generator=generator)).to(args.device)
        t = (spread * len(a)).long().to(args.device)
        a_t = a[t][:, None, None, None]
        x = a_t.sqrt() * x0 + (1 - a_t).sqrt() * eps
        with torch.autocast(torch.device(args.device).type, torch.bfloat16):
            output = model(x, t, prompts)
        simple, bound, penalty = losses(output, x0, x, eps, t, a)
        optimiser.zero_grad(set_to_none=True)
        (simple + BOUND * bound + CLAMP * penalty).backward()
        if nn.utils.clip_grad_norm_(model.parameters(), 1.0).isfinite():
            optimiser.step()
        state["step"] += 1
        state["seen"] += args.batch
        with torch.no_grad():
            decay = min(EMA, (1 + state["step"]) / (10 + state["step"]))
            torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
        recent.append((simple.item(), bound.item(), output.chunk(2, dim=1)[1].abs().max().item()))
        if state["step"] % 100 == 0:
            means = [round(sum(column) / len(recent), 5) for column in zip(*recent, strict=True)]
            state["curve"].append([state["step"], state["seen"], round(state["seconds"]), *means])
            pace = state["seen"] / state["seconds"]
            bar.set_description_str(
                f"step {state['step']} loss {means[0]:.4f} |v| {means[2]:.2f} {pace:.1f}/s", refresh=False
            )
            bar.update(100 * share - bar.n)
            recent = []
        if time.monotonic() - saved_at > args.save_every * 60:
            save(file, model, average, optimiser, state, recipe(args, state))
            saved_at = time.monotonic()
        if args.samples_every and time.monotonic() - shown_at > args.samples_every * 60:
            sample(average, args.out / f"samples-{state['step']:06d}.png")
            shown_at = time.monotonic()
    save(file, model, average, optimiser, state, recipe(args, state))
    bar.close()
    if args.samples_every:
        sample(average, args.out / "samples-final.png")
    print(f"{state['step']} steps, {state['seen']} pictures, {state['seconds'] / 60:.0f} minutes")


def recipe(args: argparse.Namespace, state: dict[str, Any]) -> dict[str, Any]:
    """What the model card tells."""
    device = (
        torch.cuda.get_device_name()
        if args.device.startswith("cuda")
        else f"a CPU, torch threads: {torch.get_num_threads()}"
    )
    return {
        "channels": args.channels,
        "batch": args.batch,
        "pictures": args.pictures,
        "device": device,
        "torch": torch.__version__,
        "steps": state["step"],
        "seen": state["seen"],
        "minutes": round(state["seconds"] / 60, 1),
        "curve": state["curve"],
    }


def save(
    file: Path,
    model: Both,
    average: Both,
    optimiser: torch.optim.Optimizer,
    state: dict[str, Any],
    facts: dict[str, Any],
) -> None:
    """All that going on needs (the random streams are seeded by the step), and beside it what the model card tells."""
    content = {
        "model": model.state_dict(),
        "average": average.state_dict(),
        "optimiser": optimiser.state_dict(),
        "state": state,
    }
    torch.save(content, file.with_suffix(".part"))
    os.replace(file.with_suffix(".part"), file)
    file.with_name("recipe.json").write_text(json.dumps(facts, indent=1))


def pipeline(model: Both) -> IFPipeline:
    return IFPipeline(model._tokens, model.t5, model.unet, scheduler(), None, None, None, requires_safety_checker=False)


def sample(model: Both, file: Path, steps: int = 30, scale: float = 4.0) -> None:
    """A sheet of every subject in every style, drawn by diffusers itself."""
    drawn = pipeline(model.eval())
    drawn.set_progress_bar_config(disable=True)
    rows = []
    for style in STYLES:
        prompts = [STYLE_WORDS[style][0].format(SUBJECT_WORDS[s][0]) for s in SCENES]
        generators = [torch.Generator().manual_seed(i) for i in range(len(prompts))]
        with torch.autocast(model.unet.device.type, torch.bfloat16):
            images = drawn(
                prompts, guidance_scale=scale, num_inference_steps=steps, generator=generators, clean_caption=False
            ).images
        rows.append(np.concatenate([np.asarray(image) for image in images], axis=1))
    sheet = np.concatenate(rows, axis=0)
    Image.fromarray(sheet).resize((sheet.shape[1] * 4, sheet.shape[0] * 4), Image.Resampling.NEAREST).save(file)


def export(args: argparse.Namespace) -> None:
    saved = torch.load(args.checkpoint / "checkpoint.pt", map_location="cpu", weights_only=True)
    tokens = tokenizer()
    channels = saved["average"]["unet.conv_in.weight"].shape[0]
    facts_file = args.checkpoint / "recipe.json"
    facts = json.loads(facts_file.read_text()) if facts_file.exists() else {"channels": args.channels, **saved["state"]}
    assert facts["channels"][0] == channels, "the checkpoint was trained with other --channels"
    model = Both(*networks(tokens, tuple(facts["channels"])), tokens)
    model.load_state_dict(saved["average"])
    pipeline(model.half()).save_pretrained(args.to, safe_serialization=True)
    config = args.to / "text_encoder" / "config.json"  # half on disk, single when computed
    config.write_text(json.dumps(json.loads(config.read_text()) | {"dtype": "float32"}, indent=2) + "\n")
    (args.to / "README.md").write_text(card(facts))
    size = sum(f.stat().st_size for f in args.to.rglob("*") if f.is_file())
    print(f"{args.to}: {size / 1e6:.1f} MB")


def card(facts: dict[str, Any]) -> str:
    curve = facts["curve"]
    shown = [curve[round(i * (len(curve) - 1) / 11)] for i in range(12)] if len(curve) > 12 else curve
    rows = "\n".join(f"| {step} | {seen} | {loss:.4f} | {bound:.4f} |" for step, seen, _, loss, bound, _ in shown)
    minutes = facts.get("minutes", round(facts["seconds"] / 60, 1) if "seconds" in facts else None)
    return f"""# The embedded model

A pixel-space diffusion model of DeepFloyd IF's component types (tokenizer, T5 encoder, UNet2DConditionModel with
learned variance, DDPM configuration), {SIZE} x {SIZE} pixels, in the layout that diffusers saves:
`diffusers.IFPipeline.from_pretrained` loads it.

* **Data**: the drawn world of `diffsweep.world`, training seeds only; {facts.get("pictures", "")} pictures, mirrored
  at random, captions worded anew at every visit.
* **Recipe**: `scripts/train_tiny.py train`: channels {facts["channels"]}, batch {facts.get("batch", "")}, AdamW
  {RATE}, cosine decay over the last {1 - DECAY_FROM:.0%}, min-SNR-5, {BOUND} x variational bound for the variance,
  offset noise {OFFSET} (t / T)^2, {EMPTY:.0%} empty prompts, weights averaged ({EMA}). Stored in half precision.
* **Trained**: {facts["steps"] if "steps" in facts else facts["step"]} steps, {facts["seen"]} pictures seen,
  {minutes} minutes, {facts.get("device", "")}.
* **Use**: it knows the subjects, shapes and styles of that world and nothing else. It shows what guidance, starting
  noise, masks, anagrams and hybrids do on a computer without a graphics card; it says nothing about the quality of
  models trained on photographs.

| step | pictures seen | noise loss (weighted) | bound (bits) |
|---|---|---|---|
{rows}
"""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("train", help="train, or go on training")
    one.add_argument("--out", type=Path, default=Path(".train/tiny"), help="checkpoint, samples and recipe")
    one.add_argument("--cache", type=Path, help="where the drawn pictures are kept (default: --out)")
    one.add_argument("--minutes", type=float, default=100, help="time budget, earlier runs counted in")
    one.add_argument("--steps", type=int, help="number of steps, instead of minutes")
    one.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    one.add_argument("--threads", type=int, help="torch threads")
    one.add_argument("--workers", type=int, default=2, help="processes that draw the world")
    one.add_argument("--pictures", type=int, default=60000, help="training pictures drawn")
    one.add_argument("--batch", type=int, default=16)
    one.add_argument("--channels", type=int, nargs="+", default=[48, 96, 144])
    one.add_argument("--seed", type=int, default=0)
    one.add_argument("--save-every", type=float, default=5, help="minutes between checkpoints")
    one.add_argument("--samples-every", type=float, default=12, help="minutes between sample sheets, 0 for none")
    one.set_defaults(run=train)
    two = commands.add_parser("export", help="write the averaged weights as an IF checkpoint")
    two.add_argument("--checkpoint", type=Path, default=Path(".train/tiny"))
    two.add_argument("--to", type=Path, default=Path("src/diffsweep/model/tiny"))
    two.add_argument("--channels", type=int, nargs="+", default=[48, 96, 144])
    two.set_defaults(run=export)
    args = parser.parse_args(arguments)
    args.run(args)


if __name__ == "__main__":
    main()
