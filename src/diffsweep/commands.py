"""The commands of `diffsweep-results`: a function each, which answers the exit code."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from diffsweep import upkeep
from diffsweep.core.device import not_a_device
from diffsweep.core.failures import ERRORS
from diffsweep.core.files import is_file, is_folder
from diffsweep.core.keys import AUTO
from diffsweep.core.problems import BadInput, one_of, require
from diffsweep.core.text import counted, visible
from diffsweep.export import STORE, WEBDATASET, export
from diffsweep.paths import shipped
from diffsweep.store import document, packing
from diffsweep.store.schema import Document
from diffsweep.store.stored import Stored, names

if TYPE_CHECKING:
    from diffsweep.store.schema import Chosen

COMMON = ("output_dir",)


def table(stored: Stored, keys: Mapping[str, str]) -> int:
    from diffsweep.report.results import Results
    from diffsweep.report.tabular import to_csv
    from diffsweep.terminal import print_table

    form = _format(keys, ("terminal", "markdown", "latex", "csv"))
    results = Results(stored)
    stats = _listed(keys, "stat") or ["mean"]
    rows, cols, over = (_listed(keys, name) for name in ("rows", "cols", "over"))
    summary = results.table(_measured(keys, results.frame), stats, rows, cols, over, _fewest(keys))
    if form == "terminal":
        print_table(summary.table, whole="metric" in keys)
    elif form == "csv":
        print(to_csv(summary.frame), end="")
    else:
        print(summary.to_markdown() if form == "markdown" else summary.to_latex(), end="")
    return 0


def compare(stored: Stored, keys: Mapping[str, str]) -> int:
    from diffsweep.report import comparison
    from diffsweep.report.frame import results
    from diffsweep.report.tabular import to_csv
    from diffsweep.report.text import markdown
    from diffsweep.report.variance import variance_split

    form = _format(keys, ("terminal", "markdown", "csv"))
    frame = results(stored.store, stored.sweep)
    own = {key: keys[key] for key in ("axis", "baseline", "test") if key in keys}
    metrics, over = _measured(keys, frame), _listed(keys, "over")
    found = comparison.compare(frame, metrics, **own, over=over, fewest=_fewest(keys))
    if form == "csv":
        if not found:
            print(comparison.nothing_to_compare(frame), file=sys.stderr)
        print(to_csv(comparison.to_frame(found)), end="")
        return 0
    splits = [variance_split(frame, name, over) for name in dict.fromkeys(one.metric for one in found)]
    blocks = [
        [one.sentence for one in found] or [comparison.nothing_to_compare(frame)],
        [comparison.explained(found, own.get("test", "wilcoxon"), _fewest(keys))] if found else [],
        [split.sentence for split in splits if split],
    ]
    bullet, gap = ("* ", "\n\n") if form == "markdown" else ("", "\n")
    escaped = [[bullet + (markdown(text) if bullet else text) for text in block] for block in blocks if block]
    print(gap.join("\n".join(block) for block in escaped))
    return 0


def grid(stored: Stored, keys: Mapping[str, str]) -> int:
    from diffsweep.report.frame import results
    from diffsweep.report.grid import SHEET, write_grid
    from diffsweep.report.write import usual_look

    keep = _keep(keys, "true", "false")
    frame = results(stored.store, stored.sweep)
    look: dict[str, Any] = {key: keys[key] for key in ("rows", "cols", "title") if key in keys}
    look |= {key: _listed(keys, key) for key in ("blocks", "pictures") if key in keys}
    if "metric" in keys:
        look["metric"] = _metrics(keys["metric"], frame.attrs["metrics"])
    if "size" in keys:
        look["size"] = _number("size", keys["size"])
    file = Path(keys["to"]).expanduser() if "to" in keys else stored.folder / SHEET
    if not is_folder(file.parent):
        raise BadInput(f"to={file}: {file.parent} does not exist")
    if "\\" in file.name:
        raise BadInput(f"to={file}: a name without a backslash is needed")
    for sheet in write_grid(
        file.parent,
        stored.store,
        stored.sweep,
        **(look or usual_look(stored.sweep, frame)),
        file=file.name,
        frame=frame,
    ):
        print(sheet)
    if keep == "true" and file.parent.resolve() == stored.folder.resolve():
        own = {file.name: look} if look else {}
        _choose(stored, lambda chosen: {"sheets": {k: v for k, v in chosen["sheets"].items() if k != file.name} | own})
    return 0


def figure(stored: Stored, keys: Mapping[str, str]) -> int:
    from diffsweep.report.comparison import redefined
    from diffsweep.report.figure import TRAJECTORY
    from diffsweep.report.frame import results
    from diffsweep.report.write import write_chosen

    keep = _keep(keys, "true", "false", "forget")
    frame = results(stored.store, stored.sweep)
    request: dict[str, Any] = {key: value for key, value in keys.items() if key not in (*COMMON, "keep")}
    if keys.get("kind") == TRAJECTORY or "cell" in keys:
        if unused := request.keys() - {"kind", "cell"}:
            raise BadInput(f"kind={TRAJECTORY}: knows cell alone, not {', '.join(sorted(unused))}")
        request = {"cell": keys.get("cell")}
        nothing = "no steps are stored; run the sweep again with engine.trajectory=8 to store eight"
    else:
        if "metric" in request:
            request["metrics"] = _metrics(request.pop("metric"), [*frame.attrs["metrics"], *frame.attrs["sets"]])
        if "over" in request:
            request["over"] = _listed(keys, "over")
        nothing = "this sweep has no axis beside the seed and the input, or nothing was measured"
    if keep == "forget":
        _forget(stored, request)
        return 0
    files = write_chosen(stored.folder, stored.store, stored.sweep, frame, request)
    if not files:
        raise BadInput(f"nothing to draw: {redefined(frame) or nothing}")
    for file in files:
        print(file)
    if keep == "true" and any(request.values()):
        _choose(stored, lambda chosen: {"figures": [one for one in chosen["figures"] if one != request] + [request]})
    return 0


def _flag(keys: Mapping[str, str], name: str, default: bool = False) -> bool:
    text = keys.get(name, str(default).lower())
    require(one_of(name, text, ("true", "false")))
    return text == "true"


def _keep(keys: Mapping[str, str], *allowed: str) -> str:
    """Whether later reports draw a sheet or a figure the same way again."""
    keep = keys.get("keep", "true")
    require(one_of("keep", keep, allowed))
    return keep


def _choose(stored: Stored, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Change what sweep.json keeps of the sheets and figures that were chosen."""

    def changed(sweep: Document) -> Document:  # a run may have added cells meanwhile
        before = {"sheets": {}, "figures": [], **sweep.get("chosen", {})}
        chosen = before | change(before)
        return {**sweep, "chosen": cast("Chosen", chosen)} if chosen != before else sweep

    document.change(stored.folder, changed)


