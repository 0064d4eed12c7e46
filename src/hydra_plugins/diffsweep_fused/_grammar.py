"""Hydra's grammar of overrides, with two additions: a text stays as it is typed, and a sweep is counted unexpanded."""

import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import partial
from typing import Any
from unittest.mock import patch

from hydra._internal.grammar.functions import Functions
from hydra.core.override_parser import overrides_parser
from hydra.core.override_parser.overrides_visitor import HydraOverrideVisitor
from hydra.core.override_parser.types import ChoiceSweep, Glob, Key, Override, Quote, QuotedString, RangeSweep
from hydra.errors import HydraException

from diffsweep.core.problems import BadInput

_OF_NUMBERS = ("range", "interval", "int", "float", "bool")  # functions whose arguments stay numbers


class _AsTyped(HydraOverrideVisitor):
    """Reads `1_1_1`, `1e3` or `true` as the text that was typed, where the key holds a text."""

    def __init__(self, functions: Functions, holds_text: Callable[[str], bool]) -> None:
        super().__init__(functions)
        self._holds_text = holds_text
        self._key = ""
        self._numbers = 0  # how many functions of numbers we are in

    def visitKey(self, ctx: Any) -> Key:
        key = super().visitKey(ctx)
        self._key = "" if key.package is not None else key.key_or_group
        return key

    def visitDictKeyValuePair(self, ctx: Any) -> Any:
        outer, self._key = self._key, f"{self._key}.{ctx.getChild(0).getText().strip()}"
        try:
            return super().visitDictKeyValuePair(ctx)
        finally:
            self._key = outer

    def visitFunction(self, ctx: Any) -> Any:
        of_numbers = ctx.getChild(0).getText() in _OF_NUMBERS
        self._numbers += of_numbers
        try:
            return super().visitFunction(ctx)
        finally:
            self._numbers -= of_numbers

    def _createPrimitive(self, ctx: Any) -> Any:
        value, text = super()._createPrimitive(ctx), ctx.getText().strip()
        if not self._numbers and isinstance(value, int | float) and self._holds_text(self._key):
            return QuotedString(text, Quote.double)
        if text.startswith("@") and re.search(r"(^|[._])prompts?(\.\d+)?$|^vars\.", self._key):
            raise BadInput(
                f"{self._key}={text}: no file of prompts is read; sweep over texts in quotes, "
                f"""-m '{self._key}="a dog","a cat"', or quote a text that begins with @: '{self._key}="{text}"'"""
            )
        return value


@contextmanager
def texts_as_typed(holds_text: Callable[[str], bool]) -> Iterator[None]:
    """Within, all of Hydra reads overrides so."""
    reads = partial(_AsTyped, holds_text=holds_text)
    with patch.object(overrides_parser, "HydraOverrideVisitor", reads):
        yield


def count(override: Override) -> int:
    """How many values an override stands for."""
    value = override._value
    if isinstance(value, RangeSweep):
        return _count_range(value, str(override.input_line))
    if isinstance(value, ChoiceSweep):
        return len(value.list)
    if isinstance(value, Glob):
        return len(list(override.sweep_iterator()))
    return 1


def _count_range(sweep: RangeSweep, line: str) -> int:
    numbers = [sweep.start or 0, sweep.stop or 0, sweep.step]
    if not all(math.isfinite(number) for number in numbers) or not sweep.step:
        raise HydraException(f"{line}: this range has no end")
    start, stop, step = map(Fraction, numbers)
    return max(0, math.ceil((stop - start) / step))


def one_sentence(override: Override) -> list[str]:
    """The values of `prompt=a dog, sitting`, which were perhaps meant as one text: unquoted, with a blank after a
    comma."""
    value = override._value
    if not isinstance(value, ChoiceSweep) or not value.simple_form:
        return []
    texts = [item for item in value.list if isinstance(item, str)]
    line = override.input_line or ""
    return texts if len(texts) == len(value.list) and re.search(r",\s", line) else []
