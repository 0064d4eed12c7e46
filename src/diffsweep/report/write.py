"""A sweep's files: results.parquet, results.csv, table.md, table.tex, contact sheets, figures and report.html."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd

from diffsweep.core.failures import ERRORS, Failures
from diffsweep.core.files import write_atomic
from diffsweep.core.problems import BadInput
from diffsweep.metric.batch import GAVE
from diffsweep.report import fonts
from diffsweep.report.comparison import Comparison, overview
from diffsweep.report.embed import embedded, of_lots
from diffsweep.report.figure import USES, write_figures
from diffsweep.report.figure.trajectory import write_trajectory
from diffsweep.report.frame import results
from diffsweep.report.grid import SHEET, InTheWay, write_grid
from diffsweep.report.latex import to_latex
from diffsweep.report.page import page
from diffsweep.report.selection import measured
from diffsweep.report.table import Table, summarise
from diffsweep.report.tabular import to_csv, to_markdown
from diffsweep.report.text import shown
from diffsweep.store.cells import Store
from diffsweep.store.schema import Document, Drawing, Look

STANDALONE = "report_whole.html"


@dataclass(frozen=True, eq=False)
class Report:
    """What was written: one row a cell, one row a setting, settings against each other, and the files.

    notes: what of it a reader should know; failures: the sheets and figures that an error kept from being drawn, and
    why; traceback: the file that says where, or a folder of several.
    """

    frame: pd.DataFrame
    table: Table
    comparisons: Sequence[Comparison]
    folder: Path
    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()
    failures: Mapping[str, str] = field(default_factory=dict)
    traceback: Path | None = None


def write_all(store: Store, sweep: Document, standalone: bool = False) -> Report:
    """Write every file of a sweep (sweep: what sweep.json holds), each of them atomically. standalone: also
    `report_whole.html`, which is written again wherever it is."""
    folder, store = store.root / "sweeps" / sweep["name"], store.looking_once()
    frame = results(store, sweep)
    table, comparisons = summarise(frame), overview(frame)
    contents = tables(sweep, frame, table)
    for name, content in contents.items():
        write_atomic(folder / name, content)
    drawn = _Drawn()
    for name, draw in _drawings(folder, store, sweep, frame, table):
        drawn.add(name, draw)
    files = (*(folder / name for name in contents), *dict.fromkeys(drawn.files), folder / "report.html")
    words = [sweep["name"], *(shown(value) for values in sweep["axes"].values() for value in values), *frame["prompt"]]
    notes = filter(None, [*_no_numbers(frame), *drawn.notes, fonts.lacking(str(word) for word in words)])
    traceback = drawn.failures.write(folder / ERRORS, sweep)
    report = Report(frame, table, comparisons, folder, files, tuple(notes), drawn.failures, traceback)
    text = page(store, sweep, frame, table, comparisons, _images(report), of_lots(store, sweep))
    write_atomic(folder / "report.html", text.encode())
    if standalone or (folder / STANDALONE).exists():
        write_atomic(folder / STANDALONE, standalone_page(store, sweep, report).encode())
    return report


def tables(sweep: Document, frame: pd.DataFrame, table: Table) -> dict[str, bytes]:
    """The contents of the files that hold the numbers."""
    parquet = BytesIO()
    frame.to_parquet(parquet, index=False)
    texts = {
        "results.csv": to_csv(frame),
        "table.md": to_markdown(table),
        "table.tex": to_latex(table, sweep["name"]),
    }
    return {"results.parquet": parquet.getvalue(), **{name: text.encode() for name, text in texts.items()}}


def _no_numbers(frame: pd.DataFrame) -> Iterator[str]:
    """The metrics that gave no finite number in any cell."""
    there = measured(frame)
    reasons = {name: why for name, why in frame.attrs["reasons"].items() if name not in there}
    for name, one in frame.attrs["sets"].items():
        if all(entry["value"] is None for entry in one["values"]):
            reasons[name] = sorted({entry["reason"] for entry in one["values"] if entry.get("reason")})
    for name, why in reasons.items():
        if any(reason.startswith(GAVE) for reason in why):
            of = "setting" if name in frame.attrs["sets"] else "cell"
            yield f"{name}: no finite number in any {of} ({'; '.join(why)})"


@dataclass
class _Drawn:
    """The sheets and figures drawn so far. One that fails takes nothing else with it."""

    files: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    failures: Failures = field(default_factory=Failures)

    def add(self, name: str, draw: Callable[[], Sequence[Path]]) -> None:
        try:
            self.files += draw()
        except InTheWay as error:
            self.failures[name] = "; ".join(error.messages)
        except BadInput as error:  # chosen for the sweep as it was: an axis or a metric of it is gone
            self.notes += [f"{name}: not drawn: {message}" for message in error.messages]
        except Exception as error:
            self.failures.add(name, error)


def _drawings(
    folder: Path, store: Store, sweep: Document, frame: pd.DataFrame, table: Table
) -> Iterator[tuple[str, Callable[[], Sequence[Path]]]]:
    """What a sweep's sheets and figures are called, and what draws them: the usual ones, and those chosen since."""
    chosen = sweep.get("chosen", {})
    for file, look in {SHEET: usual_look(sweep, frame), **chosen.get("sheets", {})}.items():
        known: dict[str, Any] = {key: value for key, value in look.items() if key in Look.__annotations__}
        yield file, partial(write_grid, folder, store, sweep, **known, file=file, frame=frame)
    for kind in USES:
        yield f"figures of {kind}", partial(_if_any, partial(write_figures, folder, sweep, frame, table, kind))
    yield "trajectory", partial(write_trajectory, folder, store, sweep)
    for asked in chosen.get("figures", ()):
        request = {key: value for key, value in asked.items() if key in Drawing.__annotations__}
        name = " ".join(["figure", *(f"{key}={shown(value)}" for key, value in request.items())])
        yield name, partial(write_chosen, folder, store, sweep, frame, request)


def _if_any(draw: Callable[[], list[Path]]) -> list[Path]:
    """Nothing where the sweep allows no such figure."""
    try:
        return draw()
    except BadInput:
        return []


def usual_look(sweep: Document, frame: pd.DataFrame) -> dict[str, Any]:
    """The contact sheet's keys, as the sweep's `grid` block has them."""
    look: dict[str, Any] = {key: value for key, value in sweep.get("grid", {}).items() if value is not None}
    if "metric" in look:
        look["metric"] = [name for name in look["metric"] if name in frame.attrs["metrics"]]
    return look


def write_chosen(
    folder: Path, store: Store, sweep: Document, frame: pd.DataFrame, request: Mapping[str, Any]
) -> list[Path]:
    """Draw a figure by its keys, as sweep.json keeps them."""
    if "cell" in request:
        return write_trajectory(folder, store, sweep, request["cell"])
    return write_figures(folder, sweep, frame, None, **request)


def standalone_page(store: Store, sweep: Document, report: Report) -> str:
    """The report's page with its pictures in it: one file, to send or to show elsewhere."""
    images = _images(report)
    pictures = embedded(store, sweep, report.folder, images)
    return page(store, sweep, report.frame, report.table, report.comparisons, images, pictures, standalone=True)


def _images(report: Report) -> list[str]:
    """The contact sheets and figures, named from the sweep's folder."""
    return [file.relative_to(report.folder).as_posix() for file in report.files if file.suffix == ".png"]
