"""The second pass over the store: computes the numbers that a cell or a sweep lacks, and writes them there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from diffsweep.core.device import present
from diffsweep.core.failures import Failures
from diffsweep.core.problems import BadInput
from diffsweep.core.text import counted
from diffsweep.metric.batch import FILES, NEEDS, Batch, Described, Metric, Score, SetMetric
from diffsweep.metric.choice import defined
from diffsweep.metric.settings import current, settings
from diffsweep.store.pictures import HARD_MASK, IMAGE, INPUT, LOW, MASK, VIEW
from diffsweep.store.progress import bar

if TYPE_CHECKING:
    from diffsweep.store.cells import Store
    from diffsweep.store.schema import Definition, Document, Record, SetEntry, SetValue

AT_ONCE = 64  # pictures a batch

Read = tuple["Record", dict[str, np.ndarray]]  # a cell, and those of its pictures that are needed


def lacking(record: Record, metric: Described) -> frozenset[str]:
    """What a metric needs and this cell has not."""
    there = {need for need, file in FILES.items() if file in record["files"]}
    return metric.needs - there - ({"prompt"} if _prompts(record) else set())


def called(needs: Iterable[str]) -> str:
    """`a clean input and a mask`."""
    return " and ".join(sorted({NEEDS[need] for need in needs}))


def score(
    store: Store,
    cell_ids: Iterable[str],
    metrics: Iterable[Metric],
    device: str = "auto",
    failed: Failures | None = None,
    shows: bool = True,
    again: bool = False,
    without: dict[str, str] | None = None,
) -> int:
    """Compute the missing numbers and write them into the records. Answers the number of cells that changed.

    A number of the same definition is kept, unless `again` asks to measure all. A metric skips a cell that lacks what
    it needs, and leaves one whose pictures cannot be read as it is (`verify` reports those). failed: collects the
    errors of metrics, by name; without: the metrics whose needs no cell meets, with what the cells lack. shows: a
    progress bar where it takes long. Where nothing is missing, torch is not imported. BadInput for a device that is not
    there."""
    definitions = {metric: defined(metric) for metric in metrics}
    ids = list(dict.fromkeys(cell_ids))
    changed: set[str] = set()
    with bar("measuring", len(ids), shows) as progress:
        missing = _missing(store, _counted(ids, progress), definitions, again, {} if without is None else without)
        while chunk := list(islice(missing, AT_ONCE)):
            for own, batch_ids, batch in _batches(store, chunk, present(device)):
                entries: dict[str, dict[str, Any]] = defaultdict(dict)
                for metric in own:
                    with _isolated(metric, failed):
                        for cell_id, result in zip(batch_ids, _scores(metric, batch), strict=True):
                            entries[cell_id][metric.name] = result.entry(definitions[metric])
                for cell_id, new in entries.items():
                    store.merge(cell_id, "metrics", new)
                changed |= entries.keys()
    return len(changed)


def score_sets(
    store: Store,
    sweep: Document,
    metrics: Iterable[SetMetric],
    device: str = "auto",
    failed: Failures | None = None,
    again: bool = False,
) -> dict[str, SetEntry]:
    """What sweep.json holds as `sets`: by metric its definition and a number a setting, those of now and before.

    A number is kept where the definition is the same and the setting's pictures are; failed, again: as of `score`.
    """
    metrics = list(metrics)
    if not (metrics or sweep.get("sets")):
        return {}
    there = settings(sweep, store.finished)
    sets = current(sweep.get("sets", {}), there)
    for metric in metrics:
        definition = defined(metric)
        before = sets.get(metric.name)
        same = before["values"] if before and before["definition"] == definition else ()
        kept = {entry["of"]: entry for entry in same if entry["value"] is not None and not again}
        values: list[SetValue] = []
        for setting in there:
            mark = setting.mark
            if setting.cells and mark not in kept:
                with _isolated(metric, failed):
                    result = Score.of(_together(store, metric, setting.cells, device)).entry()
                    kept[mark] = cast("SetValue", {"of": mark, "cells": len(setting.cells), **result})
            if mark in kept:
                values.append({**kept[mark], "axes": setting.axes})
        sets[metric.name] = {"definition": cast("Definition", definition), "values": values}
    return sets


@contextmanager
def _isolated(metric: Described, failed: Failures | None) -> Iterator[None]:
    """Keep one metric's error, and a change of folder, from the others: the error is noted in `failed`, not raised."""
    try:
        with chdir("."):
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
        return Score(None, reason=f"pictures without {called(lacks)}")
    try:
        read = [(record, _pictures(store, record, metric.needs)) for record in records]
    except OSError:
        return Score(None, reason="pictures that cannot be read")
    if len({_shapes(pictures) for _, pictures in read}) > 1:
        return Score(None, reason="pictures of several sizes")
    return metric.together(_batch(read, present(device), tuple(cells.values())))


