"""A cell: one picture to make, frozen (`freeze`), and named by everything that decides its pixels (`identity`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from diffsweep.core.loop import asked
from diffsweep.core.types import BASE, Level, Stage
from diffsweep.guidance.rule import Rule, varies

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, eq=False)
class Cell:
    """One picture to make. config: what decides it, plain; axes: what its sweep varies; the parts, built, in `parts`
    those of further groups that its technique uses; notes: what was assumed, each beginning with its key.

    Of a cell that enlarges another's picture, stage, scheduler, guidance and levels are the super-resolution's.
    """

    id: str
    config: Mapping[str, Any]
    axes: Mapping[str, Any]
    seed: int
    prompt: str
    model: Any
    stage: Stage
    scheduler: Any
    guidance: Any
    technique: Any
    view: Any
    parts: Mapping[str, Any]
    levels: tuple[Level, ...]  # those that the scheduler visits
    visited: tuple[Level, ...]  # those of the technique's trajectory
    pixels: np.ndarray | None
    mask: np.ndarray | None
    beside: Mapping[str, float] = field(default_factory=dict)  # what a question tells the network of this cell's model
    hard_mask: np.ndarray | None = None  # before softening; it decides no pixel, metrics need it
    upscale: Any = None
    base: Cell | None = None  # the cell whose picture this one enlarges
    notes: tuple[str, ...] = ()

    @property
    def network(self) -> Any:
        """The model of this cell's own stage."""
        return self.upscale.model if self.base else self.model

    @property
    def stage_name(self) -> str:
        """What the engine calls this stage."""
        return self.upscale.name if self.base else BASE

    @property
    def config_key(self) -> str:
        """The key of that model in the configuration: `model`, `upscale`, `upscale.then`."""
        return f"{self.base.config_key}.then" if self.base and self.base.base else "upscale" if self.base else "model"

    @property
    def cascade(self) -> tuple[Cell, ...]:
        """The cells of every stage, from the first to this one."""
        return (*(self.base.cascade if self.base else ()), self)

    @property
    def prompts(self) -> tuple[str | None, ...]:
        """Every prompt the model is asked about, a step's rows in order."""
        return self._rows(self.guidance) if self.visited else ()

    def _rows(self, guidance: Rule) -> tuple[str | None, ...]:
        prompts = self.technique.prompts_for(self.prompt)
        prompts = self.upscale.prompts_for(prompts) if self.base else prompts
        return tuple(row for prompt in prompts for row in guidance.branches(prompt))

    @cached_property
    def rounds(self) -> int:
        """How often the technique asks for an estimate, each of at most so many model rows as there are `prompts`."""
        return len(self._asked)

    @cached_property
    def evaluations(self) -> int:
        """The model rows of this cell's own stage; guidance may ask fewer at some levels than at others."""
        if not varies(self.guidance):
            return self.rounds * len(self.prompts)
        return sum(len(self._rows(self.guidance.at(level))) for level in self._asked)

    @cached_property
    def _asked(self) -> list[Level]:
        return asked(self.visited, self.scheduler, self.stage.process)
