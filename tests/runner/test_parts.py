"""From a configuration to the part it names: types, ranges, unknown keys, and packages of a user's own."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from diffsweep.core import packages
from diffsweep.core.keys import Auto
from diffsweep.core.problems import BadInput
from diffsweep.core.types import View
from diffsweep.paths import shipped
from diffsweep.runner import parts
from diffsweep.runner.freeze import freeze
from diffsweep.runner.parts import build, coerced, find, groups, names, plain
from diffsweep.view.flip import Flip
from diffsweep.view.identity import Identity
from diffsweep.view.rotate import Rotate

OTHERS = {("model", f"if_{size}") for size in ("m", "l", "xl")} | {("upscale", f"if_{size}") for size in ("m", "l")}
OTHERS |= {
    ("upscale", "x4"),
    ("model", "analytic_flow"),
    ("scheduler", "unipc"),
}  # choices of a part with other settings than its own
YAMLS = sorted(file for group in groups() for file in (shipped("conf") / group).glob("*.yaml"))

ROLL = """
from dataclasses import dataclass

from diffsweep.core.problems import require, within
from diffsweep.core.types import Estimate


@dataclass(frozen=True)
class Roll:
    by: int

    def __post_init__(self):
        require(within("by", self.by, 1))

    def apply(self, x):
        return x.roll(self.by, -1)

    def invert(self, estimate):
        return Estimate(estimate.output.roll(-self.by, -1), kind=estimate.kind)
"""
FLIP = ROLL.replace("class Roll", "class Flip").replace("by: int", "by: int = 1")


def messages(*arguments: Any) -> list[str]:
    with pytest.raises(BadInput) as caught:
        build(*arguments)
    return caught.value.messages


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is found of packages is kept for a process: forget it before and after."""

    def forget() -> None:
        importlib.invalidate_caches()
        for kept in (packages.packages, parts.find, parts._build):
            kept.cache_clear()

    forget()
    yield
    monkeypatch.undo()
    forget()


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forgetful: None) -> Path:
    """The folder of an importable package `of_mine` with a view of its own and one that is called as a shipped one."""
    folder = tmp_path / "of_mine" / "view"
    folder.mkdir(parents=True)
    (folder / "roll.py").write_text(ROLL)
    (folder / "flip.py").write_text(FLIP)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


# -- name = path -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("file", YAMLS, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_a_yaml_holds_every_key_of_its_part_with_its_default(file: Path, config: Any) -> None:
    group = file.parent.name
    own = config(**{group: file.stem})[group]
    part = build(group, own)
    assert plain(part).keys() == own.keys()
    if file.stem in ("tiny", "tiny_sd", own["name"]):
        assert part == build(group, own["name"])
    else:
        assert (group, file.stem) in OTHERS or own["name"] == "checkpoint"


def test_every_shipped_part_is_found_and_nothing_else() -> None:
    for group in groups():
        chosen = {yaml.safe_load(file.read_text())["name"] for file in YAMLS if file.parent.name == group}
        assert set(names(group)) == chosen


@pytest.mark.parametrize(
    "group, name, message",
    [
        ("view", "view.flip", "view=view.flip: not known"),
        ("view", "flop", "view=flop: not known; there are .*flip, identity.*; did you mean 'flip'?"),
        ("view", "spatial", "view=spatial: not known; there are "),  # a module there, but no view in it
        ("view", "../flip", "view=../flip: not known"),
        ("view", "os.path", "view=os.path: not known"),
        ("technique", "inpant", "technique=inpant: not known; .*did you mean 'inpaint'?"),
    ],
)
def test_an_unknown_name_is_told_with_those_there_are(group: str, name: str, message: str) -> None:
    (told,) = messages(group, name)
    start, _, end = message.partition(".*")
    assert told.startswith(start) and told.endswith(end.rpartition(".*")[2])


@pytest.mark.parametrize("config", [None, 3, [], {}, {"axis": "vertical"}, {"name": 3}])
def test_without_a_name_there_is_no_part(config: Any) -> None:
    (told,) = messages("view", config)
    assert told == f"view: a name, or keys with a name, are needed, not {config!r}"


def test_a_part_is_a_plain_mapping_and_back() -> None:
    config = {"name": "anagram", "prompts": ["a", "auto"], "views": ["identity", {"name": "rotate", "angle": 90}]}
    views = [{"name": "identity"}, {"name": "rotate", "angle": 90}]
    technique = build("technique", config)
    assert technique.views == (Identity(), Rotate(90))
    assert plain(technique) == config | {"views": views, "space": "auto"}
    assert build("technique", plain(technique)) == technique
    assert plain(build("guidance", "none")) == {"name": "none"}


