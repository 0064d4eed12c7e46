"""The folder of all that is written, and files that are there whole or not at all."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import Any

import pytest

from diffsweep import results
from diffsweep.core.failures import Failures
from diffsweep.core.files import root_of, write_atomic
from diffsweep.core.problems import BadInput

BROKEN = {  # output_dir, and why it can be none
    "file": "{0}/file is not a folder",
    "file/below": "{0}/file is not a folder",
    "dangling": "{0}/dangling is a link that leads to no folder",
    "dangling/below": "{0}/dangling is a link that leads to no folder",
    "loop": "{0}/loop is a link that leads to no folder",
    "loop/below": "Too many levels of symbolic links",
    "x" * 300: "File name too long",
    "a\0b": "embedded null byte",
    "~no_such_user/x": "Could not determine home directory.",
}


@pytest.fixture
def odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("dangling").symlink_to("nowhere")
    Path("loop").symlink_to("loop")
    Path("folder").mkdir()
    Path("link").symlink_to("folder")
    return tmp_path


@pytest.mark.parametrize("given", BROKEN)
@pytest.mark.parametrize("writes", [False, True])
def test_an_output_dir_that_can_be_none_is_refused_with_the_reason(odd: Path, given: str, writes: bool) -> None:
    with pytest.raises(BadInput, match=re.escape(f"output_dir={given}: {BROKEN[given].format(odd)}")):
        root_of(given, writes)


@pytest.mark.parametrize("given", BROKEN)
def test_results_say_so_too(odd: Path, given: str) -> None:
    for words in (["list"], ["table", "it"], ["verify", "it"]):
        with pytest.raises(BadInput, match=re.escape(BROKEN[given].format(odd))):
            results.run([*words, f"output_dir={given}"])


def test_a_folder_that_takes_no_files_is_refused_before_a_run() -> None:
    assert root_of("/proc/x") == Path("/proc/x")
    with pytest.raises(BadInput, match=r"^output_dir=/proc/x: /proc cannot be written to \("):
        root_of("/proc/x", writes=True)


@pytest.mark.parametrize("given", ["folder", "link", "new", "folder/new/below", ".", "a b", "$HOME"])
def test_others_are_taken_and_left_as_they_were(odd: Path, given: str) -> None:
    before = sorted(odd.rglob("*"))
    assert root_of(given, writes=True) == Path(given)
    assert sorted(odd.rglob("*")) == before


def test_an_error_of_the_disk_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "kept"
    write_atomic(file, b"before")

    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        write_atomic(file, b"after")
    assert caught.value.filename == str(file)
    assert (file.read_bytes(), os.listdir(tmp_path)) == (b"before", ["kept"])


def test_a_traceback_is_there_as_long_as_its_failure_is(tmp_path: Path) -> None:
    def sweep(failing: str, *unavailable: str) -> dict[str, Any]:
        cells = [{"cell_id": name, "status": "failed" if name in failing else "done"} for name in "abc"]
        return {"cells": cells, "unavailable": dict.fromkeys(unavailable, "a reason")}

    folder = tmp_path / "errors"
    assert Failures().write(folder, sweep("")) is None and not folder.exists()
    failures = Failures()
    for name in ("a", "psnr/mine"):
        try:
            int(f"{name}\udcff")
        except ValueError as error:
            failures.add(name, error)
            failures.add(name, KeyError("a second one"))
    assert failures["a"].startswith("ValueError: invalid literal for int()")
    assert failures.write(folder, sweep("a", "psnr/mine")) == folder
    assert sorted(os.listdir(folder)) == ["a.txt", "psnr_mine.txt"]
    assert (folder / "a.txt").read_text().startswith("Traceback (most recent call last):\n")
    again = Failures()
    again.add("b", ValueError("no"))
    assert again.write(folder, sweep("ab", "psnr/mine")) == folder / "b.txt"  # a: of another process
    assert sorted(os.listdir(folder)) == ["a.txt", "b.txt", "psnr_mine.txt"]
    assert Failures().write(folder, sweep("b")) is None and os.listdir(folder) == ["b.txt"]
    assert Failures().write(folder, sweep("")) is None and not folder.exists()
