"""What failed, and why: a line for tables and the screen, and a traceback in a file."""

from __future__ import annotations

import re
import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from diffsweep.core.files import write_atomic
from diffsweep.core.text import in_one_line, visible

NOT_FINITE = "the picture holds NaN or infinite values"  # and would again
MOST = 320  # characters of a reason
ERRORS = "errors"  # the folder of tracebacks, beside a sweep's files


class Failures(dict[str, str]):
    """The reason why something failed, by its name: a cell's id, a metric's, or a figure's."""

    def __init__(self) -> None:
        super().__init__()
        self._tracebacks: dict[str, str] = {}

    def add(self, name: str, error: BaseException) -> None:
        """The first error of a name counts."""
        if name not in self:
            self[name] = reason(error)
            self._tracebacks[name] = "".join(traceback.format_exception(error))

    def forget(self, name: str) -> None:
        """What failed has succeeded since."""
        self.pop(name, None)
        self._tracebacks.pop(name, None)

    def write(self, folder: Path, sweep: Mapping[str, Any] | None) -> Path | None:
        """Write each traceback into the folder, and remove those of what no longer fails in the sweep (what sweep.json
        holds; None: none of them). The file, where there is one traceback; the folder, where there are several."""
        for name, text in self._tracebacks.items():
            write_atomic(folder / _file(name), text.encode("utf-8", "backslashreplace"))
        if sweep is not None:
            self._tidy(folder, sweep)
        if len(self._tracebacks) == 1:
            return folder / _file(*self._tracebacks)
        return folder if self._tracebacks else None

    def _tidy(self, folder: Path, sweep: Mapping[str, Any]) -> None:
        failing = {cell["cell_id"] for cell in sweep["cells"] if cell["status"] == "failed"}
        current = {_file(name) for name in (*failing, *sweep.get("unavailable", ()), *self)}
        for file in folder.glob("*.txt"):
            if file.name not in current:
                file.unlink(missing_ok=True)
        with suppress(OSError):
            folder.rmdir()  # where none is left


def reason(error: BaseException | str) -> str:
    """An error in one line, cut; a text as it is."""
    return error if isinstance(error, str) else visible(in_one_line(error))[:MOST]


def _file(name: str) -> str:
    return re.sub(r"[^\w.-]", "_", name) + ".txt"
