"""Techniques with several prompts: what fills the places a user leaves open."""

from __future__ import annotations

from collections.abc import Sequence

SHIPPED = (
    "an oil painting of people around a campfire",
    "an oil painting of an old man",
    "an oil painting of a snowy mountain village",
)


def filled(given: Sequence[str | None] | None, prompt: str, n: int) -> tuple[str, ...]:
    """n prompts: those given, the cell's own in an open first place, shipped ones in the others."""
    shipped = [p for p in SHIPPED if p != prompt]
    defaults = [prompt, *(shipped[i % len(shipped)] for i in range(n - 1))]
    given = list(given or ())
    given += [None] * (n - len(given))
    return tuple(default if own is None else own for own, default in zip(given, defaults, strict=True))
