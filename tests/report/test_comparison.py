"""Paired comparisons and the variance split, on cells whose truth is known."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.multitest import multipletests

from diffsweep.core.problems import BadInput
from diffsweep.report.comparison import compare, explained, to_frame
from diffsweep.report.variance import variance_split


def cells(axes: Mapping[str, list[Any]], value: Callable[..., float], nfe: Callable[..., int] = lambda **_: 10) -> Any:
    """A sweep's frame over the product of axes, with one metric, `clip`; dots in names are underlines for `value`."""
    rows = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
    named = [{name.replace(".", "_"): v for name, v in row.items()} for row in rows]
    frame = pd.DataFrame(rows).assign(status="done", clip=[value(**row) for row in named])
    frame["nfe"] = pd.array([nfe(**row) for row in named], dtype="Int64")
    if "seed" not in frame:
        frame["seed"] = 0
    frame.attrs = {"axes": list(axes), "metrics": {"clip": {"metric": "CLIP", "direction": "higher"}}, "reasons": {}}
    return frame


AXES = {"guidance.scale": [3.0, 7.0], "seed": list(range(64))}


def noise(*key: Any) -> float:
    """Normal, and the same for the same key."""
    return float(np.random.default_rng([int(part) for part in key]).normal())


def test_a_sentence_says_what_was_found() -> None:
    frame = cells(AXES, lambda guidance_scale, seed: noise(seed) + 0.021 * (guidance_scale == 7) * (1 + noise(seed, 7)))
    (found,) = compare(frame)
    at = frame.pivot(index="seed", columns="guidance.scale", values="clip")
    paired = (at[7.0] - at[3.0]).to_numpy()
    expected = scipy_stats.t.interval(0.95, 63, paired.mean(), scipy_stats.sem(paired))
    assert found.difference == pytest.approx(paired.mean())
    assert (found.low, found.high) == pytest.approx(expected, abs=0.1 * (expected[1] - expected[0]))
    assert found.p == pytest.approx(scipy_stats.wilcoxon(paired).pvalue) and found.adjusted == found.p
    ends = f"[{found.low:.3f}, {found.high:.3f}]"
    assert found.sentence == f"guidance.scale 7 against 3: clip mean {paired.mean():+.3f} {ends}, n = 64, p < 0.001"
    assert f"{found.high - found.low:.2f}" < f"{frame['clip'].std():.2f}"  # pairing takes the seeds' own noise away


def test_every_axis_of_settings_against_its_baseline_with_holm_over_all() -> None:
    axes = {"scheduler.steps": [10, 20], "mask": ["box", "half", "none"], "seed": list(range(12))}
    levels = {"box": 0.0, "half": 1.0, "none": 3.0}
    frame = cells(
        axes,
        lambda scheduler_steps, mask, seed: (
            levels[mask] + scheduler_steps / 10 + noise(seed, scheduler_steps, len(mask))
        ),
        lambda scheduler_steps, **_: scheduler_steps,
    )
    found = compare(frame)
    assert [(one.axis, one.value, one.baseline) for one in found] == [
        ("scheduler.steps", 20, 10),
        ("mask", "half", "box"),
        ("mask", "none", "box"),
    ]
    means = frame.groupby("mask")["clip"].mean()
    assert found[2].difference == pytest.approx(means["none"] - means["box"])
    assert [one.n for one in found] == [12, 12, 12]  # a unit is a seed, averaged over the other axis
    assert [one.adjusted for one in found] == pytest.approx(multipletests([one.p for one in found], method="holm")[1])
    assert found[0].flags == ("model evaluations differ: 20 against 10",) and not found[1].flags
    assert "over seeds, adjusted over 3 comparisons (Holm). 12 seeds allow no p below 0.000488" in explained(found)
    (one, other) = compare(frame, axis="mask", baseline="half", test="sign")
    assert (one.value, other.value, one.baseline) == ("box", "none", "half") and one.difference < 0 < other.difference
    assert other.p == pytest.approx(2 / 2**12)


def test_pairs_without_one_half_are_dropped_and_counted() -> None:
    frame = cells(AXES, lambda guidance_scale, seed: guidance_scale + seed)
    frame.loc[frame["seed"].isin([1, 2]) & (frame["guidance.scale"] == 7), "clip"] = math.nan
    (found,) = compare(frame)
    assert (found.difference, found.n, found.dropped) == (4, 62, 2) and math.isnan(found.low)
    assert found.sentence.endswith("; 2 pairs dropped")
    frame.loc[frame["guidance.scale"] == 7, "clip"] = math.nan
    (found,) = compare(frame)
    assert found.sentence == "guidance.scale 7 against 3: clip no common pairs, n = 0; 64 pairs dropped"
    assert "Holm" not in explained([found])


