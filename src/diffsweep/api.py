"""diffsweep in a notebook or a program: `import diffsweep as ds`.

    r = ds.sweep("technique=inpaint", seed=range(4), **{"guidance.scale": [1, 3, 7]})
    r.frame, r.table(), r.image(seed=0, **{"guidance.scale": 3}), r.grid()
    ds.draw("a photo of a dog", steps=20)

Words are the command line's, in its grammar; keywords are Python values. Both go the command's way.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from diffsweep import app
from diffsweep.core.problems import BadInput
from diffsweep.report.command import written
from diffsweep.report.results import Results
from diffsweep.runner.listener import Listener
from diffsweep.store.stored import opened
from diffsweep.terminal import Progress

if TYPE_CHECKING:
    from PIL import Image

SEVERAL = r"\s[\w.@/+~]+="  # a key after a space: of a string that holds several words, perhaps


def sweep(*words: str, listener: Listener | None = None, **axes: Any) -> Results:
    """Run a sweep and return its results; what is stored already is not sampled again.

    words: as after `diffsweep -m`: `"technique=inpaint"`, `"seed=range(0,4)"`, `"+sweeps=quickstart"`. axes: keys with
    Python values, dotted ones by `**{"guidance.scale": [1, 3, 7]}`. A list, a range or another iterable is an axis, a
    value each item; a tuple is one value that is a list, as in `**{"technique.views": ("identity", "flip")}`. Of what
    cannot vary within a sweep (`metric.names`, `plugins`, ...) a list is the value. listener: hears how it goes on; by
    default notes go to stderr, and a bar shows the progress.

    Raises BadInput for what the command line would refuse, with the same message, before a model is loaded. A cell that
    fails ends nothing: `Results.failed` has the reasons.
    """
    typed = [*words, *(_word(key, value) for key, value in axes.items())]
    if options := [word for word in typed if word.startswith("-")]:
        raise BadInput(f"{word}: an option of the command line; sweep takes key=value" for word in options)
    try:
        folder = app.run(["-m", *typed], listener or Progress())
    except Exception as error:
        if (told := app.mistake(error)) is None:
            raise
        apart = [f"{word!r}: give each key=value as a string of its own" for word in words if re.search(SEVERAL, word)]
        raise BadInput([*told.splitlines(), *apart]) from None
    assert folder is not None  # of a multirun
    return Results(opened(str(folder.absolute()), ""))


def draw(
    prompt: str | None = None, *words: str, steps: int | None = None, scale: float | None = None, **settings: Any
) -> Image.Image:
    """Draw one picture; stored and found again like every cell, and measured where a metric is named.

    steps, scale: `scheduler.steps` and `guidance.scale`. words, settings: further keys, as `sweep` takes them:
    `ds.draw("a photo of a dog", "model=if_xl", seed=3)`. Raises as `sweep`; BadInput where the keys come to several
    cells, RuntimeError where the cell fails.
    """
    given = {"prompt": prompt, "scheduler.steps": steps, "guidance.scale": scale}
    own = [_word(key, value) for key, value in given.items() if value is not None]
    unmeasured = [] if any(key.startswith("metric") for key in (*words, *settings)) else ["metric=none"]
    results = sweep(*words, *own, *unmeasured, **settings)
    for cell_id, reason in results.failed.items():
        raise RuntimeError(f"cell {cell_id} failed: {reason}")
    return results.image()


def load(name: str, output_dir: str = "outputs") -> Results:
    """Open a stored sweep by its name, or by the path of its folder; BadInput where there is none."""
    return Results(opened(name, output_dir))


def _word(key: str, value: Any) -> str:
    """An override in Hydra's grammar, of Python's values."""
    value = _plain(value)
    if isinstance(value, str | tuple | Mapping) or not isinstance(value, Iterable) or key.partition(".")[0] in app.HELD:
        return f"{key}={written(value)}"
    values = [written(_plain(item)) for item in value]
    if not values:
        raise BadInput(f"{key}: an empty list has no values to sweep over")
    return f"{key}={','.join(values)}"


def _plain(value: Any) -> Any:
    """numpy's numbers and arrays, and pandas', as Python's."""
    return value.tolist() if hasattr(value, "tolist") else value
