"""A captioned world, drawn: the pictures that the embedded model is trained on and restores. Needs no torch.

A picture is drawn from (subject, style, seed) alone, four times enlarged and reduced, so that every size shows the same
scene. Training seeds are even, held-out seeds odd: they cannot meet.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from itertools import chain

import numpy as np

from diffsweep.world.captions import ANY_PHOTO, STYLE_WORDS, caption, subject_words
from diffsweep.world.creatures import CREATURES
from diffsweep.world.paint import STYLES, Pen
from diffsweep.world.subjects import COLOURS, SHAPES, WRITEUP
from diffsweep.world.things import THINGS

DRAWINGS = WRITEUP | CREATURES | THINGS
SCENES = tuple(DRAWINGS)
FIGURES = tuple(f"{colour} {shape}" for shape in SHAPES for colour in COLOURS)
SUBJECTS: tuple[str, ...] = (*SCENES, *FIGURES)
FIGURE_SHARE = 0.2  # of the training pictures are coloured shapes

__all__ = ["SCENES", "STYLES", "SUBJECTS", "Picture", "held_out", "knows", "named", "picture", "training"]


def knows(word: str) -> bool:
    """Whether a word, in small letters, is one of the captions', or its plural."""
    return word in _words() or word.removesuffix("s") in _words()


@cache
def _words() -> frozenset[str]:
    wordings = [
        ANY_PHOTO,
        *chain.from_iterable(STYLE_WORDS.values()),
        *chain.from_iterable(map(subject_words, SUBJECTS)),
    ]
    return frozenset(" ".join(wordings).replace("{}", "").lower().split())


@dataclass(frozen=True)
class Picture:
    """pixels: uint8, size x size x 3. id: subject/style/number if held out, subject/style/training-number if not."""

    id: str
    subject: str
    style: str
    caption: str
    pixels: np.ndarray


def picture(subject: str, style: str, seed: int, size: int = 32) -> Picture:
    """The picture of a subject in a style, from a seed (even: training, odd: held out); ValueError names them."""
    for kind, word, known in (("subject", subject, SUBJECTS), ("style", style, STYLES)):
        if word not in known:
            close = get_close_matches(word, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"no {kind} {word!r}: there are {', '.join(known)}{hint}")
    rng = random.Random(f"{subject}/{style}/{seed}")
    pen = Pen(style, rng)
    if subject in DRAWINGS:
        DRAWINGS[subject](pen, rng)
    else:
        colour, shape = subject.split()
        SHAPES[shape](pen, rng, COLOURS[colour])
    name = f"{subject}/{style}/{seed // 2 if seed % 2 else f'training-{seed // 2}'}"
    return Picture(name, subject, style, caption(subject, style, rng), pen.finished(size))


def training(seed: int, size: int = 32) -> Picture:
    """A training picture: subject, style and scene all drawn from the seed."""
    rng = random.Random(f"training/{seed}")
    subject = rng.choice(FIGURES if rng.random() < FIGURE_SHARE else SCENES)
    return picture(subject, rng.choice(STYLES), 2 * seed, size)


def held_out(index: int, size: int = 32) -> Picture:
    """The held-out pictures: every subject in every style, then the next number of each."""
    number, place = divmod(index, len(SUBJECTS) * len(STYLES))
    style, subject = divmod(place, len(SUBJECTS))
    return picture(SUBJECTS[subject], STYLES[style], 2 * number + 1, size)


def named(id: str, size: int = 32) -> Picture:
    """A held-out picture by its id; ValueError says what an id looks like."""
    words = id.split("/")
    if len(words) != 3 or not words[2].isdecimal():
        raise ValueError(f"no picture {id!r}: an id is subject/style/number, as in 'dog/photo/0'")
    return picture(words[0], words[1], 2 * int(words[2]) + 1, size)
