"""`plan=true` on a command line: nothing runs, one plan is shown, and a sweep that is too large has its cost told."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra._internal.utils import create_config_search_path
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.types import RunMode

import diffsweep as ds
from diffsweep import app
from diffsweep.core.problems import BadInput
from diffsweep.core.text import duration
from diffsweep.model import hub
from diffsweep.paths import shipped
from diffsweep.runner import foresee
from diffsweep.runner.cost import Speed
from diffsweep.runner.rough import rough
from hydra_plugins.diffsweep_fused._large import Large, _line
from hydra_plugins.diffsweep_fused._loader import Loader

SMALL = ("model=analytic", "model.size=4", "scheduler.steps=3", "device=cpu", "metric=none", "guidance.scale=1")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hydra_restore_singletons: None) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(foresee, "timed", lambda *arguments: Speed(2.0, "call", "timed just now"))
    return tmp_path


@pytest.fixture
def diffsweep(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["diffsweep", *words])
        code = app.main()
        return code, *capsys.readouterr()

    return run


Run = Callable[..., tuple[int, str, str]]


# -- the command -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("words", "cells", "rows"),
    [
        (("prompt=red",), "1 cell: 0 stored, 1 to sample", "3 in at least 3 calls of 1 row"),
        (("-m", "seed=0,1,2"), "3 cells: 0 stored, 3 to sample", "9 in at least 3 calls of 3 rows"),
        (("-m", "seed=0,1,2", "hydra.sweeper.max_batch_size=2"), "3 cells: 0 stored, 3 to sample", "9 in at least 3"),
        (("-m", "seed=0,1,2", "hydra/launcher=local"), "3 cells: 0 stored, 3 to sample", "9 in at least 3 calls"),
        (("-m", "seed=0,1,2", "hydra/sweeper=basic"), "3 cells: 0 stored, 3 to sample", "9 in at least 3 calls"),
    ],
    ids=lambda value: "_".join(value) if isinstance(value, tuple) else "",
)
def test_one_plan_is_shown_and_nothing_runs(
    diffsweep: Run, here: Path, words: tuple[str, ...], cells: str, rows: str
) -> None:
    code, out, err = diffsweep(*SMALL, *words, "plan=true", "sweep.name=mine")
    assert code == 0 and out.startswith(f"plan      mine, {cells}\nmodel     analytic, float32: ")
    assert f"\n  rows    {rows}" in out and out.count("plan ") == 1
    assert [*here.iterdir()] == ([] if "hydra/sweeper=basic" not in words else [here / "multirun.yaml"])
    batches = "note: 2 batches of hydra.sweeper.max_batch_size, which share no model calls: more calls\n"
    assert (batches in err) == ("hydra.sweeper.max_batch_size=2" in words)
    elsewhere = "note: the plan is for this machine; workers on others may take another time\n"
    assert (elsewhere in err) == ("hydra/launcher=local" in words)


def test_a_plan_is_called_as_its_run_is(diffsweep: Run, here: Path) -> None:
    words = ("-m", *SMALL, "seed=0,1")
    _, out, _ = diffsweep(*words, "plan=true")
    assert diffsweep(*words)[0] == 0
    (folder,) = Path("outputs/sweeps").iterdir()
    assert out.startswith(f"plan      {folder.name}, 2 cells: 0 stored, 2 to sample\n")
    assert diffsweep(*words, "plan=true")[1] == (
        f"plan      {folder.name}, 2 cells: 2 stored, 0 to sample\nleft      nothing to sample\n"
    )
    (here / "sweeps").mkdir()
    text = "# @package _global_\nplan: true\nhydra: {mode: MULTIRUN, sweeper: {params: {seed: '0,1'}}}\n"
    (here / "sweeps/file.yaml").write_text(text)
    assert diffsweep(*SMALL, "+sweeps=file")[1].startswith("plan      file, 2 cells: 2 stored")


REFUSED = {
    ("plan=yes",): "plan=yes: must be true or false",
    ("-m", "plan=true,false"): "plan cannot be swept: give it one value, and call diffsweep once for each",
    ("-m", "plan=true", "seed=0,-1"): "seed=-1: must be between 0 and 9223372036854775807",
    ("-m", "plan=true", "seed=0,1", "hydra/launcher=basic"): (
        "plan=true: hydra/launcher=basic runs each cell on its own; leave it out: the cells are the same, in shared "
        "model calls"
    ),
    ("-m", "plan=true", "seed=0,1", "hydra/sweeper=optuna"): (
        "plan=true: hydra/sweeper=optuna chooses its cells while they run; leave it out, and list values"
    ),
}


@pytest.mark.parametrize("words", REFUSED, ids=lambda words: words[-1])
def test_what_cannot_be_planned_is_refused(diffsweep: Run, here: Path, words: tuple[str, ...]) -> None:
    if words[-1].endswith("optuna"):
        pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    assert diffsweep(*SMALL, *words) == (2, "", f"diffsweep: {REFUSED[words]}\n")
    assert [*here.iterdir()] == []


# -- in Python ---------------------------------------------------------------------------------------------------------
def test_python_gets_the_plan_as_a_value() -> None:
    found = ds.plan(*SMALL, seed=range(3), **{"sweep.name": "mine"})
    assert (found.cells, found.missing, found.rows, found.calls, found.seconds) == (3, 3, 9, 3, 6.0)
    assert repr(found).startswith("plan      mine, 3 cells") and not Path("outputs").exists()
    assert ds.plan("plan=true", *SMALL).cells == ds.plan(*SMALL, plan=True).cells == 1
    with pytest.raises(ds.BadInput, match=r"^plan=true: runs nothing; ds\.plan takes the same keys$"):
        ds.sweep(*SMALL, plan=True, seed=1)
    with pytest.raises(ds.BadInput, match="runs nothing"):
        ds.draw("red", *SMALL, plan=True)
    with pytest.raises(ds.BadInput, match=r"^10,000,000 cells .*: above 100,000 cells, .*confirm=true$"):
        ds.plan(*SMALL, seed=range(10_000_000))
    with pytest.raises(ds.BadInput, match=r"^seed=-1: must be"):
        ds.plan(*SMALL, seed=-1)


# -- too large ---------------------------------------------------------------------------------------------------------
def test_a_sweep_that_is_too_large_is_told_what_it_costs(diffsweep: Run, here: Path) -> None:
    """30,000,000 rows: 3 for each cell."""
    words = ("-m", *SMALL, "seed=range(0,10000000)")
    cost = "10,000,000 cells (seed: 10,000,000), some 30,000,000 model rows (3 a cell, of 16 cells looked at)"
    assert diffsweep(*words) == (
        2,
        "",
        f"diffsweep: {cost}: above 100,000 cells, say that they are meant: confirm=true\n",
    )
    code, out, err = diffsweep(*words, "plan=true")
    assert (code, err, out.splitlines()) == (
        0,
        "",
        [
            "plan      10,000,000 cells (seed: 10,000,000)",
            "          some 30,000,000 model rows (3 a cell, of 16 cells looked at)",
            "          above 100,000 cells, confirm=true plans each of them and, without plan=true, runs them",
        ],
    )
    assert [*here.iterdir()] == []
    wrong = ("-m", *SMALL, "seed=range(0,10000000)", "mask.side=inwards", "technique=inpaint")
    refused = "10,000,000 cells (seed: 10,000,000): above 100,000 cells, say that they are meant: confirm=true"
    assert diffsweep(*wrong) == (2, "", f"diffsweep: {refused}\n")
    code, _, err = diffsweep(*wrong, "plan=true")
    assert code == 2 and err.startswith("diffsweep: mask.side=inwards: must be one of ")


@pytest.fixture
def loader() -> Loader:
    Plugins.instance()
    return Loader(create_config_search_path(str(shipped("conf"))))


def test_the_figure_is_the_mean_of_cells_of_all_kinds(loader: Loader) -> None:
    """Half of the cells have 10 rows and half have 30: of 16 that chance chooses, the mean is between 13 and 27."""
    words = ["model=analytic", "guidance.scale=1", "scheduler.steps=10,30", "seed=range(0,100000)", "plan=true"]
    with pytest.raises(Large) as refused:
        loader.load_configuration("config", words, RunMode.MULTIRUN)
    (cells, rows, _) = refused.value.cost
    assert cells == "200,000 cells (scheduler.steps: 2 x seed: 100,000)" and refused.value.planned
    assert rows.endswith("model rows (10 to 30 a cell, of 16 cells looked at)")
    assert 13 * 200_000 <= int(rows.split()[1].replace(",", "")) <= 27 * 200_000


@pytest.mark.parametrize(
    "line",
    [
        *("seed=range(3,30,4)", "seed=range(9,1,-2)", "mask.softness=range(0,1,0.25)", "seed=1,2,5", "seed=range(4)"),
        *("technique=glob(*)", "technique=glob(in*)", 'prompt="a, b",c', "technique.views=[identity,flip],[flip]"),
        *("seed=3", "prompt='a b'", "seed=shuffle(range(0,5))", "~mask", "+vars.x=a,b"),
    ],
)
def test_the_cells_that_are_looked_at_are_the_sweeps_own(loader: Loader, line: str) -> None:
    """Hydra's own expansion is the oracle."""
    parser = OverridesParser.create(config_loader=loader)
    (override,) = parser.parse_overrides([line])
    key = override.get_key_element()
    if override.is_sweep_override():
        hydras = [f"{key}={value}" for value in override.sweep_string_iterator()]
        (override,) = parser.parse_overrides([line])  # its iterator is used up
        own = [_line(override, place) for place in range(len(hydras))]
        assert sorted(own) == sorted(hydras) if "shuffle" in line else own == hydras
    else:
        assert _line(override, 0) == f"{key}={override.get_value_element_as_str()}"


