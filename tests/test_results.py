"""The command diffsweep-results, on a sweep that the engine ran."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pandas as pd
import pytest
from PIL import Image

from diffsweep import results
from diffsweep.runner.run import run_sweep

Run = Callable[..., int]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, config: Callable[..., Any]) -> Path:
    """A folder in which inpaintings by the analytic model were swept; nothing is measured yet."""
    folder = tmp_path_factory.mktemp("ran")
    changes = {
        "technique": "inpaint",
        "scheduler__steps": 2,
        "sweep__name": "inp",
        "output_dir": str(folder / "outputs"),
    }
    cells = [
        (config(**changes, seed=seed, mask__softness=softness), {"mask.softness": softness, "seed": seed})
        for softness in (0.0, 2.0)
        for seed in (0, 1)
    ]
    assert run_sweep(cells).failed == 0
    return folder


@pytest.fixture
def command(ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command in a copy of that folder."""
    shutil.copytree(ran / "outputs", tmp_path / "outputs")
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["diffsweep-results", *words])
        return results.main()

    return run


LONG = "n" * 300  # more than a file's name may have


def test_words_that_no_file_can_have(command: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("grid", "inp", f"title={LONG}") == 0
    for words in (["table", LONG], ["table", "inp", f"metric={LONG}"], ["export", "inp", f"to={LONG}/x"]):
        assert command(*words) == 2, words
        assert capsys.readouterr().err.startswith("diffsweep-results: ")


def test_score_measures_old_pictures_and_generates_nothing(command: Run, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = {file: file.read_bytes() for file in Path("outputs/cells").rglob("*.png")}
    runs = json.loads(Path("outputs/sweeps/inp/sweep.json").read_text())["runs"]
    assert "psnr" not in pd.read_csv("outputs/sweeps/inp/results.csv")
    assert command("score", "inp", "metric=psnr,psnr_inside") == 0
    assert "4 of 4 cells measured" in capsys.readouterr().err
    frame = pd.read_csv("outputs/sweeps/inp/results.csv")
    assert frame["psnr"].notna().all() and frame["psnr_inside"].notna().all()
    assert {file: file.read_bytes() for file in Path("outputs/cells").rglob("*.png")} == pictures
    assert json.loads(Path("outputs/sweeps/inp/sweep.json").read_text())["runs"] == runs
    assert command("score", "inp") == 0  # the default metrics: some are there already
    assert set(pd.read_csv("outputs/sweeps/inp/results.csv")) >= {"psnr", "ssim", "psnr_edge", "ssim_outside"}
    assert command("score", "inp") == 0
    assert "0 of 4 cells measured" in capsys.readouterr().err.splitlines()[-1]


def test_table_in_every_format(command: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("score", "inp", "metric=psnr") == 0
    expected = pd.read_csv("outputs/sweeps/inp/results.csv").groupby("mask.softness")["psnr"].mean()
    capsys.readouterr()
    for form, marks in {
        "terminal": "psnr ↑",
        "markdown": "| psnr ↑ |",
        "latex": r"\toprule",
        "csv": "psnr_mean",
    }.items():
        assert command("table", "inp", f"format={form}", "metric=psnr") == 0
        text = capsys.readouterr().out
        assert marks in text
        for mean in expected:
            assert (f"{mean:.2f}" if form != "csv" else f"{mean:.6f}"[:-2]) in text


def test_a_pivot_of_another_statistic(command: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("score", "inp", "metric=psnr") == 0
    psnr = pd.read_csv("outputs/sweeps/inp/results.csv").set_index(["seed", "mask.softness"])["psnr"]
    capsys.readouterr()
    words = ("metric=psnr", "stat=median,best1", "rows=seed", "cols=mask.softness", "format=markdown")
    assert command("table", "inp", *words) == 0
    header, _, *lines = capsys.readouterr().out.splitlines()
    titles = [f"psnr {stat} ↑, mask.softness {softness}" for stat in ("median", "best of 1") for softness in (0, 2)]
    assert header == f"| seed | {' | '.join(titles)} |"
    for seed in (0, 1):
        cells = lines[seed].replace("*", "").strip("|").split("|")
        values = [psnr[seed, softness] for softness in (0, 2)]
        assert [cell.strip() for cell in cells] == [str(seed), *(f"{value:.2f}" for value in values * 2)]


def test_compare_in_every_format(command: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("score", "inp", "metric=psnr") == 0
    means = pd.read_csv("outputs/sweeps/inp/results.csv").groupby("mask.softness")["psnr"].mean()
    capsys.readouterr()
    for form in ("terminal", "markdown", "csv"):
        assert command("compare", "inp", "metric=psnr", f"format={form}") == 0
        text = capsys.readouterr().out
        assert f"mask.softness 2 against 0: psnr mean {means[2] - means[0]:+.2f}" in text
        assert ("psnr varies by" in text) == (form != "csv")


def test_without_numbers_compare_says_that_nothing_was_measured_and_how_to(
    command: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    told = "Nothing to compare: no picture was measured; `diffsweep-results score SWEEP metric=NAMES` measures"
    assert command("compare", "inp") == 0
    assert capsys.readouterr().out == f"{told} the stored pictures\n"
    assert command("compare", "inp", "format=csv") == 0
    heard = capsys.readouterr()
    assert heard.out.strip() == "" and heard.err.startswith(told)
    assert command("score", "inp", "metric=drift,diversity_pixels") == 0
    capsys.readouterr()
    assert command("compare", "inp") == 0
    assert capsys.readouterr().out == "Nothing to compare: all pictures have the same numbers (drift)\n"


def test_an_interval_of_two_seeds_is_shown_where_it_is_asked_for(
    command: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("score", "inp", "metric=psnr") == 0
    for name in ("table", "compare"):
        capsys.readouterr()
        assert command(name, "inp", "metric=psnr") == 0
        few = capsys.readouterr().out
        assert command(name, "inp", "metric=psnr", "repeats=2") == 0
        asked = capsys.readouterr().out
        assert "[" not in few and len(re.findall(r"\[-?\d+\.\d+, -?\d+\.\d+\]", asked)) == (2 if name == "table" else 1)


def test_a_metric_that_fails_is_named_and_ends_with_1(
    command: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffsweep.metric.psnr import Psnr

    with monkeypatch.context() as broken:
        broken.setattr(Psnr, "__call__", lambda self, batch: ["high"] * len(batch.images))
        assert command("score", "inp", "metric=psnr,ssim") == 1
    reason = "TypeError: a metric must give numbers, not 'high'"
    failed, traceback = capsys.readouterr().err.splitlines()[-2:]
    assert failed == f"metric psnr failed: {reason}"
    assert traceback == "traceback: outputs/sweeps/inp/errors/psnr.txt"
    frame = pd.read_csv("outputs/sweeps/inp/results.csv")
    assert frame["ssim"].notna().all() and "psnr" not in frame
    assert json.loads(Path("outputs/sweeps/inp/sweep.json").read_text())["unavailable"] == {"psnr": reason}
    assert command("score", "inp", "metric=psnr") == 0
    assert pd.read_csv("outputs/sweeps/inp/results.csv")["psnr"].notna().all()


def test_score_with_force_measures_what_has_numbers(command: Run, capsys: pytest.CaptureFixture[str]) -> None:
    names = "metric=psnr,diversity_pixels"
    assert command("score", "inp", names) == 0
    right = pd.read_csv("outputs/sweeps/inp/results.csv")["psnr"]
    sweep = Path("outputs/sweeps/inp/sweep.json")
    sets = json.loads(sweep.read_text())["sets"]
    for record in Path("outputs/cells").rglob("record.json"):
        old = json.loads(record.read_text())
        old["metrics"]["psnr"]["value"] = 1.0
        record.write_text(json.dumps(old))
    wrong = json.loads(sweep.read_text())
    for entry in wrong["sets"]["diversity_pixels"]["values"]:
        entry["value"] = 1.0
    sweep.write_text(json.dumps(wrong))
    assert command("score", "inp", names) == 0
    assert (pd.read_csv("outputs/sweeps/inp/results.csv")["psnr"] == 1).all()
    assert command("score", "inp", names, "force=true") == 0
    assert "4 of 4 cells measured" in capsys.readouterr().err
    assert list(pd.read_csv("outputs/sweeps/inp/results.csv")["psnr"]) == list(right)
    assert json.loads(sweep.read_text())["sets"] == sets


def test_grid_with_axes_of_choice(command: Run) -> None:
    sheet = Path("outputs/sweeps/inp/grid.png")
    with Image.open(sheet) as image:
        before = image.size
    assert command("grid", "inp", "rows=seed", "cols=mask.softness") == 0
    with Image.open(sheet) as image:
        after = image.size
    assert before != after


def test_chosen_sheets_and_figures_are_drawn_again_by_later_reports(command: Run, tmp_path: Path) -> None:
    folder = Path("outputs/sweeps/inp")
    assert command("score", "inp", "metric=psnr,ssim") == 0

    def drawn() -> dict[str, bytes]:
        return {file.name: file.read_bytes() for file in [*folder.glob("*.png"), *folder.glob("figures/*.png")]}

    usual = drawn()
    assert command("grid", "inp", "rows=seed", "cols=mask.softness") == 0
    assert command("grid", "inp", "pictures=hole,image", "size=64", f"to={folder}/holes.png") == 0
    assert command("figure", "inp", "kind=curve", "x=seed", "metric=ssim") == 0
    chosen = drawn()
    assert chosen["grid.png"] != usual["grid.png"]
    assert chosen.keys() - usual.keys() == {"holes.png", "curve_x-seed_ssim.png"}
    for name in chosen:
        next(folder.rglob(name)).unlink()
    assert command("report", "inp") == 0
    assert drawn() == chosen
    assert "holes.png" in (folder / "report.html").read_text()

    kept = (folder / "sweep.json").read_bytes()
    curve = ("figure", "inp", "kind=curve", "x=seed", "metric=ssim")
    for words in (("grid", "inp", "rows=seed"), ("grid", "inp"), ("grid", "inp", f"to={folder}/holes.png"), curve):
        assert command(*words, "keep=false") == 0
    assert command("figure", "inp", "kind=curve", "x=mask.softness", "metric=ssim", "keep=false") == 0
    assert (folder / "sweep.json").read_bytes() == kept

    assert command("grid", "inp") == 0  # as the sweep's own block says
    assert command("grid", "inp", f"to={folder}/holes.png") == 0
    assert command("figure", "inp", "kind=curve", "x=mask.softness", "metric=psnr") == 0
    assert command(*curve, "keep=forget") == 0
    assert command(*curve, "keep=forget") == 2  # it is forgotten
    assert len(json.loads((folder / "sweep.json").read_text())["chosen"]["figures"]) == 1
    assert command("figure", "inp", "keep=forget") == 0
    assert json.loads((folder / "sweep.json").read_text())["chosen"] == {"sheets": {}, "figures": []}
    (folder / "holes.png").unlink()
    assert command("report", "inp") == 0
    assert drawn()["grid.png"] == usual["grid.png"] and not (folder / "holes.png").exists()


def test_a_choice_that_the_sweep_has_no_more_is_noted(command: Run, capsys: pytest.CaptureFixture[str]) -> None:
    file = Path("outputs/sweeps/inp/sweep.json")
    sweep = json.loads(file.read_text())
    file.write_text(json.dumps(sweep | {"chosen": {"sheets": {"mine.png": {"rows": "gone"}}}}))
    assert command("report", "inp") == 0
    assert "note: mine.png: not drawn: rows=gone: no such axis in this sweep" in capsys.readouterr().err
    assert not Path("outputs/sweeps/inp/mine.png").exists() and Path("outputs/sweeps/inp/grid.png").is_file()


def test_what_cannot_be_drawn_is_an_exit_code_of_every_command_that_draws(
    command: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from diffsweep.report import write
    from diffsweep.tracker.wandb import Wandb

    def broken(*words: Any, **more: Any) -> Any:
        raise RuntimeError("no ink")

    monkeypatch.setattr(write, "write_grid", broken)
    monkeypatch.setattr(Wandb, "log", lambda *words: None)
    for words in (["report", "inp"], ["score", "inp", "metric=psnr"], ["sync", "inp"]):
        assert command(*words) == 1, words
        assert "grid.png: not drawn: RuntimeError: no ink" in capsys.readouterr().err


@pytest.mark.parametrize("file", ["grid.png", "mine.png"])
def test_a_sheet_in_whose_place_a_folder_stands_is_a_failure(
    command: Run, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("grid", "inp", f"to=outputs/sweeps/inp/{file}", "title=Mine") == 0
    place = Path("outputs/sweeps/inp") / file
    place.unlink()
    place.mkdir()
    capsys.readouterr()
    assert command("report", "inp") == 1
    told = capsys.readouterr().err
    assert f"{file}: not drawn: {place}: a folder; remove it or rename it\n" in told
    assert "to=" not in told and "traceback" not in told and "note:" not in told
    place.rmdir()
    assert command("report", "inp") == 0 and place.is_file()


def test_a_sheet_elsewhere_is_drawn_once(command: Run, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert command("grid", "inp", "to=paper.pdf", "title=") == 0
    assert capsys.readouterr().out == "paper.pdf\n" and Path("paper.pdf").read_bytes().startswith(b"%PDF")
    assert not json.loads(Path("outputs/sweeps/inp/sweep.json").read_text()).get("chosen", {}).get("sheets")


def test_every_cell_has_its_prompt_and_what_differs_beside_the_axes(tmp_path: Path, config: Callable[..., Any]) -> None:
    where = {"output_dir": str(tmp_path / "outputs"), "scheduler__steps": 1}
    cells = [(config(**where, prompt="a dog", technique=t), {"technique": t}) for t in ("text_to_image", "hybrid")]
    run_sweep(cells, "two")
    frame = pd.read_parquet(tmp_path / "outputs/sweeps/two/results.parquet")
    assert frame["prompt"][0] == "a dog" and json.loads(frame["prompt"][1])[0] == "a dog"
    assert frame["technique.kernel"].tolist()[1] == 33 and pd.isna(frame["technique.kernel"][0])
    assert {"technique.name", "scheduler.timesteps", "guidance.scale"}.isdisjoint(frame.columns)
    assert frame.columns.tolist() == pd.read_csv(tmp_path / "outputs/sweeps/two/results.csv").columns.tolist()


def test_report_writes_what_is_missing(command: Run) -> None:
    assert command("score", "inp", "metric=psnr") == 0
    files = {file.name for file in Path("outputs/sweeps/inp").iterdir()} - {"sweep.log"}
    drawn = {file.name for file in Path("outputs/sweeps/inp/figures").iterdir()}
    assert {"curve_x-mask.softness.pdf", "curve_x-mask.softness.png"} <= drawn
    shutil.rmtree("outputs/sweeps/inp/figures")
    for name in (files | {"sweep.log"}) - {"sweep.json", "figures"}:
        Path("outputs/sweeps/inp", name).unlink()
    assert command("report", "inp") == 0
    assert {file.name for file in Path("outputs/sweeps/inp").iterdir()} == files
    assert {file.name for file in Path("outputs/sweeps/inp/figures").iterdir()} == drawn


def test_a_report_of_a_stored_sweep_keeps_the_order_of_its_axes(
    config: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As typed, which is no order of the alphabet."""
    monkeypatch.chdir(tmp_path)
    settings = [{"technique.t": t, "guidance.scale": scale} for t in (200, 400) for scale in (1.0, 2.0)]
    same: dict[str, Any] = {"technique": "iterative_denoise", "scheduler__steps": 3, "sweep__name": "ordered"}
    cells = [
        (config(**same, technique__t=axes["technique.t"], guidance__scale=axes["guidance.scale"]), axes)
        for axes in settings
    ]
    assert run_sweep(cells).failed == 0
    folder = Path("outputs/sweeps/ordered")
    assert (folder / "table.md").read_text().startswith("| technique.t | guidance.scale |")
    files = [folder / name for name in ("table.md", "table.tex", "results.csv", "grid.png", "report.html")]
    before = [file.read_bytes() for file in files]
    assert results.run(["report", "ordered"]) == 0
    assert [file.read_bytes() for file in files] == before


def test_help_of_one_command_is_of_that_alone(command: Run, capsys: pytest.CaptureFixture[str]) -> None:
    from diffsweep import results

    for name, found in results.COMMANDS.items():
        text = results._help([name, "--help"])
        sweep = " SWEEP" if isinstance(found, results.Command) else " "
        assert text.startswith(f"diffsweep-results {name}\n\n  {name}{sweep}") and "output_dir=FOLDER" in text
        others = [other for other in results.COMMANDS if other != name]
        assert not [other for other in others if f"\n  {other} " in text]
    assert results._help(["--help"]) == results.HELP


def test_help_of_a_command_offers_the_keys_that_it_takes_and_no_other() -> None:
    for name, found in results.COMMANDS.items():
        offered = re.findall(r"(?<![\w.])([a-z_]+)=", results._help([name]))
        assert {*offered} == {*found.keys, *results.COMMON}, name


@pytest.mark.parametrize("number", [1, 2])
def test_what_is_counted_is_singular_or_plural(
    number: int, tmp_path: Path, config: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """And `score` speaks of other cells where there are some."""
    monkeypatch.chdir(tmp_path)
    same = {"technique": "inpaint", "scheduler__steps": 2, "sweep__name": "few", "output_dir": "outputs"}
    assert run_sweep([(config(**same, seed=seed), {"seed": seed}) for seed in range(number)]).failed == 0

    def told(*words: str) -> str:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["diffsweep-results", *words])
        results.main()
        return "".join(capsys.readouterr())

    cells = "1 cell" if number == 1 else "2 cells"
    assert told("score", "few", "metric=psnr").splitlines()[-1] == f"{number} of {cells} measured"
    none = f"0 of {cells} measured; {number} had these numbers already, or could not be measured"
    assert none in told("score", "few", "metric=psnr")
    assert told("verify", "few") == f"{cells}, every file as recorded\n"
    assert told("export", "few", "to=e") == f"e: {cells} as a store\n"
    page = Path("outputs/sweeps/few/report.html").read_text()
    assert f"{number} of {cells} done" in page
    for file in [*Path("outputs/cells").rglob("image.png")]:
        file.write_bytes(b"")
    lines = told("verify", "few").splitlines()
    assert f"{cells}, {'1 problem' if number == 1 else '2 problems'}" in lines


def test_what_no_cell_can_be_measured_by_is_told(command: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("score", "inp", "metric=clip_alignment,psnr") == 0
    assert "clip_alignment: no cell has views" in capsys.readouterr().err
    assert command("score", "inp", "metric=psnr", "device=banana") == 2
    assert "device=banana: must be auto, cpu, cuda or cuda:N" in capsys.readouterr().err
    assert command("score", "inp", "metric=clip", "judge=nowhere") == 2
    told = capsys.readouterr().err
    assert "judge=nowhere: no such folder" in told and "(missing=skip goes on without it)" in told


def test_verify_finds_what_changed(command: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("verify", "inp") == 0
    altered, gone, *_ = sorted(Path("outputs/cells").rglob("image.png"))
    altered.write_bytes(altered.read_bytes() + b"x")
    gone.unlink()
    capsys.readouterr()
    assert command("verify", "inp") == 1
    told = capsys.readouterr().err
    assert f"{altered.parent.name}/image.png: differs" in told and f"{gone.parent.name}/image.png: missing" in told
    shutil.rmtree(gone.parent)
    assert command("verify", "inp") == 1
    assert f"{gone.parent.name}: not in the store" in capsys.readouterr().err


def test_an_export_names_the_cells_that_it_lacks(command: Run, capsys: pytest.CaptureFixture[str]) -> None:
    gone = sorted(Path("outputs/cells").rglob("image.png"))[1].parent
    shutil.rmtree(gone)
    assert command("export", "inp", "to=e") == 1
    told = capsys.readouterr()
    assert told.err == f"left out: {gone.name}: not in the store\n" and told.out == "e: 3 cells as a store\n"


def test_an_export_needs_no_cell_that_never_was(command: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """One that failed is told by the tables."""
    file = Path("outputs/sweeps/inp/sweep.json")
    sweep = json.loads(file.read_text())
    sweep["cells"][1] |= {"cell_id": "never", "status": "failed", "reason": "no ink"}
    file.write_text(json.dumps(sweep))
    assert command("export", "inp", "to=e") == 0 and capsys.readouterr().out == "e: 3 cells as a store\n"


@pytest.mark.parametrize("target", ["e.tar.gz", "e.tgz", "e.tar", "e.TAR.XZ", "e.7z"])
def test_an_export_is_a_folder_or_a_zip_file(command: Run, target: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("export", "inp", f"to={target}") == 2
    assert f"to={target}: no {target[1:]} file is written, only a folder or a .zip" in capsys.readouterr().err
    assert not Path(target).exists()


@pytest.mark.parametrize("harm", ["picture", "record", "no record", "no cell"])
def test_score_ends_with_1_where_a_cell_could_not_be_looked_at(
    command: Run, harm: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cell = sorted(Path("outputs/cells").rglob("image.png"))[1].parent
    does = {
        "picture": lambda: (cell / "image.png").write_bytes(b"x"),
        "record": lambda: (cell / "record.json").write_text("{"),
        "no record": lambda: (cell / "record.json").unlink(),
        "no cell": lambda: shutil.rmtree(cell),
    }
    does[harm]()
    assert command("score", "inp", "metric=seam", "force=true") == 1
    told = capsys.readouterr().err
    assert "3 of" in told and cell.name in told


@pytest.mark.parametrize("target", ["elsewhere", "elsewhere.zip", "elsewhere.ZIP"])
def test_an_export_stands_alone(command: Run, target: str, tmp_path: Path) -> None:
    assert command("export", "inp", f"to={target}") == 0
    if target.lower().endswith(".zip"):
        with ZipFile(target) as archive:
            archive.extractall()
    shutil.rmtree("outputs")
    assert command("verify", "inp", "output_dir=elsewhere") == 0
    assert command("table", "elsewhere/sweeps/inp") == 0
    assert {path.name for path in tmp_path.iterdir()} == {"elsewhere", target}


def test_a_sweep_is_found_by_its_absolute_path(
    command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert command("report", str(tmp_path / "outputs/sweeps/inp")) == 0
    assert "failed" not in capsys.readouterr().err and not list(Path().iterdir())


def test_a_renamed_sweep_keeps_its_new_name(command: Run) -> None:
    Path("outputs/sweeps/inp").rename("outputs/sweeps/a=b, renamed")
    assert command("report", "a=b, renamed") == 0
    assert [folder.name for folder in Path("outputs/sweeps").iterdir()] == ["a=b, renamed"]


def test_a_sweep_that_is_a_link_keeps_its_own_name_and_place(command: Run) -> None:
    Path("outputs/sweeps/inp").rename("elsewhere")
    Path("outputs/sweeps/inp").symlink_to(Path("elsewhere").resolve())
    (Path("elsewhere") / "table.md").unlink()
    assert command("report", "inp") == 0 and (Path("elsewhere") / "table.md").is_file()
    assert [path.name for path in Path("outputs/sweeps").iterdir()] == ["inp"]


def test_a_sweep_without_cells_is_named(command: Run, capsys: pytest.CaptureFixture[str]) -> None:
    file = Path("outputs/sweeps/inp/sweep.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), "cells": []}))
    assert command("table", "inp") == 2
    assert "sweep.json: holds no cells; the sweep's command, run again, writes it anew" in capsys.readouterr().err


def test_what_a_server_says_does_not_command_a_terminal(
    command: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffsweep.tracker import dashboard
    from diffsweep.tracker.wandb import Wandb

    monkeypatch.setattr(Wandb, "log", lambda *words: "logged to \x1b[2Jhttps://x")
    monkeypatch.setattr(dashboard, "dashboard", lambda *words: "saved \x1b]0;x\x07")
    assert command("sync", "inp") == command("dashboard", "inp") == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out and "\x07" not in out and "logged to \\x1b[2Jhttps://x" in out


def test_list(command: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("list") == 0
    assert capsys.readouterr().out == "inp\n"


@pytest.mark.parametrize(
    "typed, message",
    [
        ("tabel inp", "; did you mean 'table'?"),
        ("table imp", r"imp: no such sweep; there are inp; did you mean 'inp'?"),
        ("table", "table: the name of one sweep is needed"),
        ("table inp inp", "table: the name of one sweep is needed"),
        (
            "table inp metrik=psnr",
            "metrik: no such key; there are metric, stat, rows, cols, over, repeats, format, output_dir; did you",
        ),
        ("table inp repeats=1", "repeats=1: must be a whole number, 2 or more"),
        ("compare inp repeats=few", "repeats=few: must be a whole number, 2 or more"),
        ("score inp force=yes", "force=yes: must be one of true, false"),
        ("table inp format=tex", "format=tex: must be one of terminal, markdown, latex, csv"),
        ("table inp stat=p95", "stat=p95: must be mean, median, a quantile (q5, q95) or a best of k seeds"),
        (
            "table inp cols=sede",
            "cols=sede: no such axis in this sweep; it has mask.softness, seed; did you mean 'seed'",
        ),
        ("compare inp axis=mask", "axis=mask: no such axis in this sweep; it has mask.softness"),
        ("compare inp axis=mask.softness baseline=1", "baseline=1: mask.softness has 0, 2"),
        ("compare inp format=latex", "format=latex: must be one of terminal, markdown, csv"),
        ("table inp metric=psnr", "metric=psnr: this sweep has no such numbers"),
        ("score inp metric=pnsr", "no metric 'pnsr'; there are "),
        (
            "grid inp rows=sede",
            "rows=sede: no such axis in this sweep; it has mask.softness, seed; did you mean 'seed'?",
        ),
        ("export inp", "to: a folder or a .zip file is needed"),
        ("export inp to=outputs", "to=outputs: exists already"),
        ("export inp to=a/b", "does not exist"),
        ("table inp output_dir=nowhere", "inp: no such sweep; there are none under nowhere"),
        ("gc inp", "gc: takes no sweep, not inp; output_dir=FOLDER says where it looks"),
        ("gc output_dir=nowhere", "output_dir=nowhere: no such folder"),
        ("gc --removed", "removed: no such key; there are all, remove, output_dir; did you mean 'remove'?"),
    ],
)
def test_mistakes_are_one_message(command: Run, capsys: pytest.CaptureFixture[str], typed: str, message: str) -> None:
    assert command(*typed.split()) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith("diffsweep-results: ") and message in told


def test_a_damaged_sweep_is_named(command: Run, capsys: pytest.CaptureFixture[str]) -> None:
    Path("outputs/sweeps/inp/sweep.json").write_text("{")
    assert command("table", "inp") == 2
    assert "sweep.json: cannot be read" in capsys.readouterr().err


def test_help_and_no_words(command: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--help") == 0
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in results.COMMANDS)
    assert command() == 2


def test_a_choice_of_metrics_and_a_key_with_dashes(command: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("score", "inp", "metric=psnr,ssim_inside") == 0
    capsys.readouterr()
    assert command("table", "inp", "metric=default", "format=csv") == 0
    assert "psnr_mean" in capsys.readouterr().out
    Path("outputs").rename("elsewhere")
    assert command("list", "--output_dir=elsewhere") == 0
    assert capsys.readouterr().out == "inp\n"


def test_score_keeps_what_a_run_added_meanwhile(command: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffsweep.metric import measure

    file = Path("outputs/sweeps/inp/sweep.json")
    score = measure.score

    def overtaken(*arguments: object, **more: object) -> int:
        sweep = json.loads(file.read_text())
        file.write_text(json.dumps(sweep | {"notes": ["added"]}))
        return score(*arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(measure, "score", overtaken)
    assert command("score", "inp", "metric=psnr") == 0
    assert json.loads(file.read_text())["notes"] == ["added"]
    assert json.loads(file.read_text())["metrics"] == ["psnr"]


def test_a_folder_of_a_mistyped_name_is_no_sweep(command: Run, capsys: pytest.CaptureFixture[str]) -> None:
    Path("inpp").mkdir()
    assert command("table", "inpp") == 2
    assert "there are inp; did you mean 'inp'?" in capsys.readouterr().err


def test_numbers_are_unrounded(tmp_path: Path, config: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    scales = (3.1234567, 3.1234568)
    where = {"output_dir": str(tmp_path / "outputs"), "scheduler__steps": 1}
    run_sweep([(config(**where, guidance__scale=scale), {"guidance.scale": scale}) for scale in scales], "close")
    capsys.readouterr()
    assert results.run(["table", "close", "format=csv", f"output_dir={tmp_path / 'outputs'}"]) == 0
    assert "3.1234567" in (told := capsys.readouterr().out) and "3.1234568" in told


@pytest.mark.slow
def test_tables_and_sheets_need_no_torch(ran: Path) -> None:
    code = "import sys\nfrom diffsweep.results import main\nassert main() == 0\nprint('torch' in sys.modules)"
    for words in (["table", "inp"], ["compare", "inp"], ["grid", "inp"], ["report", "inp"], ["verify", "inp"]):
        done = subprocess.run([sys.executable, "-c", code, *words], cwd=ran, capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "False"


def test_lists_are_typed_as_for_diffsweep_or_with_commas(command: Run, capsys: pytest.CaptureFixture[str]) -> None:
    printed = []
    for text in ("psnr,ssim", "[psnr,ssim]", "[psnr, ssim]", "['psnr','ssim']"):
        assert command("score", "inp", f"metric={text}", "plugins=[diffsweep]") == 0
        capsys.readouterr()
        assert command("table", "inp", f"metric={text}", "stat=[mean,median]", "over=[seed]", "format=csv") == 0
        printed.append(capsys.readouterr().out)
    assert "psnr_median" in printed[0] and {*printed} == {printed[0]}
    assert command("score", "inp", "metric=[mine]") == 2
    assert "plugins=[my_package] finds a part of your own" in capsys.readouterr().err
    assert command("score", "inp", "plugins=[os]") == 2
    assert capsys.readouterr().err.startswith("diffsweep-results: plugins=os: not a package with parts; ")
