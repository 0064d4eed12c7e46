"""A table laid out as text: for the terminal, as Markdown, and as a frame for CSV. `latex` does so for papers."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import pandas as pd

from diffsweep.core.text import visible
from diffsweep.report.caption import defined, full_caption, share, title
from diffsweep.report.frame import CEILING
from diffsweep.report.statistics import Stat
from diffsweep.report.table import Column, Table, number
from diffsweep.report.text import evaluations, fixed, markdown, short, shown

if TYPE_CHECKING:
    from rich.console import RenderableType

SECONDS = "seconds"
Cells = list[tuple[str, bool]]  # a line's cells: the text, and whether it is the best


def counts(table: Table) -> list[tuple[str, list[str]]]:
    """The columns of counts: their headers and texts. A pivoted table has none: its caption gives them."""
    if table.across:
        return []
    rows = table.rows
    found = [("seeds", [str(row.seeds) for row in rows])]
    if any(row.inputs > 1 for row in rows):
        found.append((table.units[1], [str(row.inputs) for row in rows]))
    if any(row.failed for row in rows):
        found.append(("failed", [share(row.failed, row.failed + row.done) for row in rows]))
    return found


def costs(table: Table) -> list[tuple[str, list[str]]]:
    """The columns that say what a picture took."""
    if table.across:
        return []
    ceilings = [row.vae_psnr for row in table.rows]
    return [
        *([(CEILING, list(map(_decimal, ceilings)))] if not all(map(math.isnan, ceilings)) else []),
        ("nfe", [evaluations(row.nfe) for row in table.rows]),
        (SECONDS, [_decimal(row.seconds) for row in table.rows]),
    ]


def _decimal(value: float) -> str:
    return "–" if math.isnan(value) else fixed(value, 2)


def heading(table: Table, column: Column) -> list[str]:
    """A column's title, and the values of the axes across, if any."""
    across = [f"{axis} {table.texts[axis][value]}" for axis, value in zip(table.across, column.across, strict=True)]
    return [column.title, *([", ".join(across)] if across else [])]


def cells(table: Table, text: Callable[[str], str], limit: int = 10**6) -> tuple[list[str], list[Cells]]:
    """Header and lines of a table, as text; `text` escapes what is not ours, `limit` shortens settings."""
    before, columns, after = counts(table), table.columns, costs(table)
    header = [*map(text, table.down), *(name for name, _ in before)]
    header += [text(", ".join(heading(table, column))) for column in columns]
    header += [name for name, _ in after]
    ranks = [column.ranks for column in columns]
    lines: list[Cells] = []
    for i, line in enumerate(table.lines):
        found: Cells = [
            (text(short(table.texts[axis][value], limit)), False) for axis, value in zip(table.down, line, strict=True)
        ]
        found += [(texts[i], False) for _, texts in before]
        found += [(text(column.text(i)), best.get(i) == 1) for column, best in zip(columns, ranks, strict=True)]
        lines.append([*found, *((texts[i], False) for _, texts in after)])
    return header, lines


def to_markdown(table: Table) -> str:
    """A GitHub table, the best of each metric bold, its caption and the metrics' definitions below."""
    header, lines = cells(table, markdown)
    rule = ["---" if i < len(table.down) else "---:" for i in range(len(header))]
    body = [[f"**{text}**" if best else text for text, best in line] for line in lines]
    rows = [f"| {' | '.join(line)} |" for line in [header, rule, *body]]
    return "\n".join(
        [
            *rows,
            "",
            markdown(full_caption(table, underlines=False)),
            "",
            *(f"* {markdown(text)}" for text in defined(table)),
            "",
        ]
    )


def to_csv(frame: pd.DataFrame) -> str:
    """A frame as CSV that a spreadsheet reads as data: a text that it would take for a formula (`=`, `+`, `-`, `@` or a
    tab first) has a `'` before it, as OWASP advises. Numbers stay numbers, also those in a column of texts.

    results.parquet holds them as they are.
    """
    safe = frame.copy(deep=False)
    for name in frame.select_dtypes(include=["string", "object"]):
        safe[name] = frame[name].map(_harmless, na_action="ignore")
    return safe.to_csv(index=False)


