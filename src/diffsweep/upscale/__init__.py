"""What follows the first stage: networks that enlarge its picture, one after another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from diffsweep.core.group import Group
from diffsweep.core.types import Program, Scheduler, Stage
from diffsweep.guidance.rule import Rule

if TYPE_CHECKING:
    from diffsweep.technique.job import Job, Outcome, Technique


class Upscale(Protocol):
    """How to enlarge a picture of the stage before, if at all."""

    def on(self, model: Any, low: Stage) -> Upscale:
        """The same, settled for pictures of `low` and a cascade that this model begins; BadInput where it cannot be."""
        ...

    def larger(self, low: Stage) -> Stage | None:
        """The stage that enlarges pictures of `low`; None where nothing does, BadInput where this one cannot."""
        ...


class Enlargement(Upscale, Protocol):
    """One that does enlarge. model: the network; name: what the engine calls the stage; noise_level: the timestep to
    which the picture is noised; then: what follows."""

    @property
    def noise_level(self) -> int: ...

    @property
    def guidance(self) -> Rule: ...

    @property
    def scheduler(self) -> Scheduler: ...

    @property
    def then(self) -> Upscale: ...

    @property
    def model(self) -> Any: ...

    @property
    def name(self) -> str: ...

    def prompts_for(self, prompts: tuple[str, ...]) -> tuple[str, ...]:
        """Those of a technique's prompts that are asked about here."""
        ...

    def program(self, technique: Technique, job: Job) -> Program[Outcome]: ...


GROUP = Group(mark="larger", kind=Upscale, chosen=False)
