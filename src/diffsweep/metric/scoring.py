"""The second pass over the store: which numbers a cell or a sweep lacks, computed and written where they belong."""

from __future__ import annotations

import dataclasses
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from diffsweep.core.device import present
from diffsweep.core.failures import Failures
from diffsweep.core.packages import HINT, imported, modules
from diffsweep.core.problems import BadInput, did_you_mean, one_of, require
from diffsweep.metric.batch import Batch, Described, Metric, Score, SetMetric
from diffsweep.metric.distribution import FEATURES
from diffsweep.metric.sets import current, settings
from diffsweep.model.clip import Clip

if TYPE_CHECKING:
    from diffsweep.sweep.store import Store

AT_ONCE = 64  # pictures a batch
# what a cell stores of what a metric may need; of views there are several
FILES = {"reference": "input.png", "mask": "mask.png", "low": "low.png", "views": "view_0.png"}
MISSING = ("refuse", "skip")
# what each need is called
NEEDS = {"reference": "a clean input", "mask": "a mask", "prompt": "a prompt", "low": "bands", "views": "views"}


@dataclass(frozen=True)
class Options:
    """What metrics are made with: every field that a metric has of these is set. missing: what becomes of a metric
    whose weights or packages are not there, one of `MISSING`."""

    missing: str = "refuse"
    clip: str = Clip.path
    features: str = "clip"
    references: str = "inputs"
    plugins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require(one_of("metric.missing", self.missing, MISSING), one_of("metric.features", self.features, FEATURES))

    def on(self, metric: Any) -> Any:
        own = {"clip": Clip(self.clip, "metric.clip"), "features": self.features, "references": self.references}
        there = {f.name for f in dataclasses.fields(metric)} if dataclasses.is_dataclass(metric) else set()
        return dataclasses.replace(metric, **{key: value for key, value in own.items() if key in there})


@dataclass(frozen=True)
class Chosen:
    """Metrics of pictures and of sets, and those that cannot be measured, with the reason."""

    metrics: tuple[Metric, ...] = ()
    of_sets: tuple[SetMetric, ...] = ()
    unavailable: Mapping[str, str] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        return [metric.name for metric in (*self.metrics, *self.of_sets)]

    def ready(self) -> None:
        """Download what is not there yet, so that nothing is wanting when the pictures are."""
        for metric in (*self.metrics, *self.of_sets):
            if clip := getattr(metric, "clip", None):
                clip.fetch()


@lru_cache
def known(plugins: tuple[str, ...] = ()) -> dict[str, Any]:
    """Every metric by name, the plugins' first: all that the modules of each package's `metric` folder list."""
    found: dict[str, Any] = {}
    for path in modules("metric", plugins):
        for metric in getattr(imported(path), "METRICS", ()):
            found.setdefault(metric.name, metric)
    return found


def choose(names: Iterable[str], options: Options = Options()) -> Chosen:
    """The metrics of these names; BadInput for every name there is none of, and for those that cannot be measured."""
    metrics = known(options.plugins)
    names = dict.fromkeys(names)
    there = ", ".join(metrics)
    wrong = [name for name in names if name not in metrics]
    if wrong:
        raise BadInput(
            f"metric.names: no metric {n!r}; there are {there}; {HINT}{did_you_mean(n, metrics)}" for n in wrong
        )
    chosen, unavailable = [], {}
    for metric in (options.on(metrics[name]) for name in names):
        if reason := _missing_from(metric):
            unavailable[metric.name] = reason
        else:
            chosen.append(metric)
    if unavailable and options.missing == "refuse":
        raise BadInput(
            f"metric {name}: {reason} (metric.missing=skip goes on without it)" for name, reason in unavailable.items()
        )
    of_sets = tuple(metric for metric in chosen if hasattr(metric, "together"))
    return Chosen(tuple(metric for metric in chosen if metric not in of_sets), of_sets, unavailable)


def _missing_from(metric: Described) -> str | None:
    """What stands in the way of measuring."""
    try:
        reason: str | None = getattr(metric, "missing", lambda: None)()
        if reason is None:
            metric.definition()
        return reason
    except BadInput as error:
        return "; ".join(error.messages)


