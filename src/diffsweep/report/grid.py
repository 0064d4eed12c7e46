"""The contact sheet: stored pictures with the axes as rows, columns and blocks, and their values as labels.

Where the cells fill few of the places that the axes' values span (a random search, an optimiser's trials), they follow
each other in the sweep's order, each above its own setting. `report/sheet.py` draws what is laid out here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import PngImagePlugin

from diffsweep.core.files import write_atomic
from diffsweep.core.problems import BadInput, did_you_mean
from diffsweep.report.drawn import KEY, drawn_as, fingerprint
from diffsweep.report.sheet import Block, Line, Sheets, Tile
from diffsweep.report.text import ARROWS, digits, fixed, labels, no_axis, short, shown
from diffsweep.sweep.store import Damaged, Record, Store

REFERENCES = ("input", "mask")  # shown where their content changes, not beside each picture
SPARSE = 4  # places a picture: with more, axes make no grid

Sweep = Mapping[str, Any]
Records = Mapping[str, Record | None]  # by cell id; None where the cell failed
References = dict[str, dict[str, Tile]]  # by name and cell; pictures of one content are one tile


def layout(
    axes: Mapping[str, Sequence[Any]],
    rows: str | None = None,
    cols: str | None = None,
    blocks: Sequence[str] | None = None,
) -> tuple[str | None, str | None, list[str]]:
    """Which axes are rows, columns and blocks. By default the columns are the seed, or else the second axis, and the
    rows the first axis that is left; what remains joins the blocks. BadInput for an axis that the sweep has not."""
    asked = [(key, axis) for key, axis in (("rows", rows), ("cols", cols)) if axis is not None]
    asked += [("blocks", axis) for axis in blocks or ()]
    for key, axis in asked:
        if axis not in axes:
            raise BadInput(no_axis(key, axis, axes))
    chosen = [axis for _, axis in asked]
    if twice := [f"{key}={axis}" for key, axis in asked if chosen.count(axis) > 1]:
        raise BadInput(f"{' '.join(twice)}: one axis cannot be both")
    free = [axis for axis in axes if axis not in chosen]
    if cols is None and free:
        cols = "seed" if "seed" in free else free[0] if rows or len(free) == 1 else free[1]
        free.remove(cols)
    if rows is None and free:
        rows = free.pop(0)
    return rows, cols, [*(blocks or ()), *free]


def arranged(
    sweep: Sweep,
    records: Records,
    rows: str | None = None,
    cols: str | None = None,
    blocks: Sequence[str] | None = None,
    below: Sequence[tuple[str, ...]] | None = None,
) -> list[Block]:
    """A sweep's cells laid out. below: a cell's texts, set below its picture. BadInput as `layout`."""
    asked = bool(rows or cols or blocks)
    rows, cols, rest = layout(sweep["axes"], rows, cols, blocks)
    cells, below = sweep["cells"], below or [()] * len(sweep["cells"])
    references = _references(records)
    values = {axis: {_key(value): value for value in those} for axis, those in sweep["axes"].items()}
    for cell in cells:
        for axis in values:
            values[axis].setdefault(_key(value := cell["axes"].get(axis)), value)
    positions = {axis: {key: i for i, key in enumerate(those)} for axis, those in values.items()}
    places: dict[tuple[int, ...], dict[int, dict[int, Tile]]] = {}  # block, row, column
    for cell, texts in zip(cells, below, strict=True):
        at: dict[str | None, int] = {axis: positions[axis][_key(cell["axes"].get(axis))] for axis in values}
        row = places.setdefault(tuple(at[axis] for axis in rest), {}).setdefault(at.get(rows, 0), {})
        row[at.get(cols, 0)] = Tile(cell["cell_id"], there=records[cell["cell_id"]] is not None, below=texts)

    width = len(values[cols]) if cols else 1
    lines = [row for block in places.values() for row in block.values()]
    sparse = width * len(lines) > SPARSE * sum(map(len, lines))
    if sparse and not asked:
        return [_listed(sweep, records, below, references)]
    columns = labels(values[cols].values(), 52) if cols else [""]
    starts = labels(values[rows].values(), 96) if rows else [""]
    parts = {axis: [f"{axis} = {short(shown(value), 60)}" for value in values[axis].values()] for axis in rest}
    found = []
    for spot, block in sorted(places.items()):
        title = ", ".join(parts[axis][i] for axis, i in zip(rest, spot, strict=True))
        held = sorted({i for line in block.values() for i in line}) if sparse else range(width)
        there = {i: k for k, i in enumerate(held)}
        rows_there = [(starts[j], {there[i]: tile for i, tile in line.items()}) for j, line in sorted(block.items())]
        found.append(_placed(title, rows or "", cols or "", [columns[i] for i in held], rows_there, references))
    return found


def _listed(sweep: Sweep, records: Records, below: Sequence[tuple[str, ...]], references: References) -> Block:
    """The cells as one line in the sweep's order, each above its setting; the title names the axes in full."""
    axes = list(sweep["axes"])
    ends = [axis.rpartition(".")[2] for axis in axes]
    names = [end if ends.count(end) == 1 else axis for axis, end in zip(axes, ends, strict=True)]
    tiles = {}
    for i, (cell, texts) in enumerate(zip(sweep["cells"], below, strict=True)):
        own = [f"{name} {shown(cell['axes'].get(axis))}" for name, axis in zip(names, axes, strict=True)]
        tiles[i] = Tile(cell["cell_id"], there=records[cell["cell_id"]] is not None, below=(*own, *texts))
    return _placed(f"below each picture: {', '.join(axes)}", "", "", [""] * len(tiles), [("", tiles)], references)