def _forget(stored: Stored, request: Mapping[str, Any]) -> None:
    """Stop later reports from drawing a chosen figure, or all of them."""
    kept = stored.sweep.get("chosen", {}).get("figures", [])
    if not any(one == request or not request for one in kept):
        there = "; ".join(" ".join(f"{key}={value}" for key, value in one.items()) for one in kept) or "none"
        raise BadInput(f"keep=forget: no such figure is kept; there are {there}")
    _choose(stored, lambda chosen: {"figures": [one for one in chosen["figures"] if request and one != request]})


def _number(key: str, text: str) -> int:
    if not text.isdecimal():
        raise BadInput(f"{key}={text}: must be a whole number")
    return int(text)


def report(stored: Stored, keys: Mapping[str, str]) -> int:
    from diffsweep.report.write import STANDALONE, write_all
    from diffsweep.terminal import show

    embed = _flag(keys, "embed")
    written = write_all(stored.store, stored.sweep, standalone=embed)
    show(written)
    if embed:
        print(written.folder / STANDALONE)
    return 1 if written.failures else 0


def score(stored: Stored, keys: Mapping[str, str]) -> int:
    from diffsweep.metric import Options, choose, measured_sweep

    own = {key: keys[key] for key in ("missing", "judge", "features", "references") if key in keys}
    plugins = tuple(_listed(keys, "plugins"))
    try:
        chosen = choose(_metrics(keys.get("metric", "default")), Options(**own, plugins=plugins))
    except BadInput as error:  # its keys are those of a sweep's `metric` block
        names = re.compile(r"metric\.(missing|judge|features|references|names)\b")
        raise BadInput(names.sub(lambda m: m[1].replace("names", "metric"), text) for text in error.messages) from None
    for name, reason in chosen.unavailable.items():
        print(f"{name}: not measured: {reason}", file=sys.stderr)
    chosen.ready()
    device = keys.get("device", "auto")
    require(not_a_device(device))
    renewed, again = partial(document.read, stored.folder), _flag(keys, "force")
    packed = [*filter(stored.store.packed, stored.cell_ids)]
    with measured_sweep(stored.store, stored.folder, renewed, stored.cell_ids, chosen, device, again) as measured:
        there, failed = len(stored.cell_ids), measured.failed
        lacking = there - measured.changed
        others = f"; {lacking} had these numbers already, or could not be measured" if lacking > 0 else ""
        print(f"{measured.changed} of {counted('cell', there)} measured{others}", file=sys.stderr)
        for name, reason in measured.without.items():
            print(f"{name}: {reason}", file=sys.stderr)
        written = failed.write(stored.folder / ERRORS, measured.document)
        packing.pack(stored.store, packed, shows=True)
        code = report(replace(stored, sweep={**measured.document, "name": stored.sweep["name"]}), {})
    for name, reason in failed.items():
        print(visible(f"metric {name} failed: {reason}"), file=sys.stderr)
    if written:
        print(f"traceback{'s' * written.is_dir()}: {written}", file=sys.stderr)
    for cell_id in stored.lost:
        print(f"{cell_id}: not in the store", file=sys.stderr)
    return 1 if failed or stored.store.damaged or stored.lost else code


