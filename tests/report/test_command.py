"""The command of one cell: Hydra itself reads it back, and the plan gives the same id."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from diffsweep import app
from diffsweep.report.command import command, override
from diffsweep.runner.freeze import freeze
from diffsweep.runner.plan import Plan, axes_of, plan

AWKWARD = [
    "a dog, a cat",
    "it's a dog",
    'she said "no"',
    "a {brace} and [bracket]",
    "back\\slash, and one at the end\\",
    "\\\\\"'",
    "null",
    "7",
    "true",
    "1e3",
    "  spaces  ",
    "",
    "$HOME `id` $(id) ; rm # %",
    "${seed} and \\${seed}",
    "two\nlines",
    "choice(1,2)",
    "a=b:c",
    "Ünïcode – “quoted” 犬",
    "<script>alert(1)</script>",
    "???",
]


@pytest.mark.parametrize("value", [*AWKWARD, None, True, 3, -2.5, 1e-7, ["a, b", "it's", None, 1], {"k": ["x, y"]}])
def test_hydra_reads_the_value_back(value: Any) -> None:
    (word,) = shlex.split(override("key", value))
    read = OverridesParser.create().parse_override(word)
    config = OmegaConf.create({"key": None})
    OmegaConf.update(config, "key", read.value())
    found = OmegaConf.to_container(config, resolve=True)
    assert found == {"key": value} and not read.is_sweep_override()


HOSTILE = [
    *AWKWARD,
    *(
        "café",
        "naïve",
        "Ωmega",
        "犬",
        "étude_1",
        "ﬁsh",
        "x²",
        "a٣",
        "I\u0307",
        "e\u0301a",
        "a\u200bb",
        "\u202eabc",
    ),
    *(
        "~/dog",
        "+x",
        "-m",
        "--help",
        "a/b",
        "./a",
        "*",
        "?",
        "!!",
        "#a",
        "a#b",
        "a;b",
        "a&b",
        "a|b",
        "<a>",
        "(a)",
        "\t",
    ),
    *("'", "''", '"', "\\", "$", "${", "$(x)", "`x`", "%s", "a b", "a\\", "NaN", "Inf", "NULL", "TRUE", "0x1", "1_000"),
    *("range(3)", "glob(*)", "a,b", "[a]", "{a:1}", "a:1", "=", "@", "x@y", "a\r\nb", "\\n", "'\\''", "tag(a,b)", "1."),
]


def test_a_shell_and_hydra_give_every_prompt_back_and_its_cell(config: Callable[..., dict[str, Any]]) -> None:
    """The shell is bash, the grammar Hydra's own."""
    assert len(HOSTILE) > 40
    sweep = {"name": "it", "command": "diffsweep -m prompt=a,b", "axes": {"prompt": HOSTILE}}
    lines = [command(sweep, {"prompt": text}) for text in HOSTILE]
    script = "\n".join(f"printf '%s\\0' {line}; printf '\\1\\0'" for line in lines)
    printed = subprocess.run(["bash", "-c", script], capture_output=True, check=True).stdout.decode()
    parser = OverridesParser.create()
    found = []
    for words in printed.removesuffix("\1\0").split("\1\0"):
        read = {o.key_or_group: o for o in map(parser.parse_override, words.removesuffix("\0").split("\0")[2:])}
        given = OmegaConf.create({"prompt": None})
        OmegaConf.update(given, "prompt", read["prompt"].value())
        found.append(OmegaConf.to_container(given, resolve=True)["prompt"])
    assert found == HOSTILE
    ids = [freeze(config(prompt=text), {}).id for text in HOSTILE]
    assert [freeze(config(prompt=text), {}).id for text in found] == ids
    assert len({*ids}) == len({*HOSTILE})


Typed = Callable[..., tuple[dict[str, Any], Plan]]


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, hydra_restore_singletons: None) -> Typed:
    """A command line up to the runner: what sweep.json would hold of it, and its plan."""
    calls: list[tuple[dict[str, Any], Plan]] = []

    def run_sweep(cells: Any, name: Any, line: str, *_: Any) -> SimpleNamespace:
        found = plan(cells, name)
        axes = axes_of(cell.axes for cell in found.cells)
        calls.append(({"name": found.name, "command": line, "axes": axes}, found))
        folder = Path("outputs/sweeps") / found.name
        ids = [cell.id for cell in found.cells]
        return SimpleNamespace(ids=ids, statuses=["done"] * len(cells), failed=0, folder=folder, session=None)

    module = ModuleType("diffsweep.runner.run")
    module.run_sweep = run_sweep  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "diffsweep.runner.run", module)
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[dict[str, Any], Plan]:
        monkeypatch.setattr(sys, "argv", ["diffsweep", *words])
        assert app.main() == 0
        return calls[-1]

    return run


QUICK = ("model=analytic", "metric=none")
SWEEPS = {
    "numbers": ("-m", "seed=0,1", "guidance.scale=1,7.5", "scheduler.steps=4", *QUICK),
    "prompts": ("-m", 'prompt="a dog, a cat","it\'s \\"it\\"",auto,\'7\',"\\${seed}"', "seed=3", *QUICK),
    "choices": ("technique=text_to_image,inpaint", "mask=box,ellipse", "scheduler=glob(dd*)", "--multirun", *QUICK),
    "lists": ("-m", "technique=anagram,hybrid", 'technique.prompts=["a dog, a cat",auto],["x","it\'s"]', *QUICK),
    "added": ("-m", "++technique.strength=0.3,1", "technique.start=input", "+sweeps=mask_softness", *QUICK),
    "file": ("+sweeps=quickstart", "seed=range(0,2)", "metric=none"),
    "named": ("-m", "sweep.name=it", "grid.rows=seed", "seed=0,1", "prompt=one", "output_dir=else where", *QUICK),
    "ranges": ("-m", "seed=range(3,4)", "scheduler.steps=range(2,9,3)", *QUICK),
    "cascade": ("-m", "model=tiny", "upscale=none,tiny", "seed=0,1", "metric=none"),
    "one": ("seed=4", "prompt=a dog", *QUICK),
}


@pytest.mark.slow
@pytest.mark.parametrize("words", SWEEPS.values(), ids=SWEEPS)
def test_it_gives_the_same_cell_and_leaves_the_sweep_alone(words: tuple[str, ...], typed: Typed) -> None:
    sweep, whole = typed(*words)
    for cell in (whole.cells[0], whole.cells[len(whole.cells) // 2], whole.cells[-1]):
        _, again = typed(*shlex.split(command(sweep, cell.axes))[1:])
        assert [only.id for only in again.cells] == [cell.id]
        assert (again.name, again.root) == (f"{sweep['name'][:54]}-again", whole.root)