def lacking(record: Mapping[str, Any], metric: Described) -> frozenset[str]:
    """What a metric needs and this cell has not."""
    there = {need for need, file in FILES.items() if file in record["files"]}
    return metric.needs - there - ({"prompt"} if _prompts(record) else set())


def score(
    store: Store,
    cell_ids: Iterable[str],
    metrics: Iterable[Metric],
    device: str = "auto",
    failed: Failures | None = None,
    shows: bool = True,
) -> int:
    """Compute what is missing and write it into the records; the number of cells that changed.

    A number of the same definition is kept. A cell that lacks what a metric needs goes without it, and one whose
    pictures cannot be read is left as it is (`verify` tells). A metric that fails is left out, its error in `failed`
    by its name. shows: a progress bar where it takes long. Where nothing is missing, torch is not imported. BadInput
    for a device that is not there.
    """
    definitions = {metric: _plain(metric.definition()) for metric in metrics}
    ids = list(dict.fromkeys(cell_ids))
    changed: set[str] = set()
    with _bar(len(ids), shows) as bar:
        missing = _missing(store, _counted(ids, bar), definitions)
        while chunk := list(islice(missing, AT_ONCE)):
            for own, batch_ids, batch in _batches(store, chunk, present(device)):
                entries: dict[str, dict[str, Any]] = defaultdict(dict)
                for metric in own:
                    with _told(metric, failed):
                        for cell_id, result in zip(batch_ids, _scores(metric, batch), strict=True):
                            entries[cell_id][metric.name] = result.entry(definitions[metric])
                for cell_id, new in entries.items():
                    store.merge(cell_id, "metrics", new)
                changed |= entries.keys()
    return len(changed)


def score_sets(
    store: Store,
    sweep: Mapping[str, Any],
    metrics: Iterable[SetMetric],
    device: str = "auto",
    failed: Failures | None = None,
) -> dict[str, Any]:
    """What sweep.json holds as `sets`: by metric its definition and a number a setting, those of now and before.

    A number is kept where the definition is the same and the setting's pictures are; failed: as of `score`.
    """
    metrics = list(metrics)
    if not (metrics or sweep.get("sets")):
        return {}
    there = settings(sweep, store.finished)
    sets = current(sweep.get("sets", {}), there)
    for metric in metrics:
        definition = _plain(metric.definition())
        before = sets.get(metric.name, {"definition": None, "values": ()})
        same = before["values"] if before["definition"] == definition else ()
        kept = {entry["of"]: entry for entry in same if entry["value"] is not None}
        values = []
        for setting in there:
            mark = setting.mark
            if setting.cells and mark not in kept:
                with _told(metric, failed):
                    result = _together(store, metric, setting.cells, device).entry()
                    kept[mark] = {"of": mark, "cells": len(setting.cells), **result}
            if mark in kept:
                values.append({**kept[mark], "axes": setting.axes})
        sets[metric.name] = {"definition": definition, "values": values}
    return sets


@contextmanager
def _told(metric: Described, failed: Failures | None) -> Iterator[None]:
    """One metric's error is no other's: it is told, not raised."""
    try:
        yield
    except BadInput:
        raise
    except (Exception, SystemExit) as error:
        if failed is None:
            raise
        failed.add(metric.name, error)


def _together(store: Store, metric: SetMetric, cells: Mapping[str, str], device: str) -> Score:
    records = [store.record(cell_id) for cell_id in cells]
    if lacks := frozenset().union(*(lacking(record, metric) for record in records)):
        return Score(None, reason=f"pictures without {' and '.join(sorted(lacks))}")
    wanted = {"image"} | {FILES[need].removesuffix(".png") for need in metric.needs & FILES.keys()}
    try:
        pictures = [{name: store.pixels(cell_id, name) for name in wanted} for cell_id in cells]
    except OSError:
        return Score(None, reason="pictures that cannot be read")
    if len({tuple(p.shape for p in own.values()) for own in pictures}) > 1:
        return Score(None, reason="pictures of several sizes")
    stacks = {name: np.stack([own[name] for own in pictures]) for name in wanted}
    batch = Batch(stacks["image"], stacks.get("input"), inputs=tuple(cells.values()), device=present(device))
    return metric.together(batch)