def _format(keys: Mapping[str, str], allowed: Sequence[str]) -> str:
    form = keys.get("format", "terminal")
    require(one_of("format", form, allowed))
    return form


def _fewest(keys: Mapping[str, str]) -> int:
    """The repeats that an interval takes."""
    from diffsweep.report.results import require_repeats
    from diffsweep.report.statistics import FEWEST

    text = keys.get("repeats", str(FEWEST))
    require_repeats(int(text) if text.isdecimal() else text)
    return int(text)


def _listed(keys: Mapping[str, str], name: str) -> list[str]:
    """The words that a key holds: with commas, or as the list that diffsweep takes."""
    return _words(keys.get(name, ""))


def _words(text: str) -> list[str]:
    inner = text.strip()
    inner = inner[1:-1] if inner.startswith("[") and inner.endswith("]") else inner
    return [word.strip(" '\"") for word in inner.split(",") if word.strip(" '\"")]


def _measured(keys: Mapping[str, str], frame: Any) -> list[str] | None:
    """The metrics that metric= names, None where all are meant."""
    return _metrics(keys["metric"], [*frame.attrs["metrics"], *frame.attrs["sets"]]) if "metric" in keys else None


def _metrics(text: str, there: Iterable[str] = ()) -> list[str]:
    """Names with commas, or a choice of conf/metric: of a choice, those that are there, or all."""
    import yaml  # type: ignore[import-untyped]

    choice = shipped("conf") / "metric" / f"{text}.yaml"
    if not is_file(choice):
        return _words(text)
    chosen = list(yaml.safe_load(choice.read_text())["names"])
    return [name for name in chosen if name in there] or chosen


def verify(stored: Stored, keys: Mapping[str, str]) -> int:
    return upkeep.verify(stored, _flag(keys, "all"), _flag(keys, "repair"))


def watch(stored: Stored, keys: Mapping[str, str]) -> int:
    """A bar over all workers of a sweep, until it is finished or nobody is at work."""
    import time

    from tqdm.auto import tqdm

    from diffsweep.runner.watch import watch

    def done() -> list[str]:
        return [cell_id for cell_id in ids if stored.store.is_complete(cell_id)]

    every = float(keys.get("every", "1")) if re.fullmatch(r"\d+(\.\d+)?", keys.get("every", "1")) else 0.0
    if every <= 0:
        raise BadInput(f"every={keys['every']}: must be a number of seconds above 0")
    ids = list(dict.fromkeys(cell["cell_id"] for cell in stored.sweep["cells"]))
    before, first = len(done()), None
    with tqdm(total=len(ids), initial=before, unit="cell", dynamic_ncols=True) as bar:
        for seen in watch(stored.folder):
            first = seen.cells if first is None else first
            bar.n = min(len(ids), before + seen.cells - first)
            bar.set_description_str(str(seen))
            time.sleep(every)
        bar.n = number = len(done())
        bar.set_description_str(f"{number}/{len(ids)} cells")
    if number == len(ids):
        print(f"{stored.folder}/: all {counted('cell', number)} stored")
        return 0
    lacking = counted("cell", len(ids) - number)
    print(f"{stored.folder}/: nobody is at work; not stored: {lacking}; to go on: {visible(stored.sweep['command'])}")
    return 1


