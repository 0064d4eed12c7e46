"""A sweep's plan: all mistakes at once, each once; names that never mix; notes on settings that come to the same."""

from __future__ import annotations

import fnmatch
import importlib
import itertools
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from diffsweep.core import packages
from diffsweep.core.problems import BadInput
from diffsweep.core.text import gathered
from diffsweep.metric import choice
from diffsweep.runner import parts
from diffsweep.runner.notes import MOST
from diffsweep.runner.plan import Plan, Raw, axes_of, plan

INSTALL = "install it, or set PYTHONPATH to the folder it is in"
Config = Callable[..., dict[str, Any]]
Swept = Callable[..., list[Raw]]


@pytest.fixture
def swept(config: Config) -> Swept:
    """Every combination of the axes, last one fastest: `swept(seed=[0, 1], guidance__scale=[1, 7], technique=...)`."""

    def cells(**changes: Any) -> list[Raw]:
        axes = {key: values for key, values in changes.items() if isinstance(values, list)}
        held = {key: value for key, value in changes.items() if key not in axes}
        settings = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
        return [(config(**held, **one), {key.replace("__", "."): v for key, v in one.items()}) for one in settings]

    return cells


def test_the_values_of_an_axis_are_told_apart_by_type_and_found_in_one_pass() -> None:
    values = [1, True, 1.0, "1", None, [1], [True], {"a": 1}, {"a": 1.0}, False, 0, ""]
    found = axes_of({"x": value, "y": 0} for value in (*values, *values))
    assert list(map(repr, found["x"])) == list(map(repr, values)) and found["y"] == [0]

    class Seed(int):
        compared = 0

        def __eq__(self, other: object) -> bool:
            Seed.compared += 1
            return int(self) == other

        __hash__ = int.__hash__

    assert axes_of({"seed": Seed(n)} for n in range(2000)) == {"seed": list(range(2000))}
    assert Seed.compared <= 2 * 2000  # by the assertion itself


def test_an_axis_is_finite(config: Config) -> None:
    """JSON has no other numbers."""
    assert messages([(config(), {"x": float("nan")}), (config(), {"x": 1.0})]) == ["x=nan: must be finite"]


def messages(raw: Sequence[Raw], name: str | None = None) -> list[str]:
    with pytest.raises(BadInput) as caught:
        plan(raw, name)
    return caught.value.messages


# -- what metrics cannot tell ------------------------------------------------------------------------------------------
def about_metrics(notes: tuple[str, ...]) -> tuple[str, ...]:
    """Without those about masks."""
    return tuple(note for note in notes if not note.startswith("mask"))


@pytest.mark.parametrize(
    "technique, names, told",
    [
        (
            "text_to_image",
            ["psnr", "ssim"],
            "psnr, ssim: text_to_image, where they need a clean input; metric=clip measures text_to_image",
        ),
        (
            "text_to_image",
            ["psnr", "seam"],
            "psnr, seam: text_to_image, where they need a clean input and a mask; metric=clip measures text_to_image",
        ),
        ("text_to_image", ["psnr", "clip_score"], "psnr: text_to_image, where it needs a clean input"),
        (
            "image_to_image",
            ["psnr", "drift", "psnr_masked"],
            "drift, psnr_masked: image_to_image, where they need a mask",
        ),
        ("forward_noise", ["clip_score", "psnr"], "clip_score: forward_noise, where it needs a prompt"),
        ("anagram", ["clip_alignment", "clip_low"], "clip_low: anagram, where it needs bands"),
        ("hybrid", ["clip_alignment", "clip_low"], "clip_alignment: hybrid, where it needs views"),
        ("inpaint", ["psnr", "psnr_masked", "ssim_outside", "drift", "seam", "clip_score"], None),
        ("anagram", ["clip_alignment", "clip_score"], None),
    ],
)
def test_metrics_that_a_technique_has_nothing_for_are_told(
    config: Config, technique: str, names: list[str], told: str | None
) -> None:
    notes = plan([(config(technique=technique, metric__names=names), {})]).notes
    assert about_metrics(notes) == ((told.replace(": ", ": not measured for technique="),) if told else ())


def test_of_several_techniques_those_are_told_that_lack_something(swept: Swept) -> None:
    raw = swept(technique=["text_to_image", "inpaint", "hybrid"], seed=[0, 1], metric__names=("psnr", "seam"))
    assert about_metrics(plan(raw).notes) == (
        "psnr, seam: not measured for technique=text_to_image,hybrid, where they need a clean input and a mask; "
        "metric=clip measures text_to_image, metric=hybrid measures hybrid",
    )
    (note,) = plan(swept(seed=[0], metric="default")).notes
    assert note.startswith("psnr, ssim, psnr_*, ssim_*: not measured")


