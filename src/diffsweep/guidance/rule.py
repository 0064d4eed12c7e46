"""A rule of guidance, and the rule applied to one prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from diffsweep.core.types import BASE, Estimate, Level, Program, Query, Stage

if TYPE_CHECKING:
    from torch import Tensor


class Rule(Protocol):
    """How a prompt guides: the choices of the group `guidance`."""

    def on(self, stage: Stage) -> Rule:
        """The rule as it is for a stage, whose checkpoint decides what is auto or None."""
        ...

    def branches(self, prompt: str) -> tuple[str | None, ...]:
        """The prompts asked about for this one, a model row each."""
        ...

    @property
    def told(self) -> Mapping[str, float]:
        """What the network is told of the guidance, as `beside` of each question."""
        ...

    def combined(self, answers: Sequence[Estimate]) -> Estimate:
        """One estimate from the branches' answers."""
        ...

    def settled(self, prompts: Sequence[str]) -> Rule:
        """The rule in its plainest form about these prompts, so that equal pictures have equal ids."""
        ...


def varies(rule: Any) -> bool:
    """Whether a rule is another one at other levels, as its `at` has it, which most rules do without."""
    return getattr(rule, "interval", None) is not None


@dataclass(frozen=True, eq=False)
class About:
    """The guidance by a rule towards one prompt. stage, beside: as of the questions."""

    rule: Rule
    prompt: str
    stage: str = BASE
    beside: Mapping[str, Tensor | float] = field(default_factory=dict)

    @property
    def prompts(self) -> tuple[str | None, ...]:
        return self.rule.branches(self.prompt)

    def estimate(self, x: Tensor, level: Level) -> Program[Estimate]:
        beside = {**self.beside, **getattr(self.rule, "told", {})}  # which a user's own rule may leave out
        rule: Any = self.rule
        rule = rule.at(level) if varies(rule) else rule
        answers = yield [Query(x, level, prompt, self.stage, beside) for prompt in rule.branches(self.prompt)]
        return rule.combined(answers)
