"""A sweep as the command runs it: what it notes and shows is printed."""

from __future__ import annotations

from typing import Any

from diffsweep.runner.run import Outcome
from diffsweep.runner.run import run_sweep as run
from diffsweep.terminal import Terminal


def run_sweep(*arguments: Any, **keywords: Any) -> Outcome:
    return run(*arguments, **{"listener": Terminal(), **keywords})
