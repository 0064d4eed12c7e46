"""The contact sheet: stored pictures with the axes as rows, columns and blocks, and their values as labels.

Pictures are enlarged (large ones reduced) by a whole factor without smoothing, so that a small picture's pixels are the
stored ones. Sheets flow like a text: a block that is too wide is broken into several, and what does not fit below
follows on the next sheet.
"""

from __future__ import annotations

import hashlib
import json
import textwrap
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from diffsweep.core.files import write_atomic
from diffsweep.core.problems import BadInput, did_you_mean
from diffsweep.report.text import labels, short, shown
from diffsweep.sweep.store import Record, Store

LEAST, MOST, SIDE = 96, 256, 8000  # pixels: a tile's sides, and the greatest side of a sheet
FEW, MANY = 16, 64  # tiles side by side: a lone row is wrapped beyond FEW, several beyond MANY
GAP, MARGIN, FONT, WORDS = 4, 16, 13, 20  # WORDS: characters a row's label may always have in a line
LEADING = FONT + 4
INK, FAINT, PAPER, GREY = "#1a1a1a", "#6b6b6b", "white", "#c8c8c8"
REFERENCES = ("input", "mask")  # shown where their content changes, not beside each picture

Sweep = Mapping[str, Any]


def layout(
    axes: Mapping[str, Sequence[Any]], rows: str | None = None, cols: str | None = None
) -> tuple[str | None, str | None, list[str]]:
    """Which axes are rows, columns and blocks. By default the columns are the seed, or else the second axis, and the
    rows the first axis that is left. BadInput for an axis that the sweep has not."""
    for key, axis in (("rows", rows), ("cols", cols)):
        if axis is not None and axis not in axes:
            there = f"it has {', '.join(axes)}" if axes else "it has none"
            raise BadInput(f"{key}={axis}: no such axis in this sweep; {there}{did_you_mean(axis, axes)}")
    if rows is not None and rows == cols:
        raise BadInput(f"rows={rows} cols={cols}: one axis cannot be both")
    free = [axis for axis in axes if axis not in (rows, cols)]
    if cols is None and free:
        cols = "seed" if "seed" in free else free[0] if rows or len(free) == 1 else free[1]
        free.remove(cols)
    if rows is None and free:
        rows = free.pop(0)
    return rows, cols, free


@dataclass(frozen=True)
class Tile:
    """One picture of a cell; `there` is False where the cell failed."""

    cell_id: str
    picture: str = "image"
    there: bool = True


@dataclass(frozen=True)
class Line:
    """A row: its label, the reference pictures before it, and a tile a column; None leaves a place empty."""

    label: str
    lead: tuple[Tile | None, ...]
    tiles: tuple[Tile | None, ...]


@dataclass(frozen=True)
class Block:
    """Lines below one title and one row of column labels; `lead` names the reference columns."""

    title: str
    rows: str
    cols: str
    lead: tuple[str, ...]
    columns: tuple[str, ...]
    lines: tuple[Line, ...]


def blocks(store: Store, sweep: Sweep, rows: str | None = None, cols: str | None = None) -> list[Block]:
    """A sweep's cells laid out; BadInput as `layout`."""
    axes = sweep["axes"]
    rows, cols, rest = layout(axes, rows, cols)
    places = {tuple(_key(cell["axes"].get(axis)) for axis in axes): cell["cell_id"] for cell in sweep["cells"]}
    records = {cell_id: store.get(cell_id) for cell_id in places.values()}

    def values(axis: str | None) -> list[Any]:
        return [None] if axis is None else list(axes[axis])

    columns = ["" if cols is None else text for text in labels(values(cols), 52)]
    starts = ["" if rows is None else text for text in labels(values(rows), 96)]
    found: list[Block] = []
    held = {_key([cell["axes"].get(axis) for axis in rest]): cell for cell in sweep["cells"]}  # those that occur
    for fixed in ([cell["axes"].get(axis) for axis in rest] for cell in held.values()):
        title = ", ".join(f"{axis} = {short(shown(v), 60)}" for axis, v in zip(rest, fixed, strict=True))
        ids = []
        for row in values(rows):
            line = []
            for col in values(cols):
                setting = dict(zip([*rest, rows, cols], [*fixed, row, col], strict=True))
                line.append(places.get(tuple(_key(setting[axis]) for axis in axes)))
            ids.append(line)
        if any(cell_id for line in ids for cell_id in line):
            found += _broken(Block(title, rows or "", cols or "", *_placed(columns, starts, ids, records)))
    return found


