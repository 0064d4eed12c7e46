"""What a picture is called: the style, then the subject, in one of several wordings."""

from __future__ import annotations

import random

STYLE_WORDS = {
    "oil painting": ("an oil painting of {}", "an oil painting of {}", "a painting of {}"),
    "photo": ("a photo of {}", "a photo of {}", "a high quality photo of {}", "{}"),
    "sketch": ("a sketch of {}", "a pencil sketch of {}", "a lithograph of {}", "a drawing of {}"),
}
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
}


def caption(subject: str, style: str, rng: random.Random) -> str:
    words = rng.choice(SUBJECT_WORDS.get(subject) or (f"{'an' if subject[0] in 'aeiou' else 'a'} {subject}",))
    if style == "photo" and rng.random() < 0.04:
        return "a high quality photo"
    return rng.choice(STYLE_WORDS[style]).format(words)
