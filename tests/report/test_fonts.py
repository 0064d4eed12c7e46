"""Labels in any script: which font draws a character, what becomes of those that none has, and odd texts everywhere."""

from __future__ import annotations

import random
import unicodedata
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fontTools.ttLib import TTFont  # type: ignore[import-untyped]
from matplotlib.font_manager import findfont
from PIL import Image

from diffsweep.report import fonts
from diffsweep.report.figure import write_figures
from diffsweep.report.fonts import BOX, Font, drawable, families, lacking, runs
from diffsweep.report.frame import results
from diffsweep.report.grid import write_grid
from diffsweep.report.sheet import wrapped
from diffsweep.report.text import in_line, labels
from diffsweep.report.write import write_all
from diffsweep.store.cells import Store

STIX = Font("STIXGeneral", findfont("STIXGeneral"))
COLD = ["", "   ", "a\nb", "a\tb", "\ufeff", "\ufeffa dog", "e\u0301\u0301\u0301", "\u0301", "שלום עולם", "مرحبا"]
COLD += [
    "\u202eabc\u202c",
    "x" * 3000,
    "long words " * 300,
    "\x00\x1b[31m",
    "\x85",
    "👨\u200d👩\u200d👧",
    "\u200b",
    "\u2028",
]
COLD += ["\U0010ffff", "雪の中の犬", "$x$ {y} \\frac", "\ufe0f"]


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with two fonts, DejaVu Sans and STIX, as matplotlib brings them."""
    monkeypatch.setattr(fonts, "others", lambda: (STIX,))
    monkeypatch.setattr(fonts, "_found", {})


def covered(path: str) -> set[int]:
    """By another library's reading of the font."""
    with TTFont(path) as font:
        return set(font.getBestCmap())


def test_a_character_is_drawn_with_the_first_font_that_has_it(two: None) -> None:
    first, second = covered(fonts.base().path), covered(STIX.path)
    own = "".join(map(chr, sorted(second - first)))
    alone = "".join(c for c in own if unicodedata.category(c)[0] in "LS")[:20]
    assert len(alone) == 20
    assert runs(f"ab{alone}é") == [(fonts.base(), "ab"), (STIX, alone), (fonts.base(), "é")]
    assert families(f"ab{alone}") == ["DejaVu Sans", "STIXGeneral"] and families("é") == ["DejaVu Sans"]
    assert drawable(alone) == alone
    assert lacking([alone, "é"]) is None


def test_what_no_font_has_is_a_box_and_its_package_is_named(two: None) -> None:
    assert not {ord(c) for c in "雪犬한"} & (covered(fonts.base().path) | covered(STIX.path))
    assert drawable("a 雪犬 b") == f"a {BOX}{BOX} b"
    told = lacking(["a 雪犬 b", "한"])
    assert told and "犬 雪 한" in told and "fonts-noto-cjk" in told and "symbola" not in told
    told = lacking(["🫠"])
    assert told and "🫠" in told and "fonts-symbola" in told
    assert lacking(["plain", "é ↑"]) is None


def test_a_damaged_font_file_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "broken.ttf"
    broken.write_bytes(b"no font")
    monkeypatch.setattr(fonts, "others", lambda: (Font("Broken", str(broken)), Font("Gone", "/nowhere.ttf")))
    monkeypatch.setattr(fonts, "_found", {})
    assert drawable("雪") == BOX


def test_what_has_no_shape_is_left_out_and_controls_are_seen() -> None:
    assert in_line("\ufeffa\u200b dog\u202e") == "a dog"
    assert in_line("a\x1b[0m") == r"a\x1b[0m"
    assert {in_line(text) for text in ("", "  ", "\ufeff", "\u200b \n")} == {'""'}


@pytest.mark.parametrize("limit", [12, 20, 52, 96])
def test_labels_of_long_texts_with_equal_ends_differ_where_the_texts_do(limit: int) -> None:
    begin, end = (
        "a photo of a man who walks along the long street with " * 2,
        " while the sun goes down over the sea" * 3,
    )
    middles = ["red", "blue", "green hats", "green shoes"]
    found = labels([begin + middle + end for middle in middles], limit)
    assert len({*found}) == 4 and max(map(len, found)) <= limit
    assert all(text.startswith("a") for text in found)
    if limit >= 52:
        assert all(middle in text for middle, text in zip(middles, found, strict=True))


