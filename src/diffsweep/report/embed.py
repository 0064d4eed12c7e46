"""The pictures that a page holds in itself, so that it shows them wherever it is copied to.

As far as they fit: each cell's picture with what it was made from, contact sheets and figures, and all that was kept
beside the cells' pictures. Each content is there once, as a data URI.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffsweep.report.grid import REFERENCES
from diffsweep.sweep.store import Record, Store, sha256

MOST = 25_000_000  # bytes of pictures

Picture = tuple[str, Path, str]  # what the page calls it, its file, and a hash of that


@dataclass(frozen=True)
class Embedded:
    """The contents of the cells' pictures, and which of them each is (`<cell>/<name>`); contact sheets and figures by
    name; what is not here."""

    uris: list[str]
    at: dict[str, int]
    sheets: dict[str, str]
    left_out: list[str]


def embedded(store: Store, sweep: Mapping[str, Any], folder: Path, sheets: Sequence[str], most: int = MOST) -> Embedded:
    """sheets: contact sheets and figures, named from the sweep's folder."""
    cells = list(_of_cells(store, sweep))
    first = [picture for picture in cells if picture[0].rpartition("/")[2] in ("image", *REFERENCES)]
    drawn = {name: [(name, folder / name, sha256((folder / name).read_bytes()))] for name in sheets}
    groups = {"the cells' pictures": first, **drawn, "what was kept beside the cells' pictures": cells}
    here: dict[str, str] = {}  # the hash of each that is
    contents: dict[str, Path] = {}
    left_out = []
    for what, pictures in groups.items():
        more = contents | {digest: path for _, path, digest in pictures}
        if sum(path.stat().st_size for path in more.values()) > most:
            left_out.append(what)
        else:
            contents = more
            here |= {name: digest for name, _, digest in pictures}
    own = {name: here.pop(name) for name in sheets if name in here}
    places = {digest: place for place, digest in enumerate(dict.fromkeys(here.values()))}
    return Embedded(
        uris=[_uri(contents[digest]) for digest in places],
        at={name: places[digest] for name, digest in here.items()},
        sheets={name: _uri(contents[digest]) for name, digest in own.items()},
        left_out=left_out,
    )


def _of_cells(store: Store, sweep: Mapping[str, Any]) -> Iterable[Picture]:
    """The pictures of each finished cell, and the one that it was enlarged from."""
    for cell_id in dict.fromkeys(cell["cell_id"] for cell in sweep["cells"]):
        if record := store.finished(cell_id):
            yield from _pictures(store, cell_id, record)
            base = record.get("facts", {}).get("base")
            if base and (before := store.finished(base)):
                yield from (picture for picture in _pictures(store, base, before) if picture[0] == f"{base}/image")


def _pictures(store: Store, cell_id: str, record: Record) -> Iterable[Picture]:
    for file, digest in record["files"].items():
        yield f"{cell_id}/{file.removesuffix('.png')}", store.folder(cell_id) / file, digest


def _uri(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
