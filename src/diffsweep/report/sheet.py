"""Blocks of pictures and labels, drawn on sheets.

Pictures are enlarged (large ones reduced) by a whole factor without smoothing, so that a small picture's pixels are the
stored ones. Sheets flow like a text: a block that is too wide is broken into several, and what does not fit below
follows on the next sheet. A label may be in any script; one that has no room shows where it differs from the others.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

from diffsweep.report.fonts import Font, base, drawable, runs
from diffsweep.report.text import labels
from diffsweep.store.cells import Store
from diffsweep.store.pictures import IMAGE, INPUT, MASK

LEAST, MOST, SIDE = 96, 256, 8000  # pixels: a tile's longer side, and the greatest side of a sheet
FEW, MANY = 16, 64  # tiles side by side: a lone row is wrapped beyond FEW, several beyond MANY
GAP, MARGIN, FONT = 4, 16, 12
WORDS, LONGEST = 140, 280  # pixels: how wide a row's label may always be, and how wide its longest word may make it
LEADING, LINE = FONT + 5, 600  # LINE: how wide a title may make a narrow sheet
INK, FAINT, PAPER, GREY, EDGE = "#1a1a1a", "#6b6b6b", "white", "#c8c8c8", "#d4d4d4"
CHECKS, CHECK = ("#9a9a9a", "#c8c8c8"), 6  # the board that shows where a hole is, and a field's pixels
HOLE = "hole"  # an inpainting's input, its hole as a board
WIDE = "\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef"  # scripts that break a line after any character


@dataclass(frozen=True)
class Tile:
    """One picture of a cell; `there` is False where the cell failed, `below` holds texts that stand below it.

    `picture` is the name of a stored one, or HOLE.
    """

    cell_id: str
    picture: str = IMAGE
    there: bool = True
    below: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The stored pictures that it is drawn from."""
        return (INPUT, MASK) if self.picture == HOLE else (self.picture,)


@dataclass(frozen=True)
class Line:
    """A row: its label, the reference pictures before it, and its tiles by column."""

    label: str
    lead: tuple[Tile | None, ...]
    tiles: dict[int, Tile]


@dataclass(frozen=True)
class Block:
    """Lines below one title and one row of column labels; `lead` names the reference columns, and `pictures` what
    stands side by side for each cell, in as many of the columns."""

    title: str
    rows: str
    cols: str
    lead: tuple[str, ...]
    columns: tuple[str, ...]
    lines: tuple[Line, ...]
    pictures: tuple[str, ...] = (IMAGE,)

    @property
    def together(self) -> int:
        return len(self.pictures)

    def tiles(self) -> Iterator[Tile]:
        for line in self.lines:
            yield from filter(None, line.lead)
            yield from line.tiles.values()


Item = tuple[int, Block, Line | None]  # where it begins, and a block's line, or None for its head


