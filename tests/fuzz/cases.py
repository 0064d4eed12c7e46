"""How many cases a test draws: hundreds, the same ones each time, or with FUZZ=nightly thousands of others.

A test ends, whatever it finds. A case that waits fails. After a failure Hypothesis looks for a smaller one, for five
minutes at most. Where a night's cases would take longer than half an hour, the rest of them is skipped, visibly.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.errors import HypothesisException

from tests.waiting import awake

os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", str(Path(__file__).parents[2] / ".pytest_cache/hypothesis"))
NIGHTLY = os.environ.get("FUZZ") == "nightly"
MORE = 30  # times as many
MOST = 1800.0  # seconds that a test draws cases, as long as none fails
CASE = 60.0  # seconds after which a case is taken to wait for ever

Case = Callable[..., None]


def cases(number: int) -> Callable[[Any], Any]:
    """Have a test draw so many cases."""
    chosen = settings(
        max_examples=number * MORE if NIGHTLY else number,
        derandomize=not NIGHTLY,
        database=None,
        deadline=None,  # a machine that does other things is no failure
        print_blob=True,
        report_multiple_bugs=False,  # the first ends the search
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )

    def decorated(test: Any) -> Any:
        test.hypothesis.inner_test = bounded(test.hypothesis.inner_test)
        return chosen(test)

    return decorated


def bounded(case: Case, most: float = MOST, each: float = CASE) -> Case:
    """A case that ends after `each` seconds, and is skipped `most` seconds after the first one."""
    began, number, failed = 0.0, 0, False

    @wraps(case)
    def one(*arguments: Any, **keywords: Any) -> None:
        nonlocal began, number, failed
        began = began or time.monotonic()
        if time.monotonic() - began > most and not failed:  # one that failed must do so again
            pytest.skip(f"{number} cases in {most:g} seconds, and none failed")
        number += 1
        try:
            with awake(each):
                case(*arguments, **keywords)
        except HypothesisException:  # a case that cannot be drawn
            raise
        except Exception:
            failed = True
            raise

    return one
