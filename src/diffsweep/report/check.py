"""Whether a sweep's files are what a report would write now, from its sweep.json and the store alone."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import pandas as pd

from diffsweep.core import files
from diffsweep.report.comparison import overview
from diffsweep.report.drawn import whole
from diffsweep.report.embed import of_lots
from diffsweep.report.frame import results
from diffsweep.report.page import page
from diffsweep.report.table import summarise
from diffsweep.report.write import STANDALONE, tables
from diffsweep.store.cells import Store
from diffsweep.store.schema import Document

STALE = "not what the store gives now"
MOVED = "says where cells were before they were packed or unpacked"
SHEET = re.compile(r'<img class="sheet" src="([^"]*)"')  # a contact sheet or a figure, as the page names it
PAGE = "report.html"


def wrong_files(store: Store, sweep: Document) -> dict[str, str]:
    """What is wrong with a sweep's files, by their names in its folder: nothing where a report would change none.

    A sheet or a figure, which may be drawn by another version of a library, needs only be as it was written.
    """
    folder, store = store.root / "sweeps" / sweep["name"], store.looking_once()
    frame = results(store, sweep)
    table = summarise(frame)
    found = {name: _compared(folder / name, content) for name, content in tables(sweep, frame, table).items()}
    sheets = _sheets(folder / PAGE)
    text = page(store, sweep, frame, table, overview(frame), sheets, of_lots(store, sweep))
    found[PAGE] = _compared(folder / PAGE, text.encode())
    if found[PAGE] is None:  # else what it names says nothing
        drawings = [*sheets, *(f"{name[:-4]}.pdf" for name in sheets if name.startswith("figures/"))]
        found |= {name: None if whole(folder / name) else _damage(folder / name) for name in drawings}
    if (folder / STANDALONE).exists():
        found[STANDALONE] = _damage(folder / STANDALONE, b"</html>")
    if found["results.parquet"] == STALE and _lay_elsewhere(folder / "results.parquet", frame):
        found = {name: MOVED if reason == STALE else reason for name, reason in found.items()}
    return {name: reason for name, reason in found.items() if reason}


def _compared(path: Path, right: bytes) -> str | None:
    """What is wrong with a file that should have this content."""
    try:
        data = files.read(path)
    except OSError as error:
        return _unread(error)
    same = data == right or (path.suffix == ".parquet" and _same_table(data, right))
    return None if same else STALE


def _lay_elsewhere(path: Path, frame: pd.DataFrame) -> bool:
    """Whether a table names other places of the pictures, which is all that packing changes."""
    try:
        return not pd.read_parquet(path, columns=["image"])["image"].equals(frame["image"])
    except Exception:  # of a damaged file, a reader may say anything
        return False


def _same_table(data: bytes, right: bytes) -> bool:
    """Whether two Parquet files hold the same rows, whatever wrote them."""
    try:
        return pd.read_parquet(BytesIO(data)).equals(pd.read_parquet(BytesIO(right)))
    except Exception:  # of a damaged file, a reader may say anything
        return False


def _sheets(path: Path) -> Sequence[str]:
    """The contact sheets and figures that a page names, in its order."""
    try:
        text = files.read(path).decode(errors="replace")
    except OSError:
        return ()
    return [html.unescape(name) for name in SHEET.findall(text)]


def _damage(path: Path, end: bytes | None = None) -> str | None:
    """What is wrong with a file that should end so, or that is known to be damaged."""
    try:
        data = files.read(path)
    except OSError as error:
        return _unread(error)
    return None if end and data.rstrip().endswith(end) else "not complete"


def _unread(error: OSError) -> str:
    return "missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror or error})"
