"""Numbers in words that a reader takes in at once."""

from __future__ import annotations

import pytest

from diffsweep.core.text import duration, labelled, rounded, size


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        *((0, "0 s"), (0.0083, "8.3 ms"), (0.9949, "990 ms"), (1, "1.0 s"), (9.96, "10 s"), (42.4, "42 s")),
        *((119, "120 s"), (120, "2.0 min"), (7199, "120 min"), (7200, "2.0 h"), (86_400, "24 h")),
        *(
            (172_800, "2.0 days"),
            (39.4 * 86_400, "39 days"),
            (7.5 * 365.25 * 86_400, "7.5 years"),
            (1e12, "32,000 years"),
        ),
    ],
)
def test_a_duration_is_told_in_its_unit(seconds: float, told: str) -> None:
    assert duration(seconds) == told


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (0, "0"),
        (0.0834, "0.083"),
        (8.349, "8.3"),
        (41.9, "42"),
        (1234, "1,200"),
        (0.996, "1.0"),
        (1e9, "1,000,000,000"),
    ],
)
def test_a_number_is_rounded_to_two_digits(value: float, told: str) -> None:
    assert rounded(value) == told


def test_bytes_are_told_in_mega_and_giga() -> None:
    told = {0: "0 bytes", 1: "1 byte", 999: "999 bytes", 1234: "1.2 kB", 39_400_000: "39 MB", 9.64e9: "9.6 GB"}
    assert {number: size(number) for number in told} == told


def test_labels_have_a_column() -> None:
    assert labelled([("plan", "it"), ("", "and this")]) == "plan      it\n          and this"
