"""Mistakes that a user can mend: collected over a whole sweep, reported together, exit code 2."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches

from diffsweep.core.keys import Auto
from diffsweep.core.text import printed, visible


class BadInput(ValueError):
    """One or more mendable mistakes; `messages` holds each distinct one once, in order."""

    def __init__(self, messages: str | Iterable[str]) -> None:
        self.messages = list(dict.fromkeys(map(visible, [messages] if isinstance(messages, str) else messages)))
        super().__init__("\n".join(self.messages))

    def __reduce__(self) -> tuple[type, tuple[list[str]]]:
        return type(self), (self.messages,)


@contextmanager
def under(key: str) -> Iterator[None]:
    """Within, a mistake is told under this key: `path=...` as `model.path=...`."""
    try:
        yield
    except BadInput as error:
        raise BadInput(placed(key, message) for message in error.messages) from error


def placed(key: str, message: str) -> str:
    """A message under a key: its first line, and each other one that is a `key=value` to type, begins with it."""
    return f"{key}." + re.sub(r"(?m)^  (?=[\w.]+=)", f"  {key}.", message)


def did_you_mean(word: str, allowed: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or nothing when no allowed word comes close."""
    close = closest(word, allowed)
    return f"; did you mean {close!r}?" if close else ""


def closest(word: str, allowed: Iterable[str]) -> str | None:
    """The allowed word that was probably meant."""
    return next(iter(get_close_matches(str(word), list(allowed), n=1, cutoff=0.6)), None)


def require(*problems: str | None) -> None:
    """Raise BadInput with every problem that is not None: the end of a dataclass's `__post_init__`."""
    if found := [problem for problem in problems if problem is not None]:
        raise BadInput(found)


def within(key: str, value: float | Auto | None, low: float, high: float | None = None) -> str | None:
    """A problem unless low <= value <= high; None and auto are within."""
    if value is None or isinstance(value, str) or (low <= value and (high is None or value <= high)):
        return None
    return f"{key}={printed(value)}: must be " + (f"at least {low}" if high is None else f"between {low} and {high}")


def one_of(key: str, value: str, allowed: Iterable[str]) -> str | None:
    """A problem unless value is one of the allowed words."""
    allowed = list(allowed)
    if value in allowed:
        return None
    return f"{key}={value}: must be one of {', '.join(allowed)}{did_you_mean(value, allowed)}"


def not_text(value: str) -> str | None:
    """A problem where a text holds bytes that are not UTF-8 (lone surrogates, as Python reads them): no file can."""
    try:
        value.encode()
    except UnicodeEncodeError:
        seen = value.encode("utf-8", "backslashreplace").decode()
        return f"{seen}: not UTF-8; type it in UTF-8, under a UTF-8 locale"
    return None
