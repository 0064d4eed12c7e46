"""`wandb agent`: a program of W&B's that starts `diffsweep` for each trial of its own sweep, and may end it early."""

from __future__ import annotations

import os


def under_agent() -> bool:
    return "WANDB_SWEEP_ID" in os.environ


def trial_id() -> str | None:
    """The id that an agent has given the one run of its trial, None without one."""
    return os.environ.get("WANDB_RUN_ID") if under_agent() else None
