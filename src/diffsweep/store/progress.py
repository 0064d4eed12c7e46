"""Progress bars for work on stored cells."""

from __future__ import annotations

from typing import Any


def bar(doing: str, number: int, shows: bool = True) -> Any:
    """A progress bar over so many cells, for work that takes more than a moment."""
    from tqdm import tqdm

    return tqdm(total=number, desc=doing, unit="cell", delay=2, dynamic_ncols=True, leave=False, disable=not shows)
