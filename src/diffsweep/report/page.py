"""report.html: a sweep's pictures, tables and curves on one page that opens from disk, without a server or a network.

The page holds everything but the pictures, and those too where it is asked to (`embed.py`): the cells as one block of
JSON, columns rather than rows, and the scripts in `html/`, on vendored libraries (`html/vendor/README.md`). Its content
security policy names each script by its hash, so that nothing else runs, and lets it reach pictures alone. A text of
the user's is escaped here, or set as text there.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from diffsweep.core.text import level
from diffsweep.report.caption import full_caption, subtitle
from diffsweep.report.command import added, around, override
from diffsweep.report.comparison import Comparison, explained
from diffsweep.report.embed import Embedded
from diffsweep.report.frame import configs
from diffsweep.report.grid import REFERENCES, layout
from diffsweep.report.sample import part, sample
from diffsweep.report.selection import common, flat
from diffsweep.report.table import Table
from diffsweep.report.tabular import cells
from diffsweep.report.text import brief, briefs, decimals, short, shown
from diffsweep.report.variance import Split, variance_split
from diffsweep.store.cells import Store
from diffsweep.store.schema import Document, Record, RunEntry

if TYPE_CHECKING:
    from jinja2 import Template

STYLES = ("vendor/tabulator_simple.min.css", "page.css")
LIBRARIES = ("vendor/d3.min.js", "vendor/plot.umd.min.js", "vendor/tabulator.min.js")
SCRIPTS = (*LIBRARIES, "state.js", "pictures.js", "panel.js", "tables.js", "curves.js", "start.js")
MOST_LISTED = 100  # values of an axis
COUNTED = ("cells", "model_loads", "model_calls", "model_rows", "padded_rows", "encodes", "rows", "sampling_seconds")

_NOTHING: Mapping[str, Any] = {"files": {}}  # what a failed cell has


def page(
    store: Store,
    sweep: Document,
    frame: pd.DataFrame,
    table: Table,
    comparisons: Sequence[Comparison],
    images: Sequence[str],
    embedded: Embedded | None = None,
    standalone: bool = False,
) -> str:
    """The page as HTML. images: contact sheets and figures, named from the sweep's folder; embedded: the cells'
    pictures, where the page holds them, as it must where they are packed; standalone: it holds the others too."""
    records = [store.finished(cell["cell_id"]) for cell in sweep["cells"]]
    failed = [cell for cell, record in zip(sweep["cells"], records, strict=True) if record is None]
    reasons = dict(zip(frame["cell_id"], frame["reason"], strict=True)) if "reason" in frame else {}
    scripts = [_text(name) for name in SCRIPTS]
    places = sample(sweep)
    told = f"Pictures and single points are of {len(places):,} of {len(frame):,} cells; tables and means are of all."
    if len(places) == len(frame):
        data = _data(sweep, frame, table, records)
    else:
        chosen = frame.iloc[places].reset_index(drop=True)
        data = _data(part(sweep, places), chosen, table, [records[place] for place in places])
    return _template().render(
        data={**data, "embedded": embedded and {"uris": embedded.uris, "at": embedded.at}},
        left_out=_left_out(embedded) if embedded else "",
        policy=_policy(scripts, "data:" if standalone else "'self' file: data:"),
        styles=[_text(name) for name in STYLES],
        scripts=scripts,
        command=sweep["command"],
        created=sweep["created"],
        number=len(frame),
        done=len(frame) - len(failed),
        notes=[*([told] if len(places) < len(frame) else []), *sweep["notes"]],
        failed=[(_setting(cell["axes"]), cell["cell_id"], reasons[cell["cell_id"]]) for cell in failed],
        axes={axis: _first(list({level(v): v for v in values}.values())) for axis, values in sweep["axes"].items()},
        shared=data["shared"],
        subtitle=subtitle([record["config"] for record in records if record], sweep["axes"]),
        caption=full_caption(table),
        comparisons=comparisons,
        explained=explained(comparisons) if comparisons else "",
        splits=_splits(frame, table),
        definitions=frame.attrs["metrics"] | {k: v["definition"] for k, v in frame.attrs.get("sets", {}).items()},
        unavailable=frame.attrs.get("unavailable", {}),
        runs=[_counted(run) for run in sweep["runs"]],
        images=embedded.sheets if embedded and standalone else {name: name for name in images},
        standalone=standalone,
    )


def _data(sweep: Document, frame: pd.DataFrame, table: Table, records: Sequence[Record | None]) -> dict[str, Any]:
    """What the scripts read; a cell is its place in each list, a value its place in its axis, -1 where it has none."""
    asked = (sweep.get("grid", {}).get(key) for key in ("rows", "cols"))
    rows, cols, _ = layout(sweep["axes"], *(axis if axis in sweep["axes"] else None for axis in asked))
    before, after = around(sweep)
    kinds, at = _numbered([[name.removesuffix(".png") for name in (record or _NOTHING)["files"]] for record in records])
    return {
        "name": sweep["name"],
        "rows": rows,
        "cols": cols,
        "before": before,
        "after": after,
        "axes": _axes(sweep),
        "ids": [cell["cell_id"] for cell in sweep["cells"]],
        "reasons": [None if pd.isna(r) else r for r in frame["reason"]] if "reason" in frame else [None] * len(frame),
        "pictures": {"kinds": kinds, "at": at},
        "references": {name: _digests(name, records) for name in REFERENCES},
        **_configured(sweep, records),
        "bases": {i: base for i, r in enumerate(records) if r and (base := r.get("facts", {}).get("base"))},
        "measures": _measures(frame),
        "table": _settings(table),
    }


def _configured(sweep: Document, records: Sequence[Record | None]) -> dict[str, Any]:
    """The settings that all cells share, and each other one that is no axis: its values, and which of them a cell
    has."""
    found = [flat(config) for config in configs(sweep["cells"], records)]
    there = [config for config in found if config]
    shared = flat(common(there))
    keys = dict.fromkeys(key for config in there for key in config if key not in shared and key not in sweep["axes"])
    settings = []
    for key in keys:
        texts = [shown(config[key]) if key in config else None for config in found]
        values = list(dict.fromkeys(text for text in texts if text is not None))
        places = {text: place for place, text in enumerate(values)}
        settings.append({"name": key, "values": values, "at": [-1 if t is None else places[t] for t in texts]})
    return {"shared": {key: shown(value) for key, value in shared.items()}, "settings": settings}


def _axes(sweep: Document) -> list[dict[str, Any]]:
    """Each axis: its values as texts, as numbers where they are, as words of the command, and each cell's value."""
    found, prefixes, absent = [], added(sweep), object()
    for axis in sweep["axes"]:
        given = [cell["axes"].get(axis, absent) for cell in sweep["cells"]]
        places: dict[str, int] = {}
        values: list[Any] = []
        at = []
        for value in given:
            place = -1 if value is absent else places.setdefault(level(value), len(values))
            if place == len(values):
                values.append(value)
            at.append(place)
        found.append(
            {
                "name": axis,
                "values": briefs(values),
                "numbers": [_number(value) for value in values],
                "words": [override(prefixes.get(axis, axis), value) for value in values],
                "at": at,
            }
        )
    return found


