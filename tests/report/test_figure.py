"""Figures: what is drawn is what numpy and a reader with a pencil would draw; files are sound and the same again."""

from __future__ import annotations

import itertools
import math
import random
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from diffsweep import results as command_line
from diffsweep.core.problems import BadInput
from diffsweep.report import figure, fonts
from diffsweep.report.figure import plot, style, write_figures
from diffsweep.report.figure.heatmap import heatmap
from diffsweep.report.figure.plot import Point
from diffsweep.report.figure.points import curve, pareto, pareto_front, tradeoff
from diffsweep.report.frame import results
from diffsweep.report.table import Table, summarise
from diffsweep.store.schema import to_json

Made = Callable[..., Any]


def framed(
    axes: dict[str, Sequence[Any]],
    metrics: dict[str, tuple[str, Callable[..., float | None]]],
    nfe: Callable[..., int] = lambda **_: 10,
    cells: Sequence[dict[str, Any]] | None = None,
) -> pd.DataFrame:
    """A frame as `frame.results` makes them: all combinations of the axes, or these cells. None is an exact picture."""
    cells = cells or [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    columns: dict[str, Any] = {axis: [cell[axis] for cell in cells] for axis in axes}
    columns["seed"] = [cell.get("seed", 0) for cell in cells]
    columns |= {"status": ["done"] * len(cells), "stage": pd.array([1] * len(cells), dtype="Int64")}
    columns |= {"nfe": pd.array([nfe(**cell) for cell in cells], dtype="Int64"), "seconds": [1.0] * len(cells)}
    for name, (_, value) in metrics.items():
        numbers = [value(**cell) for cell in cells]
        columns[name] = [math.nan if number is None else number for number in numbers]
        if None in numbers:
            columns[f"{name}_exact"] = [number is None for number in numbers]
    frame = pd.DataFrame(columns)
    definitions = {name: {"metric": name, "direction": direction} for name, (direction, _) in metrics.items()}
    frame.attrs = {"axes": list(axes), "metrics": definitions, "reasons": {name: [] for name in metrics}}
    frame.attrs |= {"refused": [], "unavailable": {}, "sets": {}}
    return frame


def key(cell: dict[str, Any]) -> str:
    """What `shown` makes of a cell without dots in its axes' names, to draw chance from."""
    return str(sorted(cell.items()))


def chance(low: float, high: float) -> Callable[..., float]:
    return lambda **cell: random.Random(key(cell)).uniform(low, high)


@pytest.fixture
def steps() -> pd.DataFrame:
    axes = {"steps": [5, 10, 20, 400], "rule": ["slow", "fast"], "seed": [0, 1, 2]}
    metrics = {"psnr": ("higher", chance(10, 30)), "clip_score": ("higher", chance(20, 30))}
    return framed(axes, {**metrics, "lpips_alex": ("lower", chance(0, 1))}, nfe=lambda steps, **_: 2 * steps)


def drawn(drawing: Any) -> Any:
    with style.styled():
        return drawing.draw()


def bars(container: Any) -> list[tuple[float, float]]:
    """The ends of an error bar container's vertical bars."""
    segments = container.lines[2][-1].get_segments()
    return [(float(segment[0][1]), float(segment[1][1])) for segment in segments]


def test_a_curve_goes_through_the_means_and_its_bars_are_the_intervals(steps: pd.DataFrame) -> None:
    table = summarise(steps)
    figure = drawn(curve(table, "s", ["psnr", "lpips_alex"], "steps", None, None))
    stats = {row.setting: row.stats for row in table.rows}
    for axes, metric in zip(figure.axes, ("psnr", "lpips_alex"), strict=True):
        assert axes.get_xscale() == "log"  # 5 to 400
        assert [text.get_text() for text in axes.get_xticklabels()] == ["5", "10", "20", "400"]
        assert len(axes.containers) == 2
        for container, rule in zip(axes.containers, ("slow", "fast"), strict=True):
            means = [steps[(steps.steps == n) & (steps.rule == rule)][metric].mean() for n in (5, 10, 20, 400)]
            x, y = container.lines[0].get_data()
            assert list(x) == [5, 10, 20, 400]
            np.testing.assert_allclose(y.astype(float), means)
            ends = [(stats[n, rule][metric].low, stats[n, rule][metric].high) for n in (5, 10, 20, 400)]
            np.testing.assert_allclose(bars(container), ends)
    assert [axes.get_ylabel() for axes in figure.axes] == ["psnr ↑", "lpips_alex ↓"]
    assert "3 seeds" in figure.get_suptitle()


def test_categories_stand_apart_and_are_not_joined(steps: pd.DataFrame) -> None:
    figure = drawn(curve(summarise(steps), "s", ["psnr"], "rule", "steps", None))
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_xticklabels()] == ["slow", "fast"]
    lines = [container.lines[0] for container in axes.containers]
    assert [list(line.get_xdata()) for line in lines] == [[0, 1]] * 4
    assert {line.get_linestyle() for line in lines} == {"None"}
    assert len({line.get_marker() for line in lines}) == 4
    figure.canvas.draw()
    pixels = [line.get_transform().transform(line.get_xydata())[0][0] for line in lines]
    assert pixels == sorted(pixels) and min(np.diff(pixels)) > 3  # beside each other above one category


