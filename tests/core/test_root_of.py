"""The folder of all that is written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from diffsweep import results
from diffsweep.core.files import root_of
from diffsweep.core.problems import BadInput
from diffsweep.core.text import visible

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
    with pytest.raises(BadInput, match=re.escape(visible(f"output_dir={given}: {BROKEN[given].format(odd)}"))):
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
