"""How many cases a test draws: hundreds, the same ones each time, or with FUZZ=nightly thousands of others."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import HealthCheck, settings

os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", str(Path(__file__).parents[2] / ".pytest_cache/hypothesis"))
NIGHTLY = os.environ.get("FUZZ") == "nightly"
MORE = 30  # times as many


def cases(number: int) -> settings:
    """The settings of a test that draws so many cases; a process that hangs is no failure of Hypothesis's clock."""
    return settings(
        max_examples=number * MORE if NIGHTLY else number,
        derandomize=not NIGHTLY,
        database=None,
        deadline=None,
        print_blob=True,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
