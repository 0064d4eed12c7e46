"""The pictures that a page holds in itself, so that it shows them wherever it is copied to.

As far as they fit: contact sheets and figures in half of the room, each cell's picture with what it was made from, in
the sweep's order, all that was kept beside them, then more of the sheets. Each content of a cell's is there once, as a
data URI.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from diffsweep.report.grid import REFERENCES
from diffsweep.report.sample import sample
from diffsweep.store.cells import Store, sha256
from diffsweep.store.pictures import IMAGE
from diffsweep.store.schema import Damaged, Document, Record

MOST = 25_000_000  # bytes of pictures: what a browser opens at once, and most mail takes

Picture = tuple[str, str, int]  # what the page calls it, a hash of its file, and its size in bytes


@dataclass(frozen=True)
class Embedded:
    """The contents of the cells' pictures, and which of them each is (`<cell>/<name>`); contact sheets and figures by
    name; what is not here, as `room` bytes do not hold it."""

    uris: list[str]
    at: dict[str, int]
    sheets: dict[str, str]
    left_out: list[str]
    room: int


def embedded(store: Store, sweep: Document, folder: Path, sheets: Sequence[str], room: int = MOST) -> Embedded:
    """sheets: contact sheets and figures, named from the sweep's folder."""
    here = _Here(room)
    drawn = {name: (folder / name).read_bytes() for name in sheets}
    drawings = {name: [(name, sha256(data), len(data))] for name, data in drawn.items()}
    kept = [name for name in sheets if here.take(drawings[name], spare=room // 2)]
    cells = [*_of_cells(store, sweep)]
    shown = [cell for cell in cells if here.take(_first(cell))]
    whole = [here.take(cell) for cell in shown]
    kept += [name for name in sheets if name not in kept and here.take(drawings[name])]
    pictures = [one for cell, fits in zip(shown, whole, strict=True) for one in (cell if fits else _first(cell))]
    places = {digest: place for place, digest in enumerate(dict.fromkeys(digest for _, digest, _ in pictures))}
    lacking = {
        "the pictures of {} of {} cells": len(cells) - len(shown),
        "what was kept beside the pictures of {} of {} cells": len(shown) - sum(whole),
    }
    return Embedded(
        uris=[_of(store, here.contents[digest]) for digest in places],
        at={name: places[digest] for name, digest, _ in pictures},
        sheets={name: _uri(drawn[name]) for name in kept},
        left_out=[
            *(name for name in sheets if name not in kept),
            *(text.format(number, len(cells)) for text, number in lacking.items() if number),
        ],
        room=room,
    )


def of_lots(store: Store, sweep: Document) -> Embedded | None:
    """The cells' pictures, for the page in the sweep's folder, where some are in lots, to which no page can lead."""
    packed = any(store.packed(sweep["cells"][place]["cell_id"]) for place in sample(sweep))
    return embedded(store, sweep, store.root, ()) if packed else None


class _Here:
    """Contents by their hashes, as many as find room, each as one picture calls it."""

    def __init__(self, room: int) -> None:
        self.left = room
        self.contents: dict[str, str] = {}

    def take(self, pictures: Iterable[Picture], spare: int = 0) -> bool:
        """All of them, or none; spare: bytes to be left."""
        new = {digest: (name, size) for name, digest, size in pictures if digest not in self.contents}
        size = sum(size for _, size in new.values())
        if size > self.left - spare:
            return False
        self.left -= size
        self.contents |= {digest: name for digest, (name, _) in new.items()}
        return True


def _first(pictures: Iterable[Picture]) -> list[Picture]:
    """A cell's picture, and what it was made from."""
    return [picture for picture in pictures if picture[0].rpartition("/")[2] in (IMAGE, *REFERENCES)]


def _of_cells(store: Store, sweep: Document) -> Iterator[list[Picture]]:
    """The pictures of each finished cell that a page shows, and the one that it was enlarged from."""
    for cell_id in dict.fromkeys(sweep["cells"][place]["cell_id"] for place in sample(sweep)):
        if record := store.finished(cell_id):
            base = record.get("facts", {}).get("base")
            before = store.finished(base) if base else None
            bases = [_picture(store, base, before, f"{IMAGE}.png")] if base and before else []
            yield [*(_picture(store, cell_id, record, file) for file in record["files"]), *bases]


def _picture(store: Store, cell_id: str, record: Record, file: str) -> Picture:
    stats = record.get("stats", {})
    size = stats[file][0] if file in stats else (store.folder(cell_id) / file).stat().st_size
    return f"{cell_id}/{file.removesuffix('.png')}", record["files"][file], size


def _of(store: Store, name: str) -> str:
    """A cell's picture, nothing where it is damaged."""
    cell_id, _, picture = name.partition("/")
    try:
        return _uri(store.read(cell_id, f"{picture}.png"))
    except Damaged:
        return _uri(b"")


def _uri(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"
