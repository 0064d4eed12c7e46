"""Files of the user's own: what they may set, what they may not, and that nothing of it runs."""

import os
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf

from diffsweep.core.problems import BadInput
from diffsweep.paths import shipped
from hydra_plugins.diffsweep_fused._allowed import CHOICES, KEYS
from hydra_plugins.diffsweep_fused._files import DEEPEST, MOST_BYTES, READINGS, UserFiles
from hydra_plugins.diffsweep_fused._loader import Loader

READS = "${oc.env:HOME}"
GLOBAL = "# @package _global_\n"


@pytest.fixture
def compose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hydra_restore_singletons: None) -> Any:
    """What Hydra composes of these files of the user's, plain and unresolved."""
    Plugins.instance()
    monkeypatch.chdir(tmp_path)
    search = create_config_search_path(str(shipped("conf")))

    def composed(*overrides: str, mode: RunMode = RunMode.MULTIRUN, **files: str) -> Any:
        for name, text in files.items():
            file = tmp_path / f"{name.replace('__', '/')}.yaml"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        if (tmp_path / "mine").is_dir():
            search.prepend("command-line", f"file://{tmp_path / 'mine'}", SearchPathQuery(provider="schema"))
        config = Loader(search).load_configuration("config", list(overrides), mode)
        return OmegaConf.to_container(config, resolve=False)

    return composed


REFUSED = {
    "logging": "hydra: {job_logging: {formatters: {x: {(): pandas.read_pickle, filepath_or_buffer: evil.pkl}}}}",
    "a log file": "hydra: {hydra_logging: {handlers: {x: {class: logging.FileHandler, filename: victim, mode: w}}}}",
    "a callback": "hydra: {callbacks: {x: {a: b}}}",
    "a callback without keys": "hydra: {callbacks: {x: {}}}",
    "a hidden callback": "hydra: {callbacks: '${made}'}\nmade: {a: b}",
    "the whole node": "hydra: '${made}'\nmade: {callbacks: {}}",
    "a class": "x: {_target_: os.system}",
    "a class, written otherwise": 'x: {"\\x5ftarget_": os.system}',
    **{
        f"a secret in a sweep, {line}": f"hydra: {{sweeper: {{params: {{prompt: {line}}}}}}}"
        for secret in ("${oc.env:HOME}", "\\${oc.env:HOME}", "\\\\\\${oc.env:HOME}")
        for line in (f"'{secret}'", f"""'"{secret}"'""", f"'a,{secret}'", f"'[{secret}]'")
    },
    "a secret that a key escapes": "prompt: '\\${oc.env:HOME}'",
    "the launcher's class": "hydra: {launcher: '${made}'}",
    "a class among the sweeps": "hydra: {sweeper: {params: {x: {_target_: os.system}}}}",
    "the sweeps as a whole": "hydra: {sweeper: {params: '${made}'}}",
    **{
        f"a sweep over {key}": "defaults: [override /hydra/launcher: basic]\n"
        f"hydra: {{sweeper: {{params: {{'{key}': '{value}'}}}}}}"
        for key, value in {
            "hydra.job_logging.root": "{handlers:[x]}",
            "+hydra.job_logging.handlers": "{x:{class:logging.FileHandler,filename:victim,mode:w}}",
            "++hydra.job_logging.handlers.x": "{class:logging.FileHandler,filename:victim,mode:w}",
            "hydra.job.env_set": "{PATH:x}",
            "hydra.sweep.dir": "/tmp",
            "~hydra.callbacks": "",
            "hydra": "{verbose:true}",
            "hydra/job_logging": "default",
            "+mask@hydra.job_logging": "box",
            "+mask@_global_.hydra.callbacks": "box",
            "mask@mask:hydra.callbacks": "box",
        }.items()
    },
    "the environment of jobs": "hydra: {job: {env_set: {PATH: x}}}",
    "the environment copied": "hydra: {job: {env_copy: [HOME]}}",
    "where files are looked for": "hydra: {sweep: {dir: /tmp}}",
    "a shell's commands": "hydra: {launcher: {setup: [rm -rf x]}}",
    "a line more": 'hydra: {launcher: {comment: x, name: "x\\nrm -rf x"}}',
    "a line more of a known key": 'hydra: {launcher: {name: "x\\nrm -rf x"}}',
    "a function by its name": "hydra: {sweeper: {custom_search_space: os.system}}",
    "an environment variable": "prompt: ${oc.env:HOME}",
    "one in a list": "metric: {names: [psnr, '${oc.env:HOME}']}",
    "one within another": "prompt: ${oc.select:x,${oc.env:HOME}}",
    "a decoded one": "prompt: ${oc.decode:'\\${oc.env:HOME}'}",
    "a dictionary of text": "x: \"${oc.create:'{_tar'}\"",
    "Hydra's own values": "prompt: ${hydra:runtime.cwd}",
    "Hydra's own nodes": "prompt: ${hydra.runtime.cwd}",
    "Hydra's own nodes, from within": "x: {y: '${..hydra.launcher}'}",
    "a key that is computed": "x: hydra\ny: ${${x}.launcher}",
    "another's logging": "defaults: [override /hydra/job_logging: default]",
    "another's callback": "defaults: [override /hydra/callbacks: log]",
    "another's environment": "defaults: [/hydra/env: mine]",
    "a choice by its path": "defaults: [/hydra/job_logging/default]",
    "a package of Hydra's": "defaults: [/technique@hydra.callbacks: inpaint]",
    "a package within a package": "defaults: [/technique@_global_.hydra.callbacks: inpaint]",
    "a path that climbs": "defaults: [/technique/../hydra/job_logging: default]",
    "an unknown launcher": "defaults: [override /hydra/launcher: evil]",
    "a group that is computed": "defaults: ['/${x}/job_logging: default']",
    "a choice that is computed": "defaults: [/technique: '${oc.env:HOME}']",
}