def test_stored_cells_tell_a_rough_time(diffsweep: Run) -> None:
    """The two stored cells' seconds and rows are the oracle."""
    assert diffsweep("-m", *SMALL, "seed=0,1")[0] == 0
    results = ds.load(next(Path("outputs/sweeps").iterdir()).name)
    seconds = float(results.frame["seconds"].sum()) / 6
    configs = [config for config, _ in app.composed([*SMALL, "seed=7,8"])]
    rows, time = rough(configs, 10**9)
    assert rows == "some 3,000,000,000 model rows (3 a cell, of 2 cells looked at)"
    assert time == f"some {duration(3e9 * seconds)} of sampling, as 2 stored cells took on cpu"


def test_a_refusal_asks_no_hub(loader: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def snapshot(self: hub.Repository, patterns: object, revision: str, cached: bool = False) -> Path:
        from huggingface_hub.errors import LocalEntryNotFoundError

        asked.append(cached)
        raise LocalEntryNotFoundError("not here")

    monkeypatch.setattr(hub.Repository, "_snapshot", snapshot)
    with pytest.raises(BadInput, match=r"^10,000,000 cells \(seed: 10,000,000\): above"):
        loader.load_configuration("config", ["model=if_m", "seed=range(0,10000000)"], RunMode.MULTIRUN)
    assert asked and all(asked)
    assert not hub._from_cache_alone
