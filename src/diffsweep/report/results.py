"""A stored sweep as a value: its frame, tables, pictures and files, for notebooks and programs."""

from __future__ import annotations

import html
import os
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
from PIL import Image

from diffsweep.core.files import is_file
from diffsweep.core.problems import BadInput, did_you_mean
from diffsweep.core.text import counted
from diffsweep.report import comparison, tabular
from diffsweep.report.caption import defined, full_caption
from diffsweep.report.figure import write_figures
from diffsweep.report.frame import results
from diffsweep.report.grid import SHEET, write_grid
from diffsweep.report.latex import to_latex
from diffsweep.report.statistics import FEWEST
from diffsweep.report.table import Table, summarise
from diffsweep.report.text import shown
from diffsweep.report.write import usual_look
from diffsweep.store import document
from diffsweep.store.pictures import IMAGE
from diffsweep.store.stored import Stored

SHOWN = 768  # pixels of a notebook's contact sheet, at most


@dataclass(frozen=True, eq=False, repr=False)
class Summary:
    """A sweep's table: a line for each setting. A notebook renders it, `print` shows it as Markdown."""

    table: Table
    name: str

    @property
    def frame(self) -> pd.DataFrame:
        """The numbers, unrounded: a row for each setting, with each metric's mean, interval (`low`, `high`), `std`, `n`
        and so on."""
        return tabular.to_frame(self.table)

    def to_markdown(self) -> str:
        return tabular.to_markdown(self.table)

    def to_latex(self) -> str:
        return to_latex(self.table, self.name)

    def __repr__(self) -> str:
        return self.to_markdown()

    def _repr_html_(self) -> str:
        header, lines = tabular.cells(self.table, html.escape)
        cell = '<td style="white-space: nowrap">'
        body = ["".join(f"{cell}{'<b>' * best}{text}{'</b>' * best}</td>" for text, best in line) for line in lines]
        rows = "".join(f"<tr>{line}</tr>" for line in body)
        notes = [full_caption(self.table, underlines=False), *defined(self.table)]
        head = "".join(f"<th>{text}</th>" for text in header)
        more = "".join(f"<li>{html.escape(note)}</li>" for note in notes[1:])
        return (
            f'<div style="overflow-x: auto"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
            f"<details><summary>{html.escape(notes[0])}</summary><ul>{more}</ul></details>"
        )


