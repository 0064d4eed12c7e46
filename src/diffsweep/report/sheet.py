"""Blocks of pictures and labels, drawn on sheets.

Pictures are enlarged (large ones reduced) by a whole factor without smoothing, so that a small picture's pixels are the
stored ones. Sheets flow like a text: a block that is too wide is broken into several, and what does not fit below
follows on the next sheet.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from diffsweep.report.text import short
from diffsweep.sweep.store import Store

LEAST, MOST, SIDE = 96, 256, 8000  # pixels: a tile's sides, and the greatest side of a sheet
FEW, MANY = 16, 64  # tiles side by side: a lone row is wrapped beyond FEW, several beyond MANY
GAP, MARGIN, FONT, WORDS = 4, 16, 12, 20  # WORDS: characters that a label may always have in a line
LEADING, LINE = FONT + 5, 600  # LINE: how wide a title may make a narrow sheet
INK, FAINT, PAPER, GREY = "#1a1a1a", "#6b6b6b", "white", "#c8c8c8"


@dataclass(frozen=True)
class Tile:
    """One picture of a cell; `there` is False where the cell failed, `below` holds texts that stand below it."""

    cell_id: str
    picture: str = "image"
    there: bool = True
    below: tuple[str, ...] = ()


@dataclass(frozen=True)
class Line:
    """A row: its label, the reference pictures before it, and its tiles by column."""

    label: str
    lead: tuple[Tile | None, ...]
    tiles: dict[int, Tile]


@dataclass(frozen=True)
class Block:
    """Lines below one title and one row of column labels; `lead` names the reference columns."""

    title: str
    rows: str
    cols: str
    lead: tuple[str, ...]
    columns: tuple[str, ...]
    lines: tuple[Line, ...]

    def tiles(self) -> Iterator[Tile]:
        for line in self.lines:
            yield from filter(None, line.lead)
            yield from line.tiles.values()


Item = tuple[int, Block, Line | None]  # where it begins, and a block's line, or None for its head


class Sheets:
    """Blocks one below the other, on as few sheets as their size allows; places and sizes are the same on all."""

    def __init__(self, store: Store, title: str, blocks: Sequence[Block]) -> None:
        self.store, self.title = store, title
        tiles = {tile for block in blocks for tile in block.tiles()}
        self.tile = max((self._size(tile) for tile in tiles if tile.there and tile.picture == "image"), default=LEAST)
        below = [self._below(tile) for tile in tiles]
        widest = max((_length(text) for text in {text for texts in below for text in texts}), default=0)
        self.pitch = max(self.tile + GAP, math.ceil(widest) + 2 * GAP)
        rows = max(map(len, below), default=0)
        self.line = self.tile + (rows * LEADING + GAP if rows else 0) + GAP
        starts = {part for block in blocks for line in block.lines for part in _wrapped(line.label, self.tile, WORDS)}
        names = {block.rows for block in blocks if any(line.label for line in block.lines)}
        self.label = round(max((_length(text) for text in starts | names), default=0))
        self.left = MARGIN + (self.label + 2 * GAP if self.label else 0)
        parts = [part for block in blocks for part in self._broken(block)]
        self.width = max(
            3 * LEAST,
            *(self._x(part, len(part.columns)) + MARGIN for part in parts),
            min(LINE, 2 * MARGIN + round(max((_length(part.title) for part in parts), default=0))),
        )
        self.pages, self.heights = self._flow(parts)

    def __len__(self) -> int:
        return len(self.pages)

    def draw(self, number: int) -> Image.Image:
        title = f"{self.title}  ({number + 1} of {len(self)})" if len(self) > 1 else self.title
        width = round(max(self.width, 2 * MARGIN + _length(title)))
        image = Image.new("RGB", (width, self.heights[number] + MARGIN), PAPER)
        draw = ImageDraw.Draw(image)
        _write(draw, (MARGIN, MARGIN), title)
        for y, block, line in self.pages[number]:
            if line is None:
                self._head(draw, y, block)
            else:
                self._line(image, draw, y, block, line)
        return image

    def _size(self, tile: Tile) -> int:
        try:
            side = max(self.store.size(tile.cell_id, tile.picture))
        except OSError:
            return LEAST
        return side * -(-LEAST // side) if side < LEAST else -(-side // -(-side // MOST))

    def _below(self, tile: Tile) -> list[str]:
        return [part for text in tile.below for part in _wrapped(text, self.tile, WORDS)]

    def _broken(self, block: Block) -> Iterator[Block]:
        """The block, or several where it has more columns than suit a sheet; one line without labels is wrapped."""
        flows = len(block.lines) == 1 and not any(block.columns)
        most = max(FEW, math.isqrt(len(block.columns))) if flows or len(block.lines) == 1 else MANY
        most = max(1, min(most, MANY, (SIDE - MARGIN - self._x(block, 0)) // self.pitch))
        parts: dict[int, list[Line]] = {}
        for line in block.lines:
            own: dict[int, dict[int, Tile]] = {}
            for i, tile in line.tiles.items():
                own.setdefault(i // most, {})[i % most] = tile
            for part, tiles in own.items():
                parts.setdefault(part, []).append(replace(line, tiles=tiles))
        if flows:
            wrapped = tuple(line for _, lines in sorted(parts.items()) for line in lines)
            yield replace(block, columns=block.columns[:most], lines=wrapped)
        else:
            for part, lines in sorted(parts.items()):
                yield replace(block, columns=block.columns[part * most : (part + 1) * most], lines=tuple(lines))

    def _flow(self, blocks: Sequence[Block]) -> tuple[list[list[Item]], list[int]]:
        """What stands where on each sheet, and how high each is. A reference that the line above has is left out."""
        pages: list[list[Item]] = [[]]
        heights = []
        y = top = MARGIN + 2 * LEADING
        for block in blocks:
            above: Line | None = None
            for line in block.lines:
                if y + self.line + (0 if above else self._header(block)) + MARGIN > SIDE and pages[-1]:
                    heights.append(y)
                    pages.append([])
                    y, above = top, None
                if above is None:
                    pages[-1].append((y, block, None))
                    y += self._header(block)
                before = above.lead if above else ()
                lead = tuple(tile if before[i : i + 1] != (tile,) else None for i, tile in enumerate(line.lead))
                pages[-1].append((y, block, replace(line, lead=lead)))
                y += self.line
                above = line
            y += 2 * GAP
        return pages, [*heights, y]

    def _x(self, block: Block, column: int) -> int:
        """Where a block's column begins; its reference columns come before."""
        return self.left + (len(block.lead) + column) * self.pitch + (2 * GAP if block.lead else 0)

    def _titles(self, block: Block) -> list[str]:
        return textwrap.wrap(block.title, max(WORDS, (self.width - 2 * MARGIN) // 7))

    def _header(self, block: Block) -> int:
        """The height of a block's title and column labels."""
        rows = max(len(_wrapped(text, self.tile)) for text in (*block.columns, *block.lead, ""))
        return (len(self._titles(block)) + bool(block.cols) + rows) * LEADING + 2 * GAP

    def _head(self, draw: ImageDraw.ImageDraw, y: int, block: Block) -> None:
        bottom = y + self._header(block) - GAP
        for text in self._titles(block):
            _write(draw, (MARGIN, y), text)
            y += LEADING
        if block.cols:
            _write(draw, (self._x(block, 0), y), block.cols, FAINT)
        if self.label:
            _write(draw, (MARGIN, bottom - LEADING), block.rows, FAINT)
        for i, text in enumerate((*block.lead, *block.columns)):
            x = self.left + i * self.pitch if i < len(block.lead) else self._x(block, i - len(block.lead))
            parts = _wrapped(text, self.tile)
            for j, part in enumerate(parts):
                _write(draw, (x, bottom - (len(parts) - j) * LEADING), part, FAINT if i < len(block.lead) else INK)

    def _line(self, image: Image.Image, draw: ImageDraw.ImageDraw, y: int, block: Block, line: Line) -> None:
        parts = _wrapped(line.label, self.tile, WORDS)
        for j, part in enumerate(parts):
            _write(draw, (MARGIN, y + (self.tile - len(parts) * LEADING) // 2 + j * LEADING), part)
        for i, tile in enumerate(line.lead):
            if tile:
                self._paste(image, draw, self.left + i * self.pitch, y, tile)
        for i, tile in line.tiles.items():
            self._paste(image, draw, self._x(block, i), y, tile)

    def _paste(self, image: Image.Image, draw: ImageDraw.ImageDraw, x: int, y: int, tile: Tile) -> None:
        try:
            picture = self._picture(tile) if tile.there else "failed"
        except OSError:
            picture = "unreadable"
        if isinstance(picture, str):
            draw.rectangle((x, y, x + self.tile - 1, y + self.tile - 1), fill=GREY)
            _write(draw, (x + round(self.tile - _length(picture)) // 2, y + (self.tile - FONT) // 2), picture)
        else:
            image.paste(picture, (x, y))
        for j, text in enumerate(self._below(tile)):
            _write(draw, (x, y + self.tile + GAP // 2 + j * LEADING), text)

    def _picture(self, tile: Tile) -> Image.Image:
        picture = Image.fromarray(self.store.pixels(tile.cell_id, tile.picture)).convert("RGB")
        side = max(picture.size)
        if side > self.tile:
            return picture.reduce(-(-side // self.tile))
        factor = self.tile // side
        return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


@lru_cache(maxsize=4096)
def _wrapped(text: str, tile: int, least: int = 8) -> tuple[str, ...]:
    """A label's lines: as wide as a tile, or `least` characters, and no more of them than stand beside one."""
    width, most = max(least, tile // 7), max(1, tile // LEADING)
    if len(text) <= width:
        return (text,) if text else ()
    loose = short(text, width * most - most * 3).replace("_", "_ ")  # long_names break there
    return tuple(line.replace("_ ", "_") for line in textwrap.wrap(loose, width, max_lines=most, placeholder="…"))


@lru_cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """DejaVu Sans, which matplotlib brings; where a system's own package keeps it elsewhere, Pillow's font."""
    spec = find_spec("matplotlib")
    path = Path((spec and spec.origin) or "").parent / "mpl-data/fonts/ttf/DejaVuSans.ttf"
    try:
        return ImageFont.truetype(str(path), FONT)
    except OSError:
        return ImageFont.load_default(FONT)


def _length(text: str) -> float:
    return _font().getlength(text)


def _write(draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, fill: str = INK) -> None:
    draw.text(place, text, font=_font(), fill=fill)
