"""One row a cell, one row a setting: numbers worked out by hand, or by pandas, scipy and itertools."""

from __future__ import annotations

import csv
import json
import math
import re
import statistics
import unicodedata
from collections.abc import Callable
from io import StringIO
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from diffsweep.core.problems import BadInput
from diffsweep.report.caption import caption
from diffsweep.report.comparison import compare
from diffsweep.report.frame import results
from diffsweep.report.latex import to_latex
from diffsweep.report.table import Table, summarise
from diffsweep.report.tabular import to_csv, to_frame, to_markdown, to_terminal
from diffsweep.report.text import briefs, markdown
from diffsweep.report.write import write_all
from tests.rewriting import rewrite

Made = Callable[..., Any]


def test_a_row_a_cell_with_a_column_for_each_axis_and_metric(made: Made) -> None:
    frame = results(*made())
    columns = "cell_id status reason guidance.scale seed prompt stage psnr psnr_exact error nfe seconds image"
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
    assert {file for file in report.folder.rglob("*.*") if file.is_file()} == {*report.files}
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
    psnr, error = table.columns
    assert error.ranks == {0: 1}  # 0.2 against 0.375, and no second best of two
    assert psnr.ranks == {}  # an exact picture has no number to compare with


def test_numbers_of_two_definitions_are_not_compared(made: Made) -> None:
    store, sweep = made()
    cell_id = sweep["cells"][0]["cell_id"]
    entry = store.record(cell_id)["metrics"]
    entry["psnr"]["definition"] = {**entry["psnr"]["definition"], "package": "torchmetrics 2.0.0"}
    rewrite(store, cell_id, metrics=entry)
    frame = results(store, sweep)
    assert "psnr" not in frame.columns and frame.attrs["refused"] == ["psnr"]
    assert "two definitions" in caption(summarise(frame))


def test_an_unknown_metric_is_refused(made: Made) -> None:
    with pytest.raises(BadInput, match=r"metric=pnsr: .*it has psnr, error; did you mean 'psnr'\?"):
        summarise(results(*made()), ["pnsr"])


def test_markdown_has_a_cell_a_column_and_marks_the_best(made: Made) -> None:
    lines = to_markdown(summarise(results(*made()))).splitlines()
    number = r"\d+\.\d+"
    assert lines[0] == r"| guidance.scale | seeds | failed | psnr ↑ | error ↓ | nfe | seconds |"
    interval = rf"\\\[-?{number}, -?{number}\\\]"
    assert re.fullmatch(
        rf"\| 1 \| 3 \| 0 \| 23\.00 {interval} \| \*\*0\.200 {interval}\*\* \| 10 \| 0\.50 \|", lines[2]
    )
    assert lines[3] == r"| 7 | 2 | 1 (33 %) | 30.00 (1 exact) | 0.375 | 10 | 0.50 |"
    asked = to_markdown(summarise(results(*made()), fewest=2)).splitlines()
    assert re.fullmatch(
        rf"\| 7 \| 2 \| 1 \(33 %\) \| 30\.00 \(1 exact\) \| 0\.375 {interval} \| 10 \| 0\.50 \|", asked[3]
    )


@pytest.mark.parametrize("text", ["a|b", "**bold**", "<b>", "a_b_c", "`x`", "$x$", "[a](b)"])
def test_texts_mean_themselves(text: str) -> None:
    assert markdown(text).replace("\\", "") == text
    assert all(markdown(text)[i - 1] == "\\" for i, c in enumerate(markdown(text)) if c in r"|*<>_`$[]")


def test_the_terminals_table_is_no_wider_than_the_terminal(made: Made) -> None:
    from rich.console import Console

    for width in (60, 100, 200):
        out = StringIO()
        console = Console(file=out, width=width)
        for part in to_terminal(summarise(results(*made())), width):
            console.print(part)
        lines = out.getvalue().splitlines()
        assert max(map(len, lines)) <= width
        assert sum("23.00 [" in line for line in lines) == 1
        assert sum("0.375" in line for line in lines) == 1


