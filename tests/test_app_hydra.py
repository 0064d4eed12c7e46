"""The command line up to the runner: what it hands over, what it refuses and how, and its exit codes."""

import json
import os
import pickle
import re
import shlex
import signal
import subprocess
import sys
import tempfile
from contextlib import nullcontext, suppress
from pathlib import Path
from types import ModuleType, SimpleNamespace, UnionType
from typing import Any, Union, get_args, get_origin

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import ListConfig, OmegaConf

from diffsweep import app
from diffsweep.core.keys import Auto
from diffsweep.core.problems import BadInput
from diffsweep.paths import shipped
from diffsweep.runner.freeze import BLOCKS
from diffsweep.runner.plan import _typed

MINE = """# @package _global_
# What does this ask?
defaults:
  - override /technique: inpaint
hydra:
  mode: MULTIRUN
  sweeper:
    params:
      seed: range(0,3)
      guidance.scale: 1,7
      scheduler.steps: 10
"""


class Runner:
    """Stands in for diffsweep.runner.run: remembers what it was asked to run."""

    def __init__(self) -> None:
        self.cells: list = []
        self.calls: list[SimpleNamespace] = []
        self.status = "done"
        self.before = lambda: None

    def run_sweep(self, cells, name, command, before, joins, session, listener, start):
        self.before()
        self.calls.append(SimpleNamespace(cells=cells, name=name, command=command, before=list(before)))
        self.cells += cells
        statuses = [self.status] * len(cells)
        folder = Path("outputs/sweeps") / (name or "unnamed")
        ends = {"ids": [f"{i:020x}" for i in range(len(cells))], "statuses": statuses}
        return SimpleNamespace(**ends, failed=statuses.count("failed"), folder=folder, session=session)


@pytest.fixture
def runner(monkeypatch, tmp_path, hydra_restore_singletons) -> Runner:
    fake, module = Runner(), ModuleType("diffsweep.runner.run")
    module.run_sweep = fake.run_sweep
    monkeypatch.setitem(sys.modules, "diffsweep.runner.run", module)
    monkeypatch.chdir(tmp_path)
    return fake


@pytest.fixture
def diffsweep(runner, monkeypatch):
    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["diffsweep", *arguments])
        try:
            return app.main()
        except SystemExit as stop:  # --help and argparse
            return int(stop.code or 0)

    return run


# of each type that a block's key has: what is typed, and what it is
WRITTEN = {
    str: ("1_0", "1_0"),
    bool: ("true", True),
    int: ("64", 64),
    float: ("64.5", 64.5),
    tuple[str, ...]: ("[1_0,a]", ("1_0", "a")),
}
KEYS = {(block, key): hint for block, keys in BLOCKS.items() for key, hint in keys.items()}


def of_its_type(hint: Any) -> tuple[str, Any]:
    several = get_origin(hint) in (Union, UnionType)
    return WRITTEN[next(option for option in get_args(hint) if option is not Auto) if several else hint]


@pytest.mark.parametrize("form", ["keys", "mappings", "file"])
def test_every_key_of_every_block_arrives_as_its_type(diffsweep, runner, tmp_path, form: str) -> None:
    keys = {
        (block, key): of_its_type(hint) for (block, key), hint in KEYS.items() if (block, key) != ("metric", "name")
    }
    lines = {
        block: ", ".join(f"{key}: {text}" for (own, key), (text, _) in keys.items() if own == block) for block in BLOCKS
    }
    if form == "file":
        (tmp_path / "sweeps").mkdir()
        content = "".join(f"{block}: {{{line}}}\n" for block, line in lines.items())
        (tmp_path / "sweeps/mine.yaml").write_text(f"# @package _global_\n{content}")
        words = ["+sweeps=mine"]
    elif form == "keys":
        words = [f"{block}.{key}={text}" for (block, key), (text, _) in keys.items()]
    else:  # metric is a group too, whose choice goes by its name
        words = [f"{block}={{{line}}}" for block, line in lines.items() if block != "metric"]
        words += [f"metric.{key}={text}" for (block, key), (text, _) in keys.items() if block == "metric"]
    assert diffsweep(*words) == 0
    ((config, _),) = runner.cells
    for (block, key), (_, value) in keys.items():
        found = _typed(block, config)[key]
        assert (found, type(found)) == (value, type(value)), (block, key)