class Results:
    """A sweep that is stored: what `diffsweep.sweep` returns and `diffsweep.load` opens.

    A notebook shows its contact sheet, its table and where its report page is.
    """

    def __init__(self, stored: Stored) -> None:
        self._stored = stored

    @property
    def name(self) -> str:
        """The sweep's name."""
        return self._stored.sweep["name"]

    @property
    def folder(self) -> Path:
        """Where sweep.json, the tables, sheets and figures and report.html are."""
        return self._stored.folder

    @property
    def axes(self) -> dict[str, list[Any]]:
        """What the sweep varies: each axis by its dotted name, with its values."""
        return {axis: list(values) for axis, values in self._stored.sweep["axes"].items()}

    @property
    def notes(self) -> tuple[str, ...]:
        """What diffsweep noted about the sweep: assumptions, masks, unknown words."""
        return tuple(self._stored.sweep["notes"])

    @cached_property
    def frame(self) -> pd.DataFrame:
        """A row for each cell, in the sweep's order, as in results.parquet: `cell_id`, `status`, a column for each
        axis, `seed`, `prompt`, a column for each metric of a picture (those of whole settings, such as diversity, are
        in `table().frame`), `nfe` (model evaluations), `seconds`, and `image`, its path under output_dir."""
        return results(self._stored.store, self._stored.sweep)

    @property
    def failed(self) -> dict[str, str]:
        """The reason why each failed cell has no picture, by its id."""
        lost = self.frame[self.frame["status"] == "failed"]
        return {} if lost.empty else dict(zip(lost["cell_id"], lost["reason"], strict=True))

    def table(
        self,
        metric: str | Sequence[str] | None = None,
        stat: str | Sequence[str] = "mean",
        rows: str | Sequence[str] = (),
        cols: str | Sequence[str] = (),
        over: str | Sequence[str] = (),
        repeats: int = FEWEST,
    ) -> Summary:
        """Each setting's mean over its seeds and inputs with a 95 % interval, or another `stat`: median, q95, best4.

        metric: the metrics, by default all. rows, cols: the axes to sort by, and those laid out as columns. over:
        further axes to average over. repeats: the fewest that have an interval. BadInput for a name that is not there.
        """
        require_repeats(repeats)
        names = None if metric is None else _listed(metric)
        arranged = (_listed(stat), _listed(rows), _listed(cols), _listed(over))
        return Summary(summarise(self.frame, names, *arranged, fewest=repeats), self.name)

    def compare(
        self,
        axis: str | None = None,
        baseline: Any = None,
        metric: str | Sequence[str] | None = None,
        test: str = "wilcoxon",
        over: str | Sequence[str] = (),
        repeats: int = FEWEST,
    ) -> pd.DataFrame:
        """Each value of an axis against the baseline, paired over seeds and inputs: a row for each comparison, with the
        `difference`, its interval, `p`, `p` adjusted by Holm, and the `sentence` that says it.

        axis: by default every one of 2 to 10 values; baseline: by default its first value; test: wilcoxon or sign.
        BadInput where there is nothing to compare.
        """
        require_repeats(repeats)
        base = None if baseline is None else shown(as_python(baseline))
        names = None if metric is None else _listed(metric)
        found = comparison.compare(self.frame, names, axis, base, test, _listed(over), repeats)
        if not found:
            raise BadInput(comparison.nothing_to_compare(self.frame))
        return comparison.to_frame(found)

    def image(self, name: str = IMAGE, /, **axes: Any) -> Image.Image:
        """The picture of one cell, named by its axes: `r.image(seed=0, **{"guidance.scale": 3})`.

        name: another of its pictures: `input`, `mask`, `view_1`, ... BadInput where no cell or several fit, where the
        cell failed, or has no such picture.
        """
        cell_id = self._one(axes)
        if why := self.failed.get(cell_id):
            raise BadInput(f"{_setting(axes) or 'the cell'}: failed: {why}")
        files = [file.removesuffix(".png") for file in self._stored.store.record(cell_id)["files"]]
        if name not in files:
            raise BadInput(f"{name}: no such picture; this cell has {', '.join(files)}{did_you_mean(name, files)}")
        return Image.fromarray(self._stored.store.pixels(cell_id, name))

    def grid(
        self,
        rows: str | None = None,
        cols: str | None = None,
        blocks: str | Sequence[str] = (),
        metric: str | Sequence[str] = (),
        pictures: str | Sequence[str] = (),
        title: str | None = None,
        size: int | None = None,
    ) -> Image.Image:
        """The contact sheet, with these axes as rows, columns and blocks; without arguments as in grid.png.

        metric: the metrics below each picture. pictures: those shown side by side for each cell. title: in place of the
        sweep's name. size: of a picture's longer side, in pixels, at most. A sweep too large for one sheet shows the
        first.
        """
        names = {"blocks": _listed(blocks), "metric": _listed(metric), "pictures": _listed(pictures)}
        look: dict[str, Any] = {
            "rows": rows,
            "cols": cols,
            "title": title,
            "size": size,
            **{k: v for k, v in names.items() if v},
        }
        asked = any(value is not None for value in look.values())
        if not (asked or self._has_changed) and is_file(self.folder / SHEET):
            return _opened(self.folder / SHEET)
        store, sweep = self._stored.store, self._stored.sweep
        with TemporaryDirectory() as place:
            look = look if asked else usual_look(sweep, self.frame)
            first, *_ = write_grid(Path(place), store, sweep, **look, frame=self.frame)
            return _opened(first)

    def figures(self, kind: str | None = None, metric: str | Sequence[str] = (), **axes: str) -> list[Path]:
        """Draw figures into the sweep's folder, each as PDF and PNG; their paths.

        kind: curve, heatmap, pareto or tradeoff, by default every one that the numbers allow. axes: which axis is `x`,
        `y`, `hue` or `facet`, and whether the `cost` is nfe or seconds.
        """
        if self._has_changed:
            raise BadInput(f"{self.name}: its cells are others by now; diffsweep.load opens it as it is")
        return write_figures(self.folder, self._stored.sweep, self.frame, None, kind, _listed(metric) or None, **axes)

    @property
    def report(self) -> Path:
        """The report page: opens in a browser, from disk."""
        return self.folder / "report.html"

    def __len__(self) -> int:
        return len(self.frame)

    def __repr__(self) -> str:
        failed = f", {len(self.failed)} failed" if self.failed else ""
        return f"<{self.name}: {counted('cell', len(self))}{failed}, in {_from_here(self.folder)}>"

    def _repr_html_(self) -> str:
        lost = [f"<li>{html.escape(f'{cell_id}: {why}')}</li>" for cell_id, why in self.failed.items()]
        failed = f"<p>{counted('cell', len(lost))} failed:</p><ul>{''.join(lost)}</ul>" if lost else ""
        sheet = self.grid()
        sheet.thumbnail((SHOWN, SHOWN))
        table = self.table()._repr_html_()
        page = html.escape(_from_here(self.report))
        return f'{_tag(sheet)}{table}{failed}<p><a href="{page}">{page}</a></p>'

    @property
    def _has_changed(self) -> bool:
        """Whether the sweep has other cells by now: those that were run since."""
        return document.read(self.folder)["cells"] != self._stored.sweep["cells"]

    def _one(self, wanted: dict[str, Any]) -> str:
        """The one cell that has these values of its axes."""
        axes = self.axes
        if unknown := [axis for axis in wanted if axis not in axes]:
            there = ", ".join(axes) or "none"
            raise BadInput(
                f"{axis}: no axis of this sweep; it has {there}{did_you_mean(axis, axes)}" for axis in unknown
            )
        for axis, value in wanted.items():
            if not any(_same(value, other) for other in axes[axis]):
                raise BadInput(f"{axis}={shown(value)}: this sweep has {', '.join(map(shown, axes[axis]))}")
        cells = [
            cell
            for cell in self._stored.sweep["cells"]
            if all(_same(value, cell["axes"].get(axis)) for axis, value in wanted.items())
        ]
        found = dict.fromkeys(cell["cell_id"] for cell in cells)
        if len(found) == 1:
            return next(iter(found))
        if not found:
            raise BadInput(f"{_setting(wanted)}: no cell of this sweep")
        values = {axis: {shown(cell["axes"].get(axis)) for cell in cells} for axis in axes if axis not in wanted}
        free = [axis for axis in values if len(values[axis]) > 1]
        raise BadInput(f"{counted('cell', len(found))} fit; also give {', '.join(free)}")


