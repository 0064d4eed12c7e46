"""How every figure looks and is saved: for a paper's column, told apart without colour, the same bytes each time.

Colours are those of Okabe and Ito (2008), each with a marker and a line of its own. Texts are set as they are (a `$` in
a prompt is no formula), fonts are embedded as TrueType where they are, and files bear no date.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffsweep.core.files import write_atomic
from diffsweep.report.drawn import KEY
from diffsweep.report.fonts import BASE, drawable, families, truetype

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D1F")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
DASHES: tuple[Any, ...] = (
    "-",
    (0, (4, 1.5)),
    (0, (1, 1)),
    (0, (4, 1, 1, 1)),
    (0, (6, 1)),
    (0, (2, 1)),
    "-",
    (0, (3, 3)),
)
FAINT = "#767676"
DOTS = 150  # of a contact sheet, an inch
COLUMN, PAGE = 3.4, 7.0  # inches: a paper's column and its page
HIGH, LEANING = 1.75, 0.6  # inches: a panel, and what labels take below it when they lean

RC = {
    "font.family": [BASE],
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.fontsize": 7,
    "legend.title_fontsize": 7,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "errorbar.capsize": 2,
    "figure.dpi": 100,
    "figure.constrained_layout.use": True,
    "savefig.dpi": 200,
    "text.parse_math": False,
}


@contextmanager
def styled(text: str = "") -> Iterator[None]:
    """matplotlib's own defaults and ours, whatever the user's configuration says, with fonts for all characters of the
    text; nothing of pyplot is touched."""
    from matplotlib import style

    own = {"font.family": families(text), "pdf.fonttype": 42 if truetype(text) else 3}
    with style.context(["default", RC, own]):
        yield


def panels(rows: int, columns: int, height: float, shared: bool = False) -> tuple[Figure, list[list[Axes]]]:
    """An empty figure of so many panels, one column or one page wide; shared: with the scales of its row and column."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_wide(columns), height * rows + 0.9))
    FigureCanvasAgg(figure)
    return figure, figure.subplots(
        rows, columns, squeeze=False, sharex=shared, sharey="row" if shared else False
    ).tolist()


def _wide(columns: int) -> float:
    return COLUMN if columns == 1 else min(PAGE, 2.35 * columns + 0.3)


def room(columns: int) -> int:
    """The characters that fit below each of so many panels side by side."""
    return int((_wide(columns) / columns - 0.5) / 0.065)


def title(axes: Axes, text: str, columns: int) -> None:
    """Above one of so many panels side by side."""
    from textwrap import fill

    axes.set_title(fill(drawable(text), room(columns)))


def heading(figure: Figure, text: str) -> None:
    """The line above the panels: what is shown, over how many."""
    from textwrap import fill

    width = int(figure.get_figwidth() * 17)
    figure.suptitle(fill(drawable(text), width), x=0.01, ha="left", fontsize=7, color=FAINT)


def legend(figure: Figure, handles: Sequence[Any], names: Sequence[str], title: str) -> None:
    """Below the panels, in as many columns as fit."""
    texts = [drawable(name) for name in names]
    columns = len(texts)
    while columns > 1 and _width(texts, columns) > figure.get_figwidth():
        columns -= 1
    figure.legend(handles, texts, loc="outside lower center", ncols=columns, title=drawable(title) or None)


def _width(texts: Sequence[str], columns: int) -> float:
    """Of a legend, in inches, about: a letter has 0.06, a handle and its space 0.6."""
    rows = -(-len(texts) // columns)
    return sum(0.06 * max(map(len, texts[i : i + rows])) + 0.6 for i in range(0, len(texts), rows))


def lean(axes: Axes) -> None:
    """Turn the labels below a panel."""
    for text in axes.get_xticklabels():
        text.set(rotation=30, ha="right", rotation_mode="anchor")


def settle(figure: Figure) -> None:
    """Lay out the panels now and for good, so that what follows may measure them."""
    if engine := figure.get_layout_engine():
        engine.execute(figure)
    figure.set_layout_engine("none")


def save(figure: Figure, files: Sequence[Path], mark: str) -> None:
    """Write a figure as PDF and as PNG, which bears the mark."""
    for path, metadata in zip(files, ({"CreationDate": None}, {"Software": None, KEY: mark}), strict=True):
        file = BytesIO()
        figure.savefig(file, format=path.suffix[1:], metadata=metadata)
        write_atomic(path, file.getvalue())


def pages(images: Iterable[Image], mark: str) -> bytes:
    """A PDF with a page for each picture, without loss and without a date."""
    from matplotlib.backends.backend_pdf import PdfPages
    from matplotlib.figure import Figure

    file = BytesIO()
    with styled(), PdfPages(file, metadata={"CreationDate": None, "Keywords": mark}) as pdf:
        for image in images:
            figure = Figure(figsize=(image.width / DOTS, image.height / DOTS), dpi=DOTS)
            figure.set_layout_engine("none")
            figure.figimage(np.asarray(image))
            pdf.savefig(figure, dpi=DOTS)
    return file.getvalue()