def test_nothing_typed_is_one_default_cell(diffsweep, runner, tmp_path) -> None:
    assert diffsweep() == 0
    ((config, axes),) = runner.cells
    assert axes == {} and "hydra" not in config
    root = OmegaConf.load(shipped("conf") / "config.yaml")
    for choice in root.defaults:
        ((group, name),) = choice.items() if not isinstance(choice, str) else ((None, None),)
        if group and not group.startswith("override "):
            own = OmegaConf.load(shipped("conf") / group / f"{name}.yaml")
            assert config[group] == OmegaConf.to_container(OmegaConf.merge(own, root.get(group, {})))
    assert config["seed"] == root.seed and config["prompt"] == root.prompt
    assert list(tmp_path.iterdir()) == []  # Hydra writes nothing of its own


def test_a_multirun_is_handed_over_whole(diffsweep, runner, tmp_path) -> None:
    assert diffsweep("technique=inpaint,text_to_image", "-m", "seed=range(0,3)", "prompt='a, b'") == 0
    (call,) = runner.calls
    assert [axes for _, axes in call.cells] == [
        {"technique": technique, "seed": seed} for technique in ("inpaint", "text_to_image") for seed in range(3)
    ]
    assert {config["prompt"] for config, _ in call.cells} == {"a, b"}
    assert shlex.split(call.command) == ["diffsweep", "technique=inpaint,text_to_image", "-m", *sys.argv[3:]]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [
        ("upscale=tiny,if_m", "upscale.noise_level=7"),
        ("-m", "upscale.noise_level=7", "upscale.guidance.scale=1,2", "upscale=if_m,tiny"),
        ("technique=anagram,hybrid", "technique.prompts=[a,'b, c']", "upscale=tiny", "upscale.noise_level=choice(7)"),
        ("upscale=tiny", "scheduler@upscale.scheduler=ddim,ddpm", "upscale.scheduler.steps=range(7,8)"),
    ],
)
def test_a_key_of_a_choice_that_is_swept_is_set_on_each(diffsweep, runner, words: tuple[str, ...]) -> None:
    """Before it has a job, Hydra sets plain overrides on the group's default choice, which may not have the key."""
    assert diffsweep("-m", *(word for word in words if word != "-m")) == 0
    for config, axes in runner.cells:
        assert 7 in (config["upscale"]["noise_level"], config["upscale"]["scheduler"]["steps"])
        assert config["technique"].get("prompts", "auto") in ("auto", ["a", "b, c"])
        assert not {"upscale.noise_level", "technique.prompts", "upscale.scheduler.steps"} & axes.keys()
    assert runner.calls[0].command == shlex.join(["diffsweep", "-m", *(word for word in words if word != "-m")])


def test_an_empty_value_and_a_deletion_stay_as_they_are(diffsweep, runner, capsys) -> None:
    assert diffsweep("-m", "upscale=tiny,if_m", "upscale.path=") == 0
    assert {config["upscale"]["path"] for config, _ in runner.cells} == {""}
    assert diffsweep("-m", "technique=inpaint,anagram", "~technique.nothing=3") == 2
    assert "choice(" not in capsys.readouterr().err


def test_a_key_that_one_of_the_choices_lacks_is_told_with_that_choice(diffsweep, runner, capsys) -> None:
    assert diffsweep("-m", "upscale=none,tiny", "upscale.noise_level=7") == 2
    assert capsys.readouterr().err.startswith("diffsweep: upscale.noise_level: no such key of upscale=none; ")


def test_a_sweep_without_its_mode_is_one_cell_and_says_so(diffsweep, runner, tmp_path, capsys) -> None:
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps/mine.yaml").write_text("# @package _global_\nhydra: {sweeper: {params: {seed: '0,1'}}}\n")
    note = "note: one cell: hydra.sweeper.params (seed) needs -m, or hydra.mode: MULTIRUN in the file that holds it\n"
    assert (diffsweep("+sweeps=mine"), len(runner.cells), capsys.readouterr().err) == (0, 1, note)
    assert (diffsweep("-m", "+sweeps=mine"), len(runner.cells), capsys.readouterr().err) == (0, 3, "")


