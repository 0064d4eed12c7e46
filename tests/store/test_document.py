"""A sweep's document: read, made anew and changed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from diffsweep.store import document
from diffsweep.store.schema import Absent, Damaged, Document


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    document.renew(tmp_path, lambda: document.empty("mine", "diffsweep seed=1", "today"))
    return tmp_path


def test_what_is_written_is_read(folder: Path) -> None:
    found = document.read(folder)
    assert (found["name"], found["command"], found["created"], found["cells"]) == (
        "mine",
        "diffsweep seed=1",
        "today",
        [],
    )
    assert os.listdir(folder) == [document.NAME]  # no lock is left


def test_a_change_begins_from_what_others_wrote_and_writes_nothing_where_all_stays(folder: Path) -> None:
    file = folder / document.NAME
    file.write_text(json.dumps({**json.loads(file.read_text()), "notes": ["another's"]}))

    def graded(found: Document) -> Document:
        return {**found, "metrics": ["psnr"]}

    document.change(folder, graded)
    assert (document.read(folder)["notes"], document.read(folder)["metrics"]) == (["another's"], ["psnr"])
    before = file.stat().st_ino
    document.change(folder, graded)
    assert file.stat().st_ino == before


def test_what_is_no_document_is_neither_read_nor_written(folder: Path) -> None:
    wrong: Document = {**document.read(folder), "name": 3}  # type: ignore[typeddict-item]
    with pytest.raises(TypeError, match="name"):
        document.renew(folder, lambda: wrong)
    assert document.read(folder)["name"] == "mine"
    (folder / document.NAME).write_text("{}")
    with pytest.raises(Damaged, match="is missing"):
        document.read(folder)
    with pytest.raises(Absent):
        document.read(folder / "elsewhere")
