"""Whatever a configuration holds, it is refused in words, or it is a cell that has one id."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from diffsweep import app
from diffsweep.core.problems import BadInput
from diffsweep.paths import shipped
from diffsweep.runner import freeze, parts
from diffsweep.runner.plan import plan
from diffsweep.store.schema import to_json
from tests.fuzz.cases import cases
from tests.fuzz.values import SECRET, numbers, said, texts, values

CHOICES = (
    {"technique": "text_to_image"},
    {"technique": "inpaint", "mask": "box"},
    {"technique": "inpaint", "mask": "file"},
    {"technique": "inpaint", "mask": "strokes", "scheduler": "heun"},
    {"technique": "inpaint", "mask": "ellipse", "input": "file"},
    {"technique": "image_to_image", "input": "world", "scheduler": "dpm_solver"},
    {"technique": "anagram", "view": "jigsaw", "scheduler": "ddim"},
    {"technique": "hybrid", "guidance": "none"},
    {"technique": "gaussian_denoise", "metric": "default"},
    {"technique": "forward_noise", "model": "analytic_flow", "tracker": "wandb"},
)


def paths(config: Mapping[str, Any], before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every key of a configuration, as the words that lead there."""
    for key, value in config.items():
        yield (*before, key)
        if isinstance(value, Mapping):
            yield from paths(value, (*before, key))


def spoil(config: dict[str, Any], draw: st.DataObject) -> None:
    """Set or remove one key, which may be a new one."""
    *way, last = draw.draw(st.sampled_from(list(paths(config))))
    node = config
    for word in way:
        node = node[word]
    match draw.draw(st.sampled_from(["near"] * 6 + ["set"] * 3 + ["remove", "add"])):
        case "near":
            node[last] = near(node[last], draw)
        case "set":
            node[last] = draw.draw(values)
        case "remove":
            del node[last]
        case _:
            node[draw.draw(texts)] = draw.draw(values)


def near(value: Any, draw: st.DataObject) -> Any:
    """A value of the same kind, mostly."""
    match value:
        case bool():
            return not value
        case int() | float():
            return draw.draw(
                st.sampled_from([0, 1, 2, 3, 5, 7, 31, 999, 1000, 0.5, 1.0]) | st.integers(0, 40) | st.floats(-1, 9)
            )
        case str():
            return draw.draw(
                st.sampled_from(["auto", "none", "0.5", "3"]) | texts | st.integers(0, 12) | st.floats(0, 4)
            )
        case list():
            return draw.draw(st.lists(st.sampled_from(value or ["identity", "flip"]) | texts | numbers, max_size=3))
    return draw.draw(values)


@cases(300)
@given(choice=st.sampled_from(CHOICES), draw=st.data())
def test_a_spoilt_configuration_is_refused_or_has_one_id(
    choice: dict[str, str], draw: st.DataObject, config: Callable[..., dict[str, Any]]
) -> None:
    spoilt = config(**choice)
    for _ in range(draw.draw(st.integers(1, 3))):
        spoil(spoilt, draw)
    before = copy.deepcopy(spoilt)
    try:
        (cell,) = plan([(spoilt, {"seed": 0})]).cells
    except BadInput as error:
        return said(error)
    assert repr(spoilt) == repr(before)
    record = json.loads(to_json(cell.config))  # strict JSON, or an error
    for cached in (parts._build, freeze._stamped, freeze._plain):
        cached.cache_clear()
    again = freeze.freeze(copy.deepcopy(spoilt), {"seed": 0})
    assert again.id == cell.id and json.loads(to_json(again.config)) == record


@cache
def known() -> dict[str, list[str]]:
    """Every key that a command line may set, with values that it may well have; of a group, its choices."""
    ((config, _),) = app.composed([])
    found = {}
    for path in paths(config):
        if path == ("confirm",):  # any number of cells
            continue
        value = config
        for word in path:
            value = value[word]
        choices = [file.stem for file in (shipped("conf") / path[0]).glob("*.yaml")] if len(path) == 1 else []
        found[".".join(path)] = choices or [json.dumps(value).strip('"'), "1", "2", "0.5", "true", "auto", "null"]
    return found


signs = st.sampled_from(["", "", "", "", "+", "++", "~"])
marks = st.sampled_from(["{}", "{}", "[{}]", "'{}'", '"{}"', "{},1", "{{a:{}}}", "range({})", "glob({})", "choice({})"])
odd_keys = (texts | st.text("a.@/:+~-_ ", max_size=6)).filter(lambda text: not text.startswith(("-", "hydra")))