def test_equal_pictures_stand_on_the_edge(made: Made) -> None:
    frame = framed({"a": [1, 2]}, {"psnr": ("higher", lambda a: None if a == 1 else 20.0)})
    figure = drawn(curve(summarise(frame), "s", ["psnr"], "a", None, None))
    (axes,) = figure.axes
    assert list(axes.containers[0].lines[0].get_data()[1]) == [20.0]
    edge = [line for line in axes.lines if line.get_marker() == 6]
    assert [(list(line.get_xdata()), list(line.get_ydata())) for line in edge] == [([1.0], [1.0])]


def test_other_axes_make_lines_and_panels(steps: pd.DataFrame) -> None:
    axes = {"a": [1, 2, 3], "b": [1, 2], "c": ["x", "y"], "d": [0, 1]}
    table = summarise(framed(axes, {"psnr": ("higher", lambda a, b, c, d: 100.0 * a + 10 * b + d + (c == "y") / 2)}))
    figure = drawn(curve(table, "s", ["psnr"], "a", "d", "c"))
    assert [each.get_title() for each in figure.axes] == ["c = x", "c = y"]
    for each, extra in zip(figure.axes, (0, 0.5), strict=True):
        lines = [list(container.lines[0].get_ydata()) for container in each.containers]
        assert lines == [[100 * a + 10 * b + d + extra for a in (1, 2, 3)] for d in (0, 1) for b in (1, 2)]


def test_a_random_search_is_points(steps: pd.DataFrame) -> None:
    rng = random.Random(0)
    cells = [{"a": rng.random(), "b": rng.random(), "c": rng.random()} for _ in range(40)]
    axes: dict[str, Sequence[Any]] = {name: [cell[name] for cell in cells] for name in "abc"}
    frame = framed(axes, {"psnr": ("higher", lambda a, b, c: a + b - c)}, cells=cells)
    (panel,) = drawn(curve(summarise(frame), "s", ["psnr"], "a", None, None)).axes
    (container,) = panel.containers
    assert container.lines[0].get_linestyle() == "None"
    found = set(zip(*container.lines[0].get_data(), strict=True))
    assert found == {(cell["a"], cell["a"] + cell["b"] - cell["c"]) for cell in cells}


def test_more_lines_than_can_be_told_apart_are_thinned_and_said(tmp_path: Path) -> None:
    frame = framed({"a": list(range(30)), "b": list(range(25))}, {"psnr": ("higher", lambda a, b: a + b)})
    found = curve(summarise(frame), "s", ["psnr"], "a", None, None)
    assert len(found.names) == 8 and (found.names[0], found.names[-1]) == ("0", "24")
    assert "8 of 25 series shown" in found.heading


def test_lines_are_thinned_evenly_where_several_axes_part_them() -> None:
    axes = {"a": [1, 2, 3], "b": ["x", "y", "z"], "c": list(range(6))}
    found = curve(summarise(framed(axes, {"psnr": ("higher", chance(0, 1))})), "s", ["psnr"], "a", "b", None)
    assert found.names == ("x, 0", "x, 5", "y, 0", "y, 5", "z, 0", "z, 5") and found.legend == "b, c"
    assert "6 of 18 series shown" in found.heading


def test_looks_differ_without_colour() -> None:
    assert len(set(style.MARKERS)) == len(style.COLOURS) == len(style.DASHES) == 8
    assert len({str(dashes) for dashes in style.DASHES}) >= 7


