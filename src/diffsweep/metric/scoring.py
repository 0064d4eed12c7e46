"""The second pass over the store: which metrics a cell lacks, and their numbers, written into its record."""

from __future__ import annotations

import importlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from diffsweep.core.packages import modules
from diffsweep.core.problems import BadInput, did_you_mean
from diffsweep.metric.batch import Batch, Metric, Score

if TYPE_CHECKING:
    from diffsweep.sweep.store import Store

AT_ONCE = 64  # pictures a batch
FILES = {"reference": "input.png", "mask": "mask.png"}  # what a cell stores of what a metric may need


@lru_cache
def known(plugins: tuple[str, ...] = ()) -> dict[str, Metric]:
    """Every metric by name, the plugins' first: all that the modules of each package's `metric` folder list."""
    found: dict[str, Metric] = {}
    for path in modules("metric", plugins):
        for metric in getattr(importlib.import_module(path), "METRICS", ()):
            found.setdefault(metric.name, metric)
    return found


def find(names: Iterable[str], plugins: tuple[str, ...] = ()) -> tuple[Metric, ...]:
    """The metrics of these names; BadInput for every name there is none of."""
    metrics = known(plugins)
    wrong = [name for name in names if name not in metrics]
    if wrong:
        there = ", ".join(metrics)
        raise BadInput(f"metric.names: no metric {n!r}; there are {there}{did_you_mean(n, metrics)}" for n in wrong)
    return tuple(metrics[name] for name in dict.fromkeys(names))


def lacking(record: dict[str, Any], metric: Metric) -> frozenset[str]:
    """What a metric needs and this cell has not."""
    there = {need for need, file in FILES.items() if file in record["files"]}
    return metric.needs - there - ({"prompt"} if _prompt(record) is not None else set())


def score(store: Store, cell_ids: Iterable[str], names: Iterable[str], plugins: tuple[str, ...] = ()) -> int:
    """Compute what is missing and write it into the records; the number of cells that changed.

    A number of the same definition is kept. A cell that lacks what a metric needs goes without it, and one whose
    pictures cannot be read is left as it is (`verify` tells). Where nothing is missing, torch is not imported.
    """
    # as JSON keeps them: tuples become lists
    definitions = {metric: json.loads(json.dumps(metric.definition())) for metric in find(names, plugins)}
    changed = 0
    missing = _missing(store, dict.fromkeys(cell_ids), definitions)
    while chunk := list(islice(missing, AT_ONCE)):
        for metrics, ids, batch in _batches(store, chunk):
            entries: dict[str, dict[str, Any]] = defaultdict(dict)
            for metric in metrics:
                for cell_id, result in zip(ids, _scores(metric, batch), strict=True):
                    entries[cell_id][metric.name] = result.entry(definitions[metric])
            for cell_id, new in entries.items():
                store.amend(cell_id, {"metrics": {**store.record(cell_id)["metrics"], **new}})
            changed += len(entries)
    return changed


Missing = tuple[str, tuple[Metric, ...]]


def _missing(store: Store, ids: Iterable[str], definitions: dict[Metric, dict[str, Any]]) -> Iterator[Missing]:
    """The cells that lack numbers they could have, and which."""
    for cell_id in ids:
        record = store.record(cell_id)
        there = {name: entry["definition"] for name, entry in record.get("metrics", {}).items()}
        metrics = tuple(
            metric
            for metric, definition in definitions.items()
            if there.get(metric.name) != definition and not lacking(record, metric)
        )
        if metrics:
            yield cell_id, metrics


def _batches(store: Store, chunk: Sequence[Missing]) -> Iterator[tuple[tuple[Metric, ...], list[str], Batch]]:
    """Cells that lack the same metrics and whose pictures have the same sizes, together."""
    groups: dict[Any, list[tuple[str, dict[str, np.ndarray]]]] = defaultdict(list)
    for cell_id, metrics in chunk:
        needs = frozenset().union(*(metric.needs for metric in metrics)) & FILES.keys()
        wanted = {"image"} | {FILES[need].removesuffix(".png") for need in needs}
        try:
            pictures = {name: store.pixels(cell_id, name) for name in sorted(wanted)}
        except OSError:
            continue
        groups[metrics, tuple((n, p.shape) for n, p in pictures.items())].append((cell_id, pictures))
    for (metrics, shapes), cells in groups.items():
        stacks = {name: np.stack([pictures[name] for _, pictures in cells]) for name, _ in shapes}
        ids = [cell_id for cell_id, _ in cells]
        prompts = tuple(_prompt(store.record(cell_id)) or "" for cell_id in ids)
        yield metrics, ids, Batch(stacks["image"], stacks.get("input"), stacks.get("mask"), prompts)


def _prompt(record: dict[str, Any]) -> str | None:
    """A cell's prompt; of several, the first; None where it has none."""
    prompt = record.get("config", {}).get("prompt")
    return prompt[0] if isinstance(prompt, list) else prompt


def _scores(metric: Metric, batch: Batch) -> list[Score]:
    """A metric's numbers, or why there are none: pictures of two sizes cannot be compared."""
    size = batch.images.shape[1:3]
    for need, other in (("reference", batch.references), ("mask", batch.masks)):
        if need in metric.needs and other is not None and other.shape[1:3] != size:
            (h, w), (hh, ww) = size, other.shape[1:3]
            return [Score(None, reason=f"the {need} is {ww} x {hh}, the picture {w} x {h}")] * len(batch.images)
    return list(metric(batch))
