"""`import diffsweep as ds`: few public names, the command's own way in, results as values."""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from html.parser import HTMLParser
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import diffsweep as ds
from diffsweep import api, app

SMALL = ("model=analytic", "model.size=8", "scheduler.steps=3", "device=cpu")
ROOT = Path(__file__).parent.parent
NOTEBOOK, README = ROOT / "docs/notebook.ipynb", ROOT / "README.md"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image)


def command(*words: str) -> int:
    """The command line, in this process."""
    before, sys.argv = sys.argv, ["diffsweep", *words]
    try:
        return app.main()
    finally:
        sys.argv = before


def test_the_public_names_are_few_and_import_nothing_heavy() -> None:
    assert ds.__all__ == ["BadInput", "Listener", "Results", "draw", "load", "plan", "sweep"]
    code = "import sys, diffsweep as ds; print(sorted(dir(ds)), {'torch', 'hydra', 'pandas'} & {*sys.modules})"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found == f"{sorted([*ds.__all__, '__version__'])} set()\n"
    for name in (*ds.__all__, "__version__"):
        assert getattr(ds, name)
    with pytest.raises(AttributeError, match="no attribute 'sweeep'"):
        _ = ds.sweeep


# -- the one way in ---------------------------------------------------------------------------------------------------
def test_the_command_line_and_python_make_the_same_cells_once() -> None:
    words = ("technique=inpaint", "input=drawing", "prompt=red", "sweep.name=both", "guidance.scale=1,3", "seed=0,1")
    assert command("-m", *SMALL, *words) == 0
    (file,) = Path("outputs/sweeps").glob("*/sweep.json")
    before = json.loads(file.read_text())
    axes: dict[str, Any] = {"guidance.scale": [1, 3], "seed": range(2)}
    results = ds.sweep("technique=inpaint", *SMALL, input="drawing", prompt="red", **{"sweep.name": "both"}, **axes)
    after = json.loads(file.read_text())
    assert [cell["cell_id"] for cell in after["cells"]] == [cell["cell_id"] for cell in before["cells"]]
    assert len(after["runs"]) == len(before["runs"]) == 1  # nothing was sampled again
    assert results.axes == before["axes"] == {"guidance.scale": [1, 3], "seed": [0, 1]}
    typed = shlex.split(after["command"])
    assert typed[:2] == ["diffsweep", "-m"] and "guidance.scale=1,3" in typed  # runs it again in a shell


@pytest.mark.parametrize(
    ("value", "axis"),
    [
        ("a dog, a cat", None),
        ('it\'s "quoted" \\ $here', None),
        (["a, b", "null", ""], ["a, b", "null", ""]),
        (("one",), None),
        (np.array(["red", "blue"]), ["red", "blue"]),
        (pd.Series(["red", "blue"]), ["red", "blue"]),
        ((text for text in ("red", "blue")), ["red", "blue"]),
        ({"red": 1, "blue": 2}.keys(), ["red", "blue"]),
        (["red"], None),
    ],
    ids=["commas", "quotes", "texts", "tuple", "array", "series", "generator", "keys", "alone"],
)
def test_a_value_arrives_as_it_is(value: Any, axis: list[str] | None) -> None:
    cells = app.composed([*SMALL, api._word("prompt", value)])
    wanted = value[0] if isinstance(value, list) else list(value) if isinstance(value, tuple) else value
    assert [config["prompt"] for config, _ in cells] == (axis or [wanted])
    assert [axes for _, axes in cells] == ([{"prompt": text} for text in axis] if axis else [{}])


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("seed", np.int64(3), [3]),
        ("seed", np.arange(2), [0, 1]),
        ("guidance.scale", np.linspace(1, 2, 3), [1.0, 1.5, 2.0]),
        ("mask.invert", [True, False], [True, False]),
        ("metric.names", ["psnr", "seam"], [["psnr", "seam"]]),
        ("plugins", [], [[]]),
        ("technique.views", ("flip", "identity"), [["flip", "identity"]]),
        ("technique.views", [("flip", "identity"), ("flip",)], [["flip", "identity"], ["flip"]]),
        ("vars.animal", ["dog", "cat"], ["dog", "cat"]),
    ],
    ids=str,
)
def test_numbers_lists_and_settings_arrive_as_they_are(key: str, value: Any, found: list[Any]) -> None:
    held = ["technique=anagram"] if key.startswith("technique") else []
    node = [config for config, _ in app.composed([*SMALL, *held, api._word(key, value)])]
    for part in key.split("."):
        node = [one[part] for one in node]
    assert node == found and [type(one) for one in node] == [type(one) for one in found]


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("prompt", b"red", "prompt=b'red': must be text, not bytes"),
        ("guidance.scale", float("nan"), "guidance.scale=nan: must be text, a finite number"),
        ("guidance.scale", [1.0, None, float("inf")], "guidance.scale=inf: must be"),
        ("seed", lambda: 0, "must be text, a finite number"),
        ("seed", itertools.count(), "more than 100,000 values"),
    ],
    ids=["bytes", "nan", "infinite", "function", "endless"],
)
def test_a_value_without_a_place_is_refused_with_its_key(key: str, value: Any, told: str) -> None:
    with pytest.raises(ds.BadInput) as error:
        api._word(key, value)
    assert told in str(error.value) and str(error.value).startswith(key)


