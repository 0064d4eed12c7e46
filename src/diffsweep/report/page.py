"""report.html: a sweep's table, contact sheet, settings and definitions on one page that opens from disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from diffsweep.report.table import Table, caption, cells
from diffsweep.report.text import short, shown

if TYPE_CHECKING:
    from jinja2 import Template

COUNTED = ("cells", "model_loads", "model_calls", "model_rows", "padded_rows", "encodes", "rows", "sampling_seconds")


def page(sweep: Mapping[str, Any], frame: pd.DataFrame, table: Table, sheets: Sequence[str]) -> str:
    """The page as HTML, every text of the user's escaped; pictures are named relative to the sweep's folder."""
    header, lines = cells(table, str, limit=120)
    failed = frame[frame["status"] == "failed"]
    return _template().render(
        name=sweep["name"],
        command=sweep["command"],
        created=sweep["created"],
        axes={axis: [short(shown(value), 80) for value in values] for axis, values in sweep["axes"].items()},
        number=len(frame),
        done=len(frame) - len(failed),
        header=header,
        lines=lines,
        left=len(table.axes),
        caption=caption(table),
        sheets=sheets,
        notes=sweep["notes"],
        failed=[(cell["cell_id"], cell["reason"]) for _, cell in failed.iterrows()],
        definitions=frame.attrs["metrics"],
        runs=[{"started": run["started"], **{key: run[key] for key in COUNTED}} for run in sweep["runs"]],
    )


@lru_cache
def _template() -> Template:
    loader = PackageLoader("diffsweep.report", "")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.get_template("page.html.jinja")
