"""diffsweep in a notebook or a program: `import diffsweep as ds`.

    r = ds.sweep("technique=inpaint", seed=range(4), **{"guidance.scale": [1, 3, 7]})
    r.frame, r.table(), r.image(seed=0, **{"guidance.scale": 3}), r.grid()
    ds.draw("a photo of a dog", steps=20)

Words are the command line's, in its grammar; keywords are Python values. Both go the command's way.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffsweep import app
from diffsweep.core.problems import BadInput, require
from diffsweep.core.text import counted
from diffsweep.report.command import written
from diffsweep.report.results import Results, as_python
from diffsweep.runner.listener import Listener
from diffsweep.store.cells import Store
from diffsweep.store.stored import opened
from diffsweep.terminal import Progress

if TYPE_CHECKING:
    from PIL import Image

    from diffsweep.runner.forecast import Forecast

SEVERAL = r"\s[\w.@/+~]+="  # a key after a space: of a string that holds several words, perhaps
MOST_VALUES = 100_000  # of an axis


def sweep(*words: str, listener: Listener | None = None, **axes: Any) -> Results:
    """Run a sweep and return its results; what is stored already is not sampled again.

    words: as after `diffsweep -m`: `"technique=inpaint"`, `"seed=range(0,4)"`, `"+sweeps=quickstart"`. axes: keys with
    Python values, dotted ones by `**{"guidance.scale": [1, 3, 7]}`. A list, a range or another iterable is an axis, a
    value each item; a tuple is one value that is a list, as in `**{"technique.views": ("identity", "flip")}`. Of what
    cannot vary within a sweep (`metric.names`, `plugins`, ...) a list is the value. In texts, `${key}` names another
    key, as on the command line. listener: hears how it goes on; by default notes go to stderr, and a bar shows the
    progress.

    Raises BadInput for what the command line would refuse, with the same message. A cell that fails ends nothing:
    `Results.failed` has the reasons. Hydra's other launchers end at it, with an error, and may have sampled by then.
    """
    typed = _typed(words, axes)
    require("plan=true: runs nothing; ds.plan takes the same keys" if "plan=true" in typed else None)
    with _explained(words):
        folder = app.run(["-m", *typed], Progress() if listener is None else listener)
    require("plan: true in a sweeps file runs nothing; give plan=false to run it" if folder is None else None)
    assert folder is not None
    return load(str(folder.absolute()))


def plan(*words: str, listener: Listener | None = None, **axes: Any) -> Forecast:
    """What a sweep would run and take: what is stored, the model rows of the rest, time, memory. Nothing runs.

    words, axes: as of `sweep`. listener: hears notes; by default they go to stderr. Where no stored cell tells how long
    a model call takes, diffsweep loads the model and times a few.

    Raises BadInput for what `sweep` would refuse, and above 100,000 cells, without `confirm=True`, with what they would
    cost.
    """
    typed = [word for word in _typed(words, axes) if word.partition("=")[0] != "plan"]
    asked = _Planning(Progress() if listener is None else listener)
    with _explained(words):
        app.run(["-m", *typed, "plan=true"], asked)
    assert asked.found is not None
    return asked.found


class _Planning(Listener):
    """Keeps the forecast of a sweep. told: hears all else that a plan has to say."""

    def __init__(self, told: Listener) -> None:
        self.found: Forecast | None = None
        self._told = told

    def note(self, text: str) -> None:
        self._told.note(text)

    def forecast(self, forecast: Forecast) -> None:
        self.found = forecast
        self._told.forecast(forecast)


def draw(
    prompt: str | None = None, *words: str, steps: int | None = None, scale: float | None = None, **settings: Any
) -> Image.Image:
    """Draw one picture; stored and found again like every cell, and measured where a metric is named.

    steps, scale: `scheduler.steps` and `guidance.scale`. words, settings: further keys, as `sweep` takes them:
    `ds.draw("a photo of a dog", "model=if_xl", seed=3)`. Raises as `sweep`; BadInput where the keys come to several
    cells, RuntimeError where the cell fails.
    """
    given = {"prompt": prompt, "scheduler.steps": steps, "guidance.scale": scale}
    own = {key: value for key, value in given.items() if value is not None}
    if twice := [key for key in own if key in settings]:
        raise BadInput(f"{key}: given twice" for key in twice)
    typed = _typed(words, own | settings)
    if not any(word.startswith("metric") for word in typed):
        typed.append("metric=none")
    with _explained(words):
        number = len(app.composed(typed))
    if number != 1:
        raise BadInput(f"these keys come to {counted('cell', number)}, and draw makes one; sweep makes all")
    results = sweep(*typed)
    for cell_id, reason in results.failed.items():
        raise RuntimeError(f"cell {cell_id} failed: {reason}")
    return results.image()


def load(name: str, output_dir: str | os.PathLike[str] = "outputs") -> Results:
    """Open a stored sweep by its name, or by the path of its folder; BadInput where there is none."""
    stored = opened(os.fspath(name), os.fspath(output_dir))
    root = stored.root.absolute()  # the program may go to another folder
    return Results(replace(stored, root=root, folder=stored.folder.absolute(), store=Store(root)))


@contextmanager
def _explained(words: Sequence[str]) -> Iterator[None]:
    """Within, a mistake of the user's is raised as BadInput, with the command's message."""
    try:
        yield
    except Exception as error:
        if (told := app.mistake(error)) is None:
            raise
        apart = [f"{word!r}: give each key=value as a string of its own" for word in words if re.search(SEVERAL, word)]
        raise BadInput([*told.splitlines(), *apart]) from None


def _typed(words: Sequence[str], axes: Mapping[str, Any]) -> list[str]:
    """The words of a command line; BadInput where they are none, or give a key twice."""
    strange: list[object] = [word for word in list[object](words) if not isinstance(word, str)]
    if strange:
        raise BadInput(f"{word!r}: a string such as 'seed=3' is needed" for word in strange)
    typed = {word.partition("=")[0].lstrip("+~") for word in words}
    problems = [f"{word}: an option of the command line; give key=value" for word in words if word.startswith("-")]
    problems += [f"{key}: given twice" for key in axes if key in typed]
    if problems:
        raise BadInput(problems)
    return [*words, *(_word(key, value) for key, value in axes.items())]


def _word(key: str, value: Any) -> str:
    """An override in Hydra's grammar, of Python's values; BadInput for a value that has no place there."""
    if isinstance(value, bytes | bytearray):
        raise BadInput(f"{key}={value!r}: must be text, not bytes")
    held = key.partition(".")[0] in app.HELD
    if isinstance(value, range) and len(value) > 1 and not held:
        return f"{key}=range({value.start},{value.stop},{value.step})"
    value = as_python(value)
    one = isinstance(value, str | Path | tuple | Mapping) or not isinstance(value, Iterable)
    if one or held:
        return f"{key}={_text(key, value)}"
    values = [_text(key, as_python(item)) for item in islice(value, MOST_VALUES + 1)]
    if not values or len(values) > MOST_VALUES:
        size = "an empty list has no values" if not values else f"more than {MOST_VALUES:,} values are too many"
        raise BadInput(f"{key}: {size} to sweep over")
    return f"{key}={','.join(values)}"


def _text(key: str, value: Any) -> str:
    try:
        return written(value, literal=False)
    except (TypeError, ValueError):
        raise BadInput(
            f"{key}={value!r}: must be text, a finite number, true, false, None or a list of these"
        ) from None
