"""Estimates against closed forms, scipy, statsmodels, and simulations whose truth is known."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.multitest import multipletests

from diffsweep.report.statistics import Stat, averaged, best_of, holm, intervals, p_value


def crossed(inputs: int, seeds: int) -> tuple[np.ndarray, np.ndarray]:
    """Each cell's input and seed."""
    first, second = np.meshgrid(range(inputs), range(seeds), indexing="ij")
    return first.ravel(), second.ravel()


def drawn(inputs: int, seeds: int, spread: tuple[float, float, float], times: int) -> tuple[np.ndarray, np.ndarray]:
    """Cells x times of normal effects of inputs, seeds and cells; and, for each time, what these inputs' mean is."""
    rng = np.random.default_rng(0)
    of_input = spread[0] * rng.standard_normal((inputs, 1, times))
    values = of_input + spread[1] * rng.standard_normal((1, seeds, times))
    values += spread[2] * rng.standard_normal((inputs, seeds, times))
    return values.reshape(inputs * seeds, times), of_input.mean(axis=(0, 1))


@pytest.mark.parametrize(
    "inputs, seeds, spread",
    [
        (1, 2, (0, 0, 1)),
        (1, 4, (0, 0, 1)),
        (1, 8, (0, 0, 1)),
        (1, 50, (0, 0, 1)),
        (3, 4, (2, 1, 1)),  # few inputs are held fixed: the interval is for them
        (3, 8, (2, 1, 1)),
        (12, 1, (1, 0, 1)),
        (5, 4, (1, 1, 1)),
        (8, 4, (1, 0.3, 0.5)),
        (8, 8, (1, 1, 1)),
        (8, 8, (0.3, 1, 0.3)),
        (30, 4, (1, 0.2, 1)),
    ],
)
def test_nineteen_of_twenty_intervals_hold_the_truth(
    inputs: int, seeds: int, spread: tuple[float, float, float]
) -> None:
    values, of_these = drawn(inputs, seeds, spread, 3000)
    truth = of_these if 1 < inputs < 5 else 0
    low, high = intervals(values, *crossed(inputs, seeds), fewest=2)
    covered = ((low <= truth) & (truth <= high)).mean()
    assert 0.925 <= covered <= 0.975


def test_where_cells_alone_vary_intervals_are_wide_rather_than_narrow() -> None:
    values, _ = drawn(8, 8, (0, 0, 1), 3000)
    low, high = intervals(values, *crossed(8, 8))
    assert 0.945 <= ((low <= 0) & (high >= 0)).mean() <= 0.99


def test_missing_cells_do_not_break_an_interval() -> None:
    values, _ = drawn(10, 6, (1, 0.5, 1), 3000)
    kept = np.random.default_rng(1).random(60) > 0.2
    low, high = intervals(values[kept], *(levels[kept] for levels in crossed(10, 6)))
    assert 0.925 <= ((low <= 0) & (high >= 0)).mean() <= 0.975


def test_over_one_factor_it_is_students_interval() -> None:
    values = np.random.default_rng(0).normal(5, 2, size=(100, 1))
    expected = scipy_stats.t.interval(0.95, 99, values.mean(), scipy_stats.sem(values[:, 0]))
    ends = intervals(values, np.zeros(100, int), np.arange(100))
    assert np.ravel(ends) == pytest.approx(expected, abs=0.03 * (expected[1] - expected[0]))
    again = intervals(values, np.zeros(100, int), np.arange(100))
    assert np.array_equal(ends, again)


