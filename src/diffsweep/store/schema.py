"""The contents of record.json and sweep.json as types, and the one place that reads and writes them.

Reading checks a file against its type: one that is missing, unreadable or of another shape raises `Damaged`, with the
file and the reason. Keys beyond those of the type are let through, so that a part may add some. `schema` numbers the
shapes: a file of a later one is refused, not guessed at.
"""

from __future__ import annotations

import errno
import json
import math
import re
import types
import typing
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict, TypeVar

from diffsweep.core import files
from diffsweep.core.problems import BadInput
from diffsweep.core.text import WORDS

SCHEMA = 1
DEEPEST, LONGEST = 50, 300  # levels of what may be anything; digits of a whole number
T = TypeVar("T")
NOWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)  # there can be no file of that name

CellId = Annotated[str, r"[\w-]+"]
FileName = Annotated[str, r"\w[^/\\\0]*\.png"]
SheetName = Annotated[str, r"(?!\.{1,2}\Z)[^/\\\0]+"]
Digest = Annotated[str, r"[0-9a-f]{64}"]  # SHA-256
Direction = Annotated[str, r"higher|lower"]


class Damaged(OSError):
    """A stored file that is not what was stored there."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = path, reason

    def __reduce__(self) -> Any:
        return type(self), (self.path, self.reason)


class Absent(Damaged):
    """Not damaged, but not stored either."""


class Newer(BadInput):
    """A file of a later diffsweep."""


class Definition(TypedDict):
    """What two numbers must agree in to be compared. bounds: the least and the greatest number there can be."""

    direction: Direction
    bounds: NotRequired[tuple[float | None, float | None]]
    metric: NotRequired[str]
    region: NotRequired[str]
    network: NotRequired[str | None]
    references: NotRequired[str]


class Entry(TypedDict):
    """A metric's number of a cell; without a value, `exact` or a reason."""

    value: float | None
    definition: Definition
    exact: NotRequired[bool]
    reason: NotRequired[str | None]


class Trajectory(TypedDict):
    """The steps that were watched: how many were asked for, and the timesteps of those that were stored."""

    asked: int
    t: list[float]


class Facts(TypedDict):
    """Facts that a technique gives with its picture; base: the cell whose picture it enlarges."""

    base: NotRequired[CellId]
    trajectory: NotRequired[Trajectory]


class Record(TypedDict):
    """record.json of a cell. stats: each file's size in bytes and its time of change in ns, as they were written."""

    schema: NotRequired[int]
    cell_id: CellId
    files: dict[FileName, Digest]
    stats: NotRequired[dict[FileName, tuple[int, int]]]
    config: dict[str, Any]
    nfe: int
    seconds: float
    facts: Facts
    metrics: dict[str, Entry]
    recipe: NotRequired[int]
    timesteps: NotRequired[list[float]]
    provenance: NotRequired[dict[str, Any]]


class CellEntry(TypedDict):
    """A cell in sweep.json."""

    cell_id: CellId
    axes: dict[str, Any]
    seed: int
    status: str
    reason: NotRequired[str | None]
    config: NotRequired[dict[str, Any]]


class RunEntry(TypedDict):
    """One run of a sweep, and what it counted."""

    started: str
    cells: int
    model_loads: int
    model_calls: int
    model_rows: int
    padded_rows: int
    encodes: int
    rows: int
    sampling_seconds: float
    id: NotRequired[str]
    device: NotRequired[str | None]
    threads: NotRequired[int | None]
    later_rows: NotRequired[dict[str, int]]
    halvings: NotRequired[int]
    loading_seconds: NotRequired[float]


class SetValue(TypedDict):
    """A number of a setting's pictures, which `of` stands for."""

    of: str
    cells: int
    axes: dict[str, Any]
    value: float | None
    reason: NotRequired[str | None]
    note: NotRequired[str | None]


class SetEntry(TypedDict):
    """A metric's numbers of whole sets of pictures."""

    definition: Definition
    values: list[SetValue]


class Look(TypedDict):
    """How a contact sheet is laid out, as `write_grid` has it."""

    rows: NotRequired[str | None]
    cols: NotRequired[str | None]
    blocks: NotRequired[list[str] | None]
    metric: NotRequired[list[str] | None]
    pictures: NotRequired[list[str] | None]
    title: NotRequired[str | None]
    size: NotRequired[int | None]