def test_texts_name_other_keys_as_on_the_command_line() -> None:
    words = [api._word("prompt", "a ${vars.animal}"), api._word("vars.animal", ["dog", "cat"])]
    assert [config["prompt"] for config, _ in app.composed([*SMALL, *words])] == ["a dog", "a cat"]


def test_a_range_is_written_as_one(here: Path) -> None:
    """A million values are refused before they are written."""
    assert api._word("seed", range(0, 10**6, 2)) == "seed=range(0,1000000,2)"
    assert [axes["seed"] for _, axes in app.composed([*SMALL, api._word("seed", range(7, 1, -3))])] == [7, 4]
    assert api._word("output_dir", here) == f'output_dir="{here}"'


def test_a_key_is_given_once() -> None:
    for given in (lambda: ds.sweep("seed=1", seed=2), lambda: ds.draw("red", "prompt=blue")):
        with pytest.raises(ds.BadInput, match="given twice"):
            given()
    with pytest.raises(ds.BadInput, match=r"scheduler\.steps: given twice"):
        ds.draw("red", steps=3, **{"scheduler.steps": 5})
    with pytest.raises(ds.BadInput, match="a string such as"):
        ds.sweep(["seed=1"])  # type: ignore[arg-type]


WRONG = (
    ("guidance.scal=1,2",),
    ("technique=inpant",),
    ("guidance.scale=much",),
    ("prompt=(",),
    ("+sweeps=nowhere",),
    ("seed=range(0,0)",),
    ("technique=iterative_denoise", "technique.t=1000"),
    ("seed=range(0,1000000)",),
)


@pytest.mark.parametrize("words", WRONG, ids=" ".join)
def test_a_mistake_is_the_commands_message_as_an_exception(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str], here: Path
) -> None:
    with pytest.raises(ds.BadInput) as error:
        ds.sweep(*words)
    assert command("-m", *words) == 2
    told = capsys.readouterr().err
    assert all(f"diffsweep: {line}" in told for line in str(error.value).splitlines())
    assert list(here.iterdir()) == []


def test_words_in_one_string_are_told_apart() -> None:
    with pytest.raises(ds.BadInput, match="give each key=value as a string of its own") as error:
        ds.sweep("model=analytic scheduler=ddim")
    assert error.value.__cause__ is None and error.value.__suppress_context__  # no traceback of Hydra's above it


def test_options_and_empty_axes_are_refused() -> None:
    with pytest.raises(ds.BadInput, match="--cfg: an option of the command line"):
        ds.sweep("--cfg")
    with pytest.raises(ds.BadInput, match="seed: an empty list"):
        ds.sweep(seed=[])


