"""What W&B's runs of a sweep hold: one run for the sweep, one for each cell."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from diffsweep.report.comparison import to_frame
from diffsweep.report.selection import bounds, common, levels, measured, split_axes
from diffsweep.report.statistics import averaged, intervals
from diffsweep.report.tabular import to_frame as settings_of
from diffsweep.report.text import brief, short
from diffsweep.report.write import standalone_page
from diffsweep.store.cells import Store
from diffsweep.store.cells import steps as steps_of
from diffsweep.store.pictures import WATCHED
from diffsweep.store.schema import CellEntry, Document, Record
from diffsweep.tracker.artifact import log_artifact
from diffsweep.tracker.steps import MOST_PICTURES, MOST_ROWS, Steps, caption_of, picture, thinned

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from wandb import Run, Table

    from diffsweep.report.write import Report


@dataclass(frozen=True)
class RunLog:
    """One run. content: a hash of what it holds, empty while that is still to come; write: logs it; cut: what there is
    no room for; exit_code: how the run ends."""

    id: str
    name: str | None
    job_type: str
    config: dict[str, Any]
    content: str
    write: Callable[[Run], None]
    cut: str = ""
    exit_code: int = 0

    @property
    def arguments(self) -> dict[str, Any]:
        """As `wandb.init` takes them."""
        return {"id": self.id, "name": self.name, "job_type": self.job_type, "config": self.config}


def run_id(sweep: Document) -> str:
    """The same however often, and wherever, the sweep is logged."""
    return hashlib.sha256(f"{sweep['name']} {sweep['created']}".encode()).hexdigest()[:16]


def cell_run_id(sweep: Document, cell_id: str) -> str:
    """Two sweeps that share a cell each have a run of it."""
    return f"{cell_id}-{run_id(sweep)[:8]}"


def group_of(name: str) -> str:
    """The group of all runs of the sweep of this name."""
    return os.environ.get("WANDB_RUN_GROUP") or name


def of_cell(store: Store, sweep: Document, cell: CellEntry) -> RunLog:
    """A finished cell: its configuration, numbers and pictures."""
    cell_id, record = cell["cell_id"], store.record(cell["cell_id"])
    config = {**record["config"], "sweep": sweep["name"], "cell_id": cell_id}
    asked = {name: entry for name, entry in record["metrics"].items() if name in sweep["metrics"]}
    numbers = {name: entry["value"] for name, entry in asked.items() if entry["value"] is not None}
    numbers |= {f"{name}_exact": True for name, entry in asked.items() if entry.get("exact")}
    numbers |= {"nfe": record["nfe"], "seconds": record["seconds"]}
    write = partial(_write_cell, store, cell, record, numbers)
    content = _hash(config, numbers, record["files"])
    place = store.lots.folder if store.packed(cell_id) else store.folder(cell_id)
    return _log_of(sweep, cell, {**config, "files": place.relative_to(store.root).as_posix()}, write, content)


def of_failed(store: Store, sweep: Document) -> Iterator[RunLog]:
    """Each cell that failed: its configuration, and the reason."""
    for cell in sweep["cells"]:
        if (config := cell.get("config")) and not store.is_complete(cell["cell_id"]):
            write = partial(_write_failure, cell["reason"])
            config = {**config, "sweep": sweep["name"], "cell_id": cell["cell_id"]}
            yield _log_of(sweep, cell, config, write, _hash(config, cell["reason"]), exit_code=1)


def _log_of(
    sweep: Document,
    cell: CellEntry,
    config: dict[str, Any],
    write: Callable[[Run], None],
    content: str,
    exit_code: int = 0,
) -> RunLog:
    technique = config["technique"]["name"]
    axes = {axis.rpartition(".")[2]: value for axis, value in cell["axes"].items()} or {"technique": technique}
    named = " ".join(f"{axis}={short(brief(value), 30)}" for axis, value in {**axes, "seed": cell["seed"]}.items())
    name = short(named, 80)
    return RunLog(cell_run_id(sweep, cell["cell_id"]), name, technique, config, content, write, exit_code=exit_code)


def _write_failure(reason: str | None, run: Run) -> None:
    run.summary["reason"] = reason


def _write_cell(
    store: Store,
    cell: CellEntry,
    record: Record,
    numbers: Mapping[str, Any],
    run: Run,
) -> None:
    """Log a step for each stored step of the cell, then its pictures beside each other."""

    pictures: dict[str, Any] = {}
    steps: dict[int, dict[str, Any]] = {}
    times = steps_of(record)
    for file in sorted(record["files"]):
        name = file.removesuffix(".png")
        if found := WATCHED.fullmatch(name):
            step = int(found[1])
            caption = f"t = {times.get(name.rpartition('_')[0])}, {caption_of(cell)}"
            steps.setdefault(step, {})[found[2]] = picture(store, cell, file, caption)
        else:
            pictures[name] = picture(store, cell, file, f"{name}: {caption_of(cell)}")
    for step in sorted(steps):
        run.log(steps[step])
    run.log({**pictures, **numbers})


def of_beginning(sweep: Document, own_id: str | None) -> RunLog:
    """A sweep that has just begun. own_id: the id that an agent gave the run; W&B then names it."""
    config = {"sweep": sweep["name"], "axes": dict(sweep["axes"]), "command": sweep["command"]}
    return RunLog(own_id or run_id(sweep), None if own_id else sweep["name"], "sweep", config, "", lambda run: None)


def of_sweep(store: Store, sweep: Document, report: Report, steps: Steps, own_id: str | None) -> RunLog:
    """A sweep as a whole. steps: those logged while it ran."""
    begun = of_beginning(sweep, own_id)
    done = [cell["cell_id"] for cell in stored(store, sweep)]
    config = {**shared(store, sweep), **begun.config}
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in report.files}
    counts = ((MOST_ROWS, len(report.frame), "rows"), (MOST_PICTURES, len(done), "pictures"))
    cut = [f"{most} of {count} {what}" for most, count, what in counts if count > most]
    return replace(
        begun,
        config=config,
        content=_hash(config, report.frame.to_json(), digests),
        write=partial(_write_sweep, store, sweep, report, steps),
        cut=f" ({', '.join(cut)})" if cut else "",
    )


def _write_sweep(store: Store, sweep: Document, report: Report, steps: Steps, run: Run) -> None:
    """Log a step for each cell; then each metric's mean, which an agent optimises."""
    steps.log(run, store, sweep, report.frame)
    run.log(summary(report.frame))


