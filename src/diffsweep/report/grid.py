"""The contact sheet: stored pictures with the axes as rows, columns and blocks, and their values as labels.

Where the cells fill few of the places that the axes' values span (a random search, an optimiser's trials), they follow
each other in the sweep's order, each above its own setting. Where a technique makes more than one picture (the views of
an anagram, the far picture of a hybrid), they stand side by side. `report/sheet.py` draws what is laid out here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import PngImagePlugin

from diffsweep.core.files import write_atomic
from diffsweep.core.problems import BadInput, did_you_mean, within
from diffsweep.core.text import level
from diffsweep.report.caption import subtitle
from diffsweep.report.drawn import KEY, drawn_as, fingerprint, mark_of, whole
from diffsweep.report.frame import results, stage
from diffsweep.report.sample import part, sample
from diffsweep.report.sheet import HOLE, Block, Line, Sheets, Tile
from diffsweep.report.text import ARROWS, briefs, decimals, fixed, labels, no_axis, short
from diffsweep.store.cells import Store
from diffsweep.store.pictures import IMAGE, INPUT, MASK, STEP, made
from diffsweep.store.schema import Damaged, Document, Record

REFERENCES = (INPUT, MASK)  # shown where their content changes, not beside each picture
SIDES = 8, 2048  # pixels that a picture may have on a sheet
SHEET = "grid.png"  # a sweep's own
FORMATS = (".png", ".pdf")
LONG = 1000  # characters of a label, which a sheet shortens to its room
SPARSE = 4  # places a picture: with more, axes make no grid

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
    sweep: Document,
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
    values = {axis: {level(value): value for value in those} for axis, those in sweep["axes"].items()}
    for cell in cells:
        for axis in values:
            values[axis].setdefault(level(value := cell["axes"].get(axis)), value)
    positions = {axis: {key: i for i, key in enumerate(those)} for axis, those in values.items()}
    places: dict[tuple[int, ...], dict[int, dict[int, Tile]]] = {}  # block, row, column
    for cell, texts in zip(cells, below, strict=True):
        at: dict[str | None, int] = {axis: positions[axis][level(cell["axes"].get(axis))] for axis in values}
        row = places.setdefault(tuple(at[axis] for axis in rest), {}).setdefault(at.get(rows, 0), {})
        row[at.get(cols, 0)] = Tile(cell["cell_id"], there=records[cell["cell_id"]] is not None, below=texts)

    width = len(values[cols]) if cols else 1
    lines = [row for block in places.values() for row in block.values()]
    sparse = width * len(lines) > SPARSE * sum(map(len, lines))
    if sparse and not asked:
        return [_listed(sweep, records, below, references)]
    columns = labels(values[cols].values(), LONG) if cols else [""]
    starts = labels(values[rows].values(), LONG) if rows else [""]
    parts = {axis: [f"{axis} = {short(text, 60)}" for text in briefs(values[axis].values())] for axis in rest}
    found = []
    for spot, block in sorted(places.items()):
        title = ", ".join(parts[axis][i] for axis, i in zip(rest, spot, strict=True))
        held = sorted({i for line in block.values() for i in line}) if sparse else range(width)
        there = {i: k for k, i in enumerate(held)}
        rows_there = [(starts[j], {there[i]: tile for i, tile in line.items()}) for j, line in sorted(block.items())]
        found.append(_placed(title, rows or "", cols or "", [columns[i] for i in held], rows_there, references))
    return found


def _listed(sweep: Document, records: Records, below: Sequence[tuple[str, ...]], references: References) -> Block:
    """The cells as one line in the sweep's order, each above its setting; the title names the axes in full."""
    axes = list(sweep["axes"])
    ends = [axis.rpartition(".")[2] for axis in axes]
    names = [end if ends.count(end) == 1 else axis for axis, end in zip(axes, ends, strict=True)]
    texts_of = [briefs(cell["axes"].get(axis) for cell in sweep["cells"]) for axis in axes]
    tiles = {}
    for i, (cell, texts) in enumerate(zip(sweep["cells"], below, strict=True)):
        own = [f"{name} {short(of_axis[i], LONG)}" for name, of_axis in zip(names, texts_of, strict=True)]
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