def test_one_sweep_at_a_time() -> None:
    """Hydra's globals are one a process."""
    inside: list[str] = []

    class Nested(ds.Listener):
        def begins(self) -> None:
            def run() -> None:
                with pytest.raises(RuntimeError, match="already runs a sweep") as error:
                    ds.sweep(*SMALL)
                inside.append(str(error.value))

            thread = threading.Thread(target=run)
            thread.start()
            thread.join()

    assert len(ds.sweep(*SMALL, "metric=none", listener=Nested())) == 1 and inside
    assert len(ds.sweep(*SMALL, "metric=none", seed=1)) == 1  # and again after it


def test_a_hydra_application_of_ones_own_stays_as_it_is(hydra_restore_singletons: None) -> None:
    from hydra import initialize
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig

    with initialize(version_base="1.3", config_path=None):
        before = GlobalHydra.instance().hydra, HydraConfig.instance().cfg, list(sys.argv)
        ds.draw("red", *SMALL)
        assert (GlobalHydra.instance().hydra, HydraConfig.instance().cfg, list(sys.argv)) == before


def test_what_the_program_has_set_stays(hydra_restore_singletons: None) -> None:
    import torch
    from hydra import version
    from hydra.version import VersionBase

    version.setbase("1.2")
    before, output = torch.get_num_threads(), sys.stdout
    ds.sweep(*SMALL, "metric=none", listener=ds.Listener(), **{"engine.threads": before + 1})
    assert torch.get_num_threads() == before and VersionBase.instance().getbase() == version.Version("1.2.0")
    ds.sweep(*SMALL, "metric=none", "hydra/launcher=basic", listener=ds.Listener(), seed=[1, 2])
    assert sys.stdout is output


PART = """
from dataclasses import dataclass
from diffsweep.technique.job import Plain

@dataclass(frozen=True)
class Tint(Plain):
    uses = frozenset({{"prompt", "scheduler", "guidance"}})

    def begin(self, job):
        return {share} * super().begin(job)
"""


