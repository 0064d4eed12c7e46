"""Techniques with several prompts: what `auto` stands for in a place."""

from __future__ import annotations

from collections.abc import Sequence

from diffsweep.core.keys import AUTO, Auto

SHIPPED = (
    "an oil painting of people around a campfire",
    "an oil painting of an old man",
    "an oil painting of a snowy mountain village",
)


def filled(given: Auto | Sequence[str], prompt: str, n: int) -> tuple[str, ...]:
    """n prompts: those given; in place of auto the cell's own first, shipped ones elsewhere."""
    shipped = [p for p in SHIPPED if p != prompt]
    defaults = [prompt, *(shipped[i % len(shipped)] for i in range(n - 1))]
    given = [] if given == AUTO else list(given)
    given += [AUTO] * (n - len(given))
    return tuple(default if own == AUTO else own for own, default in zip(given, defaults, strict=True))