class Drawing(TypedDict):
    """What a figure shows, as `write_figures` has it; cell: of a trajectory."""

    kind: NotRequired[str | None]
    metrics: NotRequired[list[str] | None]
    over: NotRequired[list[str]]
    x: NotRequired[str | None]
    y: NotRequired[str | None]
    hue: NotRequired[str | None]
    facet: NotRequired[str | None]
    cost: NotRequired[str | None]
    cell: NotRequired[str | None]


class Chosen(TypedDict):
    """The sheets and figures that each report draws beside the usual ones."""

    sheets: NotRequired[dict[SheetName, Look]]
    figures: NotRequired[list[Drawing]]


class Document(TypedDict):
    """sweep.json. bases: the cells whose pictures others enlarge, by those others, of all stages."""

    schema: NotRequired[int]
    name: str
    command: str
    created: str
    axes: dict[str, list[Any]]
    cells: list[CellEntry]
    runs: list[RunEntry]
    notes: list[str]
    grid: NotRequired[Look]
    chosen: NotRequired[Chosen]
    in_parts: NotRequired[bool]
    metrics: NotRequired[list[str]]
    unavailable: NotRequired[dict[str, str]]
    sets: NotRequired[dict[str, SetEntry]]
    rows: NotRequired[int | None]
    later_rows: NotRequired[dict[str, int]]
    bases: NotRequired[dict[CellId, CellId]]