@pytest.mark.parametrize(
    "names, among, listed",
    [
        (["psnr", "psnr_a", "ssim_a", "psnr_b"], ["seam"], ["psnr", "psnr_*", "ssim_a"]),
        (["psnr_a", "psnr_b"], ["psnr_edge"], ["psnr_a", "psnr_b"]),
        (["lpips_alex", "lpips_vgg", "drift"], ["psnr_a"], ["lpips_*", "drift"]),
    ],
)
def test_names_of_one_beginning_are_one_where_all_of_them_are_meant(
    names: list[str], among: list[str], listed: list[str]
) -> None:
    assert gathered(names, [*names, *among]) == listed
    for text, own in zip(listed, [fnmatch.filter([*names, *among], text) for text in listed], strict=True):
        assert {*own} <= {*names}, text


def test_a_distance_of_few_pictures_is_told_with_the_number_that_is_enough(swept: Swept) -> None:
    raw = swept(technique="inpaint", guidance__scale=[1.0, 3.0], seed=[0, 1, 2], metric__names=("fid",))
    (note,) = about_metrics(plan(raw).notes)
    assert note.startswith("fid: of 3 pictures; below 2,048 it is too high")


# -- mistakes ----------------------------------------------------------------------------------------------------------
def test_all_mistakes_of_a_sweep_are_told_at_once_and_each_once(swept: Swept) -> None:
    raw = swept(seed=[-1, 0, 1.5], guidance__scale=[-2, 3], mask__side="inwards", metric__names=("psn",), device="gpu")
    keys = [message.partition(":")[0] for message in messages(raw)]
    assert sorted(keys) == [
        *("device=gpu", "guidance.scale=-2", "mask.side=inwards", "metric.names", "seed=-1", "seed=1.5"),
    ]


@pytest.mark.parametrize("key", ["device", "output_dir", "plugins", "metric", "tracker", "sweep", "engine", "grid"])
def test_what_a_sweep_has_in_common_cannot_differ(key: str, config: Config) -> None:
    other = {
        **{"device": "auto", "output_dir": "elsewhere", "plugins": ["diffsweep"], "sweep": {"name": "another"}},
        **{"metric": {"name": "none", "names": ["psnr"]}, "tracker": {"name": "wandb"}},
        **{"engine": {"rows": 3, "threads": "auto"}, "grid": {"rows": "auto", "cols": "seed"}},
    }
    assert messages([(config(), {}), (config() | {key: other[key]}, {})]) == [f"{key}: cannot differ within a sweep"]


WRONG = [
    ("engine__rows", 0, ["engine.rows=0: must be at least 1"]),
    ("engine__threads", 0, ["engine.threads=0: must be between 1 and 1024"]),
    ("engine__rows", "many", ["engine.rows=many: must be auto or a whole number"]),
    ("engine__rows", 2.5, ["engine.rows=2.5: must be auto or a whole number"]),
    ("engine__threads", "two", ["engine.threads=two: must be auto or a whole number"]),
    (
        "engine__row",
        3,
        ["engine.row: unknown key; it has rows, threads, trajectory, retries, grace, devices; did you mean 'rows'?"],
    ),
    (
        "grid__row",
        "seed",
        ["grid.row: unknown key; it has rows, cols, blocks, metric, pictures, size; did you mean 'rows'?"],
    ),
    ("sweep__nam", "x", ["sweep.nam: unknown key; it has name, replace; did you mean 'name'?"]),
    ("sweep__name", ["x"], ["sweep.name=[x]: must be auto or text"]),
    (
        "metric__nams",
        [],
        ["metric.nams: unknown key; it has name, names, missing, judge, features, references; did you mean 'names'?"],
    ),
    ("metric__names", "psnr", ["metric.names=psnr: must be a list, as in [psnr]"]),
    ("device", "gpu", ["device=gpu: must be auto, cpu, cuda or cuda:N"]),
    ("device", "cuda:x", ["device=cuda:x: must be auto, cpu, cuda or cuda:N"]),
    ("device", ["cpu"], ["device=[cpu]: must be text"]),
    ("device", None, ["device=null: must be text"]),
    ("plugins", "my_package", ["plugins=my_package: must be a list, as in [my_package]"]),
    ("plugins", 5, ["plugins=5: must be a list"]),
    ("plugins", [["a"]], ["plugins=[[a]]: must be a list (each entry text)"]),
    (
        "plugins",
        ["nix", "nul"],
        [f"plugins={name}: no such package can be imported; {INSTALL}" for name in ("nix", "nul")],
    ),
    ("engine", 5, ["engine=5: must hold keys, not a value"]),
    ("sweep", 5, ["sweep=5: must hold keys, not a value"]),
    ("grid", [1], ["grid=[1]: must hold keys, not a value"]),
]