@pytest.mark.parametrize("inputs, units", [(3, "seeds"), (12, "inputs")])
def test_units_are_seeds_and_inputs_and_the_tests_are_independent(inputs: int, units: str) -> None:
    axes = {"guidance.scale": [1, 3], "input.id": [f"cat/{i}" for i in range(inputs)], "seed": list(range(8))}
    frame = cells(
        axes, lambda guidance_scale, input_id, seed: noise(guidance_scale, len(input_id), ord(input_id[-1]), seed)
    )
    (found,) = compare(frame)
    paired = frame.pivot(index=["input.id", "seed"], columns="guidance.scale", values="clip")
    by = (paired[3] - paired[1]).groupby(level="seed" if units == "seeds" else "input.id").mean()
    assert (found.n, found.inputs, found.seeds, found.units) == (8 * inputs, inputs, 8, units)
    assert found.p == pytest.approx(scipy_stats.wilcoxon(by).pvalue)
    (over,) = compare(frame.rename(columns={"input.id": "prompt"}).pipe(_renamed), over=["prompt"])
    assert (over.n, over.inputs, over.p) == (found.n, found.inputs, found.p)


def test_inputs_are_spoken_of_where_there_are_some() -> None:
    axes = {"guidance.scale": [1, 3], "prompt": ["a", "b", "c"], "seed": list(range(8))}
    frame = cells(axes, lambda guidance_scale, prompt, seed: noise(guidance_scale, ord(prompt), seed))
    for over, share in ((), "seed"), (("prompt",), "seed, value of prompt"):
        told = explained(compare(frame, over=over))
        split = variance_split(frame, "clip", over)
        assert f"pairs that share {share} and all other axes" in told and split
        assert ("each value of prompt counts alike" in told) == bool(over) == ("value of prompt" in split.sentence)
        assert "input" not in told and "input" not in split.sentence
    frame = cells({**axes, "prompt": list("abcdefgh")}, lambda guidance_scale, prompt, seed: noise(ord(prompt), seed))
    (found,) = compare(frame, axis="guidance.scale", over=["prompt"])
    assert found.units == "values of prompt" and "8 values of prompt allow no p" in explained([found])
    ids = {"guidance.scale": [1, 3], "input.id": list(range(8)), "seed": list(range(8))}
    (found,) = compare(cells(ids, lambda guidance_scale, input_id, seed: noise(guidance_scale, input_id, seed)))
    assert found.units == "inputs" and "units (seed, input), each" in explained([found])


def test_model_evaluations_are_rounded_as_in_a_table() -> None:
    frame = cells(AXES, lambda guidance_scale, seed: noise(seed, guidance_scale))
    frame["nfe"] = pd.array([5 + (scale == 3 and seed % 3 == 0) for scale, seed in frame[[*AXES]].values], "Int64")
    (found,) = compare(frame)
    assert found.flags == ("model evaluations differ: 5 against 5.3",)
    # a difference that a table would round away is one still
    wide = {"guidance.scale": [1, 3], "seed": list(range(100))}
    frame = cells(wide, lambda guidance_scale, seed: noise(seed, guidance_scale))
    frame["nfe"] = pd.array([5 + (scale == 3 and seed < 2) for scale, seed in frame[[*wide]].values], "Int64")
    (found,) = compare(frame)
    assert found.flags == ("model evaluations differ: 5.02 against 5",)


def test_an_empty_text_is_seen_and_can_be_the_baseline() -> None:
    frame = cells({"prompt": ["", "b"], "seed": [0, 1]}, lambda prompt, seed: noise(seed, len(prompt)))
    for typed in ("", '""'):
        (found,) = compare(frame, axis="prompt", baseline=typed)
        assert found.sentence.startswith('prompt b against "": clip') and list(to_frame([found])["baseline"]) == [""]


def _renamed(frame: pd.DataFrame) -> pd.DataFrame:
    frame.attrs = {**frame.attrs, "axes": ["guidance.scale", "prompt", "seed"]}
    return frame


@pytest.mark.slow
def test_no_difference_is_seldom_taken_for_one() -> None:
    """Each input answers a setting in its own way, for every seed: taking pairs as independent would find too much."""
    axes = {"guidance.scale": [1, 3], "input.id": list(range(8)), "seed": list(range(6))}
    wrong = outside = 0
    for time in range(200):
        frame = cells(
            axes,
            lambda guidance_scale, input_id, seed, time=time: (
                noise(time, input_id, guidance_scale) + 0.3 * noise(time, input_id, guidance_scale, seed + 1)
            ),
        )
        (found,) = compare(frame)
        wrong += found.p < 0.05
        outside += not found.low <= 0 <= found.high
    assert wrong <= 20 and outside <= 20