def test_the_unrounded_table_reads_back(made: Made) -> None:
    read = pd.read_csv(StringIO(to_frame(summarise(results(*made()))).to_csv(index=False)))
    assert read["psnr_std"][0] == statistics.stdev([20, 22, 27])
    assert list(read["psnr_exact"]) == [0, 1] and list(read["failed"]) == [0, 1]
    assert list(read["failure_rate"]) == [0, 1 / 3] and list(read["seeds"]) == [3, 2]


def test_a_sweep_of_one_cell_is_one_row(made: Made) -> None:
    store, sweep = made()
    sweep |= {"axes": {}, "cells": [{**sweep["cells"][0], "axes": {}}]}
    (row,) = (table := summarise(results(store, sweep))).rows
    assert (row.setting, row.done, row.stats["psnr"].mean) == ((), 1, 20)
    assert "| 1 | 20.00 | 0.300 | 10 | 0.50 |" in to_markdown(table)
    assert "20.00 & 0.300 \\\\" in to_latex(table) and "interval" not in caption(table)
    bare = summarise(results(store, sweep | {"metrics": []}))
    assert "| 1 | 10 | 0.50 |" in to_markdown(bare) and "1 & 10 \\\\" in to_latex(bare)
    assert len(list(to_terminal(bare, 80))) == 3 and len(to_frame(bare)) == 1


def frame_of(axes: dict[str, list[Any]], names: tuple[str, ...] = ("clip",), drop: float = 0) -> pd.DataFrame:
    """A sweep's frame over the product of axes with normal numbers, a share of them missing."""
    rows = pd.MultiIndex.from_product(axes.values(), names=axes).to_frame(index=False)
    rng = np.random.default_rng(0)
    for name in names:
        rows[name] = rng.normal(0.3, 0.05, len(rows))
        rows.loc[rng.random(len(rows)) < drop, name] = math.nan
    frame = rows.assign(status="done", nfe=pd.array([10] * len(rows), dtype="Int64"), seconds=0.5)
    frame["stage"] = pd.array([1] * len(rows), dtype="Int64")
    metrics = {name: {"metric": name.upper(), "direction": "higher"} for name in names}
    frame.attrs = {"axes": list(axes), "metrics": metrics, "reasons": {name: [] for name in names}}
    return frame


AXES: dict[str, list[Any]] = {"guidance.scale": [1, 3, 7], "input.id": ["cat", "dog"], "seed": [0, 1, 2, 3, 4]}


def test_inputs_and_seeds_repeat_a_setting() -> None:
    frame = frame_of(AXES, drop=0.2)
    table = summarise(frame)
    by = frame.groupby("guidance.scale")["clip"]
    for row, (_, values) in zip(table.rows, by, strict=True):
        stat = row.stats["clip"]
        there, of_input = values.dropna(), values.groupby(frame["input.id"])
        assert (stat.mean, stat.std, stat.n) == pytest.approx((of_input.mean().mean(), there.std(), len(there)))
        assert (row.seeds, row.inputs, stat.inputs) == (5, 2, 2)
        assert stat.quantile(0.9) == pytest.approx(of_input.quantile(0.9).mean())
        assert stat.median == pytest.approx(of_input.median().mean())
        assert sorted(value for group in stat.values for value in group) == sorted(there)
        assert stat.low < stat.mean < stat.high
    assert "Mean over 5 seeds and 2 inputs (input.id) a setting, with a 95 % interval (bootstrap over seeds, for" in (
        caption(table)
    )
    assert "(n = " in to_markdown(table)