def _placed(
    title: str,
    rows: str,
    cols: str,
    columns: Sequence[str],
    lines: Sequence[tuple[str, dict[int, Tile]]],
    references: References,
) -> Block:
    """A block with its reference pictures: before the lines where each line has one, else above the columns."""
    lead: list[str] = []
    leading: list[list[Tile | None]] = [[] for _ in lines]
    above: list[Line] = []
    for name, by_cell in references.items():
        by_line: list[set[Tile]] = [set() for _ in lines]
        by_column: list[set[Tile]] = [set() for _ in columns]
        for beside, (_, tiles) in zip(by_line, lines, strict=True):
            for i, tile in tiles.items():
                if own := by_cell.get(tile.cell_id):
                    beside.add(own)
                    by_column[i].add(own)
        if all(len(found) <= 1 for found in by_line) and any(by_line):
            lead.append(name)
            for places, found in zip(leading, by_line, strict=True):
                places.append(next(iter(found), None))
        elif all(len(found) <= 1 for found in by_column) and any(by_column):
            above.append(Line(name, (), {i: tile for i, found in enumerate(by_column) for tile in found}))
    below = (Line(start, tuple(own), tiles) for own, (start, tiles) in zip(leading, lines, strict=True))
    return Block(title, rows, cols, tuple(lead), tuple(columns), (*above, *below))


def _references(records: Records) -> References:
    found: References = {name: {} for name in REFERENCES}
    for name, by_cell in found.items():
        by_content: dict[str, Tile] = {}
        for cell_id, record in records.items():
            if record and (digest := record["files"].get(f"{name}.png")):
                by_cell[cell_id] = by_content.setdefault(digest, Tile(cell_id, name))
    return found


def _numbers(store: Store, sweep: Sweep, metrics: Sequence[str]) -> list[tuple[str, ...]]:
    """What stands below each cell's picture: `psnr ↑ 28.31`, `psnr exact`, `psnr –` where it has no value."""
    from diffsweep.report.frame import results

    frame = results(store, sweep)
    definitions = frame.attrs["metrics"]
    if wrong := [name for name in metrics if name not in definitions]:
        measured = f"its pictures have {', '.join(definitions)}" if definitions else "its pictures have none"
        raise BadInput(f"metric={name}: no such numbers; {measured}{did_you_mean(name, definitions)}" for name in wrong)
    columns = []
    for name in metrics:
        values = frame[name].tolist()
        exact = frame[f"{name}_exact"].tolist() if f"{name}_exact" in frame else [False] * len(values)
        places, arrow = digits(values), ARROWS[definitions[name]["direction"]]
        columns.append(
            [
                f"{name} exact" if same else f"{name} –" if value != value else f"{name} {arrow} {fixed(value, places)}"
                for value, same in zip(values, exact, strict=True)
            ]
        )
    done = (frame["status"] == "done").tolist()
    return [texts if there else () for there, texts in zip(done, zip(*columns, strict=True), strict=True)]


def _key(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _title(store: Store, sweep: Sweep, records: Records) -> str:
    """The sweep's name, and the stage and size of its pictures unless all are of the first: `stage II, 256 x 256`."""
    from diffsweep.report.frame import stage

    sizes: dict[int, str] = {}
    for cell_id, record in records.items():
        if record and (number := stage(record)) not in sizes:
            with suppress(Damaged):
                width, height = store.size(cell_id)
                sizes[number] = f"stage {'I' * number}, {width} x {height}"
    return (
        f"{sweep['name']}, {' and '.join(sizes[n] for n in sorted(sizes))}"
        if max(sizes, default=1) > 1
        else sweep["name"]
    )


def write_grid(
    folder: Path,
    store: Store,
    sweep: Sweep,
    rows: str | None = None,
    cols: str | None = None,
    blocks: Sequence[str] | None = None,
    metric: Sequence[str] | None = None,
) -> list[Path]:
    """Write grid.png, grid_2.png, ...: BadInput as `layout`, or for a metric that the pictures have not. metric: whose
    values stand below the pictures. Sheets that show the same already are left as they are."""
    layout(sweep["axes"], rows, cols, blocks)
    below = _numbers(store, sweep, metric) if metric else None
    records = {cell_id: store.get(cell_id) for cell_id in dict.fromkeys(cell["cell_id"] for cell in sweep["cells"])}
    found = arranged(sweep, records, rows, cols, blocks, below)
    title = _title(store, sweep, records)
    pictures = {(tile.cell_id, tile.picture) for block in found for tile in block.tiles()}
    mark = fingerprint(title, found, sorted(_state(store, *picture) for picture in pictures))
    present = [folder / "grid.png", *sorted(folder.glob("grid_*.png"), key=lambda path: (len(path.name), path.name))]
    if drawn_as(present[0]) == f"{len(present)} {mark}":
        return present
    sheets = Sheets(store, title, found)
    written = [folder / ("grid.png" if i == 0 else f"grid_{i + 1}.png") for i in range(len(sheets))]
    for i in reversed(range(len(sheets))):  # one in memory at a time; the first, which bears the mark, last
        text = PngImagePlugin.PngInfo()
        text.add_text(KEY, f"{len(sheets)} {mark}")
        file = BytesIO()
        sheets.draw(i).save(file, format="PNG", pnginfo=text, compress_level=3)
        write_atomic(written[i], file.getvalue())
    for path in set(present) - set(written):
        path.unlink(missing_ok=True)
    return written


def _state(store: Store, cell_id: str, picture: str) -> tuple[str, str, int, int]:
    """A picture's size and date: one that is mended or damaged makes another sheet."""
    try:
        state = (store.folder(cell_id) / f"{picture}.png").stat()
    except OSError:
        return cell_id, picture, 0, 0
    return cell_id, picture, state.st_size, state.st_mtime_ns
