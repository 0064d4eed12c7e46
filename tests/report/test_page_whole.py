"""The page that holds its pictures: what is in it, each content once, and what is left out beyond a size."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffsweep import results
from diffsweep.core.problems import BadInput
from diffsweep.report import write
from diffsweep.report.embed import embedded
from diffsweep.report.write import standalone_page, write_all
from diffsweep.store.cells import Store
from diffsweep.store.schema import to_json
from tests.rewriting import rewrite

Made = Callable[..., tuple[Store, dict[str, Any]]]
START = "data:image/png;base64,"


def data_of(text: str) -> dict[str, Any]:
    return json.loads(text.partition('id="data">')[2].partition("</script>")[0])


def bytes_of(uri: str) -> bytes:
    assert uri.startswith(START)
    return base64.b64decode(uri[len(START) :], validate=True)


def varied(made: Made) -> tuple[Store, dict[str, Any]]:
    """The small sweep, where all cells share an input, two share a picture, one has steps and one was enlarged."""
    store, sweep = made()
    ids = [cell["cell_id"] for cell in sweep["cells"][:5]]
    same = np.asarray(Image.open(store.folder(ids[0]) / "image.png"))
    rng = np.random.default_rng(0)
    for number, cell_id in enumerate(ids):
        pictures = {"input": np.full((8, 8, 3), 7, np.uint8)}
        if number == 1:
            record = store.record(cell_id)
            shutil.rmtree(store.folder(cell_id))
            store.save(cell_id, {"image": same}, record)
        pictures |= {"step_000_clean": rng.integers(255, size=(40, 40, 3)).astype(np.uint8)} if number == 2 else {}
        rewrite(store, cell_id, facts={})
        store.add(cell_id, pictures, "none", {"base": "f" * 20} if number == 3 else {})
    store.save("f" * 20, {"image": np.full((4, 4, 3), 9, np.uint8), "noisy": same + 1}, {"metrics": {}})
    return store, sweep


def test_every_picture_is_in_it_with_the_stores_bytes_each_content_once(made: Made) -> None:
    store, sweep = varied(made)
    report = write_all(store, sweep)
    text = standalone_page(store, sweep, report)
    found = data_of(text)["embedded"]
    contents = [bytes_of(uri) for uri in found["uris"]]
    assert len(set(contents)) == len(contents)
    sheets = dict(re.findall(r'<img class="sheet" src="(.*?)" alt="(.*?)"', text))
    drawn = {path.relative_to(report.folder).as_posix(): path.read_bytes() for path in report.folder.glob("**/*.png")}
    assert {name: bytes_of(uri) for uri, name in sheets.items()} == drawn and "grid.png" in drawn
    assert text.count(START) == len(contents) + len(drawn)
    files = {f"{path.parent.name}/{path.stem}": path for path in store.root.glob("cells/*/*/*.png")}
    del files["f" * 20 + "/noisy"]  # of the picture before enlarging, that alone
    assert found["at"].keys() == files.keys()
    assert all(contents[found["at"][name]] == path.read_bytes() for name, path in files.items())
    assert len({path.read_bytes() for path in files.values()}) == len(contents) < len(files)


def test_it_names_nothing_outside_of_itself(made: Made) -> None:
    store, sweep = varied(made)
    report = write_all(store, sweep)
    text = standalone_page(store, sweep, report)
    markup = re.sub(r"<(script|style)\b.*?</\1>", "", text, flags=re.S)
    assert not [name for name in re.findall(r'\b(?:src|href)="([^"]*)"', markup) if not name.startswith(("#", "data:"))]
    assert "img-src data:;" in text and "img-src 'self'" not in text
    assert str(store.root) not in text
    plain = (report.folder / "report.html").read_text()
    assert data_of(plain)["embedded"] is None and START not in plain


def test_what_finds_no_room_is_left_out_and_named(made: Made) -> None:
    store, sweep = varied(made)
    folder = write_all(store, sweep).folder
    ids = list(dict.fromkeys(cell["cell_id"] for cell in sweep["cells"] if store.is_complete(cell["cell_id"])))

    def size(*paths: Path) -> int:
        """Of the different contents, in bytes."""
        return sum({path.read_bytes(): path.stat().st_size for path in paths}.values())

    def of(room: int) -> tuple[set[str], list[str]]:
        found = embedded(store, sweep, folder, ["grid.png"], room)
        assert sum(len(bytes_of(uri)) for uri in (*found.uris, *found.sheets.values())) <= room == found.room
        return {*found.at, *found.sheets}, found.left_out

    every = [path for path in store.root.glob("cells/*/*/*.png") if path.stem != "noisy"]
    names = {"grid.png", *(f"{path.parent.name}/{path.stem}" for path in every)}
    steps = f"{ids[2]}/step_000_clean"
    total = size(*every, folder / "grid.png")
    assert of(total) == (names, [])
    here, left_out = of(total - 1)
    beside = f"what was kept beside the pictures of 1 of {len(ids)} cells"
    assert (names - here, left_out) in (({"grid.png"}, ["grid.png"]), ({steps}, [beside]))
    big = size(folder / "grid.png", store.folder(ids[2]) / "step_000_clean.png")
    assert of(total - big) == (names - {"grid.png", steps}, ["grid.png", beside])
    first = {f"{cell_id}/{name}" for cell_id in ids[:2] for name in ("image", "input")}  # two equal pictures, one input
    room = size(*(store.folder(ids[0]) / f"{name}.png" for name in ("image", "input")))
    assert of(room) == (first, ["grid.png", f"the pictures of {len(ids) - 2} of {len(ids)} cells"])
    assert of(0) == (set(), ["grid.png", f"the pictures of {len(ids)} of {len(ids)} cells"])


def test_the_page_says_what_is_left_out(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    store, sweep = varied(made)
    monkeypatch.setattr(write, "embedded", lambda *given: embedded(*given, room=0))
    text = standalone_page(store, sweep, write_all(store, sweep))
    assert START not in text
    told = r"Left out of this file, which holds at most 0 MB of pictures: grid.png, .*the pictures of (\d) of \1 cells"
    assert re.search(told, text)


def test_the_command_writes_it_where_it_is_asked_to(
    made: Made, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store, sweep = made()
    folder = store.root / "sweeps" / "made"
    folder.mkdir(parents=True)
    (folder / "sweep.json").write_bytes(to_json(sweep))
    monkeypatch.chdir(store.root)
    assert results.run(["report", "made", "output_dir=."]) == 0
    assert not (folder / "report_whole.html").exists()
    assert results.run(["report", "made", "output_dir=.", "embed=true"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "sweeps/made/report_whole.html"
    (image, *_) = data_of((folder / "report_whole.html").read_text())["embedded"]["uris"]
    Image.open(io.BytesIO(bytes_of(image))).verify()
    (folder / "report_whole.html").write_text("of yesterday")
    assert results.run(["report", "made", "output_dir=."]) == 0
    assert data_of((folder / "report_whole.html").read_text())["embedded"]["uris"]
    with pytest.raises(BadInput, match="embed=yes: must be one of true, false"):
        results.run(["report", "made", "output_dir=.", "embed=yes"])
