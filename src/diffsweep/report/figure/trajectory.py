"""One cell's way from noise: what the sampler held at some of its steps, the clean picture that this implied, and how
far that was from the end (and from the input, where there is one)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from diffsweep.core.problems import BadInput, did_you_mean
from diffsweep.report.drawn import drawn_as, fingerprint, whole
from diffsweep.report.text import brief, short
from diffsweep.store.cells import MEND, Store, steps
from diffsweep.store.pictures import IMAGE, INPUT, NOISY
from diffsweep.store.schema import Damaged, Document

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = (NOISY, "clean")
MOST = 12  # steps side by side


def write_trajectory(folder: Path, store: Store, sweep: Document, cell: str | None = None) -> list[Path]:
    """Write figures/trajectory_ID.pdf and .png of a cell (the beginning of its id), or of the first whose steps were
    kept; nothing where none were. BadInput for a cell that the sweep has not, or whose steps were not kept."""
    ids = dict.fromkeys(one["cell_id"] for one in sweep["cells"])
    found = [i for i in ids if i.startswith(cell or "")]
    if not found:
        raise BadInput(f"cell={cell}: no such cell in this sweep, results.csv lists them{did_you_mean(str(cell), ids)}")
    kept = {i: steps(record) for i in found if (record := store.finished(i))}
    chosen = next((i for i, own in kept.items() if own), None)
    if chosen is None:
        if cell is None:
            return []
        raise BadInput(f"cell={cell}: no steps are stored; run the sweep again with engine.trajectory=8 to store eight")
    from diffsweep.report.figure.style import save, styled

    axes = next(one["axes"] for one in sweep["cells"] if one["cell_id"] == chosen)
    setting = ", ".join(f"{axis} = {short(brief(value), 40)}" for axis, value in axes.items())
    heading = f"{sweep['name']}: {setting or chosen}"
    files = [folder / "figures" / f"trajectory_{chosen}{suffix}" for suffix in (".pdf", ".png")]
    mark = fingerprint("trajectory", heading, store.record(chosen)["files"])
    if not (whole(files[0]) and drawn_as(files[1]) == mark):
        try:
            with styled(heading):
                save(_draw(store, chosen, kept[chosen], heading), files, mark)
        except Damaged as error:
            if cell is None:
                return []
            raise BadInput(f"cell={cell}: {error}. {MEND}") from None
    return files


def distances(store: Store, cell_id: str, steps: Iterable[str], other: str) -> list[float]:
    """How far each step's clean picture is from another of the cell's: root mean square, in levels of 255."""
    end = store.pixels(cell_id, other).astype(float)
    seen = (store.pixels(cell_id, f"{step}_clean").astype(float) for step in steps)
    return [float(np.sqrt(((x - end) ** 2).mean())) for x in seen]


def _draw(store: Store, cell_id: str, steps: Mapping[str, float], text: str) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from diffsweep.report.figure.data import spread
    from diffsweep.report.figure.style import COLOURS, DASHES, MARKERS, PAGE, heading

    columns = spread(list(steps), MOST)
    height, width = store.pixels(cell_id, f"{columns[0]}_{KINDS[0]}").shape[:2]
    tile = PAGE / max(4, len(columns)) * (height / width)
    figure = Figure(figsize=(PAGE, 2 * tile + 2.4))
    FigureCanvasAgg(figure)
    layout = figure.add_gridspec(3, len(columns), height_ratios=[tile, tile, 1.6])
    for row, kind in enumerate(KINDS):
        for column, step in enumerate(columns):
            panel = figure.add_subplot(layout[row, column])
            panel.imshow(store.pixels(cell_id, f"{step}_{kind}"), interpolation="nearest")
            panel.set(xticks=[], yticks=[])
            panel.grid(False)
            panel.spines[:].set_visible(False)
            if kind == KINDS[0]:
                panel.set_title(f"t = {steps[step]:g}")
            if column == 0:
                panel.set_ylabel(f"{kind} image" if kind == NOISY else "clean estimate")
    curve = figure.add_subplot(layout[2, :])
    files = store.record(cell_id)["files"]
    ends = {IMAGE: "the final image", INPUT: "the clean input"}
    there = {name: told for name, told in ends.items() if f"{name}.png" in files}
    size = store.pixels(cell_id).shape
    for k, (name, told) in enumerate(there.items()):
        if store.pixels(cell_id, name).shape == size:
            far = distances(store, cell_id, steps, name)
            curve.plot(
                [*steps.values()], far, color=COLOURS[k], marker=MARKERS[k], linestyle=DASHES[k], label=f"from {told}"
            )
    curve.invert_xaxis()
    curve.set(xlabel="timestep t", ylabel="clean estimate's distance\n(RMS, levels of 255)")
    curve.legend()
    heading(figure, f"{text}; {len(steps)} of its steps")
    return figure