def test_the_interval_of_many_seeds_is_students() -> None:
    frame = frame_of({"guidance.scale": [1, 3], "seed": list(range(80))})
    for row, (_, values) in zip(summarise(frame).rows, frame.groupby("guidance.scale")["clip"], strict=True):
        expected = scipy_stats.t.interval(0.95, 79, values.mean(), scipy_stats.sem(values))
        stat = row.stats["clip"]
        assert (stat.low, stat.high) == pytest.approx(expected, abs=0.05 * (expected[1] - expected[0]))


def test_other_statistics_and_what_they_are_called() -> None:
    frame = frame_of({"guidance.scale": [1, 3, 7], "seed": list(range(6))})
    table = summarise(frame, stats=["median", "q95", "best4", "best"])
    by = frame.groupby("guidance.scale")["clip"]
    best = by.apply(lambda values: np.mean([max(chosen) for chosen in combinations(values, 4)]))
    titles = {column.title: column.numbers for column in table.columns}
    assert list(titles) == ["clip median ↑", "clip q95 ↑", "clip best of 4 ↑", "clip best of all ↑"]
    for numbers, expected in zip(titles.values(), (by.median(), by.quantile(0.95), best, by.max()), strict=True):
        assert numbers == pytest.approx(list(expected))
    assert "95 % interval" not in caption(table) and "all choices of them (unbiased)" in caption(table)
    assert list(to_frame(table)["clip_q95"]) == pytest.approx(list(by.quantile(0.95)))
    with pytest.raises(BadInput, match="stat=best7: no setting has so many seeds; the most are 6"):
        summarise(frame, stats=["best7"])


def test_best_is_bold_with_its_ties_and_the_second_known() -> None:
    frame = frame_of({"guidance.scale": [1, 3, 7, 9], "seed": [0]})
    frame["clip"] = [0.31, 0.3501, 0.3504, 0.33]
    (column,) = summarise(frame).columns
    assert column.ranks == {1: 1, 2: 1, 3: 2}
    frame["clip"] = 0.3
    assert summarise(frame).columns[0].ranks == {}


def test_axes_as_rows_and_columns_average_nothing() -> None:
    axes = {"mask": ["box", "half"], "guidance.scale": [1, 3, 7], "steps": [5, 10], "seed": [0, 1, 2]}
    frame = frame_of(axes, ("clip", "psnr"))
    means = frame.groupby(["mask", "guidance.scale", "steps"])[["clip", "psnr"]].mean()
    table = summarise(frame, rows=["guidance.scale"], cols=["mask"])
    assert table.axes == ("guidance.scale", "steps", "mask") and table.down == ("guidance.scale", "steps")
    assert table.lines == [(1, 5), (1, 10), (3, 5), (3, 10), (7, 5), (7, 10)]
    assert [(column.metric, column.across) for column in table.columns] == [
        (metric, (mask,)) for metric in ("clip", "psnr") for mask in ("box", "half")
    ]
    for column in table.columns:
        expected = [means.loc[column.across[0], scale, steps][column.metric] for scale, steps in table.lines]
        assert column.numbers == pytest.approx(expected)
    apart = summarise(frame.drop(index=7), ["clip"], cols=["seed", "steps"])  # box, 3, 5, seed 1
    assert len(apart.columns) == 6 and [column.text(1) for column in apart.columns].index("–") == 2
    (header, *_) = to_markdown(apart).splitlines()
    assert header.startswith("| mask | guidance.scale | clip ↑, seed 0, steps 5 | clip ↑, seed 0, steps 10 |")


def test_over_makes_an_axis_repeat_a_setting() -> None:
    frame = frame_of({"prompt": ["a", "b", "c"], "guidance.scale": [1, 3], "seed": [0, 1, 2, 3]})
    table = summarise(frame, over=["prompt"])
    assert table.axes == ("guidance.scale",) and [row.inputs for row in table.rows] == [3, 3]
    assert table.columns[0].numbers == pytest.approx(list(frame.groupby("guidance.scale")["clip"].mean()))
    assert "3 values of prompt" in caption(table) and "input" not in caption(table)
    assert "values of prompt" in to_frame(table) and "| values of prompt |" in to_markdown(table)
    both = summarise(frame, over=["prompt", "guidance.scale"])
    assert "Mean over 4 seeds and 6 choices of prompt and guidance.scale a setting" in caption(both)
    assert "Each statistic is of a choice's seeds, averaged over the choices." in caption(both)


