"""A sweep's files: results.parquet, results.csv, table.md, table.tex, contact sheets, figures and report.html."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd

from diffsweep.core.files import write_atomic
from diffsweep.report.comparison import Comparison, overview
from diffsweep.report.embed import embedded
from diffsweep.report.figure import write_figures
from diffsweep.report.figure.trajectory import write_trajectory
from diffsweep.report.frame import results
from diffsweep.report.grid import write_grid
from diffsweep.report.latex import to_latex
from diffsweep.report.layout import to_csv, to_markdown, to_terminal
from diffsweep.report.page import page
from diffsweep.report.table import Table, summarise
from diffsweep.sweep.store import Store

WHOLE = "report_whole.html"
MOST_SHOWN = 60  # settings in the terminal, and failures named there


@dataclass(frozen=True, eq=False)
class Report:
    """What was written: one row a cell, one row a setting, settings against each other, and the files."""

    frame: pd.DataFrame
    table: Table
    comparisons: Sequence[Comparison]
    folder: Path
    files: tuple[Path, ...]


def write_all(store: Store, sweep: Mapping[str, Any], whole: bool = False) -> Report:
    """Write every file of a sweep (sweep: what sweep.json holds), each of them atomically. whole: `report_whole.html`
    too, which is written again wherever it is."""
    folder = store.root / "sweeps" / sweep["name"]
    frame = results(store, sweep)
    table, comparisons = summarise(frame), overview(frame)
    parquet = BytesIO()
    frame.to_parquet(parquet, index=False)
    texts = {
        "results.csv": to_csv(frame),
        "table.md": to_markdown(table),
        "table.tex": to_latex(table, sweep["name"]),
    }
    contents = {"results.parquet": parquet.getvalue(), **{name: text.encode() for name, text in texts.items()}}
    for name, content in contents.items():
        write_atomic(folder / name, content)
    grid = sweep.get("grid", {})
    there = [name for name in grid.get("metric") or () if name in frame.attrs["metrics"]]
    sheets = write_grid(folder, store, sweep, **{**grid, "metric": there or None})
    figures = [*write_figures(folder, sweep, frame, table), *write_trajectory(folder, store, sweep)]
    files = (*(folder / name for name in contents), *sheets, *figures, folder / "report.html")
    report = Report(frame, table, comparisons, folder, files)
    text = page(store, sweep, frame, table, comparisons, _images(report))
    write_atomic(folder / "report.html", text.encode())
    if whole or (folder / WHOLE).exists():
        write_atomic(folder / WHOLE, whole_page(store, sweep, report).encode())
    return report


def whole_page(store: Store, sweep: Mapping[str, Any], report: Report) -> str:
    """The report's page with its pictures in it: one file, to send or to show elsewhere."""
    images = _images(report)
    pictures = embedded(store, sweep, report.folder, images)
    return page(store, sweep, report.frame, report.table, report.comparisons, images, pictures)


def _images(report: Report) -> list[str]:
    """The contact sheets and figures, named from the sweep's folder."""
    return [file.relative_to(report.folder).as_posix() for file in report.files if file.suffix == ".png"]


def show(report: Report) -> None:
    """The table in the terminal, then the cells that failed and why, and where the files are."""
    print_table(report.table)
    failed = report.frame[report.frame["status"] == "failed"]
    for _, cell in failed.head(MOST_SHOWN).iterrows():
        setting = ", ".join(f"{axis}={cell[axis]}" for axis in report.frame.attrs["axes"])
        print(f"failed: {setting or 'the cell'} ({cell['cell_id']}): {cell['reason']}", file=sys.stderr)
    if len(failed) > MOST_SHOWN:
        print(f"failed: {len(failed) - MOST_SHOWN} more, all in results.csv", file=sys.stderr)
    if len(failed):
        print("The sweep's command, run again, tries failed cells again.", file=sys.stderr)
    if len(report.frame) == 1 and not len(failed):
        print(report.folder.parents[1] / report.frame["image"][0])
    names = dict.fromkeys(file.relative_to(report.folder).parts[0] for file in report.files)
    print(f"{report.folder}/: report.html, {', '.join(name for name in names if name != 'report.html')}")


def print_table(table: Table) -> None:
    from rich.console import Console

    # a pipe or a log has no width of its own: one that holds most tables whole
    console = Console(width=None if sys.stdout.isatty() else max(shutil.get_terminal_size().columns, 120))
    for part in to_terminal(table, console.width, MOST_SHOWN):
        console.print(part)
    if len(table.lines) > MOST_SHOWN:
        print(f"{len(table.lines) - MOST_SHOWN} more settings: table.md, results.csv")
