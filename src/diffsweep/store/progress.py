"""Progress bars for work on stored cells."""

from __future__ import annotations

from typing import Any


def bar(doing: str, number: int, shows: bool = True) -> Any:
    """A progress bar over so many cells, for work that takes more than a moment."""
    import sys

    from tqdm import tqdm

    often = 0.2 if sys.stderr.isatty() else 15  # a log keeps each of its states
    look: dict[str, Any] = {"unit": "cell", "delay": 2, "dynamic_ncols": True, "leave": False, "mininterval": often}
    return tqdm(total=number, desc=doing, disable=not shows, **look)