def test_over_two_factors_its_width_is_the_analysis_of_variances() -> None:
    inputs, seeds = crossed(12, 10)
    values, _ = drawn(12, 10, (1, 0.5, 1), 1)
    cells = pd.DataFrame({"y": values[:, 0], "i": inputs, "s": seeds})
    squares = anova_lm(ols("y ~ C(i) + C(s)", cells).fit())["mean_sq"]
    of_input, of_seed, rest = squares / 120
    variance = of_input + of_seed - rest
    freedom = variance**2 / (of_input**2 / 11 + of_seed**2 / 9 + rest**2 / 99)
    low, high = intervals(values, inputs, seeds)
    expected = 2 * scipy_stats.t.ppf(0.975, freedom) * math.sqrt(variance)
    assert (high - low)[0] == pytest.approx(expected, rel=0.06)


@pytest.mark.parametrize(
    "values, inputs, seeds",
    [
        ([[3.0]], [0], [0]),
        ([[0.1]] * 6, [0] * 6, range(6)),
        ([[0.1]] * 12, [0, 1] * 6, [0] * 6 + [1] * 6),
    ],
)
def test_no_interval_where_nothing_varies(values: list[list[float]], inputs: list[int], seeds: list[int]) -> None:
    low, high = intervals(np.array(values), np.array(inputs), np.array(seeds))
    assert np.isnan(low).all() and np.isnan(high).all()


@pytest.mark.parametrize("direction", ["higher", "lower"])
def test_best_of_k_is_the_mean_over_every_choice_of_k(direction: str) -> None:
    values = [3.0, 1.0, 4.0, 1.5, 9.0, 2.6]
    best = max if direction == "higher" else min
    for k in range(1, 7):
        expected = np.mean([best(chosen) for chosen in combinations(values, k)])
        assert best_of(values, k, direction) == pytest.approx(expected)
    stat = Stat(0, 0, 9, values=(tuple(values), (2.0, 5.0, 5.5)))
    assert stat.best_of(3, direction) == pytest.approx(np.mean([best_of(values, 3, direction), best((2.0, 5.0, 5.5))]))
    assert math.isnan(stat.best_of(4, direction))  # an input of three seeds has no best of four


def test_every_statistic_is_of_an_inputs_seeds_averaged_over_inputs() -> None:
    groups = (1.0, 2.0, 10.0), (4.0, 3.0)
    stat = Stat(0, 0, 5, values=groups)
    assert stat.median == np.mean([np.median(group) for group in groups]) == 2.75
    assert stat.quantile(0.75) == np.mean([np.quantile(group, 0.75) for group in groups]) == 4.875
    (mean,) = averaged(np.array([*groups[0], *groups[1]])[:, None], np.array([0, 0, 0, 1, 1]))
    assert mean == np.mean([np.mean(group) for group in groups])
    for direction in ("higher", "lower"):
        assert stat.best_of(1, direction) == pytest.approx(mean)  # the best of one is the mean
        best = max if direction == "higher" else min
        both = np.mean([best(pair) for group in groups for pair in combinations(group, 2)][:3])
        assert stat.best_of(2, direction) == pytest.approx(np.mean([both, best(groups[1])]))
    assert math.isnan(Stat(math.nan, math.nan, 0).median)


def test_of_one_input_the_statistics_are_numpys() -> None:
    values = np.random.default_rng(3).normal(size=9)
    stat = Stat(0, 0, 9, values=(tuple(values),))
    assert stat.median == np.median(values) and stat.quantile(0.95) == np.quantile(values, 0.95)
    assert averaged(values[:, None], np.zeros(9, int))[0] == pytest.approx(np.mean(values))
    assert stat.best_of(9, "higher") == values.max() and stat.best_of(8, "lower") >= values.min()


def test_the_best_of_several_is_never_below_the_median_of_the_same_seeds() -> None:
    """As it can be where one is averaged over inputs and the other is not."""
    values = ((88.0, 88.1, 88.2), (60.0, 61.0, 62.0), (88.0, 88.3, 88.4))
    stat = Stat(0, 0, 9, values=values)
    assert stat.best_of(3, "higher") > stat.median > stat.best_of(3, "lower")
    assert stat.best_of(3, "higher") < np.median([value for group in values for value in group])  # pooled


