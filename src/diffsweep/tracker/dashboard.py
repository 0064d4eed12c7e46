"""A saved view of Weights & Biases for one sweep, as code: the panels that its runs fill, and no others.

wandb-workspaces knows how W&B spells a panel. A view's name follows from its sweep, so that made again it is written
anew, not doubled. The library reads a filter as text, in which an `=` is an operator even within a sweep's name, and
refuses such a name for a view: both are put into the finished view instead.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from diffsweep.core.files import is_folder, write_atomic
from diffsweep.core.keys import given
from diffsweep.core.problems import BadInput
from diffsweep.report.figure.style import COLOURS
from diffsweep.report.selection import levels, split_axes
from diffsweep.report.text import shown
from diffsweep.store.pictures import IMAGE, WATCHED
from diffsweep.store.schema import CellEntry, Document
from diffsweep.tracker.logged import read
from diffsweep.tracker.run_logs import cell_run_id, group_of, media_key, run_id, shown_files, stored
from diffsweep.tracker.service import service
from diffsweep.tracker.steps import mean_name, step_key
from diffsweep.tracker.wandb import MOST_RUNS, Wandb

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Section
    from wandb_workspaces.workspaces.internal import View

    from diffsweep.report.write import Report
    from diffsweep.store.cells import Store


MOST_PANELS = 24  # of a section
MOST_COLUMNS = 16  # of the parallel coordinates


def dashboard(place: Wandb, store: Store, sweep: Document, to: str | None = None) -> str:
    """Save a sweep's view, or write it to a file as JSON. Answers one line that says where; BadInput where it fails."""
    if to and is_folder(Path(to).expanduser()):
        raise BadInput(f"to={to}: a folder; the name of a file is needed")
    try:
        from wandb_workspaces.workspaces import internal
    except ModuleNotFoundError:
        raise BadInput("dashboard needs wandb-workspaces: pip install 'diffsweep[dashboard]'") from None
    import wandb

    from diffsweep.report.write import write_all

    with service() as settings:
        entity = given(place.entity) or settings.entity
        project = given(place.project) or settings.project or "diffsweep"
        if to:
            spec = view(store, sweep, write_all(store, sweep), entity or "", project).spec
            text = spec.model_dump_json(by_alias=True, exclude_none=True, indent=1)
            write_atomic(Path(to).expanduser(), text.encode())
            return to
        with _asking():
            entity = entity or wandb.Api().default_entity or ""
        found = view(store, sweep, write_all(store, sweep), entity, project)
        with _asking():
            found.id = _saved(entity, project, _name(sweep))
            internal.upsert_view2(found)
        return f"wandb: {settings.app_url}/{quote(entity)}/{quote(project)}?nw={_name(sweep)}"


@contextmanager
def _asking() -> Iterator[None]:
    """A server's error, or its silence, in one line."""
    try:
        yield
    except Exception as error:
        raise BadInput(f"wandb: {' '.join(str(error).split())} (to=FILE.json needs no server)") from None


def _saved(entity: str, project: str, name: str) -> str:
    """The id of the view of this name, empty where there is none yet."""
    from wandb_workspaces.workspaces import internal

    try:
        return str(internal.get_view_dict(entity, project, name)["id"])
    except ValueError as error:
        if str(error).startswith("Workspace"):  # not found, but its project is
            return ""
        raise


