"""Texts and files that somebody meant ill by go through a whole sweep: they are shown as texts, and nothing is written
outside the output_dir."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from diffsweep import results
from tests.running import run_sweep

PROMPTS = {
    "page": "</script><script>window.ran=1</script><img src=x onerror=window.ran=1>",
    "formula": '=HYPERLINK("http://x",A1)',
    "latex": "\\input{/etc/passwd}\\write18{touch ran}",
    "terminal": "a \x1b[2J\x1b]0;x\x07 dog",
    "path": "../../ran",
    "long": "a dog " * 17_000,  # 100 kB
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, beside which nothing may come to lie."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_texts_of_any_kind_stay_texts(
    place: Path, config: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    same = {"scheduler__steps": 1, "model__size": 4, "output_dir": "outputs"}
    cells = [(config(**same, prompt=prompt), {"prompt": prompt}) for prompt in PROMPTS.values()]
    assert run_sweep(cells, "mine", "diffsweep").failed == 0
    for words in ("table mine", "compare mine", "grid mine", "report mine embed=true", "verify mine"):
        assert results.run(words.split()) == 0, words
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err and "\x07" not in out + err

    folder = Path("outputs/sweeps/mine")
    for name in ("report.html", "report_whole.html"):
        page = (folder / name).read_text()
        assert "<script>window" not in page and "<img src=x" not in page
    assert (
        "\\input{" not in (folder / "table.tex").read_text() and "\\write18" not in (folder / "table.tex").read_text()
    )
    lines = (folder / "results.csv").read_text().splitlines()
    assert not [cell for line in lines for cell in re.split(r',(?=(?:[^"]*"[^"]*")*[^"]*$)', line) if cell[:1] in "=@"]
    assert set(pd.read_parquet(folder / "results.parquet")["prompt"]) >= {PROMPTS["formula"], PROMPTS["page"]}
    assert sorted(os.listdir(place)) == ["outputs"] and os.listdir(place.parent) == ["here"]


@pytest.mark.parametrize("file", ["../../../ran.png", "/tmp/ran-by-diffsweep.png"])
def test_a_sweep_from_elsewhere_writes_nothing_outside_its_folder(
    place: Path, config: Callable[..., Any], file: str
) -> None:
    cells = [(config(scheduler__steps=1, model__size=4, output_dir="outputs", seed=s), {"seed": s}) for s in (0, 1)]
    sweep = run_sweep(cells, "mine", "diffsweep").folder / "sweep.json"
    sweep.write_text(json.dumps({**json.loads(sweep.read_text()), "chosen": {"sheets": {file: {"title": "x"}}}}))
    with pytest.raises(results.BadInput, match=r"chosen\.sheets"):
        results.run(["report", "mine"])
    assert os.listdir(place) == ["outputs"] and os.listdir(place.parent) == ["here"] and not Path(file).exists()