# -- types -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "value, hint, result",
    [
        (3, int, 3),
        (3, float, 3.0),
        (0.5, float, 0.5),
        (7, str, "7"),
        (0.5, str, "0.5"),
        (True, bool, True),
        (None, int | None, None),
        (3, int | None, 3),
        (2, float | tuple[float, ...], 2.0),
        ([4, 1], float | tuple[float, ...], (4.0, 1.0)),
        ([], tuple[str, ...], ()),
        (["a", "auto"], Auto | tuple[Auto | str, ...], ("a", "auto")),
        ("auto", Auto | int, "auto"),
        (3, Auto | int, 3),
        ([5], tuple[str, ...], ("5",)),
        ("flip", View, Flip()),
        ({"name": "flip", "axis": "horizontal"}, View, Flip("horizontal")),
    ],
)
def test_a_value_becomes_its_fields_type(value: Any, hint: Any, result: Any) -> None:
    found = coerced(value, hint)
    assert found == result and type(found) is type(result)


@pytest.mark.parametrize(
    "value, hint, need",
    [
        ("3", int, "a whole number"),
        (3.0, int, "a whole number"),
        (True, int, "a whole number"),
        ("x", float, "a number"),
        (True, float, "a number"),
        (None, float, "a number"),
        (float("inf"), float, "a finite number"),
        (float("nan"), float, "a finite number"),
        (10**400, float, "a finite number"),
        (1, bool, "true or false"),
        ("true", bool, "true or false"),
        (None, str, "text"),
        (["a"], str, "text"),
        (True, str, "text"),
        ("x", int | None, "a whole number or null"),
        ("ab", tuple[str, ...], "a list"),
        (3, tuple[str, ...] | None, "a list or null"),
        ("x", float | tuple[float, ...], "a number or a list"),
        (None, Auto | int, "auto or a whole number"),
        ("x", Auto | float | None, "auto, a number or null"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_any_other_value_is_refused_with_what_is_needed(value: Any, hint: Any, need: str) -> None:
    with pytest.raises(TypeError, match=rf"must be {need}"):
        coerced(value, hint)


def test_a_wrong_entry_of_a_list_is_not_told_as_a_wrong_list() -> None:
    (told,) = messages("technique", {"name": "hybrid", "sigma": ["a", 1]})
    assert told.startswith("technique.sigma=") and "list" in told and "number" in told
    (told,) = messages("technique", {"name": "anagram", "prompts": [["a"]]})
    assert told.startswith("technique.prompts=") and "list" in told and told.count("auto") <= 2


# -- all mistakes at once ----------------------------------------------------------------------------------------------
def test_every_mistake_of_a_part_is_told_with_its_key() -> None:
    config = {"name": "box", "x0": "left", "y0": 0.9, "softnes": 3, "profile": "liner"}
    assert sorted(messages("mask", config)) == [
        "mask.profile=liner: must be one of linear, cosine, gaussian; did you mean 'linear'?",
        "mask.softnes: unknown key of mask=box; it has softness, profile, side, invert, x0, y0, x1, y1; "
        "did you mean 'softness'?",
        "mask.x0=left: must be a number",
        "mask.y0=0.9, y1=0.75: y0 must not exceed y1",
    ]


def test_a_part_without_keys_says_so() -> None:
    assert messages("view", {"name": "negate", "axis": "vertical"}) == [
        "view.axis: unknown key of view=negate; it has none"
    ]


def test_every_mistake_within_a_list_of_views_is_told() -> None:
    views = ["flp", {"name": "flip", "axs": "vertical"}, {"name": "rotate", "angle": 45}, {"name": "flip", 1: 2}, None]
    told = "\n".join(messages("technique", {"name": "anagram", "views": views}))
    for mistake in ("view=flp: not known", "view.axs: unknown key", "view.angle=45: must be", "view.1: unknown key"):
        assert f"technique.views: {mistake}" in told
    assert "technique.views: view: a name, or keys with a name, are needed, not None" in told


def test_a_bound_field_is_no_key() -> None:
    (told,) = messages("guidance", {"name": "classifier_free", "prompt": "a dog"})
    assert told.startswith("guidance.prompt: unknown key of guidance=classifier_free; it has scale, negative_prompt")


# -- parts of a user's own ---------------------------------------------------------------------------------------------
def test_a_plugins_part_is_found_beside_the_shipped_ones(own: Path) -> None:
    roll = build("view", {"name": "roll", "by": 3}, ("of_mine",))
    assert type(roll).__module__ == "of_mine.view.roll"
    assert plain(roll) == {"name": "roll", "by": 3}
    assert {"roll", "rotate"} <= set(names("view", ("of_mine",)))
    assert build("technique", "text_to_image", ("of_mine",)) == build("technique", "text_to_image")
    assert build("technique", {"name": "anagram", "views": ["identity", plain(roll)]}, ("of_mine",)).views[1] == roll
    assert messages("view", {"name": "roll", "by": 0}, ("of_mine",)) == ["view.by=0: must be at least 1"]
    (told,) = messages("view", {"name": "roll", "by": 3})
    assert told.startswith("view=roll: not known")


def test_a_plugins_part_comes_before_a_shipped_one_of_its_name(own: Path) -> None:
    assert find("view", "flip", ("of_mine",)).__module__ == "of_mine.view.flip"
    assert find("view", "flip").__module__ == "diffsweep.view.flip"


def test_a_part_is_found_by_its_entry_point(own: Path) -> None:
    declared = own / "of_mine-1.0.dist-info"
    declared.mkdir()
    (declared / "METADATA").write_text("Metadata-Version: 2.1\nName: of-mine\nVersion: 1.0\n")
    (declared / "entry_points.txt").write_text("[diffsweep.plugins]\nof_mine = of_mine\n")
    packages.packages.cache_clear()
    assert find("view", "roll").__module__ == "of_mine.view.roll"


def test_a_key_without_a_default_must_be_given(own: Path) -> None:
    (told,) = messages("view", "roll", ("of_mine",))
    assert told.startswith("view.by") and "__init__" not in told
    (told,) = messages("technique", {"name": "anagram", "views": ["identity", "roll"]}, ("of_mine",))
    assert told.startswith("technique.views: view.by")


BARE = "class Mine:\n    def {}(self, *a): ..."
PLAIN = "class Mine(Plain):\n    uses = frozenset({{{!r}, 'prompt'}})\n    def program(self, job): ..."


@pytest.mark.parametrize(
    "group, written, told",
    [
        (
            "input",
            BARE.format("pixels"),
            "its class Mine lacks caption, notes, proportions, sized, stamp; build it on {}",
        ),
        (
            "mask",
            BARE.format("values"),
            "its class Mine lacks enlarged, fits, fits_cropped, hard, notes, sized, stamp; build it on {}",
        ),
        ("technique", BARE.format("program"), "its class Mine lacks {}prompts_for, {}uses, visited; build it on {}"),
        ("technique", PLAIN.format("inputs"), "its `uses` names 'inputs'; it may name {}; did you mean 'input'?"),
    ],
)
def test_a_part_that_lacks_what_its_group_asks_for_is_told_with_what_gives_it(
    request: pytest.FixtureRequest, own: Path, group: str, written: str, told: str
) -> None:
    name = f"mine_{request.node.callspec.indices['written']}"  # a module's name is imported once
    (own / "of_mine" / group).mkdir()
    head = "from dataclasses import dataclass\nfrom diffsweep.technique.job import Plain\n\n@dataclass(frozen=True)\n"
    (own / "of_mine" / group / f"{name}.py").write_text(head + written)
    (message,) = messages(group, name, ("of_mine",))
    assert re.fullmatch(".*".join(map(re.escape, f"{group}={name}: {told}".split("{}"))), message), message


@pytest.mark.parametrize("name", ["nonexistent", "nonexistent.sub", "os.nonexistent", "", ".view"])
def test_a_plugin_that_cannot_be_imported_is_named(name: str, forgetful: None) -> None:
    missing = "no such package can be imported; install it, or set PYTHONPATH to the folder it is in"
    assert messages("view", "flip", (name,)) == [f"plugins={name}: {missing}"]


THROUGH = """
from dataclasses import dataclass

from diffsweep.technique.job import Plain


@dataclass(frozen=True)
class Through(Plain):
    uses = frozenset({"prompt", "scheduler", "guidance", "view"})
"""


def test_a_technique_of_ones_own_uses_the_groups_view_without_a_key_for_it(own: Path, config: Any) -> None:
    (own / "of_mine" / "technique").mkdir()
    (own / "of_mine" / "technique" / "through.py").write_text(THROUGH)
    raw = config(plugins=["of_mine"]) | {"technique": {"name": "through"}}
    negated, turned = (
        freeze(raw | {"view": view}, {}) for view in ({"name": "negate"}, {"name": "rotate", "angle": 90})
    )
    assert negated.config["view"] == {"name": "negate"} and negated.id != turned.id
    with pytest.raises(BadInput, match="patches=3: must divide"):
        freeze(raw | {"view": {"name": "permute", "patches": 3}}, {})
