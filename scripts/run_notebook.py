#!/usr/bin/env python
"""Run a notebook in an empty folder, as a newcomer would, and write what its cells show into it.

python scripts/run_notebook.py docs/notebook.ipynb
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

SECONDS = 600  # that a cell may take


def executed(file: Path, folder: Path) -> NotebookNode:
    """The notebook with its outputs, run in a folder; CellExecutionError where a cell fails."""
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # the kernel's debugger warns of frozen modules
    notebook = nbformat.read(file, as_version=4)
    client = NotebookClient(notebook, timeout=SECONDS, resources={"metadata": {"path": str(folder)}})
    client.execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # when it ran
        shown = [output for output in cell.get("outputs", ()) if output.get("name") != "stderr"]  # notes and bars
        cell.update({"outputs": shown} if cell.cell_type == "code" else {})
    return notebook


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebook", type=Path)
    file = parser.parse_args().notebook
    with TemporaryDirectory() as folder:
        notebook = executed(file, Path(folder))
    nbformat.write(notebook, file)


if __name__ == "__main__":
    main()
