"""The view that arrives at a server names what the runs of the same sweep hold: read back by `wandb leet inspect`."""

from __future__ import annotations

import base64
import json
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from diffsweep import results
from diffsweep.core.problems import BadInput
from diffsweep.tracker.dashboard import _key
from tests.tracker.runs import away, command, inspected, summary
from tests.tracker.server import KEY, PROJECT, Server, Serving

pytestmark = [
    pytest.mark.usefixtures("home"),
    pytest.mark.slow,  # the sweep is a real one
    pytest.mark.filterwarnings("ignore:Pydantic V1 style:DeprecationWarning"),  # wandb-workspaces, as it is imported
]
NAME = "soft=1, +2"  # a name that wandb-workspaces would refuse, and whose = it would take for an operator
AXES = {  # as they are typed, and the key of a cell's configuration that holds each
    "mask": ("mask", "name"),
    "guidance.scale": ("guidance", "scale"),
    "seed": ("seed",),
}


@dataclass(frozen=True)
class Logged:
    """The runs of a sweep of 8 cells: by id, what each came to; the sweep's own, and all it said; every group."""

    root: Path
    cells: dict[str, dict[str, Any]]
    own: dict[str, Any]
    history: dict[str, Any]
    groups: set[str]

    def numbers(self) -> set[str]:
        """The numbers in the cells' summaries, but the time they took and wandb's own."""
        found = {k for one in self.cells.values() for k, v in one["summary"].items() if type(v) in (int, float)}
        return {name for name in found if not name.startswith("_")} - {"seconds"}


def pictures(summary: Mapping[str, Any]) -> set[str]:
    return {k for k, value in summary.items() if isinstance(value, dict) and value.get("_type", "").startswith("image")}


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Logged:
    root = tmp_path_factory.mktemp("logged")
    words = ["model=analytic", "model.size=8", "scheduler.steps=2", "device=cpu", "technique=inpaint", "input=drawing"]
    words += ["prompt=red"]
    words += ["mask=box,half", "mask.softness=2", "guidance.scale=1,3", "seed=0,1", "engine.trajectory=2"]
    words += ["metric.names=[psnr,psnr_edge,psnr_outside]", "tracker=wandb", f'sweep.name="{NAME}"']
    with pytest.MonkeyPatch.context() as patch:
        away(patch, root / "home")
        done = command("diffsweep", "-m", *words, f"output_dir={root}", WANDB_MODE="offline")
    assert done.returncode == 0, done.stderr
    runs = [path.parent for path in (root / "sweeps" / NAME / "wandb").glob("*run-*/*.wandb")]
    found = {one["run_id"]: one for one in map(summary, runs)}
    records = {run: [json.loads(text) for text in inspected(run).splitlines()] for run in runs}
    (own,) = [name for name in found if "-" not in name]
    (said,) = [records[run] for run in runs if run.name.endswith(own)]
    return Logged(
        root=root,
        own=found.pop(own),
        cells=found,
        history={k: v for record in said for k, v in record.get("history", {}).get("item", {}).items()},
        groups={record["run"]["run_group"] for one in records.values() for record in one if record["type"] == "run"},
    )