@pytest.mark.parametrize("content", REFUSED.values(), ids=REFUSED)
def test_a_file_that_reaches_for_more_is_refused_and_named(compose: Any, content: str) -> None:
    with pytest.raises(BadInput, match=r"sweeps/evil\.yaml: .*(is refused|plain value)"):
        compose("+sweeps=evil", sweeps__evil=GLOBAL + content)


@pytest.mark.parametrize(
    "typed, files",
    {
        "a header": ("+sweeps=evil", {"sweeps__evil": "# @package hydra.callbacks\nx: {a: b}"}),
        "a header, in full": ("+sweeps=evil", {"sweeps__evil": "# @package _global_.hydra.callbacks\nx: {a: b}"}),
        "a package that is typed": ("+mask@hydra.callbacks=evil", {"mine__mask__evil": "x: {a: b}"}),
        "a folder of Hydra's": ("hydra/callbacks=evil", {"mine__hydra__callbacks__evil": "x: {a: b}"}),
        "logging": ("hydra/job_logging=evil", {"mine__hydra__job_logging__evil": "version: 1"}),
        "a launcher's keys": ("hydra/launcher=evil", {"mine__hydra__launcher__evil": "setup: [ls]"}),
        "a launcher's class": ("hydra/launcher=evil", {"mine__hydra__launcher__evil": "_target_: os.system"}),
        "the sweeps": ("+mask@hydra.sweeper=evil", {"mine__mask__evil": "params: {x: '${y}'}"}),
        "a choice": ("mask=evil", {"mine__mask__evil": "# @package _global_\nhydra: {verbose: true}"}),
    }.values(),
)
def test_no_route_leads_there(compose: Any, typed: str, files: dict[str, str]) -> None:
    with pytest.raises(BadInput, match=r"evil\.yaml: .*(is refused|plain value)"):
        compose(typed, **files)


@pytest.mark.parametrize("paths", ["['file:///tmp']", "[]", "{}"])
def test_a_file_adds_no_folder_that_configurations_are_read_from(compose: Any, paths: str) -> None:
    """Hydra itself refuses it."""
    with pytest.raises((BadInput, HydraException), match=r"hydra\.searchpath"):
        compose("+sweeps=evil", sweeps__evil=f"{GLOBAL}hydra: {{searchpath: {paths}}}")


@pytest.mark.parametrize("defaults", ["5", "inpaint", "{override /technique: inpaint}", "true"])
def test_a_defaults_list_that_is_none_is_refused(compose: Any, defaults: str) -> None:
    with pytest.raises(BadInput, match=r"^sweeps/odd\.yaml: defaults=.*: must be a list, as in \[override"):
        compose("+sweeps=odd", sweeps__odd=f"{GLOBAL}defaults: {defaults}")


def test_empty_keys_of_what_a_file_may_set_are_none(compose: Any) -> None:
    config = compose("+sweeps=bare", sweeps__bare=GLOBAL + "hydra: {launcher: {}, sweeper: {params: {}}}\nseed: 4")
    assert config["seed"] == 4
    assert compose("+sweeps=none", sweeps__none=GLOBAL + "hydra: {}\nseed: 5")["seed"] == 5


