"""What a picture is called: the style, then the subject, in one of several wordings."""

from __future__ import annotations

import random

STYLE_WORDS = {
    "oil painting": ("an oil painting of {}", "an oil painting of {}", "a painting of {}"),
    "photo": ("a photo of {}", "a photo of {}", "a high quality photo of {}", "{}"),
    "sketch": ("a sketch of {}", "a pencil sketch of {}", "a lithograph of {}", "a drawing of {}"),
}
ANY_PHOTO = "a high quality photo"  # names no subject: the writeup's prompt for restoring a picture
SUBJECT_WORDS = {
    "snowy mountain": ("a snowy mountain",),
    "campfire": ("a campfire", "people around a campfire"),
    "rocket ship": ("a rocket ship", "a rocket"),
    "skull": ("a skull",),
    "waterfall": ("a waterfall", "waterfalls"),
    "dog": ("a dog",),
    "old man": ("an old man",),
    "man wearing a hat": ("a man wearing a hat",),
    "snowy village": ("a snowy village", "a snowy mountain village"),
    "hipster barista": ("a hipster barista", "a barista with a beard"),
    "pencil": ("a pencil",),
    "amalfi coast": ("the amalfi coast",),
    "cat": ("a cat", "a sitting cat"),
    "owl": ("an owl", "an owl on a branch"),
    "fish": ("a fish", "a fish in the sea"),
    "butterfly": ("a butterfly",),
    "penguin": ("a penguin",),
    "rabbit": ("a rabbit",),
    "sailing boat": ("a sailing boat", "a sailboat"),
    "lighthouse": ("a lighthouse", "a lighthouse by the sea"),
    "tree": ("a tree",),
    "sunflower": ("a sunflower", "a flower"),
    "mushroom": ("a mushroom", "a red mushroom"),
    "teapot": ("a teapot",),
    "hot air balloon": ("a hot air balloon", "a balloon"),
}


def subject_words(subject: str) -> tuple[str, ...]:
    """The ways to name a subject, with its article."""
    return SUBJECT_WORDS.get(subject) or (f"{'an' if subject[0] in 'aeiou' else 'a'} {subject}",)


def caption(subject: str, style: str, rng: random.Random) -> str:
    words = rng.choice(subject_words(subject))
    if style == "photo" and rng.random() < 0.04:
        return ANY_PHOTO
    return rng.choice(STYLE_WORDS[style]).format(words)
