"""A sweep's plan: all cells frozen, all mistakes found at once, before anything is loaded. Needs no torch."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffsweep.core.device import not_a_device
from diffsweep.core.files import root_of
from diffsweep.core.keys import AUTO, at, given
from diffsweep.core.leases import GRACE
from diffsweep.core.problems import BadInput, did_you_mean, one_of, require, within
from diffsweep.core.text import printed
from diffsweep.runner.cell import Cell
from diffsweep.runner.freeze import AROUND, BLOCKS, block_of, freeze
from diffsweep.runner.metric_notes import metric_notes
from diffsweep.runner.model_notes import model_notes
from diffsweep.runner.notes import notes
from diffsweep.runner.parts import build, coerced

if TYPE_CHECKING:
    from diffsweep.metric import Chosen

Raw = tuple[Mapping[str, Any], Mapping[str, Any]]  # a composed configuration, and what it varies of its sweep
MOST_THREADS = 1024  # more than any processor computes with; torch takes any number and dies of it
FOLDERS, LOTS, MANY = "folders", "lots", 100_000  # how cells are stored; cells from which on lots are
MOST_STEPS = 10_000  # more than any schedule has: all are kept
NAME = r"[\w,=@+-][\w.,=@+ -]{0,59}"  # of a sweep
NAMES = "up to 60 letters, digits, space and any of . , = @ + - _ (no dot first)"
_stamps: dict[Any, object] = {}  # of models' files, by the model's settings, as they were first read
ENGINE: dict[str, tuple[float, ...]] = {  # the limits of its numbers
    "rows": (1,),
    "threads": (1, MOST_THREADS),
    "trajectory": (0, MOST_STEPS),
    "retries": (0, 100),
    "grace": (1, 86400),
}
COMMON = ("device", "output_dir", "plugins", "confirm", "plan", *AROUND)


@dataclass(frozen=True, eq=False)
class Plan:
    """Frozen cells in order, and the settings they have in common."""

    name: str
    cells: tuple[Cell, ...]
    root: Path
    device: str
    rows: int | None
    threads: int | None
    trajectory: int
    retries: int
    grace: float
    devices: str
    format: str | None
    metrics: Chosen
    tracker: Any
    grid: Mapping[str, Any]
    replace: bool
    notes: tuple[str, ...]

    @property
    def packs(self) -> bool:
        """Whether its cells go into lots: where it asks for it, or has so many that folders would be too many."""
        return self.format == LOTS or (self.format is None and len(self.cells) >= MANY)


def axes_of(settings: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Each axis with its values, in the order they first appear; 1, 1.0 and true are three."""
    axes: dict[str, dict[str, Any]] = {}
    for setting in settings:
        for axis, value in setting.items():
            axes.setdefault(axis, {}).setdefault(json.dumps(value, default=str), value)
    return {axis: list(values.values()) for axis, values in axes.items()}


def plan(raw: Sequence[Raw], name: str | None = None) -> Plan:
    """Freeze every cell; BadInput holds each distinct mistake of the whole sweep once."""
    problems: dict[str, None] = {}
    cells = []
    for config, axes in raw:
        try:
            cells.append(freeze(config, axes))
        except BadInput as error:
            problems.update(dict.fromkeys(error.messages))
    common = raw[0][0]
    for key in COMMON:
        if any(config.get(key) != common.get(key) for config, _ in raw):
            problems[f"{key}: cannot differ within a sweep"] = None
    for axis, value in () if problems else chain(*(axes.items() for _, axes in raw)):
        if isinstance(value, float) and not math.isfinite(value):
            problems[f"{axis}={value}: must be finite"] = None
    blocks: dict[str, Any] = {}
    varied = dict.fromkeys(chain(*(axes for _, axes in raw)), ())
    for reader in (_sweep, _root, _engine, _store, _metrics, _tracker, partial(_grid, varied), _device):
        try:
            blocks.update(reader(common))
        except BadInput as error:
            problems.update(dict.fromkeys(error.messages))
    name = blocks.pop("name", None) or (name if isinstance(name, str) else None)
    if name is not None and not re.fullmatch(NAME, name):
        problems[f"sweep.name={name}: {NAMES}"] = None
    if problems:
        raise BadInput(problems)
    require(*_changed(cells))
    blocks.setdefault("replace", False)
    about = tuple(dict.fromkeys((*model_notes(cells), *notes(cells), *metric_notes(cells, blocks["metrics"]))))
    return Plan(name=name or automatic_name(cells), cells=tuple(cells), notes=about, **blocks)


def _changed(cells: Iterable[Cell]) -> Iterator[str]:
    """A problem for each model whose files are others than those that this process has read."""
    networks = {stage.network: stage.config_key for cell in cells for stage in cell.cascade}
    for network, key in networks.items():
        if hasattr(network, "stamp") and _stamps.setdefault(network, stamp := network.stamp()) != stamp:
            yield f"{key}.path={network.path}: its files have changed since this process read them: start Python again"


