"""Metrics of a set: numbers of a setting's pictures together, where no single picture has one."""

from __future__ import annotations

from collections.abc import Iterable


def replicates(axes: Iterable[str]) -> list[str]:
    """Those axes that repeat a setting rather than make another: the seed, and what the input is."""
    return [axis for axis in axes if axis in ("seed", "input") or axis.startswith("input.")]