class Views(Server):
    """It keeps views as W&B does: by an id of its own, each with the name it was given."""

    def __init__(self, refuses: str = "") -> None:
        super().__init__()
        self.refuses = refuses
        self.views: dict[str, dict[str, Any]] = {}

    def answer(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        if "mutation" in query and self.refuses:
            return {"errors": [{"message": self.refuses}], "data": None}
        return super().answer(query, variables)

    def data(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        if "upsertView" in query:
            new = "id" not in variables
            view_id = f"view-{len(self.views)}" if new else variables["id"]
            self.views[view_id] = variables
            return {"upsertView": {"view": {"id": view_id, "name": variables["name"]}, "inserted": new}}
        if "allViews" in query:
            if variables["name"] != PROJECT["name"]:
                return {"project": None}
            name = variables["viewName"], variables["viewType"]
            there = {i: view for i, view in self.views.items() if (view["name"], view["type"]) == name}
            edges = [{"node": {"id": i, **{k: v[k] for k in ("displayName", "spec")}}} for i, v in there.items()]
            return {"project": {"allViews": {"edges": edges}}}
        return super().data(query, variables)


@dataclass(frozen=True)
class Shown:
    """What a view's JSON shows: its sections' panels, each as its type and what it was given."""

    section: dict[str, Any]
    panels: dict[str, list[tuple[str, dict[str, Any]]]] = field(init=False)

    def __post_init__(self) -> None:
        sections = self.section["panelBankConfig"]["sections"]
        panels = {one["name"]: [(panel["viewType"], panel["config"]) for panel in one["panels"]] for one in sections}
        object.__setattr__(self, "panels", panels)

    def keys(self, section: str) -> list[str]:
        """The keys of its media panels."""
        kinds = [config["mediaKeys"] for kind, config in self.panels[section] if kind == "Media Browser"]
        return [key for keys in kinds for key in keys]


@pytest.fixture
def arrived(logged: Logged, serving: Serving, capsys: pytest.CaptureFixture[str]) -> tuple[Shown, dict[str, Any]]:
    """The view, and all that was sent with it."""
    server = serving(Views())
    assert results.run(["dashboard", NAME, f"output_dir={logged.root}"]) == 0
    ((sent,),) = [server.views.values()]
    out, err = capsys.readouterr()
    short = sent["name"].removeprefix("nw-").removesuffix("-v")
    assert (out, err) == (f"wandb: {server.url}/me/diffsweep?nw={short}\n", "")
    return Shown(json.loads(sent["spec"])["section"]), sent


def kept(config: Mapping[str, Any], spelled: str) -> Any:
    """The value at a key of W&B's, which keeps a run's configuration as {"guidance": {"value": {"scale": 1}}, ...}."""
    place: Any = {key: {"value": value} for key, value in config.items()}
    for word in spelled.split("."):
        place = place[word]
    return place


def test_parallel_coordinates_have_the_swept_axes_and_what_the_runs_measured(
    arrived: tuple[Shown, dict[str, Any]], logged: Logged
) -> None:
    ((kind, config),) = arrived[0].panels["Settings and metrics"]
    assert kind == "Parallel Coordinates Plot"
    columns = [column["accessor"].split(":") for column in config["columns"]]
    keys = [name for place, name in columns if place == "config"]
    assert [name.replace(".value", "").split(".") for name in keys] == [list(key) for key in AXES.values()]
    for name, values in zip(keys, ({"box", "half"}, {1, 3}, {0, 1}), strict=True):
        assert {kept(one["config"], name) for one in logged.cells.values()} == values
    numbers = [name for place, name in columns if place == "summary"]
    assert set(numbers) == logged.numbers() == {"psnr", "psnr_edge", "nfe"}  # outside of the mask nothing changes
    assert len(columns) == len(keys) + len(numbers)


def test_each_metric_is_shown_against_each_axis_that_makes_a_setting(arrived: tuple[Shown, dict[str, Any]]) -> None:
    panels = arrived[0].panels["Metrics against axes"]
    scatter = [(config["xAxis"], config["yAxis"]) for kind, config in panels if kind == "Scatter Plot"]
    assert scatter == [("config:guidance.value.scale", f"summary:{name}") for name in ("psnr", "psnr_edge")]
    bars = [(config["groupBy"], config["metrics"]) for kind, config in panels if kind == "Bar Chart"]
    assert bars == [("mask.value.name", ["psnr"]), ("mask.value.name", ["psnr_edge"])]
    assert len(panels) == len(scatter) + len(bars)


def test_the_media_are_those_that_were_logged(arrived: tuple[Shown, dict[str, Any]], logged: Logged) -> None:
    view, _ = arrived
    there = {key for cell in logged.cells.values() for key in pictures(cell["summary"])}
    assert set(view.keys("Pictures")) == there == {"image", "input", "mask", "hard_mask", "noisy", "clean"}
    (way,) = [config for _, config in view.panels["Pictures"] if set(config["mediaKeys"]) == {"noisy", "clean"}]
    assert way["gridSettings"] == {"xAxis": "step", "yAxis": "run"}
    kinds = {key.removesuffix("._type"): kind for key, kind in logged.history.items() if key.endswith("._type")}
    whole = {key for key, kind in kinds.items() if not kind.startswith("table")}
    assert not [key for key in whole if re.search(r"[^\w/]", key)]
    assert sorted(view.keys("The sweep")) == sorted(whole) and whole >= {"samples", "cells/image", "grid", "report"}


def test_the_sweeps_own_run_has_its_metrics_by_cell(arrived: tuple[Shown, dict[str, Any]], logged: Logged) -> None:
    lines = [config for kind, config in arrived[0].panels["The sweep"] if kind == "Run History Line Plot"]
    assert [line["metrics"] for line in lines] == [
        ["cells/psnr", "cells/psnr_mean"],
        ["cells/psnr_edge", "cells/psnr_edge_mean"],
    ]
    assert {line["xAxis"] for line in lines} == {"cells/number"}
    assert {key for line in lines for key in (line["xAxis"], *line["metrics"])} <= logged.history.keys()


def test_the_runs_are_those_of_the_group_and_the_sweeps_own_is_always_there(
    arrived: tuple[Shown, dict[str, Any]], logged: Logged
) -> None:
    (view, sent), (runs,) = arrived, arrived[0].section["runSets"]
    (one,) = runs["filters"]["filters"]
    assert (one["key"], one["op"], {one["value"]}) == ({"section": "run", "name": "group"}, "=", logged.groups)
    assert logged.groups == {NAME} == {sent["displayName"]}
    pinned = [base64.b64decode(name).decode() for name in runs["pinnedRunIds"]]
    assert pinned == [f"Run:v1:{logged.own['run_id']}:diffsweep:me"]
    assert view.section["settings"]["maxRuns"] == len(logged.cells) + 1
    assert (sent["type"], sent["entityName"], sent["projectName"]) == ("project-view", "me", "diffsweep")
    assert view.panels["Runs beside each other"] == [("Run Comparer", {"diffOnly": "split"})]


def test_a_run_has_the_colour_of_its_first_axis_and_its_axes_and_metrics_as_columns(
    arrived: tuple[Shown, dict[str, Any]], logged: Logged
) -> None:
    view, _ = arrived
    colours = view.section["customRunColors"]
    pairs = {(logged.cells[run]["config"]["mask"]["name"], colour) for run, colour in colours.items()}
    assert colours.keys() == logged.cells.keys() and len(pairs) == len(dict(pairs)) == 2
    ((_, config),) = view.panels["Settings and metrics"]
    columns = [column["accessor"] for column in config["columns"]]
    assert view.section["runSets"][0]["runFeed"]["columnOrder"] == ["run:displayName", *columns, "summary:seconds"]


def test_a_second_time_the_view_is_written_anew(logged: Logged, serving: Serving) -> None:
    server = serving(Views())
    words = ["dashboard", NAME, f"output_dir={logged.root}"]
    assert results.run(words) == 0
    first = {name: view["spec"] for name, view in server.views.items()}
    server.views["view-0"]["spec"] = '{"section": {}}'  # somebody has changed it
    assert results.run(words) == 0
    assert {name: view["spec"] for name, view in server.views.items()} == first


def test_of_a_sweep_that_is_logged_alone_there_are_no_panels_of_cells(logged: Logged, tmp_path: Path) -> None:
    before, after = unlogged_then(logged, tmp_path / "copy", "sweep")
    assert len(before.panels) == 5  # nothing is logged yet, all may come
    assert list(after.panels) == ["The sweep"] and after.panels["The sweep"] == before.panels["The sweep"]


def test_of_cells_that_are_logged_alone_there_is_no_run_of_the_sweep(logged: Logged, tmp_path: Path) -> None:
    before, after = unlogged_then(logged, tmp_path / "copy", "cell")
    own = base64.b64encode(f"Run:v1:{logged.own['run_id']}:diffsweep:".encode()).decode()
    pinned = [one.section["runSets"][0].get("pinnedRunIds", []) for one in (before, after)]
    assert pinned == [[own], []]
    assert after.panels.keys() == before.panels.keys() - {"The sweep"}


@pytest.mark.parametrize("group", ["thesis", ""])
def test_the_group_is_that_of_the_runs_wherever_the_view_is_made(
    group: str, logged: Logged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = shutil.copytree(logged.root, tmp_path / "other")
    shutil.rmtree(root / "sweeps" / NAME / "wandb")
    where = f"output_dir={root}"
    with monkeypatch.context() as patch:
        own = {"RUN_GROUP": group} if group else {"SWEEP_ID": "s1", "RUN_ID": "trial"}
        for name, value in own.items():
            patch.setenv(f"WANDB_{name}", value)
        assert results.run(["sync", NAME, where, "mode=offline", "granularity=sweep"]) == 0
    if not group:
        with pytest.raises(BadInput, match="its run is an agent's"):
            results.run(["dashboard", NAME, where, "to=view.json"])
        return
    assert results.run(["dashboard", NAME, where, "to=view.json"]) == 0
    (one,) = json.loads(Path("view.json").read_text())["section"]["runSets"][0]["filters"]["filters"]
    assert one["value"] == group


def unlogged_then(logged: Logged, root: Path, granularity: str) -> tuple[Shown, Shown]:
    """The view of a copy that is not logged, and the one after it was."""
    shutil.copytree(logged.root, root)
    shutil.rmtree(root / "sweeps" / NAME / "wandb")
    where = f"output_dir={root}"
    assert results.run(["dashboard", NAME, where, "to=before.json"]) == 0
    assert results.run(["sync", NAME, where, "mode=offline", f"granularity={granularity}"]) == 0
    assert results.run(["dashboard", NAME, where, "to=after.json"]) == 0
    before, after = (Shown(json.loads(Path(f"{name}.json").read_text())["section"]) for name in ("before", "after"))
    return before, after


@pytest.mark.parametrize(
    "start, words, message",
    [
        ({}, ("project=priors",), "wandb: Project `me/priors` not found. Do you have access to this project?"),
        ({"refuses": "permission denied"}, (), "permission denied"),
        ({}, ("project=a/b",), "project=a/b: must be 1 to 128 characters"),
        (None, (), "wandb: No API key configured."),
    ],
)
def test_what_keeps_it_from_being_saved_is_told_in_a_line(
    start: dict[str, str] | None, words: tuple[str, ...], message: str, logged: Logged, serving: Serving
) -> None:
    server = None if start is None else serving(Views(**start))
    with pytest.raises(BadInput) as raised:
        results.run(["dashboard", NAME, f"output_dir={logged.root}", *words])
    (told,) = raised.value.messages
    assert message in told and "\n" not in told and KEY not in told
    assert server is None or not server.views


def test_a_server_out_of_reach_is_told_in_a_line(logged: Logged) -> None:
    nowhere = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": KEY, "WANDB_HTTP_TIMEOUT": "1"}
    done = command("diffsweep-results", "dashboard", NAME, f"output_dir={logged.root}", **nowhere)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("diffsweep-results: wandb: ") and len(done.stderr.splitlines()) == 1
    assert "http://127.0.0.1:9" in done.stderr and KEY not in done.stderr


def test_a_folder_is_no_file_to_write_to(logged: Logged) -> None:
    with pytest.raises(BadInput, match=r"to=\.: a folder"):
        results.run(["dashboard", NAME, f"output_dir={logged.root}", "to=."])


def test_without_the_extra_its_name_is_told(logged: Logged, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("wandb_workspaces")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    with pytest.raises(BadInput, match=r"dashboard needs wandb-workspaces: pip install 'diffsweep\[dashboard\]'"):
        results.run(["dashboard", NAME, f"output_dir={logged.root}"])


@pytest.mark.parametrize(
    "axis, values, configs, expected",
    [
        ("seed", [0, 1], [{"seed": 0}, {"seed": 1}], "seed"),
        ("view", ["flip", "turn"], [{"view": {"axis": 0, "name": "flip"}}, {"view": {"name": "turn"}}], "view.name"),
        ("model", ["m", "l"], [{"model": {"name": "if", "path": path}} for path in "ml"], "model.path"),  # one name
        ("t", [1, None], [{"t": 1}, {"t": None}], "t"),
        ("prompts", [["a"], ["b"]], [{"prompts": ["a"]}, {"prompts": ["b"]}], None),  # a list is no value of an axis
        ("technique.prompts", ["a", "b"], [{"technique": {}}, {"technique": {}}], None),
        ("mask", ["a", "b"], [{"mask": {"name": "box"}}, {"mask": {"name": "box"}}], None),
    ],
)
def test_an_axis_is_the_key_that_tells_its_values_apart(
    axis: str, values: list[Any], configs: list[dict[str, Any]], expected: str | None
) -> None:
    assert _key(axis, [{"axes": {axis: value}} for value in values], configs) == expected