def _pictures(store: Store, record: Record, needs: frozenset[str]) -> dict[str, np.ndarray]:
    """What a cell stores of what is needed, by name, and its picture; OSError where one cannot be read."""
    files = {f"{IMAGE}.png", *(FILES[need] for need in needs & FILES.keys())}
    if "views" in needs:
        files |= {file for file in record["files"] if file.startswith(VIEW)}
    names = sorted(file.removesuffix(".png") for file in files)
    return {name: store.pixels(record["cell_id"], name) for name in names}


def _shapes(pictures: Mapping[str, np.ndarray]) -> tuple[Any, ...]:
    return tuple((name, pixels.shape) for name, pixels in pictures.items())


def _batch(cells: Sequence[Read], device: str, inputs: tuple[str, ...] | None = None) -> Batch:
    """Cells whose pictures have the same names and sizes, together. inputs: a name of each cell's."""
    stacks = {name: np.stack([pictures[name] for _, pictures in cells]) for name in cells[0][1]}
    views = [stacks[f"{VIEW}{k}"] for k in range(len(stacks)) if f"{VIEW}{k}" in stacks]
    asked = tuple(_prompts(record) for record, _ in cells)
    return Batch(
        images=stacks[IMAGE],
        references=stacks.get(INPUT),
        masks=stacks.get(MASK),
        prompts=tuple(prompts[0] if prompts else "" for prompts in asked),
        all_prompts=asked,
        views=np.stack(views, axis=1) if views else None,
        lows=stacks.get(LOW),
        inputs=inputs,
        hard_masks=stacks.get(HARD_MASK),
        device=device,
    )


def _counted(ids: Iterable[str], progress: Any) -> Iterator[str]:
    for cell_id in ids:
        yield cell_id
        progress.update()


Missing = tuple[str, tuple[Metric, ...]]


def _missing(
    store: Store,
    ids: Iterable[str],
    definitions: Mapping[Metric, dict[str, Any]],
    again: bool,
    without: dict[str, str],
) -> Iterator[Missing]:
    """The cells that lack numbers they could have, and which; at the end, in `without`, what no cell has."""
    lacks: dict[Metric, set[frozenset[str]]] = {metric: set() for metric in definitions}
    for cell_id in ids:
        record = store.get(cell_id)
        if record is None:
            continue
        there = {name: entry["definition"] for name, entry in record.get("metrics", {}).items()}
        metrics = []
        for metric, definition in definitions.items():
            measured = there.get(metric.name) == definition
            lack = frozenset[str]() if measured else lacking(record, metric)
            lacks[metric].add(lack)
            if not lack and (again or not measured):
                metrics.append(metric)
        if metrics:
            yield cell_id, tuple(metrics)
    for metric, found in lacks.items():
        if found and all(found):
            common = frozenset.intersection(*found)  # nothing: each has what another lacks
            needed = called(common) if common else f"{called(frozenset.union(*found))} together"
            without[metric.name] = f"no cell has {needed}"


def _batches(
    store: Store, chunk: Sequence[Missing], device: str
) -> Iterator[tuple[tuple[Metric, ...], list[str], Batch]]:
    """Cells that lack the same metrics and whose pictures have the same sizes, together."""
    groups: dict[Any, list[Read]] = defaultdict(list)
    for cell_id, metrics in chunk:
        record = store.get(cell_id)
        if record is None:
            continue
        try:
            pictures = _pictures(store, record, frozenset().union(*(metric.needs for metric in metrics)))
        except OSError:
            continue
        groups[metrics, _shapes(pictures)].append((record, pictures))
    for (metrics, _), cells in groups.items():
        yield metrics, [record["cell_id"] for record, _ in cells], _batch(cells, device)


def _prompts(record: Record) -> tuple[str, ...]:
    """A cell's prompts, none where it has none."""
    prompt = record.get("config", {}).get("prompt")
    return tuple(prompt) if isinstance(prompt, list) else () if prompt is None else (prompt,)


def _scores(metric: Metric, batch: Batch) -> list[Score]:
    """A metric's numbers, or why there are none: pictures of two sizes cannot be compared."""
    size = batch.images.shape[1:3]
    others = {"reference": batch.references, "mask": batch.masks, "hard_mask": batch.hard_masks}
    for need, other in others.items():
        if need in metric.needs and other is not None and other.shape[1:3] != size:
            (h, w), (hh, ww) = size, other.shape[1:3]
            return [Score(None, reason=f"the {need} is {ww} x {hh}, the picture {w} x {h}")] * len(batch.images)
    scores = [Score.of(given) for given in metric(batch)]
    if len(scores) != len(batch.images):
        raise ValueError(f"{counted('number', len(scores))} for {counted('picture', len(batch.images))}")
    return scores
