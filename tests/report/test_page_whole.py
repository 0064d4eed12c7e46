"""The page that holds its pictures: what is in it, each content once, and what is left out beyond a size."""

from __future__ import annotations

import base64
import io
import json
import re
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
from diffsweep.report.write import whole_page, write_all
from diffsweep.sweep.store import Store, to_json

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
        pictures |= {"image": same} if number == 1 else {}
        pictures |= {"step_000_clean": rng.integers(255, size=(40, 40, 3)).astype(np.uint8)} if number == 2 else {}
        store.amend(cell_id, {"facts": {}})
        store.add(cell_id, pictures, "none", {"base": "f" * 20} if number == 3 else {})
    store.save("f" * 20, {"image": np.full((4, 4, 3), 9, np.uint8), "noisy": same + 1}, {"metrics": {}})
    return store, sweep


def test_every_picture_is_in_it_with_the_stores_bytes_each_content_once(made: Made) -> None:
    store, sweep = varied(made)
    report = write_all(store, sweep)
    text = whole_page(store, sweep, report)
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
    text = whole_page(store, sweep, report)
    markup = re.sub(r"<(script|style)\b.*?</\1>", "", text, flags=re.S)
    assert not [name for name in re.findall(r'\b(?:src|href)="([^"]*)"', markup) if not name.startswith(("#", "data:"))]
    assert "img-src data:;" in text and "img-src 'self'" not in text
    assert str(store.root) not in text
    plain = (report.folder / "report.html").read_text()
    assert data_of(plain)["embedded"] is None and START not in plain


def test_what_does_not_fit_is_left_out_by_kind_the_cells_pictures_last(made: Made) -> None:
    store, sweep = varied(made)
    folder = write_all(store, sweep).folder

    def size(*names: str) -> int:
        """Of the different contents, in bytes."""
        files = [path for name in names for path in (*store.root.glob(f"cells/*/*/{name}.png"), *folder.glob(name))]
        return sum({path.read_bytes(): path.stat().st_size for path in files}.values())

    def kinds(most: int) -> set[str]:
        found = embedded(store, sweep, folder, ["grid.png"], most)
        uris = [*found.uris, *found.sheets.values()]
        assert sum(len(bytes_of(uri)) for uri in uris) <= most
        assert len(found.left_out) == 3 - ("grid.png" in found.sheets) - len(
            {Path(n).name for n in found.at} - {"input"}
        )
        return {Path(name).name for name in (*found.at, *found.sheets)}

    pictures, sheet = size("image", "input"), size("grid.png")
    steps = size("step_000_clean")
    assert sheet > steps
    assert kinds(pictures + sheet + steps) == {"grid.png", "image", "input", "step_000_clean"}
    assert kinds(pictures + sheet + steps - 1) == {"grid.png", "image", "input"}
    assert kinds(pictures + sheet - 1) == {"step_000_clean", "image", "input"}
    assert kinds(pictures) == {"image", "input"}
    assert kinds(pictures - 1) == ({"grid.png"} if sheet < pictures else set())
    assert kinds(0) == set()


def test_the_page_says_what_is_left_out(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    store, sweep = varied(made)
    monkeypatch.setattr(write, "embedded", lambda *given: embedded(*given, most=0))
    text = whole_page(store, sweep, write_all(store, sweep))
    assert START not in text
    told = "Left out of this file, which holds at most 25 MB of pictures: the cells&#39; pictures, grid.png, "
    assert told in text


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
    with pytest.raises(BadInput, match="embed=yes: must be one of true, false"):
        results.run(["report", "made", "output_dir=.", "embed=yes"])