@pytest.mark.parametrize("direction", ["higher", "lower"])
@pytest.mark.parametrize("seed", range(20))
def test_the_front_is_what_nothing_beats(direction: str, seed: int) -> None:
    rng = random.Random(seed)
    ends = [math.inf if direction == "higher" else -math.inf, math.nan]
    points = [Point(rng.randint(1, 9), rng.choice([*range(9), *ends[: seed % 3]])) for _ in range(rng.randint(1, 40))]
    sign = 1 if direction == "higher" else -1

    def beats(one: Point, other: Point) -> bool:
        better = one.x < other.x or sign * one.y > sign * other.y
        return one.x <= other.x and sign * one.y >= sign * other.y and better

    there = [i for i, point in enumerate(points) if not math.isnan(point.y)]
    expected = {i for i in there if not any(beats(points[j], points[i]) for j in there)}
    found = pareto_front(points, direction)
    assert set(found) == expected and len(found) == len(expected)
    assert [points[i].x for i in found] == sorted(points[i].x for i in found)


def test_the_front_is_drawn_as_steps_and_named(steps: pd.DataFrame) -> None:
    table = summarise(steps)
    figure = drawn(pareto(table, "s", ["psnr", "lpips_alex"], "nfe", None, None))
    for axes, metric, best in zip(figure.axes, ("psnr", "lpips_alex"), (max, min), strict=True):
        (front,) = [line for line in axes.lines if line.get_label() == "front"]
        means = steps.groupby(["nfe", "rule"])[metric].mean()
        value = {nfe: best(means[nfe]) for nfe in (10, 20, 40, 800)}
        reached = [nfe for nfe in value if value[nfe] == best(value[other] for other in value if other <= nfe)]
        assert list(front.get_xdata()) == [*reached, 800]
        np.testing.assert_allclose(front.get_ydata()[:-1], [value[nfe] for nfe in reached])
        assert front.get_drawstyle() == "steps-post"
        named = {text.get_text() for text in axes.texts}
        assert named and all(re.fullmatch(r"(5|10|20|400), (slow|fast)", name) for name in named)


def test_a_trade_off_joins_settings_in_the_axis_order(steps: pd.DataFrame) -> None:
    figure = drawn(tradeoff(summarise(steps), "s", [("lpips_alex", "clip_score")], "steps", None, None))
    (axes,) = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("lpips_alex ↓", "clip_score ↑")
    means = steps.groupby(["rule", "steps"])[["lpips_alex", "clip_score"]].mean()
    for container, rule in zip(axes.containers, ("slow", "fast"), strict=True):
        np.testing.assert_allclose(container.lines[0].get_xydata(), means.loc[rule].to_numpy())
    assert {text.get_text() for text in axes.texts} <= {"5", "10", "20", "400"}