def word(draw: st.DataObject) -> str:
    """A word of a command line: half of them set a key to a value of its kind."""
    key = draw.draw(st.sampled_from(list(known())))
    if draw.draw(st.booleans()):
        return f"{key}={draw.draw(st.sampled_from(known()[key]))}"
    key = draw.draw(st.just(key) | odd_keys)
    value = draw.draw(marks).format(draw.draw(st.integers(-3, 60) | st.floats() | texts))
    whole = draw.draw(signs) + key + draw.draw(st.sampled_from(["=", "=", "=", ""])) + value
    return whole.lstrip("-")  # an option is argparse's to refuse


@cases(60)
@given(draw=st.data())
def test_a_spoilt_command_line_is_refused_in_words_or_composed(draw: st.DataObject) -> None:
    tell(["model=analytic", *(word(draw) for _ in range(draw.draw(st.integers(1, 3))))])


def tell(typed: list[str]) -> None:
    """Compose and plan a command line: it is refused in words, or comes to cells; neither shows the secret."""
    try:
        found = app.composed(typed)
        for config, axes in found[:3]:
            plan([(config, axes)])
    except Exception as error:
        told = app.mistake(error)
        if told is None:
            raise
        assert told.strip() and SECRET not in told
    else:
        assert SECRET not in repr(found)


EVIL = (
    *(
        "${oc.env:CANARY}",
        "\\${oc.env:CANARY}",
        "${oc.env:CANARY,x}",
        "${oc.decode:${oc.env:CANARY}}",
        "${hydra:runtime.cwd}",
    ),
    *("${oc.create:{_target_:os.mkdir,path:ran}}", "a,${oc.env:CANARY}", "[${oc.env:CANARY}]", '"${oc.env:CANARY}"'),
)
evil = st.sampled_from(EVIL) | st.dictionaries(
    st.sampled_from(["_target_", "()", "class", "x"]), st.sampled_from(["os.mkdir", "ran"]), min_size=1
)
places = st.sampled_from(
    [
        *(
            "prompt",
            "seed",
            "vars.x",
            "guidance.scale",
            "model.path",
            "technique.prompts",
            "plugins",
            "input.path",
            "x",
            "defaults",
        ),
        *(
            "hydra.searchpath",
            "hydra.callbacks.x",
            "hydra.launcher",
            "hydra.sweeper",
            "hydra.sweeper.params.prompt",
            "hydra.mode",
        ),
        *(
            "hydra.sweeper.params.seed",
            "hydra.job_logging",
            "hydra.run.dir",
            "hydra.sweep.dir",
            "hydra.job.env_copy",
            "hydra",
        ),
        *(
            "output_dir",
            "sweep.name",
            "tracker",
            "metric.references",
            "hydra.output_subdir",
            "hydra.job.chdir",
            "_target_",
        ),
    ]
)


def put(tree: dict[str, Any], place: str, value: Any) -> None:
    *way, last = place.split(".")
    for word in way:
        tree = tree.setdefault(word, {}) if isinstance(tree, dict) else {}
    if isinstance(tree, dict):
        tree[last] = value


@cases(50)
@given(items=st.lists(st.tuples(places, evil | values), min_size=1, max_size=3), multirun=st.booleans())
def test_a_sweeps_file_from_anywhere_is_refused_or_inert(
    items: list[tuple[str, Any]], multirun: bool, alone: Path
) -> None:
    import yaml

    tree: dict[str, Any] = {"hydra": {"mode": "MULTIRUN"}} if multirun else {}
    for place, value in items:
        put(tree, place, value)
    there = sorted(alone.rglob("*"))
    (alone / "sweeps").mkdir(exist_ok=True)
    text = "# @package _global_\n" + yaml.safe_dump(tree, allow_unicode=True)
    (alone / "sweeps/evil.yaml").write_bytes(text.encode("utf-8", "surrogateescape"))
    tell(["+sweeps=evil", "model=analytic"])
    (alone / "sweeps/evil.yaml").unlink()
    (alone / "sweeps").rmdir()
    assert sorted(alone.rglob("*")) == there


@cases(120)
@given(
    content=st.binary(max_size=60)
    | st.text(alphabet="a:[]{}&*!|>-?#,'\"\\ \n\t%@`~<=0.e_$", max_size=60).map(str.encode)
)
def test_a_file_of_any_bytes_is_read_as_keys_or_refused(content: bytes, alone: Path) -> None:
    from hydra_plugins.diffsweep_fused._files import UserFiles

    (alone / "any.yaml").write_bytes(content)
    try:
        UserFiles("command-line", f"user://{alone}").load_config("any")
    except Exception as error:
        told = app.mistake(error)
        if told is None:
            raise
        assert told.strip()
    (alone / "any.yaml").unlink()