def _placed(
    columns: list[str], starts: list[str], ids: list[list[str | None]], records: Mapping[str, Record | None]
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[Line, ...]]:
    """A block's lines with its reference pictures: before the lines where each line has one, else above the columns."""
    lead: list[str] = []
    leading: list[list[Tile | None]] = [[] for _ in ids]
    above: list[Line] = []
    for name in REFERENCES:
        by_line = [_only(name, line, records) for line in ids]
        by_column = [_only(name, line, records) for line in zip(*ids, strict=True)]
        if None not in by_line and any(tile for tile, _ in by_line):  # type: ignore[misc]
            lead.append(name)
            before = None
            for places, (tile, digest) in zip(leading, by_line, strict=True):  # type: ignore[misc]
                places.append(tile if digest != before else None)
                before = digest
        elif None not in by_column and any(tile for tile, _ in by_column):  # type: ignore[misc]
            above.append(Line(name, (), tuple(tile for tile, _ in by_column)))  # type: ignore[misc]
    lines = [
        Line(start, tuple(places), tuple(Tile(i, there=records[i] is not None) if i else None for i in line))
        for start, places, line in zip(starts, leading, ids, strict=True)
        if any(line)
    ]
    return tuple(lead), tuple(columns), (*above, *lines)


def _only(
    name: str, ids: Sequence[str | None], records: Mapping[str, Record | None]
) -> tuple[Tile | None, str | None] | None:
    """The one reference picture these cells share, and its hash; (None, None) if they have none, None if several."""
    found: dict[str, Tile] = {}
    for cell_id in ids:
        record = records.get(cell_id) if cell_id else None
        if cell_id and record and (digest := record["files"].get(f"{name}.png")):
            found.setdefault(digest, Tile(cell_id, name))
    if len(found) > 1:
        return None
    return next(((tile, digest) for digest, tile in found.items()), (None, None))


def _broken(block: Block) -> Iterator[Block]:
    """The block, or several where it has more columns than suit a sheet."""
    most = FEW if len(block.lines) == 1 else MANY
    for i in range(0, len(block.columns), most):
        part = slice(i, i + most)
        lines = tuple(Line(line.label, line.lead, line.tiles[part]) for line in block.lines)
        lines = tuple(line for line in lines if any(line.tiles))
        if lines:
            yield Block(block.title, block.rows, block.cols, block.lead, block.columns[part], lines)