def test_an_input_is_called_so_with_over_or_without() -> None:
    frame = frame_of({"input.id": [1, 2], "guidance.scale": [1, 3], "seed": [0, 1, 2, 3]})
    for over in ([], ["input.id"]):
        assert "2 inputs (input.id)" in caption(summarise(frame, over=over))
    assert "4 choices of input.id and guidance.scale" in caption(summarise(frame, over=["guidance.scale"]))


@pytest.mark.parametrize(
    "named, message",
    [
        ({"rows": ["guidance"]}, r"rows=guidance: no such axis .*; did you mean 'guidance.scale'\?"),
        ({"cols": ["prompt"]}, "cols=prompt: no such axis in this sweep; it has guidance.scale, input.id, seed"),
        ({"over": ["sede"]}, "over=sede: no such axis .*; did you mean 'seed'"),
        ({"rows": ["seed"], "cols": ["seed"]}, "seed: named twice among rows, cols and over"),
        ({"rows": ["input.id"], "over": ["input.id"]}, "input.id: named twice"),
        ({"stats": ["q0"]}, "stat=q0: must be mean, median, a quantile"),
        ({"stats": ["best0"]}, r"stat=best0: .*; did you mean 'best'\?"),
    ],
)
def test_what_is_not_there_is_refused(named: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        summarise(frame_of(AXES), **named)


def test_a_number_of_a_set_stands_in_its_row() -> None:
    frame = frame_of(AXES)
    fid = {"metric": "FID", "direction": "lower", "network": "inception"}
    values = [
        {"axes": {"guidance.scale": 1}, "value": 31.5, "reason": None, "cells": 10},
        {"axes": {"guidance.scale": 3.0}, "value": 28.25, "reason": None, "cells": 10},
        {"axes": {"guidance.scale": 7}, "value": None, "reason": "fewer than 2 pictures", "cells": 1},
    ]
    frame.attrs |= {"sets": {"fid": {"definition": fid, "values": values}}, "unavailable": {"lpips": "no weights"}}
    table = summarise(frame, stats=["mean", "q95"])
    assert [column.title for column in table.columns] == ["clip mean ↑", "clip q95 ↑", "fid ↓"]
    fids = table.columns[-1]
    assert [fids.text(line) for line in range(3)] == ["31.50", "28.25", "–"] and fids.ranks == {1: 1}
    assert "fid: no value in places (fewer than 2 pictures)." in caption(table)
    assert table.absent == ("lpips: not measured (no weights)",) and "lpips" not in caption(table)
    assert "lpips: not measured (no weights)." in to_markdown(table).replace("\\", "")
    assert "\n% lpips: not measured (no weights)\n" in to_latex(table)  # of no use in a paper
    assert summarise(frame, ["clip"]).absent == ()
    frame.attrs["unavailable"] |= {"psnr": "no cell has a clean input", "ssim": "no cell has a clean input"}
    assert summarise(frame).absent[1:] == ("psnr, ssim: not measured (no cell has a clean input)",)
    assert "fid: one number of all of a setting's pictures (10 pictures), without an interval." in caption(table)
    assert r"* fid: FID, inception" in to_markdown(table)
    assert [column.metric for column in summarise(frame, ["fid"]).columns] == ["fid"]
    apart = summarise(frame, rows=["input.id"])
    assert apart.columns[-1].text(0) == "–" and "fid: a number of a whole setting's pictures" in caption(apart)


def test_what_a_metric_says_of_a_sets_number_stands_below_the_table() -> None:
    frame = frame_of({"guidance.scale": [1, 3], "seed": [0, 1]})
    values = [{"axes": {"guidance.scale": g}, "value": 1.0, "cells": 2, "note": "of 2 pictures"} for g in (1, 3)]
    frame.attrs["sets"] = {"fid": {"definition": {"metric": "FID", "direction": "lower"}, "values": values}}
    assert caption(summarise(frame)).count("fid: of 2 pictures.") == 1
    assert "of 2 pictures" not in caption(summarise(frame, ["clip"]))


@pytest.mark.parametrize("text", ["\x1b[31mred", "bell\x07", "\x9b2J", "\u202egnp.exe", "a\x00b", "[bold]rich[/bold]"])
def test_no_control_character_of_a_text_reaches_a_table(text: str) -> None:
    from rich.console import Console

    frame = frame_of({"prompt": [text, "b"], "seed": [0, 1, 2]})
    frame.attrs["unavailable"] = {"lpips": text}
    table, out = summarise(frame), StringIO()
    for part in to_terminal(table, 200):
        Console(file=out, width=200).print(part)
    shown = text.encode("unicode_escape").decode() if text[0] != "[" else text
    for found in (out.getvalue(), to_markdown(table).replace("\\[", "[").replace("\\]", "]").replace("\\\\", "\\")):
        assert shown in found and not [c for c in found if c != "\n" and unicodedata.category(c) in ("Cc", "Cf")]


@pytest.mark.parametrize("text", ["", " ", "\n"])
def test_an_empty_text_is_seen_in_a_table_and_is_empty_in_a_file(text: str, made: Made) -> None:
    from rich.console import Console

    store, sweep = made()
    sweep["axes"] = {"prompt": [text, "b"], "seed": [0, 1, 2]}
    for cell in sweep["cells"]:
        cell["axes"] = {"prompt": text if cell["axes"]["guidance.scale"] == 1 else "b", "seed": cell["seed"]}
    frame = results(store, sweep)
    table, out = summarise(frame), StringIO()
    for part in to_terminal(table, 200):
        Console(file=out, width=200).print(part)
    assert re.search(r'^ *"" +3', out.getvalue(), re.MULTILINE)
    assert '| "" | 3 |' in to_markdown(table)
    assert 'psnr ↑, prompt "" |' in to_markdown(summarise(frame, cols=["prompt"]))
    assert list(frame["prompt"]) == ["", "", "", "b", "b", "b"] and list(to_frame(table)["prompt"]) == ["", "b"]


@pytest.mark.parametrize(
    "reason, note",
    [
        ("the metric gave nan", ["psnr: no finite number in any cell (the metric gave nan)"]),
        ("no pixel has m = 1", []),
    ],
)
def test_a_metric_that_gives_no_number_is_noted(made: Made, reason: str, note: list[str]) -> None:
    store, sweep = made()
    for cell in sweep["cells"][:5]:
        entry = {"value": None, "definition": {"metric": "PSNR", "direction": "higher"}, "reason": reason}
        rewrite(store, cell["cell_id"], metrics={"psnr": entry})
    assert [text for text in write_all(store, sweep).notes if "psnr" in text] == note


def test_a_text_of_a_csv_is_no_formula_and_a_number_stays_one() -> None:
    texts = ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "a=1", "'quoted", "-5", "+1e3", 'plain, "text"']
    frame = pd.DataFrame({"prompt": pd.array(texts, dtype="string"), "scale": [-1.5] * 9, "n": pd.array([-1] * 9)})
    frame["missing"] = pd.array([None] * 8 + ["=x"], dtype="string")
    text = to_csv(frame)
    fields = [field for row in csv.reader(StringIO(text)) for field in row]
    assert not [field for field in fields if re.match(r"[=@\t]|[+-](?!\d+(\.\d+|e3)?$)", field)]
    read = pd.read_csv(StringIO(text), dtype={"prompt": "string", "missing": "string"})
    assert list(read["prompt"].str.removeprefix("'")) == [*texts[:5], "quoted", *texts[6:]]
    assert list(read["scale"]) == [-1.5] * 9 and list(read["n"]) == [-1] * 9
    assert read["missing"].isna().sum() == 8 and read["missing"][8] == "'=x"