class Sheets:
    """Blocks one below the other, on as few sheets as their size allows; places and sizes are the same on all."""

    def __init__(
        self, store: Store, title: str, blocks: Sequence[Block], subtitle: str = "", size: int | None = None
    ) -> None:
        """size: the pixels of a picture's longer side, at most; by default small ones are enlarged and large ones
        reduced."""
        self.store, self.size = store, size
        tiles = {tile for block in blocks for tile in block.tiles()}
        there = {tile: self._stored(tile) for tile in tiles if tile.there}
        shown = [tile for tile in there if tile.picture not in (INPUT, MASK)] or there
        self.tile = max((self._longest(max(there[tile])) for tile in shown), default=size or LEAST)
        drawn = [self._drawn(*own) for own in there.values()] or [(self.tile, self.tile)]
        self.wide, self.high = (max(sides) for sides in zip(*drawn, strict=True))
        self.most = max(1, self.high // LEADING)  # lines of a label
        below = [self._below(tile) for tile in tiles]
        widest = max((_length(text) for text in {text for texts in below for text in texts}), default=0)
        self.pitch = max(self.wide + GAP, math.ceil(widest) + 2 * GAP)
        rows = max(map(len, below), default=0)
        self.line = self.high + (rows * LEADING + GAP if rows else 0) + GAP
        self._label(blocks)
        self.left = MARGIN + (self.label + 2 * GAP if self.label else 0)
        parts = [part for block in blocks for part in self._broken(block)]
        titles = [_length(text) for text in [subtitle, *(part.title for part in parts)]]
        self.width = max(
            3 * LEAST,
            *(self._x(part, len(part.columns)) + MARGIN for part in parts),
            min(LINE, 2 * MARGIN + round(max(titles))),
        )
        self.title, self.subtitle = title, wrapped(subtitle, self.width - 2 * MARGIN) if subtitle else ()
        self.pages, self.heights = self._flow(parts)

    def __len__(self) -> int:
        return len(self.pages)

    def draw(self, number: int) -> Image.Image:
        title = f"{self.title}  ({number + 1} of {len(self)})".strip() if len(self) > 1 else self.title
        width = round(max(self.width, 2 * MARGIN + _length(title)))
        image = Image.new("RGB", (width, self.heights[number] + MARGIN), PAPER)
        draw = ImageDraw.Draw(image)
        _write(draw, (MARGIN, MARGIN), title)
        for i, text in enumerate(self.subtitle):
            _write(draw, (MARGIN, MARGIN + (i + bool(self.title)) * LEADING), text, FAINT)
        for y, block, line in self.pages[number]:
            if line is None:
                self._head(draw, y, block)
            else:
                self._line(image, draw, y, block, line)
        return image

    def _stored(self, tile: Tile) -> tuple[int, int]:
        """A picture's own width and height; a square's where it cannot be read."""
        try:
            return self.store.size(tile.cell_id, tile.names[0])
        except OSError:
            return (self.size or LEAST,) * 2

    def _longest(self, side: int) -> int:
        """The longer side of a picture on the sheet."""
        if self.size:
            return side * (self.size // side) if side <= self.size else -(-side // -(-side // self.size))
        return side * -(-LEAST // side) if side < LEAST else -(-side // -(-side // MOST))

    def _drawn(self, width: int, height: int) -> tuple[int, int]:
        """A picture's width and height on the sheet."""
        side = max(width, height)
        if side > self.tile:
            by = -(-side // self.tile)
            return -(-width // by), -(-height // by)
        return width * (self.tile // side), height * (self.tile // side)

    def _below(self, tile: Tile) -> tuple[str, ...]:
        return tuple(part for text in tile.below for part in _cut(text, max(self.wide, WORDS), self.most))

    def _label(self, blocks: Sequence[Block]) -> None:
        """How the labels of rows and columns are shortened, and how wide those of the rows are."""
        starts = dict.fromkeys(line.label for block in blocks for line in block.lines)
        words = max((_length(word) for text in starts for word in _words(text)), default=0)
        self.beside = round(max(WORDS, self.wide, min(words + 1, LONGEST)))
        self.rows = _fitting(starts, self.beside, self.most)
        names = {block.rows for block in blocks if any(line.label for line in block.lines)}
        parts = {part for text in self.rows.values() for part in wrapped(text, self.beside)}
        self.label = round(max((_length(text) for text in parts | names), default=0))
        together = max((block.together for block in blocks), default=1)
        self.above = together * self.pitch - 2 * GAP if together > 1 else self.wide
        self.columns = _fitting((text for block in blocks for text in block.columns), self.above, self.most)

    def _broken(self, block: Block) -> Iterator[Block]:
        """The block, or several where it has more columns than suit a sheet; one line without labels is wrapped."""
        flows = len(block.lines) == 1 and not any(block.columns)
        most = max(FEW, math.isqrt(len(block.columns))) if flows or len(block.lines) == 1 else MANY
        most = max(
            1, min(most, MANY, (SIDE - MARGIN - self._x(block, 0)) // (self.pitch + (GAP if block.together > 1 else 0)))
        )
        most = max(1, most // block.together) * block.together
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
        above = bool(self.title) + len(self.subtitle)
        y = top = MARGIN + (above + 1) * LEADING if above else MARGIN
        for block in blocks:
            before: Line | None = None
            for line in block.lines:
                if y + self.line + (0 if before else self._header(block)) + MARGIN > SIDE and pages[-1]:
                    heights.append(y)
                    pages.append([])
                    y, before = top, None
                if before is None:
                    pages[-1].append((y, block, None))
                    y += self._header(block)
                last = before.lead if before else ()
                lead = tuple(tile if last[i : i + 1] != (tile,) else None for i, tile in enumerate(line.lead))
                pages[-1].append((y, block, replace(line, lead=lead)))
                y += self.line
                before = line
            y += 2 * GAP
        return pages, [*heights, y]

    def _x(self, block: Block, column: int) -> int:
        """Where a block's column begins; its reference columns come before, and a gap parts each cell's pictures from
        the next one's."""
        apart = column // block.together * 2 * GAP if block.together > 1 else 0
        return self.left + (len(block.lead) + column) * self.pitch + (2 * GAP if block.lead else 0) + apart

    def _titles(self, block: Block) -> tuple[str, ...]:
        return wrapped(block.title, max(WORDS, self.width - 2 * MARGIN)) if block.title else ()

    def _heads(self, block: Block) -> list[tuple[int, str, str]]:
        """The labels above a block's columns: place, text and colour."""
        leads = [(self.left + i * self.pitch, text, FAINT) for i, text in enumerate(block.lead)]
        return [*leads, *((self._x(block, i), self.columns[t], INK) for i, t in enumerate(block.columns) if t)]

    def _header(self, block: Block) -> int:
        """The height of a block's title and column labels."""
        rows = max((len(wrapped(text, self.above)) for _, text, _ in self._heads(block)), default=1)
        named = block.together > 1
        return (len(self._titles(block)) + bool(block.cols) + rows + named) * LEADING + 2 * GAP

    def _head(self, draw: ImageDraw.ImageDraw, y: int, block: Block) -> None:
        bottom = y + self._header(block) - GAP
        for text in self._titles(block):
            _write(draw, (MARGIN, y), text)
            y += LEADING
        if block.cols:
            _write(draw, (self._x(block, 0), y), block.cols, FAINT)
        if self.label:
            _write(draw, (MARGIN, bottom - LEADING), block.rows, FAINT)
        if block.together > 1:
            for i in range(len(block.columns)):
                _write(draw, (self._x(block, i), bottom - LEADING), block.pictures[i % block.together], FAINT)
            bottom -= LEADING
        for x, text, colour in self._heads(block):
            parts = wrapped(text, self.above)
            for j, part in enumerate(parts):
                _write(draw, (x, bottom - (len(parts) - j) * LEADING), part, colour)

    def _line(self, image: Image.Image, draw: ImageDraw.ImageDraw, y: int, block: Block, line: Line) -> None:
        parts = wrapped(self.rows[line.label], self.beside) if line.label else ()
        for j, part in enumerate(parts):
            _write(draw, (MARGIN, y + (self.high - len(parts) * LEADING) // 2 + j * LEADING), part)
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
            draw.rectangle((x, y, x + self.wide - 1, y + self.high - 1), fill=GREY)
            if (spare := round(self.wide - _length(picture))) >= 0:
                _write(draw, (x + spare // 2, y + (self.high - FONT) // 2), picture)
        else:
            draw.rectangle((x - 1, y - 1, x + picture.width, y + picture.height), outline=EDGE)
            image.paste(picture, (x, y))
        for j, text in enumerate(self._below(tile)):
            _write(draw, (x, y + self.high + GAP // 2 + j * LEADING), text)

    def _picture(self, tile: Tile) -> Image.Image:
        if tile.picture == HOLE:
            known, mask = (self._scaled(tile.cell_id, name) for name in tile.names)
            return Image.composite(_board(known.size), known, mask.convert("L").resize(known.size))
        return self._scaled(tile.cell_id, tile.picture)

    def _scaled(self, cell_id: str, name: str) -> Image.Image:
        picture = Image.fromarray(self.store.pixels(cell_id, name)).convert("RGB")
        side = max(picture.size)
        if side > self.tile:
            return picture.reduce(-(-side // self.tile))
        return picture.resize(self._drawn(*picture.size), Image.Resampling.NEAREST)


@lru_cache
def _board(size: tuple[int, int]) -> Image.Image:
    rows = [[255 * ((x // CHECK + y // CHECK) % 2) for x in range(size[0])] for y in range(size[1])]
    fields = Image.new("L", size)
    fields.putdata([value for row in rows for value in row])
    dark, light = (Image.new("RGB", size, colour) for colour in CHECKS)
    return Image.composite(light, dark, fields)


def _fitting(texts: Iterable[str], width: int, most: int) -> dict[str, str]:
    """Labels for these texts that take at most so many lines, and are as different as the texts are."""
    given = list(dict.fromkeys(filter(None, texts)))
    limit = most * width // 4
    while True:
        found = labels(given, limit)
        if limit <= 8 or all(len(wrapped(text, width)) <= most for text in found):
            return dict(zip(given, found, strict=True))
        limit = limit * 9 // 10


def _cut(text: str, width: int, most: int) -> tuple[str, ...]:
    return wrapped(_fitting([text], width, most)[text], width)


def _words(text: str) -> list[str]:
    """The parts that a line is not broken in."""
    return [part for part in re.split(rf"(?<=[\s_/,-])|(?<=[{WIDE}])", text) if part]


@lru_cache(maxsize=16384)
def wrapped(text: str, width: int) -> tuple[str, ...]:
    """A text's lines; a word is broken only where it is wider than a line."""
    text = drawable(text)
    if _length(text) <= width:
        return (text,) if text else ()
    lines, line = [], ""
    for word in _words(text):
        while word:
            if _length((line + word).rstrip()) <= width:
                line, word = line + word, ""
            elif line:
                lines.append(line.rstrip())
                line = ""
            else:
                fits = next(n for n in range(len(word), 0, -1) if n == 1 or _length(word[:n]) <= width)
                lines.append(word[:fits])
                word = word[fits:]
    return (*lines, line.rstrip()) if line.strip() else tuple(lines)


@lru_cache
def _face(font: Font) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(font.path, FONT, index=font.index)


@lru_cache(maxsize=16384)
def _length(text: str) -> float:
    return sum(_face(font).getlength(part) for font, part in runs(drawable(text)))


def _write(draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, fill: str = INK) -> None:
    x, baseline = float(place[0]), place[1] + _face(base()).getmetrics()[0]
    for font, part in runs(drawable(text)):
        draw.text((x, baseline), part, font=_face(font), fill=fill, anchor="ls")
        x += _face(font).getlength(part)
