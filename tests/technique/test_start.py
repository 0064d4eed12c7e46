"""Where a trajectory that starts from the input begins, and what is said where it cannot."""

from __future__ import annotations

import re

import pytest

from diffsweep.core.problems import BadInput
from diffsweep.sweep.parts import build


@pytest.mark.parametrize("technique", ["image_to_image", "inpaint"])
def test_the_strength_that_is_advised_is_accepted_and_hardly_a_smaller_one(technique: str) -> None:
    """As typed, at every number of steps."""
    start = {"start": "input"} if technique == "inpaint" else {}
    for n in range(1, 1001):
        timesteps = tuple(range(n))[::-1]
        with pytest.raises(BadInput) as refused:
            build("technique", {"name": technique, "strength": 0.0005, **start}).visited(timesteps)
        found = re.fullmatch(
            rf"strength=0.0005: leaves no step of {n}; at least ([\d.]+) is needed", str(refused.value)
        )
        assert found is not None
        advised = float(found[1])
        assert len(build("technique", {"name": technique, "strength": advised, **start}).visited(timesteps)) == 1
        assert int(n * advised * 0.98) == 0 and len(found[1]) <= 8