def test_numbers_of_sets_of_several_sizes_are_not_ranked() -> None:
    frame = frame_of({"guidance.scale": [1, None], "seed": [0, 1, 2]})
    values = [{"axes": {"guidance.scale": g}, "value": v, "cells": n} for g, v, n in ((1, 0.7, 12), (None, 1.5, 3))]
    frame.attrs["sets"] = {"fid": {"definition": {"metric": "FID", "direction": "lower"}, "values": values}}
    fid = summarise(frame).columns[-1]
    assert [fid.text(line) for line in (0, 1)] == ["0.700 (n = 12)", "1.500 (n = 3)"] and fid.ranks == {}


def test_settings_that_are_written_alike_have_their_own_numbers_of_sets() -> None:
    frame = frame_of({"guidance.scale": [1.00000001, 1.00000002], "seed": [0, 1]})
    values = [
        {"axes": {"guidance.scale": g}, "value": v, "cells": 2} for g, v in ((1.00000001, 4.0), (1.00000002, 5.0))
    ]
    frame.attrs["sets"] = {"fid": {"definition": {"metric": "FID", "direction": "lower"}, "values": values}}
    assert [row.stats["fid"].mean for row in summarise(frame).rows] == [4.0, 5.0]


def test_an_interval_of_few_is_told_and_of_two_only_shown_if_asked_for() -> None:
    def told(seeds: int, fewest: int = 3) -> tuple[bool, bool, bool]:
        frame = frame_of({"guidance.scale": [1, 3], "seed": list(range(seeds))})
        table = summarise(frame, fewest=fewest)
        text, shows = caption(table), ["[" in column.text(0) for column in table.columns]
        return (
            shows == [True],
            f"An interval of {seeds} repeats is wide" in text,
            f"No interval of fewer than {fewest} repeats" in text,
        )

    assert [told(seeds) for seeds in (1, 2, 3, 4)] == [
        (False, False, False),
        (False, False, True),
        (True, True, False),
        (True, False, False),
    ]
    assert told(2, 2) == (True, True, False) and told(4, 5) == (False, False, True)