def view(store: Store, sweep: Document, report: Report, entity: str, project: str) -> View:
    """What is saved: the runs of the sweep's group, and panels of what they hold."""
    from wandb_workspaces import expr
    from wandb_workspaces import workspaces as ws

    held, own = Held.of(store, sweep, report), run_id(sweep)
    logged = read(report.folder / "wandb")
    told = logged.keys() or {own, *held.cells}  # nothing yet: all that may come
    group = [entry["group"] for entry in logged.values()] or [group_of(sweep["name"])]
    if not group[-1]:
        raise BadInput(f"{sweep['name']}: its run is an agent's, and shown on W&B's page of the agent's sweep")
    whole = told - set(held.cells)  # the sweep's own run, under an agent the agent's
    sections = [*(_of_cells(held) if told - whole else ()), *(_of_sweep(held) if whole else ())]
    columns = [f"config:{_spelled(key)}" for key in held.axes.values()]
    workspace = ws.Workspace(
        entity=entity,
        project=project,
        sections=[section for section in sections if section.panels],
        settings=ws.WorkspaceSettings(max_runs=min(len(held.cells), MOST_RUNS) + 1),
        runset_settings=ws.RunsetSettings(
            order=[ws.Ordering(ws.Metric("CreatedTimestamp"), ascending=True)],
            pinned_columns=[*columns, *(f"summary:{name}" for name in (*held.metrics, "nfe", "seconds"))],
            pinned_runs=[own] if own in told else [],  # else the first of them may be all that a panel asks for
            run_settings={run: ws.RunSettings(color=colour) for run, colour in held.colours.items()},
        ),
    )
    found = workspace._to_model()
    found.name, found.display_name = f"nw-{_name(sweep)}-v", sweep["name"]
    (runs,) = found.spec.section.run_sets
    runs.filters = expr.filters_tree_to_v2((ws.Metric("Group") == group[-1]).to_model())
    for section in found.spec.section.panel_bank_config.sections:
        panels: list[Any] = section.panels
        for i, panel in enumerate(panels):
            panel.id = hashlib.sha256(f"{section.name} {i}".encode()).hexdigest()[:12]  # else a random one
    return found


def _name(sweep: Document) -> str:
    """As it stands in the view's address; `nw-<name>-v` is how W&B keeps it."""
    return run_id(sweep)[:11]


@dataclass(frozen=True)
class Held:
    """What a sweep's runs hold, by its names for W&B.

    cells: the runs of cells, and their colours by the first axis. axes: the key of a cell's configuration for each axis
    that has one. numbers, words: those of them that make a setting. metrics: those with values. pictures, steps, media:
    the keys of a cell's pictures, of those on its way from noise, and of what the sweep's own run shows.
    """

    cells: list[str]
    colours: dict[str, str]
    axes: dict[str, str]
    numbers: list[str]
    words: list[str]
    metrics: list[str]
    pictures: list[str]
    steps: list[str]
    media: list[str]

    @classmethod
    def of(cls, store: Store, sweep: Document, report: Report) -> Held:
        frame = report.frame.drop_duplicates("cell_id")
        cells = stored(store, sweep)
        records = [store.record(cell["cell_id"]) for cell in cells]
        found = {axis: _key(axis, cells, [record["config"] for record in records]) for axis in sweep["axes"]}
        axes = {axis: key for axis, key in found.items() if key}
        making = [axis for axis in split_axes(frame)[0] if axis in axes]
        numbers = [axis for axis in making if all(type(value) in (int, float) for value in sweep["axes"][axis])]
        runs = [cell_run_id(sweep, cell_id) for cell_id in frame["cell_id"]]
        coloured = zip(runs[:MOST_RUNS], levels(frame, making[:1]), strict=False) if making else ()
        names = list(dict.fromkeys(file.removesuffix(".png") for record in records for file in record["files"]))
        return cls(
            cells=runs,
            colours={run: COLOURS[level % len(COLOURS)] for run, level in coloured},
            axes=axes,
            numbers=numbers,
            words=[axis for axis in making if axis not in numbers],
            metrics=[name for name in frame.attrs["metrics"] if frame[name].notna().any()],
            pictures=sorted((name for name in names if not WATCHED.fullmatch(name)), key=lambda name: name != IMAGE),
            steps=list(dict.fromkeys(match[2] for name in names if (match := WATCHED.fullmatch(name)))),
            media=["samples", step_key(IMAGE), *map(media_key, shown_files(report)), "report"],
        )


