"""A sweep as a table: one row a cell, in the sweep's order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from diffsweep.metric.settings import current, settings
from diffsweep.report.selection import flat
from diffsweep.report.text import shown
from diffsweep.store.cells import Store
from diffsweep.store.schema import CellEntry, Definition, Document, Record

ABSENT = "not in the store: not sampled yet, or removed"
CEILING = "vae_psnr"  # what an autoencoder alone keeps of the input
DIGESTS = ("sha256", "fingerprint", "timesteps")  # settings that say nothing to a reader


class Kept(dict[str, Any]):
    """A part of `attrs` that pandas need not copy at each operation."""

    def __deepcopy__(self, memo: object) -> Kept:
        return self


def results(store: Store, sweep: Document) -> pd.DataFrame:
    """cell_id, status, (reason), a column an axis, seed, prompt, a column for each further setting that not all cells
    share, stage, a column a metric, vae_psnr where a model has latents of inputs, nfe, seconds, image.

    A metric's value is missing where the cell has none; `<metric>_exact` appears where a picture equals its reference.
    `reason` appears where a cell failed. `attrs` holds the axes, each metric's definition and reasons for missing
    values; as `refused` the metrics that were measured by two definitions, which have no column: their numbers cannot
    be compared; as `unavailable` those that could not be measured, with the reason; and as `sets` those of whole sets
    of pictures, as sweep.json has them. What the store holds counts: a cell stored since, or removed, is shown as it is
    now.
    """
    cells = list(sweep["cells"])
    records = [store.finished(cell["cell_id"]) for cell in cells]
    columns: dict[str, Any] = {
        "cell_id": _column(cell["cell_id"] for cell in cells),
        "status": _column("failed" if record is None else "done" for record in records),
    }
    if None in records:
        columns["reason"] = _column(
            None if record else cell.get("reason") or store.wrong(cell["cell_id"]) or ABSENT
            for cell, record in zip(cells, records, strict=True)
        )
    for axis in sweep["axes"]:
        columns[axis] = _column(cell["axes"].get(axis) for cell in cells)
    columns["seed"] = _column(cell["seed"] for cell in cells)
    for key, values in _settings(cells, records, sweep["axes"]).items():
        columns.setdefault(key, _column(values))
    columns["stage"] = pd.array([stage(record) if record else pd.NA for record in records], dtype="Int64")
    definitions, refused = _definitions(records, sweep.get("metrics", ()))
    reasons: dict[str, list[str]] = {}
    for metric in definitions:
        entries: list[Mapping[str, Any]] = [record["metrics"].get(metric, {}) if record else {} for record in records]
        columns[metric] = [_number(entry.get("value")) for entry in entries]
        if any(entry.get("exact") for entry in entries):
            columns[f"{metric}_exact"] = [bool(entry.get("exact")) for entry in entries]
        reasons[metric] = sorted({str(entry["reason"]) for entry in entries if entry.get("reason")})
    facts: list[Mapping[str, Any]] = [record["facts"] if record else {} for record in records]
    ceilings = [_number(own.get(CEILING)) for own in facts]
    if any(ceiling == ceiling for ceiling in ceilings):
        columns[CEILING] = ceilings
    columns["nfe"] = pd.array([record["nfe"] if record else pd.NA for record in records], dtype="Int64")
    columns["seconds"] = [_number(record["seconds"] if record else None) for record in records]
    columns["image"] = _column(
        None if record is None else _place(store, cell["cell_id"]).relative_to(store.root).as_posix()
        for cell, record in zip(cells, records, strict=True)
    )
    frame = pd.DataFrame(columns)
    by_id = dict(zip((cell["cell_id"] for cell in cells), records, strict=True))
    sets = Kept(current(sweep["sets"], settings(sweep, by_id.get)) if sweep.get("sets") else {})
    gone = {name: why for name, why in sweep.get("unavailable", {}).items() if _lacks(name, records, sets)}
    frame.attrs = {"axes": list(sweep["axes"]), "metrics": definitions, "reasons": reasons, "refused": refused}
    frame.attrs |= {"unavailable": gone, "sets": sets}
    return frame


def _place(store: Store, cell_id: str) -> Path:
    """A cell's picture; of a packed one the folder of lots, which Parquet's readers take as one table."""
    return store.lots.folder if store.packed(cell_id) else store.file(cell_id)


def configs(cells: Iterable[CellEntry], records: Iterable[Record | None]) -> list[Mapping[str, Any]]:
    """Each cell's configuration, as far as it is known: that of a failed one as its last run had it."""
    return [(record or cell).get("config", {}) for cell, record in zip(cells, records, strict=True)]


def _settings(
    cells: Iterable[CellEntry], records: Iterable[Record | None], axes: Iterable[str]
) -> dict[str, list[Any]]:
    """The prompt, and what else of the cells' configurations, as far as they are known, differs and is no axis."""
    found = [flat(config) for config in configs(cells, records)]
    of_axes = {name for axis in axes for name in (axis, f"{axis}.name")}
    keys = dict.fromkeys(key for config in found for key in config if key not in of_axes)
    values = {key: [config.get(key) for config in found] for key in ("prompt", *keys) if key not in of_axes}
    known = [place for place, config in enumerate(found) if config]

    def differs(key: str) -> bool:
        return any(values[key][place] != values[key][known[0]] for place in known)

    return {
        key: own
        for key, own in values.items()
        if key == "prompt" or (not key.endswith(DIGESTS) and not key.startswith("plugins.") and differs(key))
    }


def _lacks(metric: str, records: Iterable[Record | None], sets: Mapping[str, Any]) -> bool:
    """Whether it has no number of a finished cell, or of any setting."""
    if metric in sets:
        return not sets[metric]["values"]
    return any(record and metric not in record.get("metrics", {}) for record in records)


def stage(record: Record) -> int:
    """Which of a cascade's stages made the picture, 1 for the first."""
    upscale, stage = record["config"].get("upscale"), 1
    while upscale:
        upscale, stage = upscale.get("of"), stage + 1
    return stage


def _definitions(records: Iterable[Record | None], asked: Iterable[str]) -> tuple[dict[str, Definition], list[str]]:
    """The definition of each metric asked for and found, and the metrics that have more than one."""
    asked = dict.fromkeys(asked)
    found: dict[str, Definition] = {}
    refused: dict[str, None] = {}
    for record in records:
        for name, entry in (record["metrics"] if record else {}).items():
            if name in asked and found.setdefault(name, entry["definition"]) != entry["definition"]:
                refused[name] = None
    return {name: found[name] for name in asked if name in found and name not in refused}, list(refused)


def _column(values: Iterable[Any]) -> Any:
    """A column of one type: whole numbers, numbers, booleans, or text; nothing (null) is missing in any of them."""
    values = list(values)
    kinds = {type(value) for value in values} - {type(None)}
    if kinds == {bool}:
        return pd.array(values, dtype="boolean") if None in values else values
    if kinds == {int} and max(map(abs, (v for v in values if v is not None))) < 2**63:
        return pd.array(values, dtype="Int64") if None in values else values
    if kinds and kinds <= {int, float}:
        return [_number(value) for value in values]
    texts = [None if value is None else shown(value) if str(value).split() else "" for value in values]
    return pd.array(texts, dtype="string")


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)