def test_an_interval_ends_where_the_metric_does_and_the_caption_says_so() -> None:
    frame = frame_of({"guidance.scale": [1, 3], "seed": [0, 1, 2]})
    frame["clip"] = [0.99, 0.98, 0.4, 0.52, 0.5, 0.51]
    free = summarise(frame)
    assert free.rows[0].stats["clip"].high > 1 and "cut at" not in caption(free)
    frame.attrs["metrics"]["clip"]["bounds"] = [-1, 1]
    cut = summarise(frame)
    assert cut.rows[0].stats["clip"].high == 1 and "Intervals end at the metric's bounds." in caption(cut)
    assert cut.rows[0].stats["clip"].low == free.rows[0].stats["clip"].low
    assert cut.rows[1].stats["clip"] == free.rows[1].stats["clip"]


def test_the_best_is_the_same_however_the_settings_are_laid_out() -> None:
    frame = frame_of({"mask": ["box", "half"], "guidance.scale": [1, 3, 7], "seed": [0]})
    frame["clip"] = [0.31, 0.35, 0.33, 0.36, 0.37, 0.34]

    def marks(**arranged: list[str]) -> set[tuple[Any, int]]:
        table = summarise(frame, **arranged)  # type: ignore[arg-type]
        order = {axis: place for place, axis in enumerate(table.axes)}
        places = [order["mask"], order["guidance.scale"]]
        found = set()
        for column in table.columns:
            for line, rank in column.ranks.items():
                setting = (*table.lines[line], *column.across)
                found.add((tuple(setting[place] for place in places), rank))
        return found

    assert marks() == marks(cols=["mask"]) == marks(cols=["guidance.scale"]) == marks(rows=["guidance.scale"])
    assert marks() == {(("half", 3), 1), (("half", 1), 2)}
    pivoted = summarise(frame, cols=["mask"])
    assert "Best over all columns of a metric bold." in to_markdown(pivoted)
    assert to_markdown(pivoted).count("**") == 2
    assert "Best over all columns of a metric bold, second underlined." in to_latex(pivoted)


