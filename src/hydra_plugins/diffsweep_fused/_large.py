"""A sweep so large that it was hardly meant: what it would cost, from a few of its cells, before it is expanded."""

import random
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.types import Override, RangeSweep
from omegaconf import DictConfig

from diffsweep.core.problems import BadInput
from hydra_plugins.diffsweep_fused._grammar import count
from hydra_plugins.diffsweep_fused.composer import Composer

LOOKED_AT = 16  # cells


class Large(BadInput):
    """The refusal of a sweep that is too large to be expanded unasked, with what it would cost."""

    cost: tuple[str, ...] = ()
    planned = False  # `plan=true` asks for the cost alone

    @classmethod
    def of(cls, cost: Sequence[str], most: int, planned: bool) -> "Large":
        """The refusal of a sweep of more than `most` cells."""
        refused = cls(f"{', '.join(cost)}: above {most:,} cells, say that they are meant: confirm=true")
        refused.cost = (
            *cost,
            f"above {most:,} cells, confirm=true plans each of them and, without plan=true, runs them",
        )
        refused.planned = planned
        return refused


def some_cells(loader: ConfigLoader, master: DictConfig, overrides: Collection[Override]) -> Iterator[dict[str, Any]]:
    """The configurations of a few cells of a sweep, chosen at random, always the same ones. overrides: the last of each
    key."""
    composer, chance = Composer(loader, master), random.Random(0)
    counts = [count(override) for override in overrides]
    for _ in range(LOOKED_AT):
        yield composer.plain([_line(o, chance.randrange(n)) for o, n in zip(overrides, counts, strict=True)])


def _line(override: Override, place: int) -> str:
    """An override with the value at this place of its sweep."""
    key, sweep = override.get_key_element(), override._value
    if not override.is_sweep_override():
        return f"{key}={override.get_value_element_as_str()}"
    if isinstance(sweep, RangeSweep) and sweep.start is not None:
        return f"{key}={sweep.start + place * sweep.step}"  # its iterator would count up to that
    return f"{key}={next(islice(override.sweep_string_iterator(), place, None))}"
