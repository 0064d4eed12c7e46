"""One call of a model: questions in, one answer each out.

Every call has the shape that it is asked for; rows that no question fills repeat the last one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import repeat
from typing import TypeVar

import torch

from diffsweep.core.memory import out_of_memory
from diffsweep.core.streams import like
from diffsweep.core.types import Estimate, Level, Model, Query, clean_of

Asker = TypeVar("Asker")
Asked = Sequence[tuple[Asker, Query]]


class TooManyRows(Exception):
    """Memory does not suffice for a call, and fewer rows may mend that."""


def answers(
    asked: Asked[Asker], predict: Callable[[list[Query]], list[Estimate]], rows: int
) -> Sequence[Estimate | Exception]:
    """The answers of one call, in order. Where it raised, each program is asked for alone, so that only the culprit
    fails. predict: makes a call of so many rows."""
    try:
        return predict([query for _, query in asked])
    except Exception as error:
        if out_of_memory(error) and rows > 1:
            raise TooManyRows from error
        if len(askers := list(dict.fromkeys(asker for asker, _ in asked))) == 1:
            return [error] * len(asked)
    alone = {asker: [(own, query) for own, query in asked if own == asker] for asker in askers}
    each = {asker: iter(answers(own, predict, rows)) for asker, own in alone.items()}
    return [next(each[asker]) for asker, _ in asked]


def predicted(model: Model, queries: list[Query], rows: int) -> list[Estimate]:
    """The model's answers to these queries, all of one stage and of one kind, in a call of so many rows."""
    padded = queries + [queries[-1]] * (rows - len(queries))
    x = torch.stack([q.image for q in padded])
    beside = {key: _stacked([q.beside[key] for q in padded]) for key in padded[0].beside}
    levels, prompts = [q.level for q in padded], [q.prompt for q in padded]
    pulls = [q.pull for q in padded if q.pull is not None]
    if pulls:
        answer = _pulled(model, x, levels, prompts, beside, torch.stack(pulls))
    else:
        answer = model.predict(x, levels, prompts, beside)
    none = repeat(None)
    variances = none if answer.variance is None else answer.variance.unbind()
    pulled = none if answer.pulled is None else answer.pulled.unbind()
    each = zip(queries, answer.output.unbind(), variances, pulled, strict=False)  # without the rows that were padded
    return [Estimate(output, variance, answer.kind, pull) for _, output, variance, pull in each]


def _stacked(values: Sequence[torch.Tensor | float]) -> torch.Tensor:
    """A tensor or a number a row, as one tensor."""
    tensors = [value for value in values if isinstance(value, torch.Tensor)]
    return torch.stack(tensors) if tensors else torch.tensor(values)


def _pulled(
    model: Model,
    x: torch.Tensor,
    levels: Sequence[Level],
    prompts: Sequence[str | None],
    beside: Mapping[str, torch.Tensor],
    pulls: torch.Tensor,
) -> Estimate:
    """The model's answer, with v^T d(clean estimate)/dx of each row. pulls: v, B C H W.

    No row depends on another, so one backward pass serves them all.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        answer = model.predict(x, levels, prompts, beside)
        numbers = like(x, [(level.alpha, level.sigma) for level in levels])
        alpha, sigma = numbers.T[..., None, None, None]
        (pulled,) = torch.autograd.grad(clean_of(answer.kind, x, answer.output, alpha, sigma), x, pulls)
    variance = None if answer.variance is None else answer.variance.detach()
    return Estimate(answer.output.detach(), variance, answer.kind, pulled)
