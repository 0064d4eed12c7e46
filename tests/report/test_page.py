"""The page as a file: the sweep is on it, nothing of a user's is taken for markup, and it reaches nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import diffsweep.report
from diffsweep.report.comparison import overview
from diffsweep.report.frame import results
from diffsweep.report.page import page
from diffsweep.report.table import summarise
from diffsweep.report.write import write_all
from diffsweep.store.cells import Store
from tests.rewriting import rewrite

Made = Callable[..., Any]
VENDOR = Path(diffsweep.report.__file__).parent / "html" / "vendor"
EVIL = "</title></script><script>alert('x')</script><img src=x onerror=alert(1)>\u2028\" onload='x' & {{ 7 * 7 }} <!--"


class Reader(HTMLParser):
    """The tags, the visible text and the scripts of a page, as a browser takes them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "script":
            self.scripts[-1] += data
        elif self.cdata_elem is None:
            self.text += data

    def named(self, attribute: str) -> list[str]:
        return [str(attributes[attribute]) for _, attributes in self.tags if attribute in attributes]

    @property
    def data(self) -> dict[str, Any]:
        return json.loads(self.scripts[0])


def read(made: Made, **more: Any) -> tuple[Reader, Path]:
    store, sweep = made(**more)
    folder = write_all(store, sweep).folder
    return Reader((folder / "report.html").read_text()), folder


def test_the_page_shows_the_sweep_and_names_only_files_beside_it(made: Made) -> None:
    found, folder = read(made)
    for text in ("made", "5 of 6 cells done", "diffsweep -m 'a=1'", "ValueError: <broken>", "torchmetrics 1.9.0"):
        assert text in found.text
    beside = [name for name in (*found.named("src"), *found.named("href")) if not name.startswith("#")]
    assert "grid.png" in beside and all((folder / name).is_file() for name in beside)


def test_the_data_are_the_sweeps(made: Made) -> None:
    found, folder = read(made)
    data = found.data
    axes = {axis["name"]: axis for axis in data["axes"]}
    assert [axes["seed"]["values"][i] for i in axes["seed"]["at"]] == ["0", "1", "2", "0", "1", "2"]
    assert [axes["guidance.scale"]["numbers"][i] for i in axes["guidance.scale"]["at"]] == [1, 1, 1, 7, 7, 7]
    assert (data["rows"], data["cols"]) == ("guidance.scale", "seed")
    psnr, error, nfe, seconds = data["measures"]
    assert (psnr["values"], psnr["exact"]) == ([20, 22, 27, 30, None, None], [4])
    assert error["values"] == [0.3, 0.1, 0.2, 0.5, 0.25, None] and error["direction"] == "lower"
    assert nfe["values"] == [10] * 5 + [None] and seconds["values"] == [0.5] * 5 + [None]
    assert data["reasons"] == [None] * 5 + ["ValueError: <broken>"]
    assert data["table"]["rows"][0]["stats"][0][0] == 23
    for i, cell_id in enumerate(data["ids"][:5]):
        assert data["pictures"]["kinds"][data["pictures"]["at"][i]] == ["image"]
        assert (folder / f"../../cells/{cell_id[:2]}/{cell_id}/image.png").is_file()


def test_a_cells_whole_configuration_is_there(made: Made) -> None:
    store, sweep = made()
    for i, cell in enumerate(sweep["cells"][:5]):
        config = {"seed": cell["seed"], "prompt": "a <dog>", "technique": {"name": "inpaint", "strength": i % 2}}
        rewrite(store, cell["cell_id"], config=config)
    folder = write_all(store, sweep).folder
    found = Reader((folder / "report.html").read_text())
    assert found.data["shared"] == {"prompt": "a <dog>", "technique.name": "inpaint"}
    (setting,) = found.data["settings"]  # the seed is an axis; the last cell failed, its configuration is not known
    assert setting == {"name": "technique.strength", "values": ["0", "1"], "at": [0, 1, 0, 1, 0, -1]}
    assert "technique inpaint, prompt a <dog>" in found.text


def test_a_users_words_are_text(made: Made) -> None:
    plain, _ = read(made)

    def change(sweep: dict[str, Any]) -> None:
        sweep["axes"] = {EVIL: [EVIL], **sweep["axes"]}
        for cell in sweep["cells"]:
            cell["axes"] = {EVIL: EVIL, **cell["axes"]}
            cell["reason"] = cell["reason"] and EVIL

    store, sweep = made(command=EVIL, notes=[EVIL])
    change(sweep)
    folder = write_all(store, sweep).folder
    found = Reader((folder / "report.html").read_text())

    def shape(reader: Reader) -> list[tuple[str, str]]:
        return [(tag, name) for tag, attributes in reader.tags for name in attributes]

    assert set(shape(found)) == set(shape(plain)) and len(found.scripts) == len(plain.scripts)
    assert {tag for tag, _ in found.tags} <= {tag for tag, _ in plain.tags} | {"p"}
    assert found.text.count(EVIL) >= 4
    axis, words = found.data["axes"][0], " ".join(EVIL.split())
    assert (axis["name"], axis["values"], found.data["reasons"][5]) == (EVIL, [words], words)


