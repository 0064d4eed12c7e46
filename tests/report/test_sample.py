"""A sample of a large sweep is a sweep like the whole."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest

from diffsweep.report.sample import part, sample


def sweep(**axes: list[Any]) -> Any:
    settings = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    return {"axes": axes, "cells": [{"cell_id": str(k), "axes": own} for k, own in enumerate(settings)]}


@pytest.mark.parametrize("most", [1, 7, 50, 300, 2999, 3000, 10**6])
def test_a_sample_has_whole_axes_and_no_more_cells(most: int) -> None:
    whole = sweep(seed=[*range(100)], scale=[1.0, 3.0, 7.0], soft=[*range(10)])
    places = sample(whole, most)
    assert len(places) <= most and places == sorted({*places})
    left = part(whole, places)
    if most >= 50:  # every combination of the values left
        assert math.prod(map(len, left["axes"].values())) == len(places) > min(most, 3000) / 2
    assert len(left["axes"]["scale"]) == 3 or most < 50  # the longest axes give first
    if most >= 3000:
        assert left == whole


def test_cells_that_fill_no_grid_are_sampled_too() -> None:
    cells = [{"cell_id": str(k), "axes": {"guidance.scale": k / 7, "seed": k % 5}} for k in range(1000)]
    whole: Any = {"axes": {"guidance.scale": [k / 7 for k in range(1000)], "seed": [*range(5)]}, "cells": cells}
    assert 50 <= len(sample(whole, 100)) <= 100
    assert sample({"axes": {}, "cells": cells}, 10) == [*range(0, 1000, 100)]  # type: ignore[typeddict-item]