def side_by_side(block: Block, pictures: Sequence[str], records: Records) -> Block:
    """The block with these pictures for each cell instead of its one, as far as the cell has them. What stood below the
    one stands below it still, or below the first where it is not among them."""
    n = len(pictures)

    def spread(line: Line) -> Line:
        tiles = {}
        for i, tile in line.tiles.items():
            if tile.picture in REFERENCES:
                tiles[i * n] = tile
                continue
            there = having(records[tile.cell_id])
            shown = {name: k for k, name in enumerate(pictures) if name in there or (k == 0 and not tile.there)}
            own = tile.picture if tile.picture in shown else next(iter(shown), None)
            for name, k in shown.items():
                tiles[i * n + k] = replace(tile, picture=name, below=tile.below if name == own else ())
        return replace(line, tiles=tiles)

    columns = (text for column in block.columns for text in (column, *[""] * (n - 1)))
    return replace(block, columns=tuple(columns), lines=tuple(map(spread, block.lines)), pictures=tuple(pictures))


def having(record: Record | None) -> list[str]:
    """The names of the pictures that a cell has, HOLE among them where it was inpainted."""
    names = [file.removesuffix(".png") for file in record["files"]] if record else []
    return [*names, HOLE] if {INPUT, MASK} <= {*names} else names


def usual(records: Records) -> list[str]:
    """The picture, and what else was made with it in every cell: no copy of it, and nothing that it was made from."""
    found: list[list[str]] = []
    for record in filter(None, records.values()):
        files = record["files"]
        other = (file.removesuffix(".png") for file in files if files[file] != files.get(f"{IMAGE}.png"))
        found.append([name for name in other if made(name)])
    return [IMAGE, *(found[0] if found and all(names == found[0] for names in found) else [])]


def _chosen(pictures: Sequence[str] | None, records: Records) -> list[str]:
    """The pictures asked for, or the usual ones; BadInput for one that no cell has."""
    if not pictures:
        return usual(records)
    there = list(dict.fromkeys(name for record in records.values() for name in having(record)))
    if wrong := [name for name in pictures if name not in there]:
        known = [name for name in there if not name.startswith(STEP)] or ["none"]
        raise BadInput(
            f"pictures={name}: no such picture; this sweep's cells have {', '.join(known)}{did_you_mean(name, there)}"
            for name in wrong
        )
    return list(dict.fromkeys(pictures))


def _numbers(frame: pd.DataFrame, metrics: Sequence[str]) -> list[tuple[str, ...]]:
    """What stands below each cell's picture: `psnr ↑ 28.31`, `psnr exact`, `psnr –` where it has no value."""
    definitions = frame.attrs["metrics"]
    if wrong := [name for name in metrics if name not in definitions]:
        measured = f"its pictures have {', '.join(definitions)}" if definitions else "its pictures have none"
        raise BadInput(f"metric={name}: no such numbers; {measured}{did_you_mean(name, definitions)}" for name in wrong)
    columns = []
    for name in metrics:
        values = frame[name].tolist()
        exact = frame[f"{name}_exact"].tolist() if f"{name}_exact" in frame else [False] * len(values)
        places, arrow = decimals(definitions[name], values), ARROWS[definitions[name]["direction"]]
        columns.append(
            [
                f"{name} exact" if same else f"{name} –" if value != value else f"{name} {arrow} {fixed(value, places)}"
                for value, same in zip(values, exact, strict=True)
            ]
        )
    done = (frame["status"] == "done").tolist()
    return [texts if there else () for there, texts in zip(done, zip(*columns, strict=True), strict=True)]


def _title(store: Store, sweep: Document, records: Records) -> str:
    """The sweep's name, and the stage and size of its pictures unless all are of the first: `stage II, 256 x 256`."""
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
    sweep: Document,
    rows: str | None = None,
    cols: str | None = None,
    blocks: Sequence[str] | None = None,
    metric: Sequence[str] | None = None,
    pictures: Sequence[str] | None = None,
    title: str | None = None,
    size: int | None = None,
    file: str = SHEET,
    frame: pd.DataFrame | None = None,
) -> list[Path]:
    """Write grid.png, grid_2.png, ... or another file in the folder; a .pdf has a page for each sheet.

    Of a large sweep, the sheet shows a sample. metric: whose values stand below the pictures; pictures: names of those
    shown for each cell; title: in place of the sweep's name, where empty without the settings below it; size: of a
    picture, in pixels. BadInput as `layout`, or for
    a metric or picture that the sweep has not; InTheWay where something stands in its place that is no earlier state
    of this sheet. frame: `results` of the sweep, read where a metric needs it and it is not given. Sheets that show the
    same already are left as they are.
    """
    path = folder / file
    if problem := within("size", size, *SIDES):
        raise BadInput(problem)
    if path.suffix.lower() not in FORMATS:
        raise BadInput(f"to={file}: must end with {' or '.join(FORMATS)}")
    layout(sweep["axes"], rows, cols, blocks)
    below = _numbers(results(store, sweep) if frame is None else frame, metric) if metric else None
    number, places = len(sweep["cells"]), sample(sweep)
    if len(places) < number:
        sweep, below = part(sweep, places), below and [below[place] for place in places]
    records = {cell_id: store.get(cell_id) for cell_id in dict.fromkeys(cell["cell_id"] for cell in sweep["cells"])}
    names = _chosen(pictures, records)
    found = arranged(sweep, records, rows, cols, blocks, below)
    if names != [IMAGE]:
        found = [side_by_side(block, names, records) for block in found]
    shared = "" if title == "" else subtitle([record["config"] for record in records.values() if record], sweep["axes"])
    title = _title(store, sweep, records) if title is None else title
    if len(places) < number:
        shared = "; ".join(filter(None, [f"{len(places):,} of {number:,} cells", shared]))
    drawn = {tile: None for block in found for tile in block.tiles()}
    states = sorted({_state(store.file(tile.cell_id, name)) for tile in drawn for name in tile.names})
    mark = fingerprint(title, shared, size, found, states)
    if path.suffix.lower() == ".pdf":
        return [_write_pdf(path, lambda: Sheets(store, title, found, shared, size), mark)]
    own = path.resolve() == (store.root / "sweeps" / sweep["name"] / SHEET).resolve()
    return _write_png(path, lambda: Sheets(store, title, found, shared, size), mark, own)