def test_nothing_of_a_file_runs(compose: Any, tmp_path: Path) -> None:
    """The two files that did: a pickle that was read, and a file that was emptied."""

    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "ran"),)

    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(Evil()))
    (tmp_path / "victim").write_text("precious")
    for name in ("logging", "a log file"):
        with pytest.raises(BadInput, match=r"hydra\.\w+_logging\.\S+ is refused"):
            compose("+sweeps=evil", mode=RunMode.RUN, sweeps__evil=GLOBAL + REFUSED[name])
    assert not (tmp_path / "ran").exists()
    assert (tmp_path / "victim").read_text() == "precious"


def test_what_a_file_may_set(compose: Any) -> None:
    content = """
defaults: [override /technique: inpaint, override /hydra/sweeper: basic]
vars: {animal: cat}
prompt: a ${vars.animal}
scheduler: {steps: 9}
hydra: {mode: MULTIRUN, sweeper: {max_batch_size: 3, params: {seed: "0,1", +vars.of: 'a,b', prompt: '"x ${vars.of}"'}}}
"""
    config = compose("+sweeps=good", sweeps__good=GLOBAL + content)
    assert (config["technique"]["name"], config["scheduler"]["steps"]) == ("inpaint", 9)
    assert config["prompt"] == "a ${vars.animal}"
    assert config["hydra"]["sweeper"]["_target_"].endswith("BasicSweeper")
    assert config["hydra"]["sweeper"]["max_batch_size"] == 3
    assert config["hydra"]["sweeper"]["params"] == {
        "seed": "0,1",
        "+vars.of": "a,b",
        "prompt": '"x ' + "\\" * (2**READINGS - 1) + '${vars.of}"',  # for each job to resolve
    }


def test_a_folder_of_the_users_adds_choices(compose: Any) -> None:
    config = compose("mask=wide", mine__mask__wide="defaults: [box, _self_]\nx0: 0.1\nx1: ${.x0}\n")
    assert (config["mask"]["name"], config["mask"]["x0"], config["mask"]["x1"]) == ("box", 0.1, "${.x0}")


@pytest.mark.parametrize("typed, expected", [((), "BasicLauncher"), (("hydra/launcher=fused",), "FusedLauncher")])
def test_a_file_chooses_launcher_and_sweeper_unless_one_is_typed(
    compose: Any, typed: tuple[str, ...], expected: str
) -> None:
    """conf/config.yaml overrides them too, and Hydra obeys the first override that it meets."""
    base = "# @package _global_\ndefaults: [override /hydra/launcher: basic]\n"
    config = compose("+sweeps=one", *typed, sweeps__one=base)
    assert config["hydra"]["launcher"]["_target_"].endswith(expected)
    config = compose("+sweeps=two", *typed, sweeps__two="# @package _global_\ndefaults: [one, _self_]\n")
    assert config["hydra"]["launcher"]["_target_"].endswith(expected)


def test_a_launchers_key_under_another_launcher_is_told_with_its_reason(compose: Any) -> None:
    from diffsweep.explain import explain

    with pytest.raises(HydraException) as error:
        compose("+sweeps=one", sweeps__one=GLOBAL + "hydra: {launcher: {n_jobs: 2}}")
    assert explain(error.value) == "sweeps/one.yaml: hydra.launcher.n_jobs: Key 'n_jobs' not in 'FusedLauncherConf'"