def stop(stored: Stored, keys: Mapping[str, str]) -> int:
    from diffsweep.core.leases import Gone
    from diffsweep.runner.shared import stop

    number = 0
    for place in (stored.folder / "work").glob("[!.]*"):
        with suppress(Gone):
            number += stop(place)
    told = "they end within seconds, and what they have stored stays" if number else "nobody is at work"
    print(f"{stored.folder}/: {counted('worker', number)}: {told}")
    return 0


def pack(stored: Stored, keys: Mapping[str, str]) -> int:
    return upkeep.pack(stored)


def unpack(stored: Stored, keys: Mapping[str, str]) -> int:
    return upkeep.unpack(stored)


def exported(stored: Stored, keys: Mapping[str, str]) -> int:
    if not (to := keys.get("to")):
        raise BadInput("to: a folder or a .zip file is needed, as in to=for_a_colleague")
    form = keys.get("format", WEBDATASET if to == WEBDATASET else STORE)
    require(one_of("format", form, (STORE, WEBDATASET)))
    return export(stored, to, form)


def sync(stored: Stored, keys: Mapping[str, str]) -> int:
    from diffsweep.report.write import write_all
    from diffsweep.runner.parts import build
    from diffsweep.terminal import show_failures

    own: dict[str, Any] = {key: value for key, value in keys.items() if key not in COMMON}
    if "tags" in own:
        own["tags"] = _listed(keys, "tags")
    tracker = build("tracker", {"name": "wandb", **own})
    report = write_all(stored.store, stored.sweep)
    if line := tracker.log(stored.store, stored.sweep, report):
        print(visible(line))
    show_failures(report)
    return 1 if report.failures else 0


def dashboard(stored: Stored, keys: Mapping[str, str]) -> int:
    from diffsweep.tracker import dashboard
    from diffsweep.tracker.wandb import Wandb

    place = Wandb(project=keys.get("project", AUTO), entity=keys.get("entity", AUTO))
    print(visible(str(dashboard.dashboard(place, stored.store, stored.sweep, keys.get("to")))))
    return 0


def listed(root: Path, keys: Mapping[str, str]) -> int:
    print("\n".join(names(root)) or f"no sweeps under {root}")
    return 0


def gc(root: Path, keys: Mapping[str, str]) -> int:
    return upkeep.gc(root, _flag(keys, "all"), _flag(keys, "remove"))


@dataclass(frozen=True)
class Command:
    """A command on a stored sweep, and the keys that it takes."""

    run: Callable[[Stored, Mapping[str, str]], int]
    keys: tuple[str, ...] = ()


@dataclass(frozen=True)
class OfAll:
    """A command on all that lies under an output_dir."""

    run: Callable[[Path, Mapping[str, str]], int]
    keys: tuple[str, ...] = ()


COMMANDS: dict[str, Command | OfAll] = {
    "table": Command(table, ("metric", "stat", "rows", "cols", "over", "repeats", "format")),
    "compare": Command(compare, ("metric", "axis", "baseline", "test", "over", "repeats", "format")),
    "grid": Command(grid, ("rows", "cols", "blocks", "metric", "pictures", "title", "size", "to", "keep")),
    "figure": Command(figure, ("kind", "metric", "x", "y", "hue", "facet", "cost", "over", "cell", "keep")),
    "report": Command(report, ("embed",)),
    "score": Command(score, ("metric", "judge", "features", "references", "missing", "device", "force", "plugins")),
    "watch": Command(watch, ("every",)),
    "stop": Command(stop),
    "verify": Command(verify, ("all", "repair")),
    "pack": Command(pack),
    "unpack": Command(unpack),
    "export": Command(exported, ("to", "format")),
    "sync": Command(sync, ("project", "entity", "mode", "granularity", "tags")),
    "dashboard": Command(dashboard, ("project", "entity", "to")),
    "list": OfAll(listed),
    "gc": OfAll(gc, ("all", "remove")),
}