def _harmless(value: Any) -> Any:
    if not isinstance(value, str) or not value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def to_frame(table: Table) -> pd.DataFrame:
    """The table's numbers, unrounded, a row a setting: counts, and each metric's mean, interval, std, n and so on."""
    return pd.DataFrame(
        {
            **{
                axis: value if isinstance(value, int | float | str) else shown(value)
                for axis, value in zip(table.axes, row.setting, strict=True)
            },
            "n": row.done,
            "failed": row.failed,
            "failure_rate": row.failed / (row.failed + row.done),
            "seeds": row.seeds,
            table.units[1]: row.inputs,
            **{
                f"{name}_{what}": value
                for name, direction in table.directions.items()
                for what, value in _numbers(row.stats[name], direction, table.stats)
            },
            **({} if math.isnan(row.vae_psnr) else {CEILING: row.vae_psnr}),
            "nfe": row.nfe,
            "seconds": row.seconds,
        }
        for row in table.rows
    )


def _numbers(stat: Stat, direction: str, stats: Sequence[str]) -> Iterator[tuple[str, float]]:
    for what in ("mean", "low", "high", "std", "n", "exact"):
        yield what, getattr(stat, what)
    for what in dict.fromkeys(["median", *stats]):
        if what != "mean":
            yield what, number(stat, what, direction)


def to_terminal(table: Table, width: int, most: int = 10**6, whole: bool = True) -> Iterator[RenderableType]:
    """Rich tables no wider than `width`, of the first `most` lines: columns that do not fit follow in a further table.

    The best of a metric is bold and green, the second underlined. The title comes first, the caption last. whole: else
    columns that say the same in every line, or what another says, give way to a sentence.
    """
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    same = {} if whole else _same(table)
    lines, columns = table.lines[:most], [column for column in table.columns if column.metric not in same]
    styles = ["", "bold green", "underline"]
    plain_columns = [
        *((axis, [short(table.texts[axis][line[i]], 36) for line in lines]) for i, axis in enumerate(table.down)),
        *counts(table),
    ]
    found = [(name, [(text, "") for text in texts[:most]]) for name, texts in plain_columns]
    first = len(found)
    for column in columns:
        ranks = column.ranks
        texts = [(column.text(i), styles[ranks.get(i, 0)]) for i in range(len(lines))]
        found.append(("\n".join(heading(table, column)), texts))
    found += [(name, [(text, "") for text in texts[:most]]) for name, texts in costs(table) if name not in same]
    sizes = [max(len(text) for text in [*head.split("\n"), *(text for text, _ in body)]) + 3 for head, body in found]
    yield Text(title(table), style="dim")
    for chosen in fitting(sizes, [head.partition("\n")[0] for head, _ in found], first, width):
        rich = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
        for i in chosen:
            left = i < len(table.down)
            rich.add_column(Text(found[i][0]), justify="left" if left else "right", no_wrap=i >= first)
        for i in range(len(lines)):
            rich.add_row(*(Text.assemble(found[column][1][i]) for column in chosen))
        yield rich
    told = f"In every line: {', '.join(same.values())}." if same else ""
    yield Text(visible(" ".join(filter(None, [told, full_caption(table, titled=True)]))), style="dim")


def _same(table: Table) -> dict[str, str]:
    """The metrics and costs whose columns say nothing of their own, and what to say instead: `psnr_inside as
    psnr_masked`, `psnr_outside exact`, `nfe 12`."""
    found = {name: f"{name} as {other}" for name, other in table.alike.items()}
    texts: dict[str, list[str]] = defaultdict(list)
    for column in table.columns if len(table.stats) == 1 else ():
        texts[column.metric] += [column.text(i) for i in range(len(table.lines))]
    texts |= {name: own for name, own in costs(table) if name != SECONDS}
    for name, own in texts.items():
        if len(own) > 1 and len({*own}) == 1 and name not in found:
            found[name] = f"{name} {own[0]}"
    return found


def fitting(sizes: Sequence[float], titles: Sequence[str], first: int, width: float) -> Iterator[list[int]]:
    """Columns a table: the `first` ones in each, then as many of the others as fit, at least one.

    Neighbours of one title stay together where a table holds them.
    """
    held, chosen = sum(sizes[:first]), list(range(first))
    for _, block in groupby(range(first, len(sizes)), key=lambda i: titles[i]):
        whole = list(block)
        fits = held + sum(sizes[i] for i in whole) <= width
        for part in [whole] if fits else [[i] for i in whole]:
            new = not fits and part[0] == whole[0]  # a block that a table of its own holds better
            if len(chosen) > first and (new or sum(sizes[i] for i in [*chosen, *part]) > width):
                yield chosen
                chosen = list(range(first))
            chosen += part
    if len(chosen) > first or len(sizes) == first:
        yield chosen