def test_where_inputs_have_unequal_numbers_of_seeds_the_interval_is_for_the_mean_over_inputs() -> None:
    values, of_these = drawn(3, 12, (3, 0.3, 1), 3000)
    inputs, seeds = crossed(3, 12)
    kept = (inputs == 0) | (inputs == 1) & (seeds < 8) | (inputs == 2) & (seeds < 4)
    low, high = intervals(values[kept], inputs[kept], seeds[kept])
    assert 0.92 <= ((low <= of_these) & (of_these <= high)).mean() <= 0.98
    pooled = values[kept].mean(axis=0)
    assert np.abs(averaged(values[kept], inputs[kept]) - of_these).std() < 0.5 * np.abs(pooled - of_these).std()


@pytest.mark.parametrize("inputs, seeds, repeats", [(1, 2, 2), (2, 1, 2), (3, 2, 2), (1, 3, 3), (4, 3, 3), (12, 1, 12)])
def test_no_interval_of_fewer_repeats_than_asked_for(inputs: int, seeds: int, repeats: int) -> None:
    values, _ = drawn(inputs, seeds, (1, 1, 1), 5)
    for fewest in (2, 3, 12, 13):
        ends = np.array(intervals(values, *crossed(inputs, seeds), fewest=fewest))
        assert (np.isfinite(ends) == (repeats >= fewest)).all()
    assert np.isfinite(intervals(values, *crossed(inputs, seeds))).all() == (repeats >= 3)  # unless asked


def test_an_interval_is_cut_at_what_a_metric_can_be() -> None:
    values = np.array([[0.999, 0.2, 40.0], [0.98, 0.01, 10.0], [0.7, 0.3, 12.0]])
    levels = np.zeros(3, int), np.arange(3)
    free = np.array(intervals(values, *levels))
    assert free[1, 0] > 1 and free[0, 1] < 0 and free[0, 2] < 0
    for bounds in ((-1, 1), (0, None), (None, 0.9), (None, None)):
        least, greatest = (np.inf * sign if end is None else end for end, sign in zip(bounds, (-1, 1), strict=True))
        low, high = intervals(values[:, :2], *levels, bounds=bounds)
        expected = np.clip(free[:, :2], least, greatest)
        expected[1] = np.maximum(expected[1], values[:, :2].mean(axis=0))  # a number out of bounds is not hidden
        np.testing.assert_array_equal([low, high], expected)


def test_holm_is_statsmodels() -> None:
    ps = [0.01, 0.04, 0.03, 0.2, 0.001, 0.9]
    assert holm(ps) == pytest.approx(multipletests(ps, method="holm")[1])
    with_none = holm([0.01, math.nan, 0.04])
    assert math.isnan(with_none[1])
    assert [with_none[0], with_none[2]] == pytest.approx(multipletests([0.01, 0.04], method="holm")[1])


def test_tests_of_no_difference() -> None:
    differences = np.array([0.3, 0.1, -0.2, 0.5, 0.7, 0.9, 0.0])
    assert p_value(differences, "wilcoxon") == scipy_stats.wilcoxon(differences[:-1], method="exact").pvalue
    assert p_value(differences, "sign") == pytest.approx(2 * (1 + 6) / 2**6)  # one of six is below zero
    assert p_value(np.zeros(5), "wilcoxon") == p_value(np.zeros(5), "sign") == 1
    assert p_value(np.arange(1.0, 9.0), "wilcoxon") == pytest.approx(2 / 2**8)


def test_inputs_that_are_held_fixed_may_each_be_constant() -> None:
    """Nothing varies from seed to seed: no interval, and no warning of 0 / 0."""
    values = np.array([1.0, 1.0, 1.0, 4.0, 4.0, 4.0])[:, None]
    low, high = intervals(values, np.array([0, 0, 0, 1, 1, 1]), np.array([0, 1, 2, 0, 1, 2]))
    assert np.isnan(low).all() and np.isnan(high).all()