def _key(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def write_grid(
    folder: Path, store: Store, sweep: Sweep, rows: str | None = None, cols: str | None = None
) -> list[Path]:
    """Write grid.png, grid_2.png, ...: BadInput as `layout`. Sheets that show the same already are left as they are."""
    found = blocks(store, sweep, rows, cols)
    tiles = {t for block in found for line in block.lines for t in (*line.lead, *line.tiles) if t}
    states = sorted(_state(store, tile) for tile in tiles)
    mark = hashlib.sha256(f"{version('diffsweep')} {sweep['name']} {found} {states}".encode()).hexdigest()
    present = [folder / "grid.png", *sorted(folder.glob("grid_*.png"), key=lambda path: (len(path.name), path.name))]
    if _mark(present[0]) == f"{len(present)} {mark}":
        return present
    images = sheets(store, sweep["name"], found)
    written = [folder / ("grid.png" if i == 0 else f"grid_{i + 1}.png") for i in range(len(images))]
    for path, image in list(zip(written, images, strict=True))[::-1]:
        text = PngImagePlugin.PngInfo()
        text.add_text("diffsweep", f"{len(images)} {mark}")
        file = BytesIO()
        image.save(file, format="PNG", pnginfo=text, compress_level=3)
        write_atomic(path, file.getvalue())
    for path in set(present) - set(written):
        path.unlink(missing_ok=True)
    return written


def _state(store: Store, tile: Tile) -> tuple[str, str, int, int]:
    """A picture's size and date: one that is mended or damaged makes another sheet."""
    try:
        state = (store.folder(tile.cell_id) / f"{tile.picture}.png").stat()
    except OSError:
        return tile.cell_id, tile.picture, 0, 0
    return tile.cell_id, tile.picture, state.st_size, state.st_mtime_ns


def _mark(path: Path) -> str | None:
    try:
        with Image.open(path) as image:
            return image.info.get("diffsweep")
    except OSError:
        return None


def sheets(store: Store, name: str, found: Sequence[Block]) -> list[Image.Image]:
    """Draw blocks, one below the other, on as few sheets as their size allows."""
    painter = _Painter(store, found)
    pages: list[list[tuple[int, Block, Line | None]]] = [[]]
    y = top = MARGIN + 2 * LEADING
    heights = []
    for block in found:
        head: Line | None = None
        for line in block.lines:
            needed = painter.line + (0 if head else painter.header(block))
            if y + needed + MARGIN > SIDE and pages[-1]:
                heights.append(y)
                pages.append([])
                y, head = top, None
            if head is None:
                pages[-1].append((y, block, None))
                y += painter.header(block)
            pages[-1].append((y, block, line))
            y += painter.line
            head = line
        y += 2 * GAP
    heights.append(y)
    titles = [f"{name}  ({i} of {len(pages)})" if len(pages) > 1 else name for i in range(1, len(pages) + 1)]
    return [painter.page(*page) for page in zip(titles, pages, heights, strict=True)]


class _Painter:
    """Places and sizes that all of a sheet's blocks share."""

    def __init__(self, store: Store, found: Sequence[Block]) -> None:
        self.store = store
        tiles = [tile for block in found for line in block.lines for tile in (*line.lead, *line.tiles) if tile]
        self.tile = max((self._size(tile) for tile in tiles if tile.there and tile.picture == "image"), default=LEAST)
        self.line = self.tile + GAP
        texts = [part for block in found for line in block.lines for part in _wrapped(line.label, self.tile, WORDS)]
        names = [block.rows for block in found if any(line.label for line in block.lines)]
        self.label = round(max((_length(text) for text in [*texts, *names]), default=0))
        self.left = MARGIN + (self.label + 2 * GAP if self.label else 0)
        self.width = max(
            2 * MARGIN + max((_length(block.title) for block in found), default=0),
            *(self._x(block, len(block.columns)) + MARGIN for block in found),
            3 * LEAST,
        )

    def _size(self, tile: Tile) -> int:
        try:
            with Image.open(self.store.folder(tile.cell_id) / f"{tile.picture}.png") as image:
                side = max(image.size)
        except OSError:
            return LEAST
        return side * -(-LEAST // side) if side < LEAST else -(-side // -(-side // MOST))

    def _x(self, block: Block, column: int) -> int:
        """Where a block's column begins; its reference columns come before."""
        return self.left + (len(block.lead) + column) * self.line + (2 * GAP if block.lead else 0)

    def header(self, block: Block) -> int:
        """The height of a block's title and column labels."""
        rows = max(len(_wrapped(text, self.tile)) for text in (*block.columns, *block.lead, ""))
        return (bool(block.title) + bool(block.cols) + rows) * LEADING + 2 * GAP

    def page(self, title: str, items: Sequence[tuple[int, Block, Line | None]], height: int) -> Image.Image:
        width = round(max(self.width, 2 * MARGIN + _length(title)))
        image = Image.new("RGB", (width, height + MARGIN), PAPER)
        draw = ImageDraw.Draw(image)
        _write(draw, (MARGIN, MARGIN), title)
        for y, block, line in items:
            if line is None:
                self._head(draw, y, block)
            else:
                self._line(image, draw, y, block, line)
        return image

    def _head(self, draw: ImageDraw.ImageDraw, y: int, block: Block) -> None:
        bottom = y + self.header(block) - GAP
        if block.title:
            _write(draw, (MARGIN, y), block.title)
            y += LEADING
        if block.cols:
            _write(draw, (self._x(block, 0), y), block.cols, FAINT)
        if self.label:
            _write(draw, (MARGIN, bottom - LEADING), block.rows, FAINT)
        for i, text in enumerate((*block.lead, *block.columns)):
            x = self.left + i * self.line if i < len(block.lead) else self._x(block, i - len(block.lead))
            parts = _wrapped(text, self.tile)
            for j, part in enumerate(parts):
                _write(draw, (x, bottom - (len(parts) - j) * LEADING), part, FAINT if i < len(block.lead) else INK)

    def _line(self, image: Image.Image, draw: ImageDraw.ImageDraw, y: int, block: Block, line: Line) -> None:
        parts = _wrapped(line.label, self.tile, WORDS)
        for j, part in enumerate(parts):
            _write(draw, (MARGIN, y + (self.tile - len(parts) * LEADING) // 2 + j * LEADING), part)
        for i, tile in enumerate(line.lead):
            self._paste(image, draw, self.left + i * self.line, y, tile)
        for i, tile in enumerate(line.tiles):
            self._paste(image, draw, self._x(block, i), y, tile)

    def _paste(self, image: Image.Image, draw: ImageDraw.ImageDraw, x: int, y: int, tile: Tile | None) -> None:
        if tile is None:
            return
        try:
            picture = self._picture(tile) if tile.there else "failed"
        except OSError:
            picture = "unreadable"
        if isinstance(picture, str):
            draw.rectangle((x, y, x + self.tile - 1, y + self.tile - 1), fill=GREY)
            _write(draw, (x + round(self.tile - _length(picture)) // 2, y + (self.tile - FONT) // 2), picture)
        else:
            image.paste(picture, (x, y))

    def _picture(self, tile: Tile) -> Image.Image:
        with Image.open(self.store.folder(tile.cell_id) / f"{tile.picture}.png") as image:
            picture = image.convert("RGB")
        side = max(picture.size)
        if side > MOST:
            return picture.reduce(-(-side // MOST))
        factor = max(1, self.tile // side)
        return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


@lru_cache(maxsize=4096)
def _wrapped(text: str, tile: int, least: int = 8) -> tuple[str, ...]:
    """A label's lines: as wide as a tile, or `least` characters, and no more of them than stand beside one."""
    width, most = max(least, tile // 7), max(1, tile // LEADING)
    return tuple(textwrap.wrap(short(text, width * most - most * 3), width, max_lines=most, placeholder="…"))


@lru_cache
def _fonts() -> list[ImageFont.FreeTypeFont | ImageFont.ImageFont]:
    """Pillow's own font, which knows ASCII and little more, and a broader one where the system has it."""
    fonts = [ImageFont.load_default(FONT)]
    for name in ("DejaVuSans.ttf", "Arial Unicode.ttf", "Arial.ttf"):
        try:
            fonts.append(ImageFont.truetype(name, FONT))
        except OSError:
            continue
    return fonts


@lru_cache(maxsize=4096)
def _set(text: str) -> tuple[str, int]:
    """A text that can be drawn, and the number of its font; accents go where no font has them."""
    if text.replace("…", "").isascii():
        return text, 0
    if len(_fonts()) > 1:
        return text, 1
    plain = unicodedata.normalize("NFKD", text)
    return "".join(c if c.isascii() or c == "…" else "" if unicodedata.combining(c) else "?" for c in plain), 0


def _length(text: str) -> float:
    text, font = _set(text)
    return _fonts()[font].getlength(text)


def _write(draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, fill: str = INK) -> None:
    text, font = _set(text)
    draw.text(place, text, font=_fonts()[font], fill=fill)