def _plain(definition: dict[str, Any]) -> dict[str, Any]:
    """As JSON keeps it: tuples become lists."""
    return json.loads(json.dumps(definition))


def _bar(number: int, shows: bool) -> Any:
    """Told of work that takes more than a moment."""
    from tqdm import tqdm

    return tqdm(
        total=number, desc="measuring", unit="cell", delay=2, dynamic_ncols=True, leave=False, disable=not shows
    )


def _counted(ids: Iterable[str], bar: Any) -> Iterator[str]:
    for cell_id in ids:
        yield cell_id
        bar.update()


Missing = tuple[str, tuple[Metric, ...]]


def _missing(store: Store, ids: Iterable[str], definitions: Mapping[Metric, dict[str, Any]]) -> Iterator[Missing]:
    """The cells that lack numbers they could have, and which."""
    for cell_id in ids:
        record = store.get(cell_id)
        if record is None:
            continue
        there = {name: entry["definition"] for name, entry in record.get("metrics", {}).items()}
        metrics = tuple(
            metric
            for metric, definition in definitions.items()
            if there.get(metric.name) != definition and not lacking(record, metric)
        )
        if metrics:
            yield cell_id, metrics


def _batches(
    store: Store, chunk: Sequence[Missing], device: str
) -> Iterator[tuple[tuple[Metric, ...], list[str], Batch]]:
    """Cells that lack the same metrics and whose pictures have the same sizes, together."""
    groups: dict[Any, list[tuple[str, dict[str, np.ndarray], tuple[str, ...]]]] = defaultdict(list)
    for cell_id, metrics in chunk:
        record = store.get(cell_id)
        if record is None:
            continue
        needs = frozenset().union(*(metric.needs for metric in metrics)) & FILES.keys()
        wanted = {"image", *(FILES[need].removesuffix(".png") for need in needs)}
        if "views" in needs:
            wanted |= {name.removesuffix(".png") for name in record["files"] if name.startswith("view_")}
        try:
            pictures = {name: store.pixels(cell_id, name) for name in sorted(wanted)}
        except OSError:
            continue
        groups[metrics, tuple((n, p.shape) for n, p in pictures.items())].append((cell_id, pictures, _prompts(record)))
    for (metrics, shapes), cells in groups.items():
        stacks = {name: np.stack([pictures[name] for _, pictures, _ in cells]) for name, _ in shapes}
        views = [stacks[f"view_{k}"] for k in range(len(stacks)) if f"view_{k}" in stacks]
        asked = tuple(prompts for _, _, prompts in cells)
        yield (
            metrics,
            [cell_id for cell_id, _, _ in cells],
            Batch(
                stacks["image"],
                stacks.get("input"),
                stacks.get("mask"),
                tuple(prompts[0] if prompts else "" for prompts in asked),
                asked,
                np.stack(views, axis=1) if views else None,
                stacks.get("low"),
                device=device,
            ),
        )


def _prompts(record: Mapping[str, Any]) -> tuple[str, ...]:
    """A cell's prompts, none where it has none."""
    prompt = record.get("config", {}).get("prompt")
    return tuple(prompt) if isinstance(prompt, list) else () if prompt is None else (prompt,)


def _scores(metric: Metric, batch: Batch) -> list[Score]:
    """A metric's numbers, or why there are none: pictures of two sizes cannot be compared."""
    size = batch.images.shape[1:3]
    for need, other in (("reference", batch.references), ("mask", batch.masks)):
        if need in metric.needs and other is not None and other.shape[1:3] != size:
            (h, w), (hh, ww) = size, other.shape[1:3]
            return [Score(None, reason=f"the {need} is {ww} x {hh}, the picture {w} x {h}")] * len(batch.images)
    return list(metric(batch))