def test_variance_components_are_the_analysis_of_variances() -> None:
    axes = {"guidance.scale": [1, 3, 7], "input.id": list(range(5)), "seed": list(range(4))}
    frame = cells(
        axes,
        lambda guidance_scale, input_id, seed: (
            guidance_scale / 4 + noise(1, input_id) + noise(2, seed) + noise(3, guidance_scale, input_id, seed)
        ),
    )
    long = frame.rename(columns={"guidance.scale": "g", "input.id": "i"})
    squares = anova_lm(ols("clip ~ C(g) + C(i) + C(seed)", long).fit())["mean_sq"].to_numpy()
    components = np.append((squares[:3] - squares[3]) / [20, 12, 15], squares[3])
    assert (components > 0).all()
    split = variance_split(frame, "clip")
    assert split is not None and split.n == 60 and split.clipped == ()
    assert [split.setting, split.input, split.seed, split.rest] == pytest.approx(components / components.sum())


def test_the_split_finds_the_noise_where_cells_are_missing() -> None:
    axes = {"guidance.scale": list(range(40)), "input.id": list(range(40)), "seed": list(range(40))}
    rng = np.random.default_rng(0)
    of = {name: spread * rng.standard_normal(40) for name, spread in (("g", 2), ("i", 1), ("s", 3))}
    frame = cells(
        axes, lambda guidance_scale, input_id, seed: of["g"][guidance_scale] + of["i"][input_id] + of["s"][seed]
    )
    frame["clip"] += rng.standard_normal(len(frame))
    frame = frame[rng.random(len(frame)) < 0.6]
    split = variance_split(frame, "clip")
    truth = np.array([*(of[name].var(ddof=1) for name in "gis"), 1])
    assert split is not None
    assert [split.setting, split.input, split.seed, split.rest] == pytest.approx(truth / truth.sum(), rel=0.03)
    assert split.sentence.startswith("clip varies by setting ") and f"({len(frame)} cells)" in split.sentence


def test_a_component_below_zero_is_named_and_an_inseparable_design_refused() -> None:
    values = {(0, 0): 1.0, (0, 1): 2.0, (1, 0): 2.1, (1, 1): 1.0}  # seeds disagree on settings, and have one mean
    axes = {"guidance.scale": [0, 1], "seed": [0, 1]}
    split = variance_split(cells(axes, lambda guidance_scale, seed: values[guidance_scale, seed]), "clip")
    assert split is not None and (split.setting, split.seed, split.rest) == (0, 0, 1)
    assert split.sentence == ("clip varies by the rest 100 % (4 cells; setting and seed estimated below 0, taken as 0)")
    alone = cells({"guidance.scale": [0, 1, 2]}, lambda guidance_scale: guidance_scale)
    assert variance_split(alone, "clip") is None
    assert variance_split(cells(axes, lambda **_: 0.5), "clip") is None


def test_a_row_a_comparison_unrounded() -> None:
    frame = cells(AXES, lambda guidance_scale, seed: guidance_scale / 3 + noise(seed, guidance_scale))
    found = compare(frame)
    (row,) = to_frame(found).to_dict("records")
    assert (row["difference"], row["n"], row["value"], row["baseline"]) == (found[0].difference, 64, "7", "3")
    assert row["sentence"] == found[0].sentence


def test_a_number_of_a_whole_setting_has_no_pairs() -> None:
    frame = cells(AXES, lambda **_: 0.0)
    frame.attrs["sets"] = {"fid": {"definition": {"direction": "lower"}, "values": []}}
    with pytest.raises(BadInput, match="metric=fid: a number of a whole setting, which has no pairs"):
        compare(frame, ["fid"])


def test_an_overview_leaves_out_what_never_varies_and_what_time_does_not_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    from diffsweep.report import comparison

    frame = cells(AXES, lambda **_: 0.0)
    assert comparison.overview(frame) == []
    varied = frame.assign(clip=np.arange(len(frame), dtype=float), psnr=np.arange(len(frame), dtype=float))
    varied.attrs = frame.attrs | {"metrics": {name: {"direction": "higher"} for name in ("clip", "psnr")}}
    assert [one.metric for one in comparison.overview(varied)] == ["clip", "psnr"]
    monkeypatch.setattr(comparison, "MOST", 1)
    assert [one.metric for one in comparison.overview(varied)] == ["clip"]


def test_a_metric_that_never_varies_is_compared_where_it_is_named() -> None:
    frame = cells(AXES, lambda **_: 0.0)
    assert compare(frame) == []
    assert [one.difference for one in compare(frame, ["clip"])] == [0.0]


@pytest.mark.parametrize(
    "named, message",
    [
        ({"axis": "guidance.scal"}, "axis=guidance.scal: no such axis .*; did you mean 'guidance.scale'?"),
        ({"axis": "guidance.scale", "baseline": "4"}, "baseline=4: guidance.scale has 3, 7"),
        ({"baseline": "3"}, "baseline=3: of which axis"),
        ({"test": "t"}, "test=t: must be one of wilcoxon, sign"),
        ({"over": ["prompt"]}, "over=prompt: no such axis in this sweep; it has guidance.scale, seed"),
        ({"metrics": ["clap"]}, "metric=clap: this sweep has no such numbers; it has clip; did you mean 'clip'?"),
    ],
)
def test_a_name_that_is_not_there_is_refused(named: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        compare(cells(AXES, lambda **_: 0.0), **named)