def test_a_part_that_was_edited_since_it_was_imported_is_refused(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the old code's picture would be stored under the new code's id."""
    file = here / "edited_parts/technique/tint.py"
    file.parent.mkdir(parents=True)
    file.write_text(PART.format(share=1.0))
    monkeypatch.syspath_prepend(here)
    words = (*SMALL, "metric=none", "technique.name=tint", "plugins=[edited_parts]")
    ds.sweep(*words, listener=ds.Listener())
    file.write_text(PART.format(share=0.0))
    with pytest.raises(ds.BadInput, match=r"edited_parts\.technique\.tint was edited since this process imported it"):
        ds.sweep(*words, listener=ds.Listener())


def test_a_checkpoint_that_changed_since_it_was_read_is_refused(checkpoint: Path, here: Path) -> None:
    """Else the old weights' pictures would be those of the new ones, or the other way round."""
    own = shutil.copytree(checkpoint, here / "own")
    words = (f"model.path={own}", "scheduler.steps=2", "device=cpu", "metric=none", "prompt=red")
    ds.sweep(*words, listener=ds.Listener())
    (weights,) = (own / "unet").glob("*.safetensors")
    os.utime(weights, ns=(0, 0))
    with pytest.raises(ds.BadInput, match="its files have changed since this process read them"):
        ds.sweep(*words, listener=ds.Listener())


# -- listening --------------------------------------------------------------------------------------------------------
class Diary(ds.Listener):
    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []
        self.computed = 0

    def samples(self, cells: int, rows: int) -> None:
        self.heard.append(("samples", cells, rows))

    def begins(self) -> None:
        self.heard.append(("begins",))

    def rows(self, number: int) -> None:
        self.computed += number

    def cell(self, cell_id: str, error: str | None) -> None:
        self.heard.append(("cell", cell_id, error))

    def ends(self) -> None:
        self.heard.append(("ends",))

    def report(self, report: Any, own: Any) -> None:
        self.heard.append(("report", report.folder.name, own))


def test_a_listener_hears_rows_cells_and_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    diary = Diary()
    settings: dict[str, Any] = {"guidance.scale": [1, 3], "sweep.name": "heard", "metric": "none"}
    results = ds.sweep(*SMALL, seed=range(2), prompt="red", listener=diary, **settings)
    ids = {cell for what, cell, error in (one for one in diary.heard if one[0] == "cell") if error is None}
    assert ids == {*results.frame["cell_id"]}
    rows = 2 * 3 + 2 * 2 * 3  # one question a step unguided, two guided
    assert diary.heard[:2] == [("samples", 4, rows), ("begins",)] and diary.computed == rows
    assert diary.heard[-2:] == [("ends",), ("report", "heard", None)]
    assert capsys.readouterr() == ("", "")  # nobody else is told


def test_a_listener_that_stops_loses_no_stored_cell() -> None:
    class Impatient(Diary):
        def cell(self, cell_id: str, error: str | None) -> None:
            super().cell(cell_id, error)
            raise KeyboardInterrupt

    diary = Impatient()
    settings: dict[str, Any] = {"scheduler.steps": [2, 4, 6], "sweep.name": "stopped", "metric": "none"}
    words = ("model=analytic", "model.size=8", "device=cpu", "prompt=red")
    with pytest.raises(KeyboardInterrupt):
        ds.sweep(*words, listener=diary, **settings)
    assert ("ends",) in diary.heard
    assert (ds.load("stopped").frame["status"] == "done").sum() == 1
    again = Diary()
    assert not ds.sweep(*words, listener=again, **settings).failed
    assert again.heard[0][:2] == ("samples", 2)


# -- results ----------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> ds.Results:
    settings: dict[str, Any] = {"guidance.scale": [1, 3.5], "mask": ["box", "half"], "sweep.name": "kept"}
    where = {"output_dir": str(tmp_path_factory.mktemp("outputs"))}
    words = ("technique=inpaint", "input=drawing", "prompt=red", "metric=default")
    return ds.sweep(*SMALL, *words, listener=ds.Listener(), seed=range(3), **settings, **where)


def test_the_frame_is_the_parquet_file(results: ds.Results) -> None:
    stored = pd.read_parquet(results.folder / "results.parquet")
    pd.testing.assert_frame_equal(results.frame, stored, check_dtype=False)
    assert len(results) == len(stored) == 12 and results.failed == {}
    assert results.report.is_file() and results.name == "kept" and results.notes


def test_a_picture_is_found_by_its_axes(results: ds.Results) -> None:
    row = results.frame[(results.frame["seed"] == 1) & (results.frame["mask"] == "half")].iloc[1]
    axes: dict[str, Any] = {"seed": 1, "mask": "half", "guidance.scale": row["guidance.scale"]}
    root = results.folder.parents[1]
    assert (pixels(results.image(**axes)) == pixels(Image.open(root / row["image"]))).all()
    mask = Image.open((root / row["image"]).with_name("mask.png"))
    assert (pixels(results.image("mask", **axes)) == pixels(mask)).all()


@pytest.mark.parametrize(
    ("name", "axes", "told"),
    [
        ("image", {"seed": 1}, "4 cells fit; also give guidance.scale, mask"),
        ("image", {"sed": 1}, "sed: no axis of this sweep; it has seed, guidance.scale, mask; did you mean 'seed'?"),
        ("image", {"seed": 7}, "seed=7: this sweep has 0, 1, 2"),
        ("image", {"seed": True}, "seed=true: this sweep has 0, 1, 2"),
        ("imag", {"seed": 0, "mask": "box", "guidance.scale": 1}, "imag: no such picture"),
    ],
)
def test_a_picture_that_is_not_there_is_told(results: ds.Results, name: str, axes: dict[str, Any], told: str) -> None:
    with pytest.raises(ds.BadInput) as error:
        results.image(name, **axes)
    assert told in str(error.value)


def test_tables_say_what_the_files_say(results: ds.Results) -> None:
    table = results.table()
    assert str(table) == (results.folder / "table.md").read_text()
    assert table.to_latex() == (results.folder / "table.tex").read_text()
    means = results.frame.groupby(["guidance.scale", "mask"])["psnr_masked"].mean()
    for _, line in results.table("psnr_masked").frame.iterrows():
        assert line["psnr_masked_mean"] == pytest.approx(means[line["guidance.scale"], line["mask"]])
    compared = results.compare("mask", baseline="box", metric="psnr_masked")
    per_mask = results.frame.groupby("mask")["psnr_masked"].mean()
    assert compared["difference"].tolist() == pytest.approx([per_mask["half"] - per_mask["box"]])


class Cells(HTMLParser):
    """The texts of an HTML table's cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.inside = tag in ("td", "th", "b")
        if tag in ("td", "th"):
            self.texts.append("")

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.texts[-1] += data

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag == "b"


def test_a_notebook_shows_sheet_table_and_what_failed(results: ds.Results) -> None:
    text = results._repr_html_()
    markdown = [line for line in str(results.table()).replace("\\", "").splitlines() if line.startswith("|")]
    header, _, *lines = ([cell.strip(" *") for cell in line.strip("|").split("|")] for line in markdown)
    assert Cells(text).texts == [*header, *chain(*lines)]
    assert "data:image/png;base64," in text and "report.html" in text


def test_what_a_prompt_holds_is_no_html(tmp_path: Path) -> None:
    words = (*SMALL, "metric=none", "sweep.name=<i>")
    results = ds.sweep(*SMALL, "metric=none", listener=ds.Listener(), prompt=["<script>alert(1)</script>", "red"])
    assert "<script>" not in results._repr_html_() and "&lt;script&gt;" in results._repr_html_()
    with pytest.raises(ds.BadInput):
        ds.sweep(*words)


def test_the_sheet_is_grid_png_or_as_it_is_asked_for(results: ds.Results) -> None:
    before = {file: file.stat().st_mtime_ns for file in results.folder.rglob("*")}
    assert (pixels(results.grid()) == pixels(Image.open(results.folder / "grid.png"))).all()
    wide = results.grid(rows="mask", cols="seed", metric="psnr", pictures=["input", "image"], title="mine", size=64)
    assert wide.size != results.grid().size
    with pytest.raises(ds.BadInput, match="rows=nothing"):
        results.grid(rows="nothing")
    assert before == {file: file.stat().st_mtime_ns for file in results.folder.rglob("*")}  # looking changes nothing


def test_load_opens_by_name_and_by_path(results: ds.Results) -> None:
    for name, root in (("kept", results.folder.parents[1]), (str(results.folder), "elsewhere")):
        assert ds.load(name, str(root)).frame["cell_id"].tolist() == results.frame["cell_id"].tolist()
    with pytest.raises(ds.BadInput, match="nothing: no such sweep"):
        ds.load("nothing")


# -- one picture ------------------------------------------------------------------------------------------------------
def test_results_stay_those_of_their_cells(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another folder, or a sweep that has grown since, changes nothing of what a program holds."""
    words = (*SMALL, "metric=none", "sweep.name=grows")
    few = ds.sweep(*words, listener=ds.Listener(), seed=range(2), **{"scheduler.eta": [0.0, 1.0], "scheduler": "ddim"})
    loaded, sheet = ds.load("grows"), pixels(few.grid())
    ds.sweep(*words, listener=ds.Listener(), seed=range(4), **{"scheduler.eta": [0.0, 1.0], "scheduler": "ddim"})
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    assert (pixels(loaded.grid()) == sheet).all() and (pixels(few.grid()) == sheet).all() and not loaded.failed
    with pytest.raises(ds.BadInput, match="its cells are others by now"):
        few.figures()


def test_a_picture_is_found_by_the_frames_own_values() -> None:
    settings: dict[str, Any] = {"mask.invert": [True, False], "scheduler.spacing": [(900, 500, 0), "auto"]}
    words = ("model=analytic", "device=cpu", "technique=inpaint", "input=drawing", "prompt=red", "metric=none")
    results = ds.sweep(*words, listener=ds.Listener(), seed=np.arange(2), **settings)
    for _, row in results.frame.iterrows():
        stored = Image.open(results.folder.parents[1] / row["image"])
        assert (pixels(results.image(**{axis: row[axis] for axis in results.axes})) == pixels(stored)).all()
    assert results.image(seed=np.int64(1), **{"mask.invert": np.bool_(True), "scheduler.spacing": (900, 500, 0)})


@pytest.mark.parametrize("repeats", [0, 1, 2.5, "x"])
def test_repeats_are_two_or_more(results: ds.Results, repeats: Any) -> None:
    for call in (results.table, results.compare):
        with pytest.raises(ds.BadInput, match="must be a whole number, 2 or more"):
            call(repeats=repeats)


def test_draw_is_the_cell_of_the_command() -> None:
    image = ds.draw("red", "model=analytic", "device=cpu", steps=3, scale=2.0, seed=5)
    assert command("model=analytic", "device=cpu", "prompt=red", "scheduler.steps=3", "guidance.scale=2", "seed=5") == 0
    (file,) = Path("outputs/cells").glob("*/*/image.png")  # one cell
    assert (pixels(image) == pixels(Image.open(file))).all()
    assert json.loads(file.with_name("record.json").read_text())["metrics"] == {}


def test_draw_refuses_several_cells_and_raises_where_its_cell_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ds.BadInput, match="these keys come to 2 cells, and draw makes one"):
        ds.draw("red", *SMALL, seed=[0, 1])
    assert not Path("outputs").exists()
    from diffsweep.technique.text_to_image import TextToImage

    def broken(self: Any, job: Any) -> Any:
        raise ArithmeticError("no picture today")

    monkeypatch.setattr(TextToImage, "program", broken)
    with pytest.raises(RuntimeError, match="failed: ArithmeticError: no picture today"):
        ds.draw("red", *SMALL, seed=9)
    (failed,) = (ds.load(folder.name) for folder in Path("outputs/sweeps").iterdir() if len(ds.load(folder.name)) == 1)
    assert list(failed.failed.values()) == ["ArithmeticError: no picture today"]
    assert "1 cell failed" in failed._repr_html_() and "1 failed" in repr(failed)
    assert "ArithmeticError: no picture today" in capsys.readouterr().err
    with pytest.raises(ds.BadInput, match="Nothing to compare: no picture was measured"):
        failed.compare()


