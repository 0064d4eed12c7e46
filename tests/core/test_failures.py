"""Tracebacks beside a sweep."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from diffsweep.core.failures import Failures


def test_a_traceback_is_there_as_long_as_its_failure_is(tmp_path: Path) -> None:
    def sweep(failing: str, *unavailable: str) -> dict[str, Any]:
        cells = [{"cell_id": name, "status": "failed" if name in failing else "done"} for name in "abc"]
        return {"cells": cells, "unavailable": dict.fromkeys(unavailable, "a reason")}

    folder = tmp_path / "errors"
    assert Failures().write(folder, sweep("")) is None and not folder.exists()
    failures = Failures()
    for name in ("a", "psnr/mine"):
        try:
            int(f"{name}\udcff")
        except ValueError as error:
            failures.add(name, error)
            failures.add(name, KeyError("a second one"))
    assert failures["a"].startswith("ValueError: invalid literal for int()")
    assert failures.write(folder, sweep("a", "psnr/mine")) == folder
    assert sorted(os.listdir(folder)) == ["a.txt", "psnr_mine.txt"]
    assert (folder / "a.txt").read_text().startswith("Traceback (most recent call last):\n")
    again = Failures()
    again.add("b", ValueError("no"))
    assert again.write(folder, sweep("ab", "psnr/mine")) == folder / "b.txt"  # a: of another process
    assert sorted(os.listdir(folder)) == ["a.txt", "b.txt", "psnr_mine.txt"]
    assert Failures().write(folder, sweep("b")) is None and os.listdir(folder) == ["b.txt"]
    assert Failures().write(folder, sweep("")) is None and not folder.exists()