def automatic_name(cells: Sequence[Cell]) -> str:
    """Technique and swept keys in short, with a hash of cells and axes, so that two unnamed sweeps never mix."""
    techniques = list(dict.fromkeys(cell.config["technique"]["name"] for cell in cells))
    axes = list(dict.fromkeys(axis.rpartition(".")[2] for cell in cells for axis in cell.axes))
    asked = json.dumps([(cell.id, dict(cell.axes)) for cell in cells], sort_keys=True, default=str)
    digest = hashlib.sha256(asked.encode()).hexdigest()[:8]
    return "-".join([*techniques[:3], *axes[:4], digest])


def _typed(block: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """A block's values, each of its type."""
    hints, problems, values = BLOCKS[block], [], {}
    for key, value in block_of(config, block).items():
        if key not in hints:
            problems.append(f"{block}.{key}: unknown key; it has {', '.join(hints)}{did_you_mean(key, hints)}")
            continue
        try:
            values[key] = coerced(value, hints[key])
        except TypeError as error:
            problems.append(f"{block}.{key}={printed(value)}: {error}")
    if problems:
        raise BadInput(problems)
    return values


def _sweep(config: Mapping[str, Any]) -> dict[str, Any]:
    values = _typed("sweep", config)
    return values | {"name": given(values.get("name", AUTO))}


def _root(config: Mapping[str, Any]) -> dict[str, Any]:
    given = str(config.get("output_dir") or "outputs")
    if "$" in given:
        raise BadInput(f"output_dir={given}: no shell has replaced the $; double quotes let it, single quotes do not")
    return {"root": root_of(given, writes=True)}


def _engine(config: Mapping[str, Any]) -> dict[str, Any]:
    values = _typed("engine", config)
    require(
        *(within(f"engine.{key}", values.get(key), *limits) for key, limits in ENGINE.items()),
        one_of("engine.devices", values.get("devices", "same"), ("same", "any")),
    )
    rows, threads = (given(values.get(key, AUTO)) for key in ("rows", "threads"))
    defaults = {"trajectory": 0, "retries": 1, "grace": GRACE, "devices": "same"}
    return {**defaults, **values, "rows": rows, "threads": threads}


def _store(config: Mapping[str, Any]) -> dict[str, Any]:
    asked = given(_typed("store", config).get("format", AUTO))
    require(one_of("store.format", asked or AUTO, (AUTO, FOLDERS, LOTS)))
    return {"format": asked}


def _metrics(config: Mapping[str, Any]) -> dict[str, Any]:
    from diffsweep.metric import Options, choose

    values = _typed("metric", config)
    values.pop("name", None)
    names = values.pop("names", ())
    return {"metrics": choose(names, Options(**values, plugins=_plugins(config)))}


def _plugins(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The plugins; none where they are wrong, which freezing reports."""
    try:
        return tuple(coerced(config.get("plugins") or [], tuple[str, ...]))
    except TypeError:
        return ()


def _tracker(config: Mapping[str, Any]) -> dict[str, Any]:
    tracker = block_of(config, "tracker") or {"name": "none"}
    return {"tracker": build("tracker", tracker, _plugins(config))}


def _grid(axes: Mapping[str, Sequence[Any]], config: Mapping[str, Any]) -> dict[str, Any]:
    from diffsweep.report.grid import SIDES, layout

    grid: dict[str, Any] = {key: given(value) for key, value in _typed("grid", config).items()}
    absent = object()

    def varies(axis: str | None) -> bool:
        """False for an axis that this run holds at one value."""
        return axis in axes or at(config, axis or "", absent) is absent

    grid |= {key: None for key in ("rows", "cols") if not varies(grid.get(key))}
    grid |= {"blocks": tuple(filter(varies, grid["blocks"]))} if grid.get("blocks") else {}
    try:
        require(within("size", grid.get("size"), *SIDES))
        layout(axes, **{key: grid[key] for key in ("rows", "cols", "blocks") if key in grid})
    except BadInput as error:
        raise BadInput(f"grid.{message}" for message in error.messages) from None
    metric = config.get("metric")
    names = metric.get("names", ()) if isinstance(metric, Mapping) else ()
    if wrong := [name for name in grid.get("metric") or () if name not in names]:
        there = f"it measures {', '.join(names)}" if names else "it measures nothing"
        raise BadInput(f"grid.metric={name}: not of this sweep; {there}{did_you_mean(name, names)}" for name in wrong)
    return {"grid": grid}


def _device(config: Mapping[str, Any]) -> dict[str, Any]:
    device = config.get("device", "auto")
    if isinstance(device, int):
        device = str(device)
    if isinstance(device, str):
        require(not_a_device(device))
    return {"device": device}
