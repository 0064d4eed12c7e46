"""Selects what a command names of a sweep's cells (`frame.results`): metrics, and axes that make or repeat a
setting."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from diffsweep.core.problems import BadInput, did_you_mean
from diffsweep.metric.settings import replicates
from diffsweep.report.text import no_axis

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from diffsweep.report.statistics import Bounds

    Codes = NDArray[np.int64]


def split_axes(frame: pd.DataFrame, over: Iterable[str] = ()) -> tuple[list[str], list[str]]:
    """The axes that make a setting, and those whose values are inputs: replicates but the seed, and `over`."""
    axes, over = list(frame.attrs["axes"]), list(over)
    if wrong := [name for name in over if name not in axes]:
        raise BadInput(no_axis("over", name, axes) for name in wrong)
    repeated = replicates(axes)
    inputs = [axis for axis in axes if axis != "seed" and (axis in repeated or axis in over)]
    return [axis for axis in axes if axis != "seed" and axis not in inputs], inputs


def units(inputs: Sequence[str]) -> tuple[str, str]:
    """One and several of what is averaged over beside the seeds: `input`, `inputs` where that is all it is, and of
    other axes `value of guidance.scale`, `values of guidance.scale`."""
    if set(inputs) <= {*replicates(inputs)}:
        return "input", "inputs"
    what, axes = ("value" if len(inputs) == 1 else "choice"), " and ".join(inputs)
    return f"{what} of {axes}", f"{what}s of {axes}"


def measured(frame: pd.DataFrame, metrics: Sequence[str] | None = None) -> list[str]:
    """The metrics of single pictures with values or exact pictures, of those named; BadInput for one it has not."""
    definitions: Mapping[str, Any] = frame.attrs["metrics"]
    known = [*definitions, *frame.attrs.get("sets", ())]
    there = f"it has {', '.join(known)}" if known else "it has none"
    if wrong := [name for name in metrics or () if name not in known]:
        raise BadInput(
            f"metric={name}: this sweep has no such numbers; {there}{did_you_mean(name, known)} "
            f"(`diffsweep-results score SWEEP metric=...` computes more)"
            for name in wrong
        )
    wanted = definitions if metrics is None else dict.fromkeys(metrics)
    return [n for n in wanted if n in definitions and (frame[n].notna().any() or f"{n}_exact" in frame)]


def bounds(frame: pd.DataFrame, metric: str) -> Bounds:
    """What a metric's definition says that its numbers lie between."""
    return frame.attrs["metrics"][metric].get("bounds") or (None, None)


def levels(frame: pd.DataFrame, axes: Sequence[str]) -> Codes:
    """Each row's level of these axes together, 0 for the first seen; all 0 without axes."""
    if not len(axes):
        return np.zeros(len(frame), dtype=np.int64)
    return np.asarray(frame.groupby([*axes], sort=False, dropna=False).ngroup(), dtype=np.int64)


def plain(value: Any) -> Any:
    """A plain value from pandas' or numpy's."""
    return None if pd.isna(value) else value.item() if hasattr(value, "item") else value


def common(mappings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The entries that are equal in all of them, to any depth."""
    found: dict[str, Any] = {}
    for key, value in mappings[0].items() if mappings else ():
        values = [mapping[key] for mapping in mappings if key in mapping]
        if len(values) < len(mappings):
            continue
        if all(other == value for other in values):
            found[key] = value
        elif all(isinstance(other, Mapping) for other in values) and (inner := common(values)):
            found[key] = inner
    return found


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A configuration's values by their dotted keys."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found
