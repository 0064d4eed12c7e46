"""Records as another hand than diffsweep's would change them."""

from __future__ import annotations

import json
from typing import Any

from diffsweep.store.cells import Store


def rewrite(store: Store, cell_id: str, **entries: Any) -> None:
    """Replace entries of a stored record."""
    file = store.folder(cell_id) / "record.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **entries}))
