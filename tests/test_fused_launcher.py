"""The fused launcher and sweeper: Hydra's own suites for plugins, and Hydra's own composition as the oracle."""

import random
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobStatus
from hydra.errors import HydraException
from hydra.test_utils.launcher_common_tests import (
    BatchedSweeperTestSuite,
    IntegrationTestSuite,
    LauncherTestSuite,
)
from hydra.types import RunMode
from omegaconf import OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from hydra_plugins.diffsweep_fused.composer import Composer

FUSED = ["hydra/sweeper=fused"]
old_hydra = pytest.mark.filterwarnings("ignore:.*working directory:UserWarning")  # Hydra's suites name no version_base


@old_hydra
@pytest.mark.parametrize("launcher_name, overrides", [("fused", []), ("fused", FUSED), ("basic", FUSED)])
class TestFusedLauncher(LauncherTestSuite):
    pass


@old_hydra
@pytest.mark.parametrize("launcher_name, overrides", [("fused", [*FUSED, "hydra.sweeper.max_batch_size=2"])])
class TestFusedSweeperInBatches(BatchedSweeperTestSuite):
    pass


@old_hydra
@pytest.mark.slow
@pytest.mark.parametrize("task_launcher_cfg, extra_flags", [({}, ["-m", "hydra/launcher=fused", *FUSED])])
class TestFusedLauncherIntegration(IntegrationTestSuite):
    pass


@dataclass
class Guidance:
    name: str = "none"
    scale: float = 1.0
    levels: list[float] = field(default_factory=lambda: [1.0, 2.0])
    extra: dict[str, int] = field(default_factory=dict)
    limit: int | None = None


FILES = {
    "config": """
        defaults: [model: small, technique: plain, guidance: none, view: flip, view@second: turn, _self_]
        seed: 0
        prompt: a dog
        copy: ${prompt} again
        sizes: [1, 2]
        nothing: null
        open: ???
        free: {a: 1, b: {c: 2}}
        """,
    "model/small": "{name: small, size: 8, twice: '${.size}'}",
    "model/large": "{name: large, size: 64, depth: {blocks: [1, 2, 3]}}",
    "technique/plain": "{name: plain, t: 10}",
    "technique/pair": "{name: pair, prompts: ['${prompt}', a cat], t: 20, of: '${guidance.scale}', up: '${..seed}'}",
    "technique/env": "{name: env, where: '${oc.env:HOME}', all: '${oc.select:free.b.c}', chain: '${copy}'}",
    "technique/numbered": "{name: numbered, job: '${hydra:job.num}'}",
    "guidance/none": "defaults: [base_guidance, _self_]\n        name: none",
    "guidance/cfg": "defaults: [base_guidance, _self_]\n        name: cfg\n        scale: 4",
    "view/flip": "{name: flip, axis: vertical}",
    "view/turn": "{name: turn, angle: 90}",
    "sweeps/some": """
        # @package _global_
        defaults:
          - override /technique: pair
        seed: 5
        """,
}

JOBS = [
    [],
    ["seed=1"],
    ["seed=2", "guidance.scale=7"],
    ["seed=2", "guidance.scale=7.5", "technique=pair"],
    ["seed=3", "technique=pair", "prompt=a cat"],
    ["seed=3", "technique=pair", "technique.t=30", "guidance=cfg"],
    ["seed=4", "technique=pair", "technique.prompts=[x,'y, z',null]", "model=large"],
    ["technique=env", "free.b.c=9", "prompt='it is, so'"],
    ["technique=env", "++free={a:5,d:{e:6}}"],
    ["+free.new=1", "++free.a=2", "~free.b"],
    ["~copy", "+fresh={x:[1,2]}", "++fresh.y=3"],
    ["~sizes", "+brand=new"],
    ["sizes=[]", "free.b=null", "nothing={k:v}"],
    ["sizes.1=7", "open=closed"],
    ['prompt="quoted \\"inside\\""', "technique=pair"],
    ["prompt=null", "seed=-1", "copy='${seed} and ${prompt}'"],
    ["prompt='${copy2}'", "+copy2=${model.size}", "model.size=9"],
    ["technique=pair", "technique.t='${seed}'", "seed=11"],
    ["technique=pair", "guidance.scale=3", "guidance.levels=[1,2,3]", "+guidance.extra.k=4"],
    ["guidance.limit=3", "guidance.levels.0=5"],
    ["guidance.limit=null", "guidance.levels=[]"],
    ["view@second=flip", "second.axis=horizontal"],
    ["+view@third=turn", "+third.more=1"],
    ["~view@second"],
    ["technique=[plain,pair]", "technique.t=1"],
    ["technique={t:99}", "model={size:3}"],
    ["+sweeps=some"],
    ["+sweeps=some", "seed=6", "technique.t=7"],
    ["technique=numbered", "seed=8"],
    ["model=large", "model.depth.blocks=[9]", "seed=1e3"],
    ["free.a=true", "free.b.c=1_000", "prompt=a\\,b"],
    ["seed=1", "seed=2", "free.a=1", "free={a:2}", "free.b.c=3"],
]