def log_last(store: Store, sweep: Document, report: Report, run: Run) -> str | None:
    """Log tables, pictures, sheets, figures, the page with its pictures, and the artifact. Answers what could not be
    logged."""
    import wandb

    cells = stored(store, sweep)
    chosen = [cells[i] for i in thinned(len(cells))]
    tables = {
        "results": report.frame,
        "settings": settings_of(report.table),
        "comparisons": to_frame(report.comparisons),
    }
    page = standalone_page(store, sweep, report)
    run.log(
        {
            **{name: _table(frame, name, run) for name, frame in tables.items() if len(frame)},
            "samples": [picture(store, cell) for cell in chosen],
            **{media_key(path): wandb.Image(str(path)) for path in shown_files(report)},
            "report": wandb.Html(page, inject=False, data_is_not_path=True),
        }
    )
    return log_artifact(run, sweep, report, page)


def stored(store: Store, sweep: Document) -> list[CellEntry]:
    """The sweep's cells that are finished, each once."""
    cells = {cell["cell_id"]: cell for cell in reversed(sweep["cells"])}
    order = dict.fromkeys(cell["cell_id"] for cell in sweep["cells"])
    return [cells[cell_id] for cell_id in order if store.is_complete(cell_id)]


def shown_files(report: Report) -> list[Path]:
    """Contact sheets and figures."""
    return [path for path in report.files if path.suffix == ".png"]


def media_key(path: Path) -> str:
    """Of letters, digits and underscores, as W&B takes them everywhere."""
    name = re.sub(r"\W+", "_", path.stem, flags=re.ASCII)
    return f"figures/{name}" if path.parent.name == "figures" else name


def shared(store: Store, sweep: Document) -> dict[str, Any]:
    """What the configurations of all cells have in common, nested."""
    return common([store.record(cell["cell_id"])["config"] for cell in stored(store, sweep)])


def summary(frame: pd.DataFrame) -> dict[str, float]:
    """How many cells there are, their cost in all, and each metric's mean over seeds and inputs, with its 95 % interval
    as _low and _high.

    A seed and input is averaged over the settings first. A metric of sets of pictures has its mean over the settings.
    """
    found: dict[str, float] = {"cells": len(frame), "failed": int((frame["status"] == "failed").sum())}
    found |= {"nfe": int(frame["nfe"].sum()), "seconds": float(frame["seconds"].sum())}
    _, inputs = split_axes(frame)
    for name in measured(frame):
        there = frame[frame[name].notna()]
        if len(there):
            units = there.assign(input=levels(there, inputs), seed=levels(there, ["seed"]), by=there[name])
            means = units.groupby(["input", "seed"])["by"].mean()
            column, (of_input, seed) = means.to_numpy()[:, None], (means.index.get_level_values(i) for i in (0, 1))
            ends = intervals(column, of_input.to_numpy(), seed.to_numpy(), bounds=bounds(frame, name))
            numbers = {"": averaged(column, of_input.to_numpy())[0], "_low": ends[0][0], "_high": ends[1][0]}
            found |= {f"{name}{end}": float(value) for end, value in numbers.items() if value == value}  # not NaN
    for name, entry in frame.attrs.get("sets", {}).items():
        values = [each["value"] for each in entry["values"] if each["value"] is not None]
        found |= {name: sum(values) / len(values)} if values else {}
    return found


def _table(frame: pd.DataFrame, key: str, run: Run) -> Table:
    """Bound by hand: else wandb makes an artifact of it too, staged outside of the run's folder."""
    import wandb

    cells = frame.head(MOST_ROWS).astype(object)
    rows: list[Any] = cells.where(cells.notna(), None).to_numpy().tolist()
    table = wandb.Table(columns=list(map(str, frame)), data=rows)
    table.bind_to_run(run, key, run.step)  # type: ignore[no-untyped-call]
    return table


def _hash(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
