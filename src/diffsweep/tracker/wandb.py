"""Weights & Biases: a run for each cell, a run for the sweep, or both."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from diffsweep.core.keys import AUTO, Auto, given
from diffsweep.core.problems import one_of, require
from diffsweep.tracker.agent import under_agent
from diffsweep.tracker.session import Session

if TYPE_CHECKING:
    from pathlib import Path

    from diffsweep.report.write import Report
    from diffsweep.store.cells import Store
    from diffsweep.store.schema import Document

MODES = ("online", "offline", "disabled")
GRANULARITIES = ("cell", "sweep", "both")
MOST_RUNS = 100  # cells that get runs of their own under granularity=auto


@dataclass(frozen=True)
class Wandb:
    """project, entity, tags: where the runs belong; auto, or no tags, is what WANDB_PROJECT and the others say.

    mode: auto is WANDB_MODE, else online where there is a key. granularity: auto is both for up to `MOST_RUNS` cells,
    else sweep. Under `wandb agent` there is one run, the agent's, and it is the sweep's.
    """

    project: Auto | str = AUTO
    entity: Auto | str = AUTO
    mode: Auto | str = AUTO
    granularity: Auto | str = AUTO
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        named = re.fullmatch(r"[^/\\#?%:]{1,128}", self.project)
        require(
            None if named else f"project={self.project}: must be 1 to 128 characters, none of them / \\ # ? % :",
            one_of("mode", self.mode, (AUTO, *MODES)),
            one_of("granularity", self.granularity, (AUTO, *GRANULARITIES)),
            *(f"tags: {tag!r} must be 1 to 64 characters" for tag in self.tags if not 1 <= len(tag) <= 64),
        )

    def begin(self, store: Store, folder: Path) -> Session:
        """To log a sweep while it runs. folder: the sweep's."""
        return Session(self, store, folder)

    def log(self, store: Store, sweep: Document, report: Report) -> str | None:
        """Log a finished sweep. Answers one line that says where it is, or None if it was not logged."""
        session = self.begin(store, report.folder)
        try:
            session.report(sweep, report)
        except BaseException:
            session.close()
            raise
        return session.close()

    def of(self, sweep: Document) -> tuple[bool, bool]:
        """Whether the sweep has a run of its own, and whether its cells have."""
        if under_agent():
            return True, False
        chosen = given(self.granularity) or ("both" if len(sweep["cells"]) <= MOST_RUNS else "sweep")
        return chosen != "cell", chosen != "sweep"