def require_repeats(repeats: Any) -> None:
    if not isinstance(repeats, int) or repeats < 2:
        raise BadInput(f"repeats={repeats}: must be a whole number, 2 or more: the repeats that an interval takes")


def _listed(names: str | Sequence[str]) -> list[str]:
    return [names] if isinstance(names, str) else list(names)


def as_python(value: Any) -> Any:
    """A value as Python's own: of numpy, pandas, a path; arrays as lists."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, tuple):
        return tuple(as_python(item) for item in value)
    return value.tolist() if hasattr(value, "tolist") else value


def _same(one: Any, other: Any) -> bool:
    """Whether a value given is that of an axis: 1 and 1.0 are one, true is none of them; a tuple is a list, what is
    missing in a frame is null, and a text may be the one that a frame shows."""
    one = as_python(one)
    one = list(one) if isinstance(one, tuple) else one
    if pd.api.types.is_scalar(one) and pd.isna(one):
        one = None
    if isinstance(one, bool) != isinstance(other, bool):
        return False
    return bool(one == other) or (isinstance(one, str) and other is not None and one == shown(other))


def _setting(axes: dict[str, Any]) -> str:
    return ", ".join(f"{axis}={shown(value)}" for axis, value in axes.items())


def _from_here(path: Path) -> str:
    """A path as one types it in the current folder."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _opened(path: Path) -> Image.Image:
    """A picture whole in memory: its file may go."""
    with Image.open(path) as image:
        image.load()
        return image


def _tag(image: Image.Image) -> str:
    data = BytesIO()
    image.save(data, format="PNG")
    return f'<img alt="contact sheet" src="data:image/png;base64,{b64encode(data.getvalue()).decode()}">'