def _write_png(path: Path, sheets: Callable[[], Sheets], mark: str, own: bool) -> list[Path]:
    """One file a sheet: FILE.png, FILE_2.png, ... Each bears how many there are, the mark, and FILE.png's name. own:
    FILE.png is diffsweep's, whatever it has become."""
    further = re.compile(rf"{re.escape(path.stem)}_([2-9]|[1-9]\d+){re.escape(path.suffix)}")
    beside = path.parent.iterdir() if path.parent.is_dir() else ()
    old = {int(match[1]): file for file in beside if (match := further.fullmatch(file.name)) and _sheet_of(file, path)}
    present = [path, *(old[number] for number in sorted(old))]
    if drawn_as(path) == f"{len(present)} {mark} {path.name}" and all(map(whole, present[1:])):
        return present
    drawn = sheets()
    written = [path, *(path.with_name(f"{path.stem}_{i + 1}{path.suffix}") for i in range(1, len(drawn)))]
    _require_free(written[:own], own=True)
    _require_free(file for file in written[own:] if not _sheet_of(file, path))
    for i in reversed(range(len(drawn))):  # one in memory at a time; the first, which is looked at, last
        text = PngImagePlugin.PngInfo()
        text.add_text(KEY, f"{len(drawn)} {mark} {path.name}")
        file = BytesIO()
        drawn.draw(i).save(file, format="PNG", pnginfo=text, compress_level=3)
        write_atomic(written[i], file.getvalue())
    for gone in set(present) - set(written):
        gone.unlink(missing_ok=True)
    return written


def _sheet_of(file: Path, path: Path) -> bool:
    """Whether a PNG was drawn as a sheet of `path`."""
    return (mark_of(file) or "").split(" ", 2)[2:] == [path.name]


def _write_pdf(path: Path, sheets: Callable[[], Sheets], mark: str) -> Path:
    """A page a sheet, its pixels without loss; it bears the mark among its keywords, and no date."""
    there = path.read_bytes() if path.is_file() else b""
    if f"{KEY} {mark}".encode() in there and whole(path):
        return path
    _require_free([path] if not re.search(rf"{KEY} [0-9a-f]{{64}}".encode(), there) else [])
    from diffsweep.report.figure.style import pages

    drawn = sheets()
    write_atomic(path, pages((drawn.draw(i) for i in range(len(drawn))), f"{KEY} {mark}"))
    return path


class InTheWay(BadInput):
    """What stands in a sheet's place, and is no sheet."""


def _require_free(paths: Iterable[Path], own: bool = False) -> None:
    """InTheWay for what stands there already. own: of the sheet whose name is diffsweep's choice, only what is no
    file."""
    there = [path for path in paths if (path.is_dir() if own else os.path.lexists(path))]
    wrong = {path: "a folder" if path.is_dir() else "exists already, and is not this sheet" for path in there}
    if wrong:
        raise InTheWay(f"{path}: {why}; remove it or rename it" for path, why in wrong.items())


def _state(file: Path) -> tuple[str, int, int]:
    """A picture's size and date: one that is mended or damaged makes another sheet."""
    name = f"{file.parent.name}/{file.name}"
    try:
        state = file.stat()
    except OSError:
        return name, 0, 0
    return name, state.st_size, state.st_mtime_ns