def test_settings_are_compared_for_each_input_and_seed_where_these_are_laid_out() -> None:
    """One picture is easier than another: its numbers are no better."""
    frame = frame_of({"guidance.scale": [1, 3], "input.id": ["cat", "dog"], "seed": [0]})
    frame["clip"] = [0.30, 0.50, 0.32, 0.48]
    inputs, scales = ["input.id"], ["guidance.scale"]
    for rows, cols in (([], inputs), (inputs, scales), (inputs, [])):
        table = summarise(frame, rows=rows, cols=cols)
        best = {table.columns[k].numbers[i] for k, column in enumerate(table.columns) for i in column.ranks}
        assert best == {0.32, 0.50} and "for each input.id bold" in to_markdown(table)


def test_columns_of_one_metric_share_their_decimals() -> None:
    frame = frame_of({"mask": ["box", "half"], "guidance.scale": [1, 3], "seed": [0]})
    frame["clip"] = [9.5, 9.25, 10.5, 10.25]
    columns = summarise(frame, cols=["mask"]).columns
    assert [column.text(i) for column in columns for i in (0, 1)] == ["9.50", "9.25", "10.50", "10.25"]


def test_markdown_and_the_terminal_hold_the_numbers_of_the_csv() -> None:
    from rich.console import Console

    frame = frame_of(AXES, ("clip", "psnr"), drop=0.1)
    table = summarise(frame)
    unrounded = to_frame(table)
    lines = [line.replace("\\", "").replace("**", "") for line in to_markdown(table).splitlines()[:5]]
    header, _, *body = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    out = StringIO()
    for part in to_terminal(table, 200):
        Console(file=out, width=200).print(part)
    for i, line in enumerate(body):
        for name in ("clip", "psnr"):
            text = line[header.index(f"{name} ↑")]
            assert text in out.getvalue()
            mean, low, high = map(float, re.findall(r"\d\.\d{3}", text))
            expected = [unrounded[f"{name}_{what}"][i] for what in ("mean", "low", "high")]
            assert [mean, low, high] == pytest.approx(expected, abs=0.0005)


def test_a_long_table_is_cut_in_the_terminal_alone() -> None:
    frame = frame_of({"guidance.scale": list(range(100)), "seed": [0, 1]})
    table: Table = summarise(frame)
    short, whole = ([*to_terminal(table, 100, most)][1].row_count for most in (60, 1000))  # type: ignore[union-attr]
    assert (short, whole) == (60, 100)


def test_columns_that_say_nothing_of_their_own_become_a_sentence_in_the_terminal() -> None:
    from rich.console import Console

    frame = frame_of({"mask.softness": [0, 4], "seed": [0, 1]}, ("psnr", "psnr_masked", "psnr_inside", "ssim", "drift"))
    for name in ("psnr", "psnr_masked", "psnr_inside"):
        frame.attrs["metrics"][name] = {"metric": "PSNR, in dB", "direction": "higher"}
    frame["psnr_inside"] = frame["psnr_masked"]
    frame["ssim"], frame["drift"] = frame["psnr_masked"], 0.0  # another measure, whose numbers are the same by chance

    def told(whole: bool) -> str:
        out = StringIO()
        for part in to_terminal(summarise(frame), 200, whole=whole):
            Console(file=out, width=200).print(part)
        return out.getvalue()

    assert "In every line: psnr_inside as psnr_masked, drift 0.000, nfe 10." in told(whole=False)
    header = next(line for line in told(whole=False).splitlines() if "mask.softness" in line)
    assert header.split() == ["mask.softness", "seeds", "psnr", "↑", "psnr_masked", "↑", "ssim", "↑", "seconds"]
    assert "psnr_inside ↑" in told(whole=True) and "In every line" not in told(whole=True)
    assert all(
        f"{name} ↑" in to_markdown(summarise(frame)).replace("\\", "") for name in ("psnr_inside", "psnr_masked")
    )
    frame.loc[0, "psnr_inside"] += 1e-9  # unrounded numbers count
    assert "psnr_inside" not in told(whole=False).rpartition("In every line")[2]