@pytest.mark.parametrize("sweeper", ["fused", "basic"])
def test_a_file_sweeps_as_the_same_lines_do_when_typed(diffsweep, runner, tmp_path, sweeper: str) -> None:
    """Interpolations are each job's, whatever Hydra reads before."""
    lines = {"guidance.scale": "2,3", "+vars.animal": "dog,cat", "prompt": '"a ${vars.animal} at ${guidance.scale}"'}
    text = f"# @package _global_\ndefaults: [override /hydra/sweeper: {sweeper}]\n"
    text += f"hydra: {{mode: MULTIRUN, sweeper: {{params: {json.dumps(lines)}}}}}\n"
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps/mine.yaml").write_text(text)
    assert diffsweep("+sweeps=mine") == diffsweep("-m", *(f"{key}={value}" for key, value in lines.items())) == 0
    prompts = [[config["prompt"] for config, _ in call.cells] for call in runner.calls]
    assert prompts == [[f"a {animal} at {scale}" for scale in (2, 3) for animal in ("dog", "cat")]] * 2


def test_a_sweeps_file_needs_no_m_and_names_the_sweep(diffsweep, runner, tmp_path) -> None:
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "mine.yaml").write_text(MINE)
    assert diffsweep("+sweeps=mine") == 0
    assert [axes for _, axes in runner.cells] == [{"seed": s, "guidance.scale": g} for s in range(3) for g in (1, 7)]
    assert runner.calls[0].name == "mine"
    assert {config["technique"]["name"] for config, _ in runner.cells} == {"inpaint"}
    assert {config["scheduler"]["steps"] for config, _ in runner.cells} == {10}
    assert os.listdir(tmp_path) == ["sweeps"]

    assert diffsweep("-m", "+sweeps=mine", "seed=7", "sweep.name=other", "hydra.sweeper.max_batch_size=1") == 0
    assert [(call.name, axes) for call in runner.calls[1:] for _, axes in call.cells] == [
        ("other", {"guidance.scale": 1}),
        ("other", {"guidance.scale": 7}),
    ]


@pytest.mark.parametrize(
    "typed, name",
    [
        ("my sweep", "my sweep"),
        ('"my sweep"', "my sweep"),
        ("./sub/x.yaml", "sub-x"),
        ("quickstart.yaml", "quickstart"),
    ],
)
def test_a_sweeps_file_is_named_in_any_way_that_finds_it(diffsweep, runner, tmp_path, typed: str, name: str) -> None:
    for file in ("my sweep", "sub/x"):
        (tmp_path / "sweeps" / file).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / "sweeps" / f"{file}.yaml").write_text(MINE)
    assert diffsweep(f"+sweeps={typed}") == 0
    assert runner.calls[0].name == name