def test_its_policy_lets_its_own_scripts_run_and_reaches_pictures_alone(made: Made) -> None:
    found, _ = read(made)
    (policy,) = (a["content"] for tag, a in found.tags if a.get("http-equiv") == "Content-Security-Policy")
    allowed = dict(part.strip().split(" ", 1) for part in str(policy).split(";"))
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in found.scripts[1:]]
    assert allowed.pop("script-src").split() == [f"'sha256-{digest}'" for digest in hashes]
    assert allowed.pop("img-src").split() == ["'self'", "file:", "data:"]
    assert allowed.pop("style-src") == "'unsafe-inline'"
    assert set(allowed.values()) == {"'none'"} and "default-src" in allowed
    assert not [name for name in (*found.named("src"), *found.named("href")) if re.match(r"\w+:|//", name)]


def test_another_run_at_one_value_and_a_cascade(made: Made) -> None:
    """An axis that some cells lack has no place there; pictures that were enlarged lead to the ones before."""
    store, sweep = made()
    del sweep["cells"][1]["axes"]["guidance.scale"]
    rewrite(store, sweep["cells"][0]["cell_id"], facts={"base": "f" * 20})
    found = Reader((write_all(store, sweep).folder / "report.html").read_text())
    assert found.data["axes"][0]["at"][:3] == [0, -1, 0]
    assert found.data["bases"] == {"0": "f" * 20}


def test_vendored_files_are_listed_with_version_and_licence() -> None:
    readme = (VENDOR / "README.md").read_text()
    listed = re.findall(r"^\| (`.+?) \| .+? \| ([\d.]+) \| (MIT|ISC) \|", readme, flags=re.M)
    scripts = {name: (version, licence) for names, version, licence in listed for name in re.findall("`(.+?)`", names)}
    assert set(scripts) == {path.name for path in VENDOR.iterdir()} - {"README.md"} - {
        p.name for p in VENDOR.glob("*.LICENSE")
    }
    for name, (version, licence) in scripts.items():
        if name.endswith(".js"):
            assert f"v{version} " in (VENDOR / name).read_text()[:200]
        words = (VENDOR / f"{re.split('[._]', name)[0]}.LICENSE").read_text()
        assert {"MIT": "MIT", "ISC": "ISC"}[licence] in words or "Permission to use, copy, modify" in words
    assert sum(path.stat().st_size for path in VENDOR.iterdir()) < 1_000_000


def test_frame_and_page_read_each_record_a_fixed_number_of_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, axes = Store(tmp_path), {"prompt": [f"thing {i}" for i in range(100)], "seed": list(range(10))}
    metrics = {f"metric_{k}": {"metric": "a number", "direction": "higher"} for k in range(8)}
    cells = []
    for number in range(1000):
        setting = {"prompt": axes["prompt"][number // 10], "seed": number % 10}
        cell_id = f"{number:020x}"
        store.folder(cell_id).mkdir(parents=True)
        values = {name: {"value": number % 89 / 7, "definition": definition} for name, definition in metrics.items()}
        record = {"cell_id": cell_id, "config": setting, "files": {}, "nfe": 10, "seconds": 0.1, "metrics": values}
        record["facts"] = {}
        (store.folder(cell_id) / "record.json").write_text(json.dumps(record))
        cells.append({"cell_id": cell_id, "axes": setting, "seed": number % 10, "status": "done", "reason": None})
    sweep = {"name": "many", "command": "diffsweep", "created": "2026", "axes": axes, "cells": cells, "runs": []}
    sweep |= {"metrics": list(metrics), "notes": [], "grid": {"rows": None, "cols": None}}
    read: list[str] = []
    record_of = Store.record
    monkeypatch.setattr(Store, "record", lambda self, cell_id: read.append(cell_id) or record_of(self, cell_id))
    frame = results(store, sweep)
    text = page(store, sweep, frame, summarise(frame), overview(frame), [])
    assert len(Reader(text).data["ids"]) == 1000
    assert set(read) == {cell["cell_id"] for cell in cells} and len(read) <= 2 * 1000, len(read)