class Shared:
    """Holds equal parts of many files once: records of a sweep differ in little. Whoever is given them changes none."""

    def __init__(self) -> None:
        self._parts: dict[Any, Any] = {}

    def __call__(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """As an `object_pairs_hook` of json: the parts within are shared already, so their identity stands for them."""
        own = dict(pairs)
        key = tuple(
            (name, type(value), id(value) if isinstance(value, dict) else repr(value)) for name, value in own.items()
        )
        return self._parts.setdefault(key, own)


def load(path: Path, kind: type[T], shared: Shared | None = None) -> T:
    """A file as its type, its parts shared with those of other files. Absent, Damaged, or Newer."""
    try:
        data = files.read(path)
    except OSError as error:
        if error.errno in NOWHERE:
            raise Absent(path, "is not there") from None
        raise Damaged(path, f"cannot be read ({error.strerror or error})") from None
    return loaded(data, path, kind, shared)


def loaded(data: bytes, path: Path, kind: type[T], shared: Shared | None = None) -> T:
    """A file's content as its type. Damaged, or Newer."""
    try:
        value = _parsed(data, shared)
    except (ValueError, RecursionError) as error:
        raise Damaged(path, f"cannot be read ({str(error) or type(error).__name__})") from None
    found = value.get("schema", SCHEMA) if isinstance(value, dict) else SCHEMA
    if type(found) is int and found > SCHEMA:
        raise newer(path, found)
    shape: Any = kind
    if problem := wrong(value, shape):
        raise Damaged(path, f"has another shape ({problem})")
    return typing.cast(T, value)


def newer(path: Path, found: int) -> Newer:
    told = f"of a later diffsweep (schema {found}, this one reads up to {SCHEMA})"
    return Newer(f"{path}: {told}; upgrade diffsweep, or choose another output_dir")


def dump(value: Mapping[str, Any], kind: Any) -> bytes:
    """A record or a document as its file's content; TypeError where it could not be read again."""
    whole = {"schema": SCHEMA, **value}
    data = to_json(whole, in_order=kind is Document)  # a sweep's axes come as they were typed
    if problem := wrong(json.loads(data), kind):
        raise TypeError(f"{kind.__name__}: {problem}")
    return data


def wrong(value: Any, kind: Any) -> str | None:
    """What is wrong with a value of one of these types."""
    problem = _check(kind)(value)
    return problem and problem.lstrip(". ")


def to_json(value: Any, in_order: bool = False) -> bytes:
    """Strict JSON: an infinity or a NaN is a bug of the writer (`null` beside a flag says what was meant). Equal
    contents are equal bytes, unless the order of keys counts. What is no character is written as an escape."""
    text = json.dumps(value, indent=1, sort_keys=not in_order, allow_nan=False)
    if "\\ud" in text and not _is_text(json.loads(text)):  # of an error's message, or of what a plugin says
        return to_json(_as_text(json.loads(text)), in_order)
    return text.encode() + b"\n"


def _parsed(data: bytes, shared: Shared | None = None) -> Any:
    """Strict JSON; ValueError for numbers that are not finite, and for text that is none."""
    numbers: dict[str, Any] = {"parse_constant": _number_of, "parse_float": _number_of, "parse_int": _whole_of}
    value = json.loads(data, object_pairs_hook=shared, **numbers)
    if (b"\\ud" in data.lower() or b"\xed" in data) and not _is_text(value):
        raise ValueError("it holds text that is not Unicode")
    return value


def _number_of(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not JSON")
    return number


def _whole_of(text: str) -> int:
    if len(text) > LONGEST:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _is_text(value: Any) -> bool:
    """Whether all texts of a value are Unicode, and not halves of a character."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _as_text(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, list):
        return [_as_text(item) for item in value]
    return {_as_text(key): _as_text(item) for key, item in value.items()} if isinstance(value, dict) else value


# -- a check for each type ---------------------------------------------------------------------------------------------
Check = Callable[
    [Any], str | None
]  # what is wrong with a value, after the path that leads there; None where nothing is


@lru_cache
def _check(hint: Any) -> Check:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return lambda value: _too_deep(value, DEEPEST)
    if typing.is_typeddict(hint):
        return _keys(hint)
    if origin is Annotated:
        return _text(re.compile(arguments[1]))
    if origin is types.UnionType:  # of a type and None, which is all that is used here
        inner = _check(arguments[0])
        return lambda value: None if value is None else inner(value)
    if origin is list:
        return _items(_check(arguments[0]))
    if origin is tuple:  # of one type
        inner, length = _items(_check(arguments[0])), len(arguments)
        return lambda value: inner(value) or (f" must have {length} entries" if len(value) != length else None)
    if origin is dict:
        return _values(_check(arguments[0]), _check(arguments[1]))
    if hint is float:
        return lambda value: None if _number(value) else f" must be a number, not {_short(value)}"
    if hint is int:
        return lambda value: None if _whole(value) else f" must be a whole number of 64 bits, not {_short(value)}"
    return lambda value: None if type(value) is hint else f" must be {WORDS[hint]}, not {_short(value)}"


def _too_deep(value: Any, left: int) -> str | None:
    """What is wrong with values within each other, of which each reader follows some."""
    if not isinstance(value, dict | list):
        return None
    if not left:
        return f" holds more than {DEEPEST} levels"
    for item in value.values() if isinstance(value, dict) else value:
        if isinstance(item, dict | list) and (problem := _too_deep(item, left - 1)):
            return problem
    return None


def _whole(value: Any) -> bool:
    return type(value) is int and -(2**63) <= value < 2**63


def _number(value: Any) -> bool:
    return type(value) is int or (type(value) is float and math.isfinite(value))


def _text(pattern: re.Pattern[str]) -> Check:
    def check(value: Any) -> str | None:
        if type(value) is str and pattern.fullmatch(value):
            return None
        return f" must be a text like {pattern.pattern}, not {_short(value)}"

    return check


def _items(item: Check) -> Check:
    def check(value: Any) -> str | None:
        if type(value) is not list:
            return f" must be a list, not {_short(value)}"
        for place, one in enumerate(value):
            if problem := item(one):
                return f"[{place}]{problem}"
        return None

    return check


def _values(key: Check, item: Check) -> Check:
    def check(value: Any) -> str | None:
        if type(value) is not dict:
            return f" must hold keys, not {_short(value)}"
        for name, one in value.items():
            if problem := key(name):
                return f": each key{problem}"
            if problem := item(one):
                return f".{name}{problem}"
        return None

    return check


def _keys(kind: Any) -> Check:
    hints = typing.get_type_hints(kind, include_extras=True)
    checks = {key: _check(_bare(hint)) for key, hint in hints.items()}
    required = [key for key, hint in hints.items() if typing.get_origin(hint) is not NotRequired]

    def check(value: Any) -> str | None:
        if type(value) is not dict:
            return f" must hold keys, not {_short(value)}"
        for key in required:
            if key not in value:
                return f".{key} is missing"
        for key, one in value.items():
            if key in checks and (problem := checks[key](one)):
                return f".{key}{problem}"
        return None

    return check


def _bare(hint: Any) -> Any:
    return typing.get_args(hint)[0] if typing.get_origin(hint) is NotRequired else hint


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