@pytest.mark.parametrize("key, value, expected", WRONG, ids=lambda value: str(value)[:30])
def test_a_mistake_around_the_pixels_is_told_once(key: str, value: Any, expected: list[str], config: Config) -> None:
    changed = config() | {key: value} if key in ("engine", "sweep", "grid") else config(**{key: value})
    assert messages([(changed, {})]) == expected


@pytest.mark.parametrize("key", ["output_dir", "sweep", "metric", "tracker", "engine", "grid", "device"])
def test_a_mistake_around_the_pixels_does_not_hide_others(key: str, config: Config) -> None:
    told = messages([(config(seed=-1) | {key: [0]}, {})])
    assert len(told) == 2 and any(message.startswith("seed=-1") for message in told)


def test_a_metric_that_there_is_none_of_is_told_with_the_nearest(config: Config) -> None:
    first, second = messages([(config(metric__names=["ssin", "psnr", "lpisp"]), {})])
    assert first.startswith("metric.names: no metric 'ssin'; there are ") and "did you mean 'ssim'?" in first
    assert second.startswith("metric.names: no metric 'lpisp'")


def test_a_sheet_of_axes_that_the_sweep_has_not_is_refused_before_it_runs(swept: Swept) -> None:
    (told,) = messages(swept(seed=[0, 1], guidance__scale=[1, 7], grid__rows="sed", grid__cols="guidance.scale"))
    assert told.startswith("grid.rows=sed: no such axis in this sweep; ") and told.endswith("did you mean 'seed'?")
    (told,) = messages(swept(seed=[0, 1], grid__rows="seed", grid__cols="seed"))
    assert told.startswith("grid.rows=seed") and "one axis cannot be both" in told
    assert plan(swept(seed=[0, 1], guidance__scale=[1, 7], grid__rows="seed")).grid["rows"] == "seed"


def test_a_sheets_metric_must_be_measured(config: Config) -> None:
    shown = config(metric__names=["psnr", "ssim"], grid__metric=["ssim"], grid__blocks=["seed"])
    assert plan([(shown, {"seed": s}) for s in (0, 1)]).grid["metric"] == ("ssim",)
    (told,) = messages([(config(metric__names=["psnr"], grid__metric=["psnrr"]), {})])
    assert told == "grid.metric=psnrr: not of this sweep; it measures psnr; did you mean 'psnr'?"