INTERPOLATED = [
    (
        ("technique=one_step_denoise,forward_noise", "technique.t=100,200", 'prompt="noise ${technique.t}"'),
        [{"technique": k, "technique.t": t} for k in ("one_step_denoise", "forward_noise") for t in (100, 200)],
        ["noise 100", "noise 200"] * 2,
    ),
    (
        ("+vars.animal=dog,a cat", 'prompt="a ${vars.animal}"'),
        [{"vars.animal": "dog"}, {"vars.animal": "a cat"}],
        ["a dog", "a a cat"],
    ),
    (
        ("vars.animal=dog,cat", "vars.place=hat", 'prompt="a ${vars.animal} in a ${vars.place}"'),
        [{"vars.animal": "dog"}, {"vars.animal": "cat"}],
        ["a dog in a hat", "a cat in a hat"],
    ),
    (
        ("+vars.year=1_1,1e3", "prompt=${vars.year},b"),
        [{"vars.year": y, "prompt": p} for y, p in (("1_1", "1_1"), ("1_1", "b"), ("1e3", "1e3"), ("1e3", "b"))],
        ["1_1", "b", "1e3", "b"],
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["fused", "basic"])
@pytest.mark.parametrize("words, axes, prompts", INTERPOLATED)
def test_each_job_resolves_its_own_interpolations(diffsweep, runner, words, axes, prompts, launcher: str) -> None:
    """The multirun's own configuration may have no such key, or another value of it."""
    assert diffsweep("-m", f"hydra/launcher={launcher}", *words) == 0
    assert [config["prompt"] for config, _ in runner.cells] == prompts
    if launcher == "fused":
        assert [found for _, found in runner.cells] == axes


def test_a_sweeps_file_has_variables_and_interpolations(diffsweep, runner, tmp_path) -> None:
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "vars.yaml").write_text(
        "# @package _global_\nvars: {of: hat}\nprompt: a ${vars.animal} in a ${vars.of}\n"
        "hydra: {mode: MULTIRUN, sweeper: {params: {+vars.animal: 'dog,cat', sweep.name: '\"${vars.of}\"'}}}\n"
    )
    assert diffsweep("+sweeps=vars") == 0
    assert [config["prompt"] for config, _ in runner.cells] == ["a dog in a hat", "a cat in a hat"]
    assert [axes for _, axes in runner.cells] == [{"vars.animal": "dog"}, {"vars.animal": "cat"}]
    assert runner.calls[0].name == "hat"


@pytest.mark.parametrize("launcher", ["fused", "basic"])
def test_texts_are_handed_over_as_they_are_typed(diffsweep, runner, launcher: str) -> None:
    words = ("prompt=1_1_1,1e3", "guidance.negative_prompt=true,1.50", "sweep.name=2024_01_01", "input=file")
    assert diffsweep("-m", f"hydra/launcher={launcher}", *words, "input.path=1_0") == 0
    pairs = [(prompt, other) for prompt in ("1_1_1", "1e3") for other in ("true", "1.50")]
    assert [(c["prompt"], c["guidance"]["negative_prompt"]) for c, _ in runner.cells] == pairs
    assert [(axes["prompt"], axes["guidance.negative_prompt"]) for _, axes in runner.cells] == pairs
    assert {(c["sweep"]["name"], c["input"]["path"]) for c, _ in runner.cells} == {("2024_01_01", "1_0")}
    assert {call.name for call in runner.calls} == {"2024_01_01"}


def test_what_is_typed_of_a_group_that_no_technique_uses_is_noted(diffsweep, runner, capsys) -> None:
    words = ("input=file", "mask.softness=3", "guidance.scale=1,2", 'prompt="input=x"')
    assert diffsweep("-m", "technique=text_to_image,forward_noise", *words) == 0
    assert [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")] == [
        "note: mask.softness=3: not used by technique=text_to_image,forward_noise"
    ]
    assert diffsweep("technique=forward_noise", "guidance.scale=2") == 0
    assert "note: guidance.scale=2: not used by technique=forward_noise\n" in capsys.readouterr().err
    # of jobs that run one by one nobody sees all techniques
    words = ("-m", "hydra/launcher=basic", "technique=text_to_image,inpaint", "mask.softness=3", "prompt=red")
    assert diffsweep(*words) == 0 and "not used" not in capsys.readouterr().err
    assert diffsweep("technique=unknown_one", "input=file") == 2 and "note: " not in capsys.readouterr().err


def test_folders_beside_the_user_are_no_config_groups(diffsweep, runner, tmp_path) -> None:
    for name in ("seed", "plugins", "prompt", "core"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "3.yaml").write_text("{}")
    assert diffsweep("seed=3", "plugins=[mine]") == 0
    assert (runner.cells[0][0]["seed"], runner.cells[0][0]["plugins"]) == (3, ["mine"])


@pytest.mark.slow
def test_shipped_sweeps_are_found_from_any_folder(diffsweep, runner) -> None:
    for file in shipped("sweeps").glob("*.yaml"):
        assert diffsweep(f"+sweeps={file.stem}") == 0
        assert runner.calls[-1].name == file.stem


