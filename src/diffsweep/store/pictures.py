"""The names of a cell's stored pictures: what it was made from, and what was made."""

from __future__ import annotations

import re

IMAGE, LOW = "image", "low"  # the picture, and of a hybrid its low band alone
INPUT, MASK, HARD_MASK, NOISY = "input", "mask", "hard_mask", "noisy"
GIVEN = (INPUT, MASK, HARD_MASK, NOISY)
VIEW, STEP = "view_", "step_"  # begin the names of an anagram's views, and of the pictures of a cell's way from noise
WATCHED = re.compile(rf"{STEP}(\d+)_(\w+)")  # such a picture's name: which step, and what of it


def made(name: str) -> bool:
    """Whether a stored picture is what a technique made, not what it began with nor a step of its way."""
    return name not in GIVEN and not name.startswith(STEP)