def _key(axis: str, cells: Sequence[CellEntry], configs: Sequence[Mapping[str, Any]]) -> str | None:
    """The key of a cell's configuration, with dots, that tells an axis's values apart: its own, or for a choice of a
    group one of the chosen part's, its name first."""
    values = [shown(cell["axes"].get(axis)) for cell in cells]
    leaves = [dict(_leaves(config, axis)) for config in configs]
    keys = dict.fromkeys(key for there in leaves for key in there)
    for key in sorted(keys, key=lambda key: not key.endswith(".name")):
        told = [shown(there.get(key)) for there in leaves]
        if len(set(zip(values, told, strict=True))) == len(set(values)) == len(set(told)):
            return key
    return None


def _leaves(config: Mapping[str, Any], axis: str) -> Iterator[tuple[str, Any]]:
    """The value at this place, or the values directly below it; no lists."""
    value: Any = config
    for word in axis.split("."):
        value = value.get(word) if isinstance(value, Mapping) else None
    below = {f"{axis}.{key}": leaf for key, leaf in value.items()} if isinstance(value, Mapping) else {axis: value}
    for key, leaf in below.items():
        if leaf is not None and not isinstance(leaf, Mapping | list):
            yield key, leaf


def _spelled(key: str) -> str:
    """W&B keeps each entry of a configuration as {"value": ...}."""
    first, *rest = key.split(".")
    return ".".join([first, "value", *rest])


def _of_cells(held: Held) -> Iterator[Section]:
    """Parallel coordinates, each metric against each axis, pictures, and runs beside each other."""
    from wandb_workspaces.reports.v2 import interface as wr

    key = {axis: wr.Config(name) for axis, name in held.axes.items()}
    value = {name: wr.SummaryMetric(name) for name in (*held.metrics, "nfe")}
    lines: list[wr.Config | wr.SummaryMetric] = [*key.values(), *value.values()]
    columns = [wr.ParallelCoordinatesPlotColumn(metric=one) for one in lines[:MOST_COLUMNS]]
    yield _section("Settings and metrics", [wr.ParallelCoordinatesPlot(columns=columns)], 1)
    plots = [
        wr.ScatterPlot(title=f"{name} against {axis}", x=key[axis], y=value[name])
        if axis in held.numbers
        else wr.BarPlot(
            title=f"{name} by {axis}",
            metrics=[name],
            groupby=key[axis],
            groupby_aggfunc="mean",
            groupby_rangefunc="stddev",
            max_runs_to_show=MOST_RUNS,
            max_bars_to_show=MOST_RUNS,
        )
        for name, axis in product(held.metrics, (*held.numbers, *held.words))
    ]
    yield _section("Metrics against axes", plots, 3)
    pictures = [wr.MediaBrowser(title=name, media_keys=[name], gallery_axis="run") for name in held.pictures]
    way = wr.MediaBrowser(title="from noise", media_keys=held.steps, grid_x_axis="step", grid_y_axis="run")
    yield _section("Pictures", [*pictures, *([way] if held.steps else [])], 2)
    yield _section("Runs beside each other", [wr.RunComparer(diff_only="split")], 1)


def _of_sweep(held: Held) -> Iterator[Section]:
    """The sweep's own run: each cell's metrics and their mean so far, sheets, figures, the page."""
    from wandb_workspaces.reports.v2 import interface as wr

    lines = [
        wr.LinePlot(title=name, x=step_key("number"), y=[step_key(name), step_key(mean_name(name))])
        for name in held.metrics
    ]
    media = [wr.MediaBrowser(title=name, media_keys=[name]) for name in held.media]
    yield _section("The sweep", [*lines, *media], 3)


def _section(name: str, panels: Sequence[Any], columns: int) -> Section:
    from wandb_workspaces import workspaces as ws

    rows = min(-(-len(panels) // columns), 4) or 1
    layout = ws.SectionLayoutSettings(columns=columns, rows=rows)
    return ws.Section(name=name, panels=list(panels[:MOST_PANELS]), is_open=True, layout_settings=layout)
