"""Each test of the fuzz ends: one that waits, one that fails, and one that has too many cases."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.cases import bounded, cases


@pytest.fixture(autouse=True)
def alone() -> None:
    """These run nothing of diffsweep's."""


def sleep() -> None:
    time.sleep(30)


def sleep_deaf() -> None:
    for _ in range(2):
        with suppress(Exception):
            time.sleep(30)


@pytest.mark.parametrize("case, told", [(sleep, "it waits"), (sleep_deaf, "it waited")])
def test_a_case_that_waits_fails(case: Callable[[], None], told: str) -> None:
    began = time.monotonic()
    with pytest.raises(AssertionError, match=f"^{told}"):
        bounded(case, each=0.1)()
    assert time.monotonic() - began < 20


def test_cases_are_skipped_after_a_while_but_not_once_one_has_failed() -> None:
    number = bounded(lambda fails: 1 / (not fails), most=0.05)
    number(False)
    time.sleep(0.1)
    with pytest.raises(pytest.skip.Exception, match=r"^1 cases in 0\.05 seconds, and none failed$"):
        number(False)
    number = bounded(lambda fails: 1 / (not fails), most=0.05)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            number(True)
        time.sleep(0.1)


def test_a_failure_is_found_and_made_small() -> None:
    @cases(200)
    @given(value=st.integers(0, 1000))
    def test(value: int) -> None:
        seen.append(value)
        assert value < 17

    seen: list[int] = []
    with pytest.raises(AssertionError):
        test()
    assert seen[-1] == 17
