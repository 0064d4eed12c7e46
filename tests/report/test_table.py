"""One row a cell, one row a setting: numbers worked out by hand."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from diffsweep.core.problems import BadInput
from diffsweep.report.frame import results
from diffsweep.report.table import caption, summarise, to_frame, to_latex, to_markdown, to_terminal
from diffsweep.report.text import latex, markdown

Made = Callable[..., Any]


def test_a_row_a_cell_with_a_column_for_each_axis_and_metric(made: Made) -> None:
    frame = results(*made())
    columns = "cell_id status reason guidance.scale seed stage psnr psnr_exact error nfe seconds image"
    assert list(frame.columns) == columns.split()
    assert list(frame["status"]) == ["done"] * 5 + ["failed"]
    assert list(frame["guidance.scale"]) == [1, 1, 1, 7, 7, 7]
    assert list(frame["seed"]) == [0, 1, 2, 0, 1, 2]
    assert list(frame["psnr"][:4]) == [20, 22, 27, 30] and frame["psnr"][4:].isna().all()
    assert list(frame["psnr_exact"]) == [False] * 4 + [True, False]
    assert frame["image"][0] == f"cells/00/{0:020x}/image.png"
    assert frame["reason"][5] == "ValueError: <broken>"


def test_the_files_hold_the_frame(made: Made, tmp_path: Path) -> None:
    from diffsweep.report.write import write_all

    store, sweep = made()
    report = write_all(store, sweep)
    assert {file.name for file in report.folder.iterdir()} == {file.name for file in report.files}
    parquet, csv = pd.read_parquet(report.folder / "results.parquet"), pd.read_csv(report.folder / "results.csv")
    pd.testing.assert_frame_equal(parquet, results(store, sweep))
    assert list(csv.columns) == list(parquet.columns)
    assert list(csv["psnr"][:4]) == [20, 22, 27, 30]


def test_mean_and_sample_deviation_over_the_seeds_of_a_setting(made: Made) -> None:
    table = summarise(results(*made()))
    low, high = table.rows
    assert (table.axes, low.setting, high.setting) == (("guidance.scale",), (1.0,), (7.0,))
    assert (low.done, low.failed, high.done, high.failed) == (3, 0, 2, 1)
    psnr = low.stats["psnr"]
    assert (psnr.mean, psnr.n, psnr.exact) == (23, 3, 0)
    assert psnr.std == pytest.approx(statistics.stdev([20, 22, 27]))
    assert (high.stats["psnr"].mean, high.stats["psnr"].n, high.stats["psnr"].exact) == (30, 1, 1)
    assert math.isnan(high.stats["psnr"].std)
    assert high.stats["error"].mean == pytest.approx((0.5 + 0.25) / 2)


def test_the_best_follows_each_metrics_direction(made: Made) -> None:
    table = summarise(results(*made()))
    assert table.directions == {"psnr": "higher", "error": "lower"}
    assert table.best("error") == {0}  # 0.2 against 0.375
    assert table.best("psnr") == set()  # an exact picture has no number to compare with


def test_numbers_of_two_definitions_are_not_compared(made: Made) -> None:
    store, sweep = made()
    cell_id = sweep["cells"][0]["cell_id"]
    entry = store.record(cell_id)["metrics"]
    entry["psnr"]["definition"] = {**entry["psnr"]["definition"], "package": "torchmetrics 2.0.0"}
    store.amend(cell_id, {"metrics": entry})
    frame = results(store, sweep)
    assert "psnr" not in frame.columns and frame.attrs["refused"] == ["psnr"]
    assert "two definitions" in caption(summarise(frame))


def test_an_unknown_metric_is_refused(made: Made) -> None:
    with pytest.raises(BadInput, match=r"metric=pnsr: .*it has psnr, error; did you mean 'psnr'\?"):
        summarise(results(*made()), ["pnsr"])


def test_markdown_has_a_cell_a_column_and_marks_the_best(made: Made) -> None:
    lines = to_markdown(summarise(results(*made()))).splitlines()
    assert lines[0] == r"| guidance.scale | n | failed | psnr ↑ | error ↓ | nfe | seconds |"
    assert lines[2] == "| 1 | 3 | 0 | 23.00 ± 3.61 | **0.200 ± 0.100** | 10 | 0.50 |"
    assert lines[3] == "| 7 | 2 | 1 | 30.00 (1 exact) | 0.375 ± 0.177 | 10 | 0.50 |"


def test_latex_is_booktabs_with_every_text_escaped(made: Made) -> None:
    store, sweep = made()
    sweep["axes"] = {"prompt": ["50% & {a_b}", "#2 ~ ^"], "seed": [0, 1, 2]}
    for cell in sweep["cells"]:
        cell["axes"] = {"prompt": sweep["axes"]["prompt"][cell["axes"]["guidance.scale"] == 7], "seed": cell["seed"]}
    text = to_latex(summarise(results(store, sweep)), "made")
    assert r"50\% \& \{a\_b\} & 3 & 0 & 23.00 $\pm$ 3.61 & \textbf{0.200 $\pm$ 0.100}" in text
    assert r"\#2 \textasciitilde{} \textasciicircum{} &" in text
    for line in (r"\toprule", r"\midrule", r"\bottomrule", r"\label{tab:made}", r"\begin{tabular}{lrrrrrr}"):
        assert line in text


@pytest.mark.parametrize("text", ["a|b", "**bold**", "<b>", "a_b_c", "`x`", "$x$", "[a](b)"])
def test_texts_mean_themselves(text: str) -> None:
    assert markdown(text).replace("\\", "") == text
    assert all(markdown(text)[i - 1] == "\\" for i, c in enumerate(markdown(text)) if c in r"|*<>_`$[]")
    assert not set(latex(text).replace(r"\_", "").replace(r"\$", "").replace("{[}", "").replace("{]}", "")) & set(
        "_$[]|<>"
    )


def test_the_terminals_table_is_no_wider_than_the_terminal(made: Made) -> None:
    from rich.console import Console

    for width in (60, 100, 200):
        out = StringIO()
        console = Console(file=out, width=width)
        for part in to_terminal(summarise(results(*made())), width):
            console.print(part)
        lines = out.getvalue().splitlines()
        assert max(map(len, lines)) <= width
        assert sum("23.00 ± 3.61" in line for line in lines) == 1
        assert sum("0.375 ± 0.177" in line for line in lines) == 1


def test_the_unrounded_table_reads_back(made: Made) -> None:
    read = pd.read_csv(StringIO(to_frame(summarise(results(*made()))).to_csv(index=False)))
    assert read["psnr_std"][0] == statistics.stdev([20, 22, 27])
    assert list(read["psnr_exact"]) == [0, 1] and list(read["failed"]) == [0, 1]


def test_a_sweep_of_one_cell_is_one_row(made: Made) -> None:
    store, sweep = made()
    sweep |= {"axes": {}, "cells": [{**sweep["cells"][0], "axes": {}}]}
    (row,) = summarise(results(store, sweep)).rows
    assert (row.setting, row.done, row.stats["psnr"].mean) == ((), 1, 20)