def test_numbers_in_decibels_have_two_decimals_whatever_they_are() -> None:
    frame = frame_of({"guidance.scale": [1, 3], "seed": [0, 1]}, ("psnr", "ssim"))
    frame["psnr"], frame["ssim"] = [5.1234, 6.0, 7.0, 8.0], [5.1234, 6.0, 7.0, 8.0]
    frame.attrs["metrics"]["psnr"]["metric"] = "PSNR against the clean input, in dB"
    psnr, ssim = summarise(frame).columns
    assert (psnr.places, ssim.places) == (2, 3)
    assert compare(frame, ["psnr"])[0].estimate == "+1.94"


LORAS = ["a/style.safetensors:0.5"], ["a/style.safetensors:1.0", "owner/film:0.25"], []


@pytest.mark.parametrize(
    "values, texts",
    [
        (LORAS, ["style:0.5", "style:1.0, film:0.25", "none"]),
        (map(json.dumps, LORAS), ["style:0.5", "style:1.0, film:0.25", "none"]),  # as a frame holds them
        ([["a/style.safetensors"], ["b/style.safetensors"]], ['["a/style.safetensors"]', '["b/style.safetensors"]']),
        ([[990, 660, 0], [0.5]], ["990, 660, 0", "0.5"]),
        (
            [["a cat/dog", "in 1:2"], "[sic]", 'a "b"', 7.5, None],
            ["a cat/dog, in 1:2", "[sic]", 'a "b"', "7.5", "null"],
        ),
        ([[1, 2], "1, 2"], ["[1, 2]", "1, 2"]),
    ],
)
def test_lists_are_shown_by_their_items_and_loras_by_their_names(values: Any, texts: list[str]) -> None:
    assert briefs(values) == texts


def test_a_list_that_is_an_axis_is_short_in_tables_and_whole_in_files() -> None:
    frame = frame_of({"model.lora": [json.dumps(own) for own in LORAS], "seed": [0, 1]})
    table = summarise(frame)
    assert [line.split(" | ")[0] for line in to_markdown(table).replace("\\", "").splitlines()[2:5]] == [
        "| style:0.5",
        "| style:1.0, film:0.25",
        "| none",
    ]
    assert list(to_frame(table)["model.lora"]) == [json.dumps(own) for own in LORAS]
    (one, other) = compare(frame, baseline="none", axis="model.lora")
    assert one.sentence.startswith("model.lora style:0.5 against none: clip mean ")
    again = compare(frame, baseline="[]", axis="model.lora")
    assert [found.sentence for found in again] == [one.sentence, other.sentence]


GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("form", ["md", "tex", "txt"])
def test_the_golden_tables(made: Made, form: str) -> None:
    """Each was read by a person; the numbers in them are checked by the tests above."""
    from rich.console import Console

    table = summarise(results(*made()))
    out = StringIO()
    for part in to_terminal(table, 80):
        Console(file=out, width=80).print(part)
    found = {"md": to_markdown(table), "tex": to_latex(table, "made"), "txt": out.getvalue()}[form]
    strip = "\n".join(line.rstrip() for line in found.splitlines()) + "\n"
    assert strip == (GOLDEN / f"table.{form}").read_text()