def test_labels_that_look_the_same_are_numbered() -> None:
    assert labels([1, "1", "\ufeff1", "1 #1"], 20) == ["1 #2", "1 #3", "1 #4", "1 #1"]


def test_a_line_breaks_between_words_and_within_one_only_where_it_must() -> None:
    names = ["iterative_denoise", "man wearing a hat/photo/1", "a photo of a campfire"]
    for name in names:
        for width in (90, 140):
            lines = wrapped(name, width)
            assert "".join(lines).replace(" ", "") == name.replace(" ", "")
            words = name.replace("_", "_ ").replace("/", "/ ").split()
            assert all(part in words for line in lines for part in line.replace("_", "_ ").replace("/", "/ ").split())
    assert len(wrapped("w" * 100, 90)) > 1


@pytest.mark.slow
def test_odd_texts_are_drawn_on_sheets_and_figures(tmp_path: Path, two: None) -> None:
    store = Store(tmp_path)
    cells = []
    for i, prompt in enumerate(COLD):
        for a in (1, 2):
            cell_id = f"{2 * i + a:020x}"
            value = {"value": float(i), "definition": {"metric": "PSNR", "direction": "higher"}}
            record = {"config": {"prompt": prompt}, "metrics": {"psnr": value}, "nfe": a, "seconds": 1.0}
            store.save(cell_id, {"image": np.full((8, 8, 3), i, np.uint8)}, record)
            cells.append({"cell_id": cell_id, "axes": {"prompt": prompt, "a": a}, "seed": 0})
    sweep = {"name": "odd \ufeff雪", "axes": {"prompt": COLD, "a": [1, 2]}, "cells": cells, "metrics": ["psnr"]}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (file, *_) = write_grid(tmp_path, store, sweep)
        files = write_figures(tmp_path, sweep, results(store, sweep))
    with Image.open(file) as image:
        pixels = np.asarray(image)
    assert all(((pixels == i).all(-1)).sum() >= 2 * 96 * 96 for i in range(len(COLD)))
    assert {"curve_x-prompt.pdf", "curve_x-a.png", "heatmap.pdf"} <= {file.name for file in files}


def test_a_drawing_that_fails_takes_nothing_with_it(
    made: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from diffsweep import terminal
    from diffsweep.report import write

    def broken(*arguments: object, **keys: object) -> list[Path]:
        raise IndexError("string index out of range")

    store, sweep = made()
    monkeypatch.setattr(write, "write_grid", broken)
    report = write_all(store, sweep)
    assert report.failures == {"grid.png": "IndexError: string index out of range"}
    assert report.traceback == report.folder / "errors/grid.png.txt"
    assert "in broken" in report.traceback.read_text()
    names = {file.name for file in report.files}
    assert {"report.html", "results.csv", "curve_x-guidance.scale.png"} <= names and "grid.png" not in names
    assert all(file.is_file() for file in report.files)
    terminal.show(report)
    told = capsys.readouterr().err
    assert "grid.png: not drawn: IndexError" in told and f"traceback: {report.traceback}" in told
    monkeypatch.undo()
    assert not write_all(store, sweep).failures and not (report.folder / "errors").exists()


HOT = ["bbaaaabbaaabaaaaaba", "bbbaaaabbaabaaaaaba", "bbaaaabbaabaaaaaba", "bbaaababbaabaaaaaba"]
SEA = [
    "and at hat at sea a a sea a sea photo red red photo",
    "and at hat at house big a sea a sea photo and red photo",
    "and at hat at sea big a sea a sea photo old red photo",
    "and at hat at sea big a sea a sea photo red red sea",
    "and at hat at sea big a big a sea photo red red photo",
    "and at hat at sea a sea a and photo red red photo",
]


def test_labels_end_are_distinct_and_no_longer_than_their_room() -> None:
    """Also where telling two groups apart makes others alike, in turns."""
    rng = random.Random(0)
    cases = [(HOT, 10), (SEA, 20), (["a" * n for n in range(1, 400)], 8)]
    for _ in range(3000):
        words = rng.choice((["a", "b"], ["a ", "sea ", "red ", "photo "]))
        texts = {"".join(rng.choices(words, k=rng.randint(1, 30))).strip() for _ in range(rng.randint(2, 12))}
        cases.append((sorted(texts), rng.choice((8, 10, 20))))
    for texts, limit in cases:
        found = labels(texts, limit)
        assert len({*found}) == len(texts) and max(map(len, found)) <= limit, (texts, limit)