def test_the_known_settings_are_those_of_the_installed_plugins() -> None:
    """The allow list, held against the configuration that a launcher or sweeper itself declares."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeperConf

    from hydra_plugins.diffsweep_fused.fused import FusedSweeperConf

    for declared in (BasicSweeperConf, FusedSweeperConf):
        keys = {("sweeper", key) for key in declared.__dataclass_fields__} - {("sweeper", "_target_")}
        assert keys <= KEYS | {("sweeper", "params")}
    assert all("_target_" not in key and "setup" not in key for key in KEYS)
    assert {"fused", "basic"} <= set(CHOICES["hydra/launcher"]) & set(CHOICES["hydra/sweeper"])


@pytest.mark.parametrize("typed", [f"{key}{READS}" for key in ("prompt=", "+vars.x=a,", "prompt=x ", "++metric={a:")])
def test_a_resolver_that_is_typed_would_enter_records(compose: Any, typed: str) -> None:
    with pytest.raises(BadInput, match=r"\$\{oc\.env:\.\.\.\} is refused.*shell"):
        compose(typed + "}" * typed.count("={"))


def test_what_may_be_typed(compose: Any) -> None:
    config = compose("hydra.verbose=true", "prompt=job ${hydra:job.num}", "hydra.sweep.dir=${oc.env:HOME}")
    assert config["prompt"] == "job ${hydra:job.num}"
    config = compose('prompt="\\${oc.env:HOME}"')  # the text itself
    assert config["prompt"] == "\\${oc.env:HOME}"


@pytest.mark.parametrize("option, name", [("--config-path", "/tmp"), ("--config-name", "mine")])
def test_diffsweeps_own_configuration_is_not_replaced(hydra_restore_singletons: None, option: str, name: str) -> None:
    path = name if option == "--config-path" else str(shipped("conf"))

    def compose() -> None:
        Loader(create_config_search_path(path)).load_configuration(name, [], RunMode.RUN)

    with pytest.raises(BadInput, match=rf"{option} would replace diffsweep's configuration"):
        compose()


BOMBS = {
    "aliases": ("a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
    ), "20,000 values"),
    "merges": ("a0: &a0 {x: 1}\n" + "".join(
        f"a{i}: &a{i} {{b: [{','.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 12)
    ), "20,000 values"),
    "itself": ("a: &a [*a]", "stands within"),
    "depth": (f"a: {'[' * 5000}{']' * 5000}", f"{DEEPEST} levels"),
    "size": ("# " + "x" * MOST_BYTES, "bytes"),
    "a number": ("seed: " + "9" * 10_000, "digits"),
    "no text": ("prompt: \udcff", "UTF-8"),
    "no keys": ("- a", "must hold keys"),
}  # fmt: skip


@pytest.mark.parametrize("text, reason", BOMBS.values(), ids=BOMBS)
def test_a_file_is_read_with_bounds(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "bomb.yaml").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(BadInput, match=rf"^bomb\.yaml: .*{reason}"):
        UserFiles("command-line", f"user://{tmp_path}").load_config("bomb")


def test_aliases_within_bounds_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("x: &x {y: [1, 2]}\nz: {<<: *x, w: *x}\n")
    config = UserFiles("command-line", f"user://{tmp_path}").load_config("a").config
    assert config == {"x": {"y": [1, 2]}, "z": {"y": [1, 2], "w": {"y": [1, 2]}}}


@pytest.mark.parametrize(
    "line, sweep, one",
    [
        ("seed: [0, 1, 2]", "seed: 0,1,2", 'seed: "[0,1,2]"'),
        ("technique.prompts: [a, b]", "technique.prompts: a,b", "[a,b]"),
    ],
)
def test_a_yaml_list_among_the_sweeps_is_refused_with_what_to_write(
    compose: Any, line: str, sweep: str, one: str
) -> None:
    content = f"{GLOBAL}hydra: {{sweeper: {{params: {{{line}}}}}}}"
    with pytest.raises(BadInput, match=rf"^sweeps/lists\.yaml: hydra\.sweeper.*{re.escape(sweep)}; .*{re.escape(one)}"):
        compose("+sweeps=lists", sweeps__lists=content)


def test_the_cells_of_a_file_are_counted(compose: Any) -> None:
    content = GLOBAL + "hydra: {sweeper: {params: {seed: 'range(0,1000001)', guidance.scale: '1,2'}}}\n"
    with pytest.raises(BadInput, match=r"^2,000,002 cells \(seed: 1,000,001 x guidance\.scale: 2\)"):
        compose("+sweeps=big", sweeps__big=content)
    with pytest.raises(BadInput, match=r"^3,000,003 cells"):
        compose("+sweeps=big", "guidance.scale=1,2,3")
    compose("+sweeps=big", "seed=1,2")
    compose("+sweeps=big", sweeps__big=content + "confirm: true\n")


def test_texts_in_files_stay_as_they_are_written(compose: Any) -> None:
    content = """
prompt: 1_1_1
seed: 1_000
output_dir: 2024_01_01
sweep: {name: 1e3}
guidance: {scale: 1e1, negative_prompt: yes}
input: {id: 1.50}
vars: {a: 007, b: on}
metric: {references: 0x10}
hydra: {sweeper: {params: {prompt: 1e3, seed: 1_0}}}
"""
    config = compose("+sweeps=texts", sweeps__texts=GLOBAL + content)
    assert (config["prompt"], config["output_dir"], config["sweep"]["name"]) == ("1_1_1", "2024_01_01", "1e3")
    assert (config["seed"], config["guidance"]["scale"]) == (1000, 10.0)
    assert config["guidance"]["negative_prompt"] == "yes"
    assert config["input"]["id"] == "1.50"
    assert config["vars"] == {"a": "007", "b": "on"}
    assert config["metric"]["references"] == "0x10"
    assert config["hydra"]["sweeper"]["params"] == {"prompt": "1e3", "seed": "1_0"}