def _measures(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Each metric with its values, then the model evaluations and the seconds."""
    found = []
    for name, definition in {**frame.attrs["metrics"], "nfe": {}, "seconds": {}}.items():
        values = [_number(value) for value in frame[name].astype("Float64").astype(float)]
        exact, there = f"{name}_exact", [value for value in values if value is not None]
        found.append(
            {
                "name": name,
                "direction": definition.get("direction"),
                "places": 0 if name == "nfe" else decimals(definition, there),
                "values": values,
                "exact": [i for i, same in enumerate(frame[exact]) if same] if exact in frame else [],
            }
        )
    return found


def _settings(table: Table) -> dict[str, Any]:
    """The table's lines as shown, with the numbers to sort and to draw them by."""
    header, lines = cells(table, str)
    return {
        "axes": list(table.axes),
        "metrics": list(table.directions),
        "header": header,
        "rows": [
            {
                "texts": [text for text, _ in line],
                "best": [i for i, (_, best) in enumerate(line) if best],
                "numbers": [_number(value) for value in row.setting],
                "stats": [[_number(v) for v in (stat.mean, stat.low, stat.high)] for stat in stats],
                "nfe": _number(row.nfe),
                "seconds": _number(row.seconds),
            }
            for row, line in zip(table.rows, lines, strict=True)
            for stats in [[row.stats[name] for name in table.directions]]
        ],
    }


def _counted(run: RunEntry) -> dict[str, object]:
    """When a run began, and what it counted."""
    whole = {**run}
    return {key: whole[key] for key in ("started", *COUNTED)}


def _splits(frame: pd.DataFrame, table: Table) -> list[Split]:
    return [split for name in table.directions if name in frame and (split := variance_split(frame, name))]


def _digests(name: str, records: Iterable[Record | None]) -> list[int]:
    """Which of its distinct contents a reference picture has in each cell, -1 for none."""
    digests = [(record or _NOTHING)["files"].get(f"{name}.png") for record in records]
    places = {digest: i for i, digest in enumerate(dict.fromkeys(filter(None, digests)))}
    return [places.get(digest, -1) for digest in digests]


def _numbered(lists: Sequence[Sequence[str]]) -> tuple[list[list[str]], list[int]]:
    """The distinct lists, and which of them each is."""
    places = {names: i for i, names in enumerate(dict.fromkeys(map(tuple, lists)))}
    return [list(names) for names in places], [places[tuple(names)] for names in lists]


def _number(value: Any) -> float | None:
    """A finite number, or none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value


def _setting(axes: Mapping[str, Any]) -> str:
    return ", ".join(f"{axis}={short(brief(value), 60)}" for axis, value in axes.items())


def _first(values: Sequence[Any]) -> list[str]:
    more = [f"and {len(values) - MOST_LISTED} more"] if len(values) > MOST_LISTED else []
    return [*(short(brief(value), 200) for value in values[:MOST_LISTED]), *more]


def _left_out(embedded: Embedded) -> str:
    most = f"which holds at most {embedded.room / 1e6:g} MB of pictures"
    names = _first(embedded.left_out)
    return f"Left out of this file, {most}: {', '.join(names)}" if names else ""


def _policy(scripts: Iterable[str], pictures: str) -> str:
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src {pictures}; "
        "base-uri 'none'; form-action 'none'"
    )


@lru_cache
def _text(name: str) -> str:
    return files("diffsweep.report").joinpath("html", name).read_text(encoding="utf-8")


@lru_cache
def _template() -> Template:
    loader = PackageLoader("diffsweep.report", "html")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return environment.get_template("report.html.jinja")
