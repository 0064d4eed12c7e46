"""What a network without text is told in a prompt's place: a class label, or nothing at all.

A prompt is a label's number or one of its names. An empty prompt is the class that means none, where there is one.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffsweep.core.keys import AUTO
from diffsweep.core.problems import BadInput, did_you_mean

if TYPE_CHECKING:
    from diffsweep.model.text import Embedding, Encoder

SEVERAL = "technique.prompts"  # the key of a technique that asks about several
SHOWN = 5  # names in a message


@dataclass(frozen=True)
class Labels:
    """count: how many labels there are, 0 for a network that is told nothing. names: of each, in order; several of one
    label stand between commas, as in ImageNet. null: the class that means none."""

    count: int = 0
    names: tuple[str, ...] = ()
    null: int | None = None
    path: str = field(default="this checkpoint", compare=False)  # what it is called in messages
    device = AUTO

    @property
    def decides(self) -> tuple[Any, ...]:
        return self.count, self.names, self.null

    @property
    def assumed(self) -> str:
        """What `prompt=auto` stands for."""
        return self._called(0) if self.count else ""

    @cached_property
    def numbers(self) -> Mapping[str, tuple[int, ...]]:
        """Which labels a name has."""
        found: dict[str, dict[int, None]] = defaultdict(dict)
        for number, names in enumerate(self.names):
            for name in (names, *names.split(",")):
                found[name.strip().lower()][number] = None
        return {name: tuple(own) for name, own in found.items()}

    def read(self, prompt: str, key: str = "prompt") -> str:
        """The prompt in its plainest form; BadInput where it is no label. key: what it is called in messages."""
        number = self.number(prompt, key)
        return "" if number is None or number == self.null else self._called(number)

    def number(self, prompt: str, key: str = "prompt") -> int | None:
        """The label of a prompt, None where the network is told nothing."""
        text = prompt.strip().lower()
        if not self.count:
            if text:
                instead = "its technique needs a model that reads text" if key == SEVERAL else "leave it out"
                raise BadInput(f"{key}={prompt}: {self.path} is told of no prompt; {instead}")
            return None
        if not text and self.null is None:
            raise BadInput(f"{key}=: {self.path} knows no empty prompt; give {self._known}")
        if not text:
            return self.null
        found = (int(text),) if text.isdecimal() else self.numbers.get(text, ())
        if len(found) > 1:
            raise BadInput(f"{key}={prompt}: means the labels {' and '.join(map(str, found))}; give one's number")
        if not found or found[0] >= self.count:
            raise BadInput(f"{key}={prompt}: no label of {self.path}; give {self._known}{self._near(text)}")
        return found[0]

    def _called(self, number: int) -> str:
        """A label's first name that means no other one, else its number."""
        names = (name.strip() for name in self.names[number].split(",")) if number < len(self.names) else iter(())
        return next((name for name in names if self.numbers[name.lower()] == (number,)), str(number))

    @property
    def _known(self) -> str:
        numbers = f"a number from 0 to {self.count - 1}"
        if not self.names:
            return numbers
        listed = ", ".join(map(self._listed, range(len(self.names[:SHOWN]))))
        more = f" and {len(self.names) - SHOWN} more" if len(self.names) > SHOWN else ""
        return f"{numbers}, or a name: {listed}{more}"

    def _listed(self, number: int) -> str:
        """A label by what it can be asked for: where that is its number, with its name."""
        called = self._called(number)
        return f"{called} ({self.names[number].partition(',')[0]})" if called == str(number) else called

    def _near(self, text: str) -> str:
        return did_you_mean(text, self.numbers)

    def cleaned(self, prompt: str | None) -> str | None:
        return self.read(prompt or "")

    def encoder(self, root: Path, variant: str | None, device: str) -> Encoder:
        import torch

        def encode(prompt: str | None) -> Embedding:
            number = self.number(prompt or "")
            return {} if number is None else {"label": torch.tensor(number)}

        return encode


def named(id2label: Mapping[str, str] | None) -> tuple[str, ...]:
    """The names of `id2label`, in order; none where they leave a number out; ValueError where it holds others."""
    if not isinstance(id2label or {}, Mapping):
        raise ValueError(
            f"id2label={json.dumps(id2label)} in model_index.json: a name for each label's number is needed"
        )
    for number, name in (id2label or {}).items():
        if not (number.isdecimal() and isinstance(name, str)):
            told = f"{json.dumps(number)}: {json.dumps(name)}"
            raise ValueError(f"id2label has {told} in model_index.json: a label's number and its name are needed")
    by_number = {int(number): name for number, name in (id2label or {}).items()}
    return tuple(by_number[n] for n in range(len(by_number))) if {*by_number} == {*range(len(by_number))} else ()
