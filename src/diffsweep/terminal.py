"""What a sweep shows in a terminal: notes and a progress bar, then its table, its failures and where its files are."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from diffsweep.core.failures import NOT_FINITE
from diffsweep.core.text import counted, visible
from diffsweep.runner.listener import Listener

if TYPE_CHECKING:
    import pandas as pd
    from tqdm import tqdm

    from diffsweep.report.table import Table
    from diffsweep.report.write import Report
    from diffsweep.runner.forecast import Forecast

MOST_SHOWN = 60  # settings in the terminal, and failures named there


class Progress(Listener):
    """Notes as lines on stderr, and a bar of the model rows that are computed (in a notebook, one of its own); at the
    end, what failed."""

    def __init__(self) -> None:
        self._bar: tqdm[None] | None = None
        self._stored = self._cells = 0

    def note(self, text: str) -> None:
        print(visible(text), file=sys.stderr, flush=True)

    def samples(self, cells: int, rows: int) -> None:
        from tqdm.auto import tqdm

        self._stored, self._cells = 0, cells
        self._bar = tqdm(
            total=rows,
            unit="row",
            dynamic_ncols=True,
            mininterval=0.2 if sys.stderr.isatty() else 15,
            bar_format="{desc} {percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt} model rows, {elapsed} < {remaining}",
        )

    def waits(self, what: str) -> None:
        if self._bar is not None:
            self._bar.set_description_str(what)

    def begins(self) -> None:
        self._count()
        if self._bar is not None:
            self._bar.unpause()  # sampling tells the time left, not loading

    def rows(self, number: int) -> None:
        if self._bar is not None:
            self._bar.update(number)

    def cell(self, cell_id: str, error: str | None) -> None:
        self._stored += error is None
        self._count()

    def ends(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar = None

    def _count(self) -> None:
        if self._bar is not None:
            self._bar.set_description_str(f"{self._stored}/{self._cells} cells", refresh=False)

    def report(self, report: Report, own: Collection[str] | None) -> None:
        show_failed(report, own)


class Terminal(Progress):
    """Progress, and at the end what the sweep has found."""

    def report(self, report: Report, own: Collection[str] | None) -> None:
        show(report, own)

    def elsewhere(self, folder: Path) -> None:
        show_stored(folder)
        print(f"{folder}/: report.html and all other files, written by another worker")

    def forecast(self, forecast: Forecast) -> None:
        print(visible(str(forecast)))


def show(report: Report, own: Collection[str] | None = None) -> None:
    """The table in the terminal, then the cells that failed and why, and where the files are. own: the cells of this
    process, where others make the rest: no table yet, and no failures but theirs."""
    if own is None:
        print_table(report.table)
    show_failed(report, own)
    frame = _of(report, own)
    if len(frame) == 1 and frame["status"].iloc[0] == "done":
        print(report.folder.parents[1] / frame["image"].iloc[0])
    names = dict.fromkeys(file.relative_to(report.folder).parts[0] for file in report.files)
    print(f"{report.folder}/: report.html, {', '.join(name for name in names if name != 'report.html')}")


def _of(report: Report, own: Collection[str] | None) -> pd.DataFrame:
    return report.frame if own is None else report.frame[report.frame["cell_id"].isin(own)]


def show_failed(report: Report, own: Collection[str] | None = None) -> None:
    """The cells that failed and why, what else a reader should know, and the sheets and figures that failed."""
    from diffsweep.report.selection import plain
    from diffsweep.report.text import shown

    frame = _of(report, own)
    failed = frame[frame["status"] == "failed"]
    for _, cell in failed.head(MOST_SHOWN).iterrows():
        setting = ", ".join(f"{axis}={shown(plain(cell[axis]))}" for axis in report.frame.attrs["axes"])
        print(f"failed: {setting or 'the cell'} ({cell['cell_id']}): {cell['reason']}", file=sys.stderr)
    if len(failed) > MOST_SHOWN:
        print(f"failed: {len(failed) - MOST_SHOWN} more, all in results.csv", file=sys.stderr)
    if len(failed) and not failed["reason"].str.contains(NOT_FINITE, regex=False).all():  # else they fail again alike
        print("The sweep's command, run again, tries failed cells again.", file=sys.stderr)
    for text in report.notes:
        print(f"note: {text}", file=sys.stderr)
    show_failures(report)


def show_stored(folder: Path) -> None:
    """The table in the terminal, of what a sweep's folder holds by now; nothing where it is on another machine."""
    from diffsweep.report.frame import results
    from diffsweep.report.table import summarise
    from diffsweep.store.cells import Store
    from diffsweep.store.schema import Damaged, Document, load

    with suppress(Damaged):
        print_table(summarise(results(Store(folder.parents[1]), load(folder / "sweep.json", Document))))


def show_failures(report: Report) -> None:
    """The sheets and figures that an error kept from being drawn, and where their tracebacks are."""
    for name, reason in report.failures.items():
        print(visible(f"{name}: not drawn: {reason}"), file=sys.stderr)
    if report.traceback:
        print(f"traceback{'s' * (len(report.failures) > 1)}: {report.traceback}", file=sys.stderr)


def print_table(table: Table, whole: bool = False) -> None:
    """whole: with the columns that say nothing of their own."""
    from rich.console import Console

    from diffsweep.report.tabular import to_terminal

    # a pipe or a log has no width of its own: one that holds most tables whole
    console = Console(width=None if sys.stdout.isatty() else max(shutil.get_terminal_size().columns, 120))
    for part in to_terminal(table, console.width, MOST_SHOWN, whole):
        console.print(part)
    if len(table.lines) > MOST_SHOWN:
        print(f"{counted('more setting', len(table.lines) - MOST_SHOWN)}: table.md, results.csv")