# -- the notebook -----------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_the_notebook_runs_as_it_is_shown(tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat")
    from scripts.run_notebook import executed

    def texts(notebook: Any) -> list[str]:
        found = [output for cell in notebook.cells for output in cell.get("outputs", ())]
        return [output.get("text") or output["data"].get("text/plain", "") for output in found]

    shown = texts(nbformat.read(NOTEBOOK, as_version=4))
    again = texts(executed(NOTEBOOK, tmp_path))
    assert len(again) == len(shown) and again[-1] == shown[-1]
    assert [text for text in again if text.startswith("<inpaint")] == [text for text in shown if text.startswith("<in")]
    assert "/tmp" not in NOTEBOOK.read_text() and str(Path.home()) not in NOTEBOOK.read_text()


@pytest.mark.slow
def test_the_readme_block_runs_as_it_is_printed() -> None:
    (block,) = re.findall(
        r"^```python\n(import diffsweep as ds\n.*?)^```$", README.read_text(), re.DOTALL | re.MULTILINE
    )
    ds.sweep(*SMALL, "sweep.name=quickstart", "metric=none", listener=ds.Listener())
    names: dict[str, Any] = {}
    exec(block, names)
    assert len(names["r"]) == 12 and names["r"].axes == {"seed": [0, 1, 2, 3], "guidance.scale": [1, 3, 7]}