def test_a_file_is_no_output_folder(config: Config, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        (told,) = messages([(config(output_dir=str(folder)), {})])
        assert told.startswith(f"output_dir={folder}: ") and "folder" in told
    assert plan([(config(output_dir=str(tmp_path / "new" / "below")), {})]).root == tmp_path / "new" / "below"
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


# -- what a plan holds -------------------------------------------------------------------------------------------------
def test_axes_come_with_their_values_in_the_order_they_appear(swept: Swept) -> None:
    planned = plan(swept(guidance__scale=[7, 1], seed=[2, 0, 1]))
    axes = axes_of(cell.axes for cell in planned.cells)
    assert axes == {"guidance.scale": [7, 1], "seed": [2, 0, 1]}
    assert list(axes) == ["guidance.scale", "seed"]
    assert [(cell.config["guidance"]["scale"], cell.seed) for cell in planned.cells] == [
        (scale, seed) for scale in (7, 1) for seed in (2, 0, 1)
    ]


def test_what_is_left_open_is_open(config: Config) -> None:
    planned = plan([(config(), {})])
    assert (planned.rows, planned.threads, planned.metrics.names) == (None, None, [])
    assert plan([(config(engine__rows=3, engine__threads=1, metric__names=["ssim", "psnr"]), {})]).rows == 3
    bare = {key: value for key, value in config().items() if key not in ("engine", "grid", "sweep", "output_dir")}
    assert plan([(bare, {})]).root == Path("outputs")


def test_the_users_folder_is_found(config: Config) -> None:
    assert plan([(config(output_dir="~/sweeps"), {})]).root == Path.home() / "sweeps"


# -- names -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["..", ".", ".hidden", "a/b", "a\\b", "a\nb", " a", "a:b", "ä/ö", "x" * 300, "*"])
def test_a_name_that_is_no_folders_is_refused(name: str, config: Config) -> None:
    (told,) = messages([(config(sweep__name=name), {})])
    assert told.startswith(f"sweep.name={name}: ") and "letters, digits, space" in told
    assert messages([(config(), {})], name) == [told]


@pytest.mark.parametrize("name", ["mine", "scale=1,7 seed=0", "v1.2", "größe", "a+b@c-d_e", "7"])
def test_a_name_that_is_a_folders_is_kept(name: str, config: Config, tmp_path: Path) -> None:
    planned = plan([(config(sweep__name=name, output_dir=str(tmp_path)), {})])
    assert planned.name == name
    (planned.root / "sweeps" / name).mkdir(parents=True)
    assert [folder.name for folder in (tmp_path / "sweeps").iterdir()] == [name]


def test_a_name_may_look_like_a_number(config: Config) -> None:
    assert [plan([(config(sweep__name=n), {})]).name for n in (0, 7, 0.5)] == ["0", "7", "0.5"]


def test_the_users_name_counts_before_the_sweeps_files(config: Config) -> None:
    assert plan([(config(sweep__name="mine"), {})], "file").name == "mine"
    assert plan([(config(), {})], "file").name == "file"


def test_two_unnamed_sweeps_never_share_a_name(swept: Swept) -> None:
    """Not even where they come to the same pictures."""
    sweeps = [
        swept(),
        swept(seed=1),
        swept(seed=[0, 1]),
        swept(seed=[1, 0]),
        swept(seed=[0, 1, 2]),
        swept(seed=[0, 1], guidance__scale=[1, 7]),
        swept(seed=[0, 1], guidance__scale=[1, 8]),
        swept(seed=[0, 1], technique="inpaint"),
        swept(technique="forward_noise", guidance__scale=[1, 2]),
        swept(technique="forward_noise", guidance__scale=[3, 4]),
    ]
    names = [plan(raw).name for raw in sweeps]
    assert len(set(names)) == len(names)
    assert [plan(raw).name for raw in sweeps] == names
    assert names[5].startswith("text_to_image-seed-scale-") and names[7].startswith("inpaint-seed-")


def test_an_unnamed_sweep_keeps_its_name_whatever_is_measured_and_told(swept: Swept) -> None:
    plain = plan(swept(seed=[0, 1])).name
    assert plan(swept(seed=[0, 1], metric="default", tracker="wandb", engine__rows=3, device="auto")).name == plain


# -- notes -------------------------------------------------------------------------------------------------------------
def test_two_strengths_that_round_to_one_start_are_told(swept: Swept) -> None:
    strengths = [0.7, 0.75, 0.8]  # int(10 strength) steps of 10: 7, 7 and 8
    raw = swept(technique="image_to_image", scheduler__steps=10, technique__strength=strengths, seed=[0, 1])
    same = "technique.strength=0.7 and technique.strength=0.75 come to the same picture"
    assert plan(raw).notes == (f"{same}: both start at index 3 (t = 600)",)  # the fourth of 900, 800, ..., 0


def test_an_axis_that_matters_elsewhere_is_told_with_where_it_does_not(swept: Swept) -> None:
    notes = plan(swept(guidance__scale=[1, 7], guidance__rescale=[0.0, 0.7], seed=[0, 1])).notes
    assert notes == ("guidance.rescale=0.0 and guidance.rescale=0.7 come to the same picture at guidance.scale=1",)


def test_an_axis_that_does_not_matter_is_told(swept: Swept) -> None:
    notes = plan(swept(technique="forward_noise", guidance__scale=[1.0, 7.0], seed=[0, 1])).notes
    assert notes == ("guidance.scale=1.0 and guidance.scale=7.0 come to the same picture",)


def test_two_axes_that_do_not_matter_are_told_one_by_one(swept: Swept) -> None:
    notes = plan(swept(technique="forward_noise", guidance__scale=[1.0, 7.0], prompt=["a", "b"])).notes
    assert notes == tuple(
        f"{one} and {other} come to the same picture"
        for one, other in (("prompt=a", "prompt=b"), ("guidance.scale=1.0", "guidance.scale=7.0"))
    )


def test_different_pictures_need_no_note(swept: Swept) -> None:
    assert plan(swept(seed=[0, 1], guidance__scale=[1.0, 7.0])).notes == ()


def test_many_notes_are_cut_short(swept: Swept) -> None:
    scales = [float(scale) for scale in range(MOST + 4)]
    notes = plan(swept(technique="forward_noise", guidance__scale=scales)).notes
    assert len(notes) == MOST + 1 and notes[-1].startswith("and 3 more ")


def test_a_long_value_is_shortened_in_a_note(swept: Swept) -> None:
    (note,) = plan(swept(technique="forward_noise", prompt=["a" * 100, "b" * 100])).notes
    assert len(note) < 160 and "prompt=aaa" in note and "prompt=bbb" in note


# -- metrics of a user's own, and speed --------------------------------------------------------------------------------
METRIC = """
from dataclasses import dataclass

from diffsweep.metric import Score


@dataclass(frozen=True)
class Brightness:
    name = "brightness"
    needs = frozenset()
    direction = "higher"

    def definition(self):
        return {"metric": "mean of all values", "direction": self.direction}

    def __call__(self, batch):
        return [Score(float(image.mean())) for image in batch.images]


METRICS = (Brightness(),)
"""


@pytest.mark.parametrize("declared", [False, True], ids=["plugins", "entry point"])
def test_a_metric_of_the_users_own_is_known(
    declared: bool, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = f"measures_{'declared' if declared else 'named'}"
    (tmp_path / package / "metric").mkdir(parents=True)
    (tmp_path / package / "metric" / "brightness.py").write_text(METRIC)
    if declared:
        (tmp_path / f"{package}-1.0.dist-info").mkdir()
        (tmp_path / f"{package}-1.0.dist-info" / "METADATA").write_text(f"Name: {package}\nVersion: 1.0\n")
        points = f"[diffsweep.plugins]\n{package} = {package}\n"
        (tmp_path / f"{package}-1.0.dist-info" / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(tmp_path)
    kept = packages.packages, parts.find, parts._build, choice.known
    try:
        importlib.invalidate_caches()
        for cache in kept:
            cache.cache_clear()
        changes = {} if declared else {"plugins": [package]}
        planned: Plan = plan([(config(metric__names=["brightness"], **changes), {})])
        (metric,) = planned.metrics.metrics
        assert metric.name == "brightness"
    finally:
        monkeypatch.undo()
        for cache in kept:
            cache.cache_clear()


def test_planning_needs_no_torch() -> None:
    """In a process of its own: every technique, with a mask that is feathered by scipy and a picture of the world."""
    code = """
import sys, yaml
from diffsweep.paths import shipped
from diffsweep.runner.plan import plan
def group(name, choice): return yaml.safe_load((shipped("conf") / name / f"{choice}.yaml").read_text())
chosen = dict(scheduler="ddpm", guidance="classifier_free", view="jigsaw", mask="strokes", input="world")
chosen |= dict(metric="default", tracker="wandb")
root = {name: group(name, choice) for name, choice in chosen.items()} | {"model": group("model", "analytic"), "seed": 0}
root["mask"]["softness"] = 2.0
root["upscale"] = {"name": "super_resolution"}
techniques = [file.stem for file in (shipped("conf") / "technique").glob("*.yaml")]
print(len(plan([({**root, "technique": group("technique", name)}, {"technique": name}) for name in techniques]).cells))
print(*{"torch", "torchvision", "torchmetrics", "wandb", "diffusers"} & {*sys.modules})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["9"]


def test_a_sheets_axis_may_be_held_at_one_value(config: Config) -> None:
    """A sweeps file lays out its sheet by an axis; typing `seed=0` holds it, and the sheet goes without."""
    held = plan([(config(grid__cols="guidance.scale", grid__rows="seed", seed=s), {"seed": s}) for s in (0, 1)])
    assert (held.grid["rows"], held.grid["cols"]) == ("seed", None)
    with pytest.raises(BadInput, match=r"grid\.cols=sede: no such axis"):
        plan([(config(grid__cols="sede"), {"seed": 0})])


@pytest.mark.parametrize("key", ["prompt", "sweep__name", "output_dir", "device", "input__path", "tracker__project"])
def test_a_text_that_no_file_can_hold_is_refused_before_anything_is_sampled(swept: Swept, key: str) -> None:
    groups = {"input": "file", "technique": "image_to_image"} if key.startswith("input") else {"tracker": "wandb"}
    found = messages(swept(**groups, **{key: "caf\udce9"}))
    needs = {"output_dir": "text in UTF-8", "device": "text in UTF-8", "input__path": "text in UTF-8"}
    told = f"{key.replace('__', '.')}=caf\\udce9: must be {needs.get(key, 'auto or text in UTF-8')}"
    assert any(text.startswith(told) for text in found)


def test_so_is_one_within_a_list(swept: Swept) -> None:
    found = messages(swept(technique="anagram", technique__prompts=[["a dog", "caf\udce9"], ["a", "b"]]))
    needs = "must be auto or a list (each entry auto or text in UTF-8)"
    assert found == [f"technique.prompts=[a dog,caf\\udce9]: {needs}"]