def test_an_ordinary_launcher_runs_job_by_job(diffsweep, runner, tmp_path) -> None:
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "mine.yaml").write_text(MINE.replace("range(0,3)", "0").replace("1,7", "3"))
    assert diffsweep("-m", "hydra/launcher=basic", "seed=1,2", "technique=inpaint", "+sweeps=mine") == 0
    assert [axes for _, axes in runner.cells] == [
        {"seed": seed, "guidance.scale": 3, "scheduler.steps": 10, "technique": "inpaint"} for seed in (1, 2)
    ]
    assert [call.name for call in runner.calls] == ["mine", "mine"]
    assert diffsweep("-m", "hydra/launcher=basic", "seed=1", "sweep.name=other", "tracker=none") == 0
    assert (runner.calls[-1].name, runner.cells[-1][1]) == ("other", {"seed": 1})
    runner.status = "failed"
    assert diffsweep("-m", "hydra/launcher=basic", "seed=1,2") == 1


def test_a_mistake_that_another_process_finds_is_one_message_too(diffsweep, runner, capsys) -> None:
    def bad() -> None:
        raise BadInput("seed=-1: no")

    runner.before = bad
    assert diffsweep("-m", "hydra/launcher=basic", "seed=1,2") == 2
    assert capsys.readouterr().err == "diffsweep: seed=-1: no\n"


def test_the_task_can_be_sent_to_another_process() -> None:
    assert isinstance(pickle.loads(pickle.dumps(app.task)), app.Task)