@pytest.fixture
def loader(tmp_path: Path, hydra_restore_singletons: None):
    for name, text in FILES.items():
        file = tmp_path / f"{name}.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_text("\n".join(line.removeprefix("        ") for line in text.strip("\n").splitlines()) + "\n")
    ConfigStore.instance().store(group="guidance", name="base_guidance", node=Guidance)
    yield Hydra.create_main_hydra2("test", create_config_search_path(str(tmp_path))).config_loader
    GlobalHydra.instance().clear()


@pytest.fixture
def master(loader: ConfigLoaderImpl):
    return loader.load_configuration("config", [], RunMode.MULTIRUN)


def by_hydra(loader: ConfigLoaderImpl, master, lines: list[str], number: int):
    """What a job of Hydra's basic launcher sees, resolved."""
    config = loader.load_sweep_config(master, lines)
    with open_dict(config):
        config.hydra.job.num = number
    HydraConfig.instance().set_config(config)
    task = config.copy()
    with open_dict(task):
        del task["hydra"]
    return OmegaConf.to_container(task, resolve=True)


@pytest.mark.slow
def test_plain_configs_equal_hydras_own_composition(loader, master) -> None:
    expected = [by_hydra(loader, master, lines, number) for number, lines in enumerate(JOBS)]
    composer = Composer(loader, master)
    order = [*range(len(JOBS))] * 3
    random.Random(0).shuffle(order)
    for number in order:  # one composer for all, in any order: no job leaves a trace in another's
        got = composer.plain(JOBS[number], number)
        assert got == expected[number], JOBS[number]
        assert repr(sorted(got.items())) == repr(sorted(expected[number].items())), "types differ"


@pytest.mark.parametrize(
    "lines",
    [
        ["guidance.scal=7"],
        ["guidance.scale=seven"],
        ["seed.x=1"],
        ["technique=nonesuch"],
        ["nonesuch=1"],
        ["+seed=1"],
        ["~nonesuch"],
        ["technique=pair", "technique.of=${nonesuch}"],
        ["guidance.levels=[a]"],
        ["++technique=pair"],
        ["seed=1,2"],
    ],
)
def test_what_hydra_refuses_is_refused_in_the_same_words(loader, master, lines: list[str]) -> None:
    errors = (HydraException, OmegaConfBaseException)
    with pytest.raises(errors) as hydras:
        by_hydra(loader, master, lines, 0)
    with pytest.raises(errors) as ours:
        Composer(loader, master).plain(lines)
    assert str(ours.value) == str(hydras.value)


class Batch:
    """A task function with a batch entry that only remembers."""

    def __init__(self) -> None:
        self.launches: list[list] = []

    def __call__(self, cfg) -> None:
        raise AssertionError("a batch entry is not run job by job")

    def freeze(self, config, axes, overrides):
        return config, axes, overrides

    def many(self, cells) -> list[int]:
        self.launches.append(cells)
        return [config["seed"] for config, _, _ in cells]


