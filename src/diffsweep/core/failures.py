"""What failed, and why: a line for tables and the screen, and the traceback in a file for whoever mends it."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from diffsweep.core.files import write_atomic


class Failures(dict[str, str]):
    """The reason why something failed, by its name: a cell's id, or a metric's."""

    def __init__(self) -> None:
        super().__init__()
        self._tracebacks: dict[str, str] = {}

    def add(self, name: str, error: BaseException) -> None:
        """The first error of a name counts."""
        if name not in self:
            self[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            self._tracebacks[name] = "".join(traceback.format_exception(error))

    def write(self, folder: Path, tried: Iterable[str]) -> Path | None:
        """Write each traceback into the folder, and remove those of what was tried and did not fail this time. The
        file, where it is one; the folder, where there are several."""
        files = {name: folder / (re.sub(r"[^\w.-]", "_", name) + ".txt") for name in self._tracebacks}
        for name, file in files.items():
            write_atomic(file, self._tracebacks[name].encode("utf-8", "backslashreplace"))
        before = {file.stem: file for file in folder.glob("*.txt")}
        for name in before.keys() & {*tried} - self.keys():
            before[name].unlink(missing_ok=True)
        with suppress(OSError):
            folder.rmdir()  # where none is left
        return next(iter(files.values())) if len(files) == 1 else folder if files else None