@pytest.mark.parametrize("arguments", [["seed=1"], ["-m", "seed=1,2"]])
def test_exit_codes(diffsweep, runner, capsys, arguments: list[str], tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert diffsweep(*arguments) == 0
    runner.status = "failed"
    assert diffsweep(*arguments) == 1

    def bad() -> None:
        raise BadInput(["one thing", "another"])

    runner.before = bad
    capsys.readouterr()
    assert diffsweep(*arguments) == 2
    assert capsys.readouterr().err == "diffsweep: one thing\ndiffsweep: another\n"
    runner.before = lambda: os.kill(os.getpid(), signal.SIGTERM)
    assert diffsweep(*arguments) == 128 + signal.SIGTERM
    runner.before = lambda: os.kill(os.getpid(), signal.SIGINT)
    assert diffsweep(*arguments) == 128 + signal.SIGINT

    def bug() -> None:
        raise ZeroDivisionError

    runner.before = bug
    capsys.readouterr()
    assert diffsweep(*arguments) == 70
    what, report, _ = capsys.readouterr().err.splitlines()
    assert what == "diffsweep: a bug of diffsweep: ZeroDivisionError"
    (file,) = tmp_path.glob("diffsweep-*.txt")
    assert report == f"diffsweep: please report it, with {file}"
    assert file.read_text().endswith("    raise ZeroDivisionError\nZeroDivisionError\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("swallowed", [False, True])
def test_a_signal_while_hydra_composes_has_its_exit_code(
    diffsweep, runner, capsys, monkeypatch, number: int, swallowed: bool
) -> None:
    """OmegaConf takes an interrupt for an error of the configuration; a library's `except:` forgets it."""
    original, calls = ListConfig._validate_set, []

    def stopped(*arguments) -> None:
        if not calls:
            calls.append(number)
            with suppress(KeyboardInterrupt) if swallowed else nullcontext():
                os.kill(os.getpid(), number)
        original(*arguments)

    monkeypatch.setattr(ListConfig, "_validate_set", stopped)
    assert diffsweep("-m", "seed=0,1") == 128 + number
    assert calls and runner.calls == []
    assert capsys.readouterr().err == f"diffsweep: stopped by {signal.Signals(number).name}\n"


def test_an_exit_of_a_library_is_no_success(diffsweep, runner) -> None:
    runner.before = lambda: sys.exit(0)
    assert diffsweep("seed=1") == diffsweep("-m", "seed=1,2") == 70


def test_bytes_that_are_no_text_are_refused_before_anything_is_planned(diffsweep, runner, capsys) -> None:
    assert diffsweep("prompt=caf\udce9", "seed=3") == 2  # as Python reads an argument in Latin-1
    assert (
        capsys.readouterr().err == "diffsweep: prompt=caf\\udce9: not UTF-8; type it in UTF-8, under a UTF-8 locale\n"
    )
    assert runner.calls == []


def test_what_crosses_processes_comes_out_the_same() -> None:
    for value in (app.Status("done", Path("outputs/sweeps/it"), "0" * 20), app.task):
        assert vars(pickle.loads(pickle.dumps(value))) == vars(value)
    bad = pickle.loads(pickle.dumps(BadInput(["one thing", "another\nline"])))
    assert (type(bad), bad.messages) == (BadInput, ["one thing", "another\nline"])
    failed = pickle.loads(pickle.dumps(app.CellFailed("seed=3")))
    assert (type(failed), str(failed)) == (app.CellFailed, "seed=3")


REFUSED = {
    "guidance.scal=7": r"guidance\.scal: no such key; guidance has .*scale.*did you mean 'guidance\.scale'\?",
    "-m guidance.scal=7,8": r"guidance\.scal: no such key; guidance has .*scale.*did you mean 'guidance\.scale'\?",
    "scale=7": r"scale: no such key; .*did you mean 'guidance\.scale'\?",
    "-m scale=7,8": r"scale: no such key; .*did you mean 'guidance\.scale'\?",
    "sed=3": r"sed: no such key; .*did you mean 'seed'\?",
    "seed.x=3": r"seed\.x: no such key",
    "technique=inpant": r"technique=inpant: no such technique; choose one of .*did you mean 'inpaint'\?",
    "-m technique=inpaint,inpant": r"technique=inpant: no such technique; .*did you mean 'inpaint'\?",
    "techniqe=inpaint": r"techniqe: no such key; .*did you mean 'technique'\?",
    "technique=3": r"technique=3: no such technique; choose one of",
    "guidance=null": r"a choice goes by its name, as in guidance=none, not by NoneType",
    "technique": r"'technique': write key=value",
    "+technique=inpaint": r"write technique=inpaint",
    "+guidance.scale=7": r"guidance\.scale: the key exists already",
    "~sed": r"~sed: there is no such key",
    "guidance.scale=${nix}": r"guidance\.scale: .*'nix' not found",
    "output_dir=${HOME}/x": r"output_dir: .*'HOME' not found; the shell replaces .* in double quotes",
    "seed=0,1": r"seed=0,1 names several values: add -m",
    "seed=range(0,3)": r"seed=range\(0,3\) is a sweep: add -m",
    "-m seed=interval(0,1)": r"interval.*range",
    "-m technique=glob(nothing*)": r"Nothing to sweep over: .*fits no choice; there are anagram, ",
    "-m input.path=glob(pics/*)": r"input\.path=glob\(pics/\*\): .*not files; list the values: input\.path=a,b$",
    "-m seed=range(3,3)": r"Nothing to sweep over: seed=range\(3,3\) has no values",
    "-m seed=range(0,10000000)": r"10,000,000 cells \(seed: 10,000,000\), some .* above 100,000 cells, .*confirm=true",
    "-m confirm=true,false": r"confirm cannot be swept",
    "input={name:file,path:a.png}": r"input=\{\.\.\.\}: .* stand beside it: input=file input\.path=a\.png$",
    "output_dir=~/x": r"\(~: within quotes alone\); .* '?output_dir=\"~/x\"'?$",
    "prompt=café": r"\(é: within quotes alone\); .*: 'prompt=\"café\"'$",
    "-m prompt=熊猫,狗": r"as 2 texts, with -m: 'prompt=\"熊猫\",\"狗\"'; .*: 'prompt=\"熊猫,狗\"'$",
    "prompt=@prompts.txt": r"no file of prompts is read",
    "prompt=${oc.env:HOME}": r"prompt: \$\{oc\.env:\.\.\.\} is refused",
    "--config-path=/tmp": r"--config-path would replace",
    "--config-name=mine": r"--config-name would replace",
    "+sweeps=other": r"\+sweeps=other: a sweeps file ends in \.yaml; rename \./sweeps/other\.yml to other\.yaml",
    "+sweeps=other.yml": r"\+sweeps=other\.yml: .*rename \./sweeps/other\.yml to other\.yaml",
    "+sweeps=./sweeps/sub/mine.yaml": r"goes by its name within \./sweeps, without an ending: \+sweeps=sub/mine",
    "+sweeps=mine.yml": r"goes by its name within \./sweeps, without an ending: \+sweeps=mine",
    "+sweeps=quickstart.yml": r"goes by its name within \./sweeps, without an ending: \+sweeps=quickstart",
    "+sweeps=loop": r"name each other without an end",
    "-m sweep.name=a,b": r"sweep\.name cannot be swept",
    "+sweeps=min": r"\+sweeps=min: no such sweeps file, .*did you mean 'mine'\?",
    "-m +sweeps=min": r"\+sweeps=min: no such sweeps file, .*did you mean 'mine'\?",
    "sweeps=mine": r"write \+sweeps=mine",
    "++sweeps=mine": r"write \+sweeps=mine",
    "-m +sweeps=mine,bare": r"sweeps cannot be swept",
    "+sweeps=bare": r"'# @package _global_'",
    "+sweeps=broken": r"broken\.yaml\", line 2",
    "+sweeps=astray": r"technique=inpant: no such technique; .*did you mean",
    "-m hydra.verbose=true,false": r"hydra\.verbose=true,false",
    "hydra/launcher=nonesuch": r"hydra/launcher=nonesuch: .*fused",
    "--experimental-rerun job.pickle": r"--experimental-rerun is not supported",
    "+sweep=mine": r"\+sweep: a sweeps file is added by \+sweeps=NAME",
    "+sweeps=[mine,bare]": r"\+sweeps=\[mine,bare\]: one sweeps file at a time",
    "+sweeps=pipe": r"^diffsweep: \+sweeps=pipe: \./sweeps/pipe\.yaml is a pipe, where a file is needed$",
    "+sweeps=round": r"\./sweeps/round\.yaml is a link that leads to no file",
    "+sweeps=folder": r"\./sweeps/folder\.yaml is a folder",
    "+sweeps=again": r"in a sweeps file's defaults list, write override /technique: inpaint$",
    "+sweeps=beside": r"in a sweeps file's defaults list, write override /technique: inpaint$",
    f"+sweeps={'n' * 61}": r"its sweep is called after it, .* up to 60 .*; sweep\.name=\.\.\. sets another$",
    "vars=3": r"vars=3: must hold texts",
    "--hydra-help": r"--hydra-help: not supported; see diffsweep --help",
    "--exp=job.pickle": r"--experimental-rerun is not supported",
}


LONG = "n" * 300


@pytest.mark.parametrize(
    "words",
    [
        ["input={name:file,path:'a\nb'}", "model=analytic"],
        ['input={name:file,path:"a\nb"}'],
        [f"technique={LONG}"],
        [f"{LONG}=3"],
        ["-m", f"{LONG}=1,2", f"{LONG}.x=1"],
        ["-m", f"+{LONG}=1,2"],
        [f"+sweeps={LONG}"],
        [f"{LONG}={{name:x}}"],
    ],
    ids=lambda words: " ".join(words)[:30],
)
def test_odd_words_are_mistakes_too(diffsweep, runner, capsys, words: list[str]) -> None:
    assert diffsweep(*words) == 2
    assert capsys.readouterr().err.startswith("diffsweep: ")
    assert runner.cells == []


@pytest.mark.parametrize("typed", REFUSED)
def test_mistakes_are_one_short_message(diffsweep, runner, tmp_path, capsys, typed: str) -> None:
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "mine.yaml").write_text(MINE)
    (tmp_path / "sweeps" / "sub").mkdir()
    (tmp_path / "sweeps" / "sub" / "mine.yaml").write_text(MINE)
    (tmp_path / "sweeps" / "other.yml").write_text(MINE)
    (tmp_path / "sweeps" / "loop.yaml").write_text("# @package _global_\ndefaults: [loop]\n")
    (tmp_path / "sweeps" / "bare.yaml").write_text("seed: 3\n")
    (tmp_path / "sweeps" / "broken.yaml").write_text("# @package _global_\nseed: [3\n")
    (tmp_path / "sweeps" / "astray.yaml").write_text(MINE.replace("technique: inpaint", "technique: inpant"))
    os.mkfifo(tmp_path / "sweeps/pipe.yaml")
    (tmp_path / "sweeps/round.yaml").symlink_to("round.yaml")
    (tmp_path / "sweeps/folder.yaml").mkdir()
    for name, line in ("again", "/technique: inpaint"), ("beside", "technique: inpaint"):
        (tmp_path / f"sweeps/{name}.yaml").write_text(f"# @package _global_\ndefaults:\n  - {line}\n")
    (tmp_path / f"sweeps/{'n' * 61}.yaml").write_text("# @package _global_\nseed: 3\n")
    assert diffsweep(*typed.split()) == 2
    (message,) = capsys.readouterr().err.splitlines()
    assert message.startswith("diffsweep: ")
    assert re.search(REFUSED[typed], message), message
    assert runner.cells == []


@pytest.mark.parametrize(
    "typed, told",
    [
        ("-m seed=0,1 seed=2,3", "note: seed=0,1 is dropped: seed=2,3 comes later\n"),
        ("-m seed=0,1 seed=3", "note: seed=0,1 is dropped: seed=3 comes later\n"),
        ("-m seed=0,1 scheduler.steps=2,3", ""),
        ("seed=1 seed=2", ""),
    ],
)
def test_a_sweep_that_a_later_word_replaces_is_told(diffsweep, runner, capsys, typed: str, told: str) -> None:
    assert diffsweep(*typed.split()) == 0
    assert capsys.readouterr().err == told
    last = typed.rpartition("seed=")[2].split()[0]
    assert {str(cell["seed"]) for cell, _ in runner.cells} == {*last.split(",")}


def test_the_whole_error_on_request(diffsweep, monkeypatch, capsys) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    assert diffsweep("guidance.scal=7") == 2
    assert "Traceback" in capsys.readouterr().err
    assert os.environ["HYDRA_FULL_ERROR"] == "1"


@pytest.mark.parametrize(
    "text", ["it's a dog", 'say "hi" (there', "back\\slash (x", "[open", "a, b'", "'\" both", "café", "熊猫,狗", "~/x"]
)
def test_the_quoting_that_is_proposed_gives_the_text(diffsweep, runner, capsys, text: str) -> None:
    assert diffsweep(f"prompt={text}") == 2
    proposed = capsys.readouterr().err.strip().rpartition("quotes: ")[2]
    (word,) = shlex.split(proposed)
    assert OverridesParser.create().parse_override(word).value() == text  # Hydra's own reading of it
    assert diffsweep(word) == 0
    assert runner.cells[0][0]["prompt"] == text


@pytest.mark.slow
def test_help_names_every_group_and_its_examples_work(diffsweep, runner, capsys) -> None:
    assert diffsweep("--help") == 0
    text = capsys.readouterr().out
    for folder in filter(Path.is_dir, shipped("conf").iterdir()):
        assert re.search(rf"^{folder.name}: .*{next(folder.glob('*.yaml')).stem}", text, flags=re.MULTILINE)
    for file in shipped("sweeps").glob("*.yaml"):
        assert file.stem in text
    examples = [line.strip() for line in text.partition("== Examples ==")[2].splitlines() if line.startswith("  diff")]
    assert len(examples) > 4
    for example in examples:
        words = shlex.split(re.split(r" {4,}", example)[0])
        assert diffsweep(*words[1:]) == 0, example
        if "-m" in words:
            assert len(runner.calls[-1].cells) > 1, example


def test_version(diffsweep, capsys) -> None:
    from importlib.metadata import version

    assert diffsweep("--version") == 0
    assert capsys.readouterr().out == f"diffsweep {version('diffsweep')}\n"


def test_help_loads_nothing_heavy(tmp_path) -> None:
    code = "import sys\nfrom diffsweep.app import main\ntry: main()\nexcept SystemExit: pass\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, "--help"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    loaded = {name.partition(".")[0] for name in done.stdout.splitlines()[-1].split()}
    assert loaded & {"torch", "numpy", "pandas", "diffusers", "transformers", "wandb", "PIL"} == set()
