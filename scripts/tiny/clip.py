"""A tiny CLIP (Radford et al. 2021) of the drawn world, in the layout that transformers saves.

Pictures are shown with a little noise, blur, shift and change of light, so that generated pictures are read as well as
drawn ones; half of them as one band alone, blurred or without the blur's part, as hybrids are read. Two rows of a
batch may show the same subject in the same style: both are then right (soft targets). One row in five has no caption
of its own style ("a dog"), so that subjects are told apart without it.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

from diffsweep.guidance.band import blur
from diffsweep.world import SUBJECTS, held_out
from diffsweep.world.captions import ANY_PHOTO, STYLE_WORDS, subject_words
from tiny.data import Batch

SIZE, TOKENS, UNSTYLED = 32, 77, 0.2
TOWER = {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4, "num_attention_heads": 4}


def tokenizer() -> CLIPTokenizer:
    """Byte pairs of the world's captions; words of no caption fall into letters."""
    letters = sorted(ByteLevel.alphabet())
    pieces = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    bare = CLIPTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[])
    texts = [
        w.format(s) for ways in STYLE_WORDS.values() for w in ways for name in SUBJECTS for s in subject_words(name)
    ]
    trained = json.loads(bare.train_new_from_iterator(texts, 1024, show_progress=False).backend_tokenizer.to_str())
    known = dict(trained["model"]["vocab"])  # without the letters that end no word of the world
    vocab = known | {piece: len(known) + i for i, piece in enumerate(p for p in pieces if p not in known)}
    return CLIPTokenizer(vocab=vocab, merges=[tuple(pair) for pair in trained["model"]["merges"]])


def network(tokens: CLIPTokenizer) -> CLIPModel:
    words = {"vocab_size": len(tokens), "max_position_embeddings": TOKENS, "projection_dim": 128}
    ends = {
        "bos_token_id": tokens.bos_token_id,
        "eos_token_id": tokens.eos_token_id,
        "pad_token_id": tokens.pad_token_id,
    }
    sight = {"image_size": SIZE, "patch_size": 4, "projection_dim": 128}
    return CLIPModel(CLIPConfig(text_config=TOWER | words | ends, vision_config=TOWER | sight, projection_dim=128))


def processor(tokens: CLIPTokenizer) -> CLIPProcessor:
    size = {"size": {"shortest_edge": SIZE}, "crop_size": {"height": SIZE, "width": SIZE}}
    half = [0.5, 0.5, 0.5]
    return CLIPProcessor(CLIPImageProcessor(**size, image_mean=half, image_std=half), tokens)


class Clip:
    rate = 1e-3

    def __init__(self) -> None:
        self.tokens = tokenizer()
        self.module = network(self.tokens)
        self.recipe: dict[str, Any] = {"part": "clip", "tower": TOWER}

    def loss(self, batch: Batch, generator: torch.Generator, rng: random.Random) -> tuple[Tensor, dict[str, float]]:
        device = next(self.module.parameters()).device
        bare = [rng.random() < UNSTYLED or words == ANY_PHOTO for words in batch.captions]
        kinds = [(s, "" if b else style) for s, style, b in zip(batch.subjects, batch.styles, bare, strict=True)]
        captions = [
            rng.choice(subject_words(s)) if b else words
            for words, s, b in zip(batch.captions, batch.subjects, bare, strict=True)
        ]
        pixels = banded(seen(F.avg_pool2d(batch.pixels, 2), generator), rng).to(device)
        texts = self.tokens(captions, padding=True, return_tensors="pt").to(device)
        with torch.autocast(device.type, torch.bfloat16):
            answer = self.module(input_ids=texts.input_ids, attention_mask=texts.attention_mask, pixel_values=pixels)
        logits = answer.logits_per_image.float()
        same = torch.tensor([[fits(a, b) for b in kinds] for a in kinds], device=device, dtype=torch.float32)
        loss = (cross_entropy(logits, same) + cross_entropy(logits.T, same.T)) / 2
        right = same.gather(1, logits.argmax(1, keepdim=True)).mean()
        return loss, {"loss": loss.item(), "right": right.item(), "scale": self.module.logit_scale.exp().item()}

    @torch.no_grad()
    def sample(self, average: nn.Module, file: Path) -> None:
        """The subjects most often taken for another, on held-out pictures."""
        assert isinstance(average, CLIPModel)
        pictures = [held_out(i, SIZE) for i in range(3 * len(SUBJECTS))]
        pixels = torch.stack([torch.from_numpy(p.pixels.copy()).permute(2, 0, 1) for p in pictures]).float() / 127.5 - 1
        texts = self.tokens([subject_words(s)[0] for s in SUBJECTS], padding=True, return_tensors="pt")
        answer = average.eval()(pixel_values=pixels, **texts.to(pixels.device)).logits_per_image.argmax(1).tolist()
        wrong = [f"{p.id}: {SUBJECTS[i]}" for p, i in zip(pictures, answer, strict=True) if p.subject != SUBJECTS[i]]
        summary = f"held out: {1 - len(wrong) / len(pictures):.1%} of {len(pictures)} named rightly"
        file.with_suffix(".txt").write_text("\n".join([summary, *wrong]) + "\n")
        print(f"\n{summary}")

    def save(self, weights: dict[str, Tensor], to: Path) -> None:
        self.module.load_state_dict(weights)
        self.module.half().save_pretrained(to)
        processor(self.tokens).save_pretrained(to)


def banded(pixels: Tensor, rng: random.Random) -> Tensor:
    """A quarter of the rows as low frequencies, a quarter as high ones around grey, parted by one random blur."""
    sigma, part = rng.uniform(1, 4), len(pixels) // 4
    low = blur(pixels, sigma, 33)
    order = torch.tensor(rng.sample(range(len(pixels)), len(pixels)))
    far, near = order[:part], order[part : 2 * part]
    pixels = pixels.clone()
    pixels[far] = low[far]
    pixels[near] -= low[near]
    return pixels.clamp(-1, 1)


def fits(picture: tuple[str, str], words: tuple[str, str]) -> bool:
    """Whether the words may name the picture: its subject, and its style unless they name none."""
    return picture[0] == words[0] and ("" in (picture[1], words[1]) or picture[1] == words[1])


def cross_entropy(logits: Tensor, right: Tensor) -> Tensor:
    """Minus the logarithm of the probability that any of the right ones is named."""
    chosen = torch.where(right > 0, logits, torch.full_like(logits, -torch.inf))
    return (logits.logsumexp(1) - chosen.logsumexp(1)).mean()


def seen(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """The pictures (B C H W in [-1, 1]) as a judge in training sees them."""
    n = len(pixels)

    def draw(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(n, 1, 1, 1, generator=generator)

    turn = torch.zeros(n, 2, 3)
    turn[:, 0, 0] = turn[:, 1, 1] = draw(0.88, 1.15).flatten()
    turn[:, :, 2] = 0.14 * (2 * torch.rand(n, 2, generator=generator) - 1)
    grid = F.affine_grid(turn, list(pixels.shape), align_corners=False)
    pixels = F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)
    blurred = F.avg_pool2d(F.pad(pixels, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    pixels = torch.lerp(pixels, blurred, draw(-0.3, 0.8))
    pixels = pixels * draw(0.75, 1.25) + draw(-0.15, 0.15)
    noise = torch.randn(pixels.shape, generator=generator)
    return (pixels + draw(0, 0.15) * noise).clamp(-1, 1)