def luminance(colour: Sequence[float]) -> float:
    """WCAG 2's relative luminance."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


@pytest.mark.parametrize("metric", ["psnr", "lpips_alex"])
def test_a_heat_map_shows_each_mean_readably(steps: pd.DataFrame, metric: str) -> None:
    from matplotlib.colors import to_rgb

    figure = drawn(heatmap(summarise(steps), "s", [metric], "rule", "steps", None))
    axes, _ = figure.axes
    means = steps.groupby(["steps", "rule"], sort=False)[metric].mean().unstack(sort=False).to_numpy()
    (image,) = axes.images
    np.testing.assert_allclose(image.get_array(), means)
    best = np.unravel_index(means.argmax() if metric == "psnr" else means.argmin(), means.shape)
    fields = {tuple(map(int, text.get_position()[::-1])): text for text in axes.texts}
    colours = {place: image.to_rgba(np.array([[means[place]]]))[0, 0] for place in fields}
    assert max(fields, key=lambda place: luminance(colours[place])) == best  # brighter is better
    for place, text in fields.items():
        assert abs(float(text.get_text()) - means[place]) < 0.006
        light, dark = sorted((luminance(colours[place]), luminance(to_rgb(text.get_color()))), reverse=True)
        assert (light + 0.05) / (dark + 0.05) > 3.5


def test_a_heat_map_leaves_gaps_and_names_exact_fields() -> None:
    cells = [{"a": 1, "b": 1}, {"a": 1, "b": 2}, {"a": 2, "b": 1}]
    frame = framed({"a": [1, 2], "b": [1, 2]}, {"psnr": ("higher", lambda a, b: None if a == 2 else b)}, cells=cells)
    axes, _ = drawn(heatmap(summarise(frame), "s", ["psnr"], "a", "b", None)).axes
    texts = {text.get_position(): text.get_text() for text in axes.texts}
    assert texts == {(0, 0): "1.000", (0, 1): "2.000", (1, 0): "exact", (1, 1): "–"}


@pytest.mark.slow
def test_the_default_figures_are_sound_files_and_left_alone_when_nothing_changed(
    steps: pd.DataFrame, tmp_path: Path
) -> None:
    from matplotlib._pylab_helpers import Gcf

    files = write_figures(tmp_path, {"name": "s"}, steps)
    stems = {"curve_x-steps", "curve_x-rule", "heatmap", "pareto", "tradeoff"}
    assert {file.relative_to(tmp_path).as_posix() for file in files} == {
        f"figures/{stem}.{end}" for stem in stems for end in ("pdf", "png")
    }
    for file in files:
        data = file.read_bytes()
        if file.suffix == ".pdf":
            assert data.startswith(b"%PDF") and b"/FontFile2" in data and b"CreationDate" not in data
        else:
            with Image.open(file) as image:
                image.load()
                assert min(image.size) > 300
    before = {file: file.stat().st_mtime_ns for file in files}
    assert write_figures(tmp_path, {"name": "s"}, steps, summarise(steps)) == files
    assert {file: file.stat().st_mtime_ns for file in files} == before
    again = write_figures(tmp_path / "again", {"name": "s"}, steps)
    assert [file.read_bytes() for file in again] == [file.read_bytes() for file in files]
    steps.loc[0, "psnr"] += 1
    write_figures(tmp_path, {"name": "s"}, steps)
    assert (tmp_path / "figures/pareto.png").stat().st_mtime_ns != before[tmp_path / "figures/pareto.png"]
    assert not Gcf.figs  # nothing is left in pyplot's hands


@pytest.mark.slow
def test_a_users_words_are_set_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "others", tuple)  # a machine without fonts of its own
    monkeypatch.setattr(fonts, "_found", {})
    prompts = ["costs $5 and $10, 100% {x} \\frac", "ein Café, 一只猫", "a very " + "long " * 60 + "prompt"]
    frame = framed({"prompt": prompts, "a": [1, 2]}, {"psnr": ("higher", lambda prompt, a: len(prompt) + a)})
    table = summarise(frame)
    figure = drawn(curve(table, "$x_1$", ["psnr"], "a", "prompt", None))
    figure.canvas.draw()
    (legend,) = figure.legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts[0].startswith("costs $5") and "□□□" in texts[1] and "Café" in texts[1] and len(texts[2]) <= 20
    assert figure.get_suptitle().startswith("$x_1$")
    assert len(write_figures(tmp_path, {"name": "$x_1$ 猫"}, frame)) == 6  # two curves and a heat map


def test_nothing_is_drawn_without_axes_or_numbers(tmp_path: Path) -> None:
    assert write_figures(tmp_path, {"name": "s"}, framed({"seed": [0, 1]}, {"psnr": ("higher", chance(1, 2))})) == []
    assert write_figures(tmp_path, {"name": "s"}, framed({"a": [0, 1]}, {})) == []
    assert not list(tmp_path.iterdir())


def test_settings_that_failed_or_are_all_exact_do_no_harm(tmp_path: Path) -> None:
    exact = {"psnr": ("higher", lambda a: None), "ssim": ("higher", lambda a: float(a))}
    frame = framed({"a": [1, 2, 3]}, exact, nfe=lambda a: 10 * a)
    frame.loc[0, ["status", "nfe", "ssim", "psnr_exact"]] = ["failed", pd.NA, math.nan, False]
    assert {file.stem for file in write_figures(tmp_path, {"name": "s"}, frame)} == {"curve_x-a", "pareto"}
    files = write_figures(tmp_path, {"name": "s"}, frame, metrics=["psnr", "psnr"])
    assert {file.stem for file in files} == {"curve_x-a_psnr", "pareto_psnr"}
    (axes,) = drawn(pareto(summarise(frame), "s", ["ssim"], "nfe", None, None)).axes
    (front,) = [line for line in axes.lines if line.get_label() == "front"]
    assert front.get_xydata().tolist() == [[20, 2], [30, 3], [30, 3]]


@pytest.mark.parametrize(
    "keys, message",
    [
        ({"kind": "curv"}, r"kind=curv: must be one of .*did you mean 'curve'\?"),
        ({"x": "step"}, r"x=step: no such axis in this sweep; it has steps, rule, seed; did you mean 'steps'\?"),
        ({"over": ["rul"]}, r"over=rul: no such axis .*did you mean 'rule'\?"),
        ({"metrics": ["pnsr"]}, r"metric=pnsr: .*did you mean 'psnr'\?"),
        ({"x": "steps", "hue": "steps"}, r"x=steps hue=steps: one axis cannot be both"),
        ({"kind": "curve", "y": "steps"}, r"kind=curve: knows no y, but x, hue, facet"),
        ({"y": "steps", "cost": "nfe"}, r"kind=heatmap: knows no cost, but x, y, facet"),
        ({"metrics": ["psnr"], "over": ["steps", "rule"]}, r"kind=curve: needs a sweep with an axis"),
        ({"cost": "euros"}, r"cost=euros: must be one of nfe, seconds"),
        ({"kind": "pareto", "cost": "seconds"}, r"kind=pareto: every setting costs the same"),
        ({"kind": "heatmap", "over": ["rule"]}, r"kind=heatmap: needs two axes; this one has steps"),
        ({"kind": "tradeoff", "metrics": ["psnr"]}, r"kind=tradeoff: needs two metrics"),
    ],
)
def test_what_cannot_be_drawn_is_told(steps: pd.DataFrame, tmp_path: Path, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        write_figures(tmp_path, {"name": "s"}, steps, **keys)
    assert not list(tmp_path.iterdir())


def test_the_command_draws_what_it_is_asked_for(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store, sweep = made()
    folder = tmp_path / "sweeps" / "made"
    folder.mkdir(parents=True)
    (folder / "sweep.json").write_bytes(to_json(sweep))
    words = [
        "figure",
        "made",
        f"output_dir={tmp_path}",
        "kind=curve",
        "metric=error,psnr",
        "x=seed",
        "hue=guidance.scale",
    ]
    assert command_line.run(words) == 0
    printed = capsys.readouterr().out.split()
    stem = f"{folder}/figures/curve_x-seed_hue-guidance.scale_error_psnr"
    assert printed == [f"{stem}.pdf", f"{stem}.png"] and all(Path(file).is_file() for file in printed)
    table: Table = summarise(results(store, sweep), ["error"], rows=["seed"])
    figure = drawn(curve(table, "made", ["error"], "seed", "guidance.scale", None))
    lines = [list(container.lines[0].get_data()[1]) for container in figure.axes[0].containers]
    assert lines == [[0.3, 0.1, 0.2], [0.5, 0.25]]  # the third cell of scale 7 failed
    monkeypatch.setattr(sys, "argv", ["diffsweep-results", *words[:3], "x=sed"])
    assert command_line.main() == 2
    assert "did you mean 'seed'?" in capsys.readouterr().err


@pytest.mark.slow
def test_ten_thousand_settings_are_drawn_without_their_bars(tmp_path: Path) -> None:
    rng = random.Random(0)
    cells = [{"a": rng.random(), "b": rng.random()} for _ in range(10_000)]
    axes: dict[str, Sequence[Any]] = {name: [cell[name] for cell in cells] for name in "ab"}
    frame = framed(axes, {"psnr": ("higher", lambda a, b: a - b)}, cells=cells)
    files = write_figures(tmp_path, {"name": "s"}, frame)
    assert {file.stem for file in files} == {"curve_x-a", "curve_x-b"}  # a heat map of 10,000 x 10,000 is none
    assert plot.MANY < 10_000 and max(file.stat().st_size for file in files) < 1_000_000


def test_a_figure_says_which_metrics_it_leaves_out(steps: pd.DataFrame, tmp_path: Path) -> None:
    names = [f"m{i}" for i in range(6)]
    frame = framed({"a": [1, 2, 3], "b": [1, 2]}, {name: ("higher", chance(i, i + 1)) for i, name in enumerate(names)})
    for kind in ("curve", "heatmap"):
        request = figure._Request("s", summarise(frame), (), {})
        assert all("; 4 of 6 metrics" in drawing.heading for _, drawing in request.drawings(kind))
        asked = figure._Request("s", summarise(frame), ("m5", "m0"), {})
        assert all("metrics" not in drawing.heading for _, drawing in asked.drawings(kind))
