"""The rule that a checkpoint is made for: its scheduler's class says which (`Stage.rule`).

A cell holds that rule alone, so that choosing it by name is the same cell.
"""

from __future__ import annotations

from dataclasses import dataclass

from diffsweep.core.problems import one_of, require
from diffsweep.core.types import Level, Stage, Weights
from diffsweep.scheduler.ddim import Ddim
from diffsweep.scheduler.ddpm import Ddpm
from diffsweep.scheduler.dpm_solver import DpmSolver
from diffsweep.scheduler.euler import Euler
from diffsweep.scheduler.euler_ancestral import EulerAncestral
from diffsweep.scheduler.heun import Heun
from diffsweep.scheduler.spacing import Spaced

RULES: dict[str, type[Spaced]] = {
    "ddim": Ddim,
    "ddpm": Ddpm,
    "dpm_solver": DpmSolver,
    "euler": Euler,
    "euler_ancestral": EulerAncestral,
    "heun": Heun,
}


@dataclass(frozen=True)
class Automatic(Spaced):
    def chosen(self, stage: Stage) -> Spaced:
        """The stage's own rule, with these keys; BadInput where that is not known."""
        require(one_of("scheduler=auto: the model's rule", stage.rule, RULES))
        return RULES[stage.rule](**vars(self))

    def weights(self, t: Level, s: Level, before: Level | None) -> Weights:
        raise NotImplementedError("the rule that is chosen has them")
