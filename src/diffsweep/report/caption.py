"""What a table's numbers mean, in words."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from diffsweep.core.text import counted, percent
from diffsweep.report.selection import common, flat
from diffsweep.report.statistics import FEW_INPUTS, Stat
from diffsweep.report.table import Table, called
from diffsweep.report.text import brief, short

SHARED = {  # what a subtitle shows: of these keys the first that there is, the last part of a path
    "model": ("model.path", "model.name"),
    "technique": ("technique.name",),
    "input": ("input.path", "input.id", "input.name"),
    "scheduler": ("scheduler.cls", "scheduler.name"),
    "scheduler.steps": ("scheduler.steps",),
    "guidance.scale": ("guidance.scale",),
    "prompt": ("prompt",),
}


def caption(table: Table) -> str:
    """What the numbers are, in a few sentences: which statistic, of how many seeds and inputs, with which interval."""
    return f"{title(table)} {remarks(table)}".strip()


def remarks(table: Table) -> str:
    """What the title leaves to be said of the numbers."""
    stats = [row.stats[name] for row in table.rows for name in table.directions]
    text = [*filter(None, (_meaning(stat) for stat in table.stats if stat != "mean"))]
    failed, cells = sum(row.failed for row in table.rows), sum(row.failed + row.done for row in table.rows)
    if failed:
        text.append(f"Cells that failed or are not sampled, {share(failed, cells)} of {cells}, are in no number.")
    if any(stat.exact for stat in stats):
        text.append("Pictures equal to their reference (exact) are counted and left out.")
    whole = [n for n in table.directions if any(row.stats[n].n and not row.stats[n].values for row in table.rows)]
    if whole:
        sizes = [row.stats[name].n for name in whole for row in table.rows if row.stats[name].n]
        number = counted("picture", *sizes)
        text.append(f"{', '.join(whole)}: one number of all of a setting's pictures ({number}), without an interval.")
    if any(_withheld(stat) for stat in stats):
        text.append(f"No interval of fewer than {table.fewest} repeats.")
    if few := [_drawn_from(stat) for stat in stats if _few(stat)]:
        text.append(f"An interval of {min(few)} repeats is wide.")
    if any(_cut(row.stats[name], table.definitions.get(name, {})) for row in table.rows for name in table.directions):
        text.append("Intervals end at the metric's bounds.")
    return " ".join([*text, *(f"{note}." for note in table.notes)])


def full_caption(table: Table, underlines: bool = True, titled: bool = False) -> str:
    """The caption, which numbers are marked where that is not a column's best, and which metrics have no numbers.
    titled: the title stands elsewhere."""
    marks = [marked(table, underlines)] if table.across or table.repeated else []
    text = remarks(table) if titled else caption(table)
    return " ".join(filter(None, [text, *marks, *(f"{note}." for note in table.absent)]))


def marked(table: Table, underlines: bool = True) -> str:
    """`Best bold, second underlined.`, and among what, where a metric has several columns or is judged in parts."""
    ranks = {rank for column in table.columns for rank in column.ranks.values()}
    over = " over all columns of a metric" if table.across else ""
    each = f" for each {' and '.join(table.repeated)}" if table.repeated else ""
    return f"Best{over}{each} bold{', second underlined' if underlines and 2 in ranks else ''}." if ranks else ""


def _drawn_from(stat: Stat) -> int:
    """The repeats that its interval is drawn from."""
    return stat.inputs if stat.seeds == 1 else stat.seeds


def _few(stat: Stat) -> bool:
    """Whether its interval stands on two or three repeats alone."""
    return not math.isnan(stat.low) and _drawn_from(stat) <= 3


def _withheld(stat: Stat) -> bool:
    """Whether it has no interval although its values differ."""
    return math.isnan(stat.low) and stat.std > 0


def _cut(stat: Stat, definition: Mapping[str, Any]) -> bool:
    """Whether its interval ends at a bound of its metric."""
    return any(end in (stat.low, stat.high) for end in definition.get("bounds") or () if end is not None)


def title(table: Table) -> str:
    """`Mean over 4 seeds a setting, with a 95 % interval (bootstrap over seeds).`"""
    stats = [row.stats[name] for row in table.rows for name in table.directions]
    over, alike = counted("seed", *(row.seeds for row in table.rows)), ""
    one, several = table.units
    if any(row.inputs > 1 for row in table.rows):
        axes = f" ({', '.join(table.inputs)})" if one == "input" else ""
        over += f" and {counted(one, *(row.inputs for row in table.rows), several=several)}{axes}"
        kind = one.partition(" ")[0]
        alike = f" Each statistic is of {'an' if one == 'input' else 'a'} {kind}'s seeds, averaged over the {kind}s."
    if "mean" not in table.stats:
        return f"Over {over} a setting.{alike}"
    drawn = {_drawn(stat).replace("inputs", several) for stat in stats if not math.isnan(stat.low)}
    interval = f", with a 95 % interval (bootstrap over {' or '.join(sorted(drawn))})" if drawn else ""
    return f"Mean over {over} a setting{interval}.{alike}"


def _drawn(stat: Stat) -> str:
    """What the interval's bootstrap draws, as `statistics.intervals` does."""
    if stat.inputs == 1:
        return "seeds"
    if stat.seeds == 1:
        return "inputs"
    return "seeds, for these inputs" if stat.inputs < FEW_INPUTS else "seeds and inputs"


def _meaning(stat: str) -> str:
    """What a statistic's short name means."""
    if stat.startswith("best"):
        k = called(stat).removeprefix("best of ")
        return f"Best of {k}: the best of {'all seeds' if k == 'all' else counted('seed', int(k))}, " + (
            "which grows with their number." if k == "all" else "its mean over all choices of them (unbiased)."
        )
    return f"{stat}: the {int(stat[1:])} % quantile." if stat.startswith("q") else ""


def defined(table: Table) -> list[str]:
    """What each metric is: `psnr: PSNR against the clean input, in dB`, with the region and network it has."""
    found = []
    for name, definition in table.definitions.items():
        region, network = definition.get("region", ""), definition.get("network")
        parts = [definition.get("metric", name), *([region] if not region.startswith("the whole") else [])]
        against = f"against {definition['references']}" if "references" in definition else None
        found.append(f"{name}: {', '.join(filter(None, [*parts, network, against]))}")
    return found


def share(number: int, of: int) -> str:
    """`1 (33 %)`, or `0`."""
    return f"{number} ({percent(number / of)})" if number else "0"


def subtitle(configs: Sequence[Mapping[str, Any]], axes: Collection[str] = ()) -> str:
    """What all cells share and no axis shows, in short: `model tiny_sd 128 x 128, technique inpaint, ...`."""
    shared = flat(common(configs))
    parts = []
    for name, keys in SHARED.items():
        key = next((key for key in keys if shared.get(key) is not None), None)
        if key is None or {name, *keys} & {*axes}:
            continue
        value = str(shared[key]).rstrip("/").rpartition("/")[2] if key.endswith(".path") else shared[key]
        parts.append(f"{name.rpartition('.')[2]} {short(brief(value), 200)}")
        sides = [shared.get(f"model.{side}") for side in ("width", "height")]
        if name == "model" and None not in sides:
            parts[-1] += f" {sides[0]} x {sides[1]}"
    return ", ".join(parts)