def sweep(loader: ConfigLoaderImpl, *arguments: str, sweeper: str = "fused"):
    GlobalHydra.instance().clear()
    hydra = Hydra.create_main_hydra2("test", loader.get_search_path())
    task = Batch()
    arguments = ("hydra/launcher=fused", f"hydra/sweeper={sweeper}", "hydra.output_subdir=null", *arguments)
    returns = hydra.multirun("config", task, list(arguments), with_log_configuration=False)
    return task, [job for batch in returns for job in batch]


@pytest.mark.parametrize("sweeper", ["fused", "basic"])
def test_a_multirun_is_one_call_in_hydras_order(loader, tmp_path, monkeypatch, sweeper: str) -> None:
    monkeypatch.chdir(tmp_path)
    task, returns = sweep(loader, "seed=2,3", "technique=pair,plain", "prompt=x", "hydra.sweep.dir=.", sweeper=sweeper)
    ((first, *_, last),) = task.launches
    assert [job.return_value for job in returns] == [2, 2, 3, 3]
    assert {job.status for job in returns} == {JobStatus.COMPLETED}
    assert returns[0].overrides == ["seed=2", "technique=pair", "prompt=x"]
    assert (first[1], last[1]) == ({"seed": 2, "technique": "pair"}, {"seed": 3, "technique": "plain"})
    assert last[0]["technique"] == {"name": "plain", "t": 10}
    assert (tmp_path / "multirun.yaml").exists() == (sweeper == "basic")


def test_axes_are_what_varies_over_the_whole_multirun_in_every_batch(loader, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    task, _ = sweep(
        loader,
        "seed=range(0,3)",
        "guidance.scale=3,7",
        "technique=choice(pair)",
        "prompt=x",
        "hydra.sweep.dir=.",
        "hydra.sweeper.max_batch_size=1",
    )
    assert len(task.launches) == 6
    axes = [axes for cells in task.launches for _, axes, _ in cells]
    assert axes == [{"seed": seed, "guidance.scale": scale} for seed in range(3) for scale in (3.0, 7.0)]
    assert all(isinstance(found["guidance.scale"], float) for found in axes)  # as the schema types it


def test_axes_of_a_sweeper_that_declares_nothing_are_what_differs(loader, master) -> None:
    from hydra_plugins.diffsweep_fused.fused import FusedLauncher

    launcher, task = FusedLauncher(), Batch()
    callbacks = SimpleNamespace(on_job_start=lambda **_: None, on_job_end=lambda **_: None)
    launcher.setup(
        hydra_context=SimpleNamespace(config_loader=loader, callbacks=callbacks), task_function=task, config=master
    )
    launcher.launch([["seed=1", "prompt=x"], ["seed=2", "prompt=x", "free.a=3"]], 0)
    assert [axes for _, axes, _ in task.launches[0]] == [{"seed": 1}, {"seed": 2, "free.a": 3}]


@pytest.mark.slow
def test_ten_thousand_jobs_are_composed_once_a_choice_of_groups(loader, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    composed = []
    original = ConfigLoaderImpl.load_sweep_config
    monkeypatch.setattr(
        ConfigLoaderImpl, "load_sweep_config", lambda *arguments: composed.append(1) or original(*arguments)
    )
    task, returns = sweep(
        loader, "seed=range(0,1000)", "model=small,large", "guidance.scale=range(1,6)", "hydra.sweep.dir=."
    )
    assert len(returns) == 10_000
    assert len(composed) == 2
    for group, distinct in {"technique": 2, "guidance": 2 * 5}.items():  # nodes are shared between jobs
        assert len({id(config[group]) for config, _, _ in task.launches[0]}) == distinct


@pytest.mark.parametrize("argument", ["technique=glob(nothing*)", "seed=range(0,0)"])
def test_a_sweep_over_nothing_is_refused(loader, tmp_path, monkeypatch, argument: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HydraException, match="Nothing to sweep over"):
        sweep(loader, argument, "hydra.sweep.dir=.")


def test_an_interval_is_refused_as_by_the_basic_sweeper(loader, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HydraException, match="does not support sweep type"):
        sweep(loader, "seed=interval(0,1)", "hydra.sweep.dir=.")
