"""Files written beside their place: what a killed writer leaves, and who removes it."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from diffsweep.core import files
from tests.waiting import awake

LEAVES = """
import os, sys
from pathlib import Path
from diffsweep.core import files
files.os.replace = lambda *arguments: os._exit(9)
files.write_atomic(Path(sys.argv[1]), b"half")
"""


def killed(path: Path) -> str:
    """What a process leaves that is killed before its file is in place."""
    before = set(os.listdir(path.parent))
    assert subprocess.run([sys.executable, "-c", LEAVES, str(path)], check=False).returncode == 9
    (left,) = set(os.listdir(path.parent)) - before
    return left


def test_who_writes_a_file_again_removes_what_killed_writers_left_of_it(tmp_path: Path) -> None:
    path, other = tmp_path / "sweep.json", tmp_path / "grid.png"
    left, of_another = killed(path), killed(other)
    living = files.scratch(path)
    living.write_bytes(b"a living writer's")
    (tmp_path / ".sweep.json.swp").write_bytes(b"an editor's")
    files.write_atomic(path, b"new")
    assert left.startswith(".sweep.json.") and sorted(os.listdir(tmp_path)) == sorted(
        ["sweep.json", ".sweep.json.swp", living.name, of_another]
    )
    files.tidy(tmp_path)
    assert of_another not in os.listdir(tmp_path) and living.exists()


def test_another_hosts_scratch_is_left_while_it_is_young(tmp_path: Path) -> None:
    folder = tmp_path / ".cell.00000000-1-12345678"
    folder.mkdir()
    (folder / "image.png").write_bytes(b"half")
    files.tidy(tmp_path, "cell")
    assert folder.exists()
    os.utime(folder, (0, 0))
    files.tidy(tmp_path, "cell")
    assert not folder.exists()


@pytest.mark.parametrize("umask, file, folder", [(0o022, 0o644, 0o755), (0o002, 0o664, 0o775), (0o077, 0o600, 0o700)])
def test_what_is_written_has_the_mode_that_the_umask_gives(umask: int, file: int, folder: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        files.write_atomic(tmp_path / "below" / "file", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "below").stat().st_mode & 0o777 == folder
    assert (tmp_path / "below" / "file").stat().st_mode & 0o777 == file


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "fifo")
    assert files.read(tmp_path / "file") == files.read(tmp_path / "link") == b"content"
    assert files.read(tmp_path / "file", 3) == b"con"
    for path in (tmp_path / "fifo", tmp_path, Path("/dev/null")):
        with pytest.raises(OSError, match=r"not a regular file|Is a directory"):
            files.read(path)


def test_what_is_no_file_gives_way_to_one_that_is_appended_to(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("another's")
    (tmp_path / "link").symlink_to("other")
    (tmp_path / "nowhere").symlink_to("missing")
    os.mkfifo(tmp_path / "fifo")
    for name in ("link", "nowhere", "fifo", "new"):
        for text in ("a\n", "ä\n"):
            with awake(), files.appending(tmp_path / name) as file:
                file.write(text)
        assert (tmp_path / name).read_bytes() == "a\nä\n".encode() and not (tmp_path / name).is_symlink()
    assert (tmp_path / "other").read_text() == "another's" and not (tmp_path / "missing").exists()
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match=r"[Dd]irectory|permitted"):
        files.appending(tmp_path / "folder")


def test_an_error_of_the_disk_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "kept"
    files.write_atomic(file, b"before")

    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        files.write_atomic(file, b"after")
    assert caught.value.filename == str(file)
    assert (file.read_bytes(), os.listdir(tmp_path)) == (b"before", ["kept"])


def test_what_a_killed_process_left_goes_before_its_parent_has_waited_for_it(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        left = tmp_path / files.scratch(tmp_path / "it").name.replace(f"-{os.getpid()}-", f"-{process.pid}-")
        left.touch()
        files.tidy(tmp_path)
        assert left.exists()
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and stays a zombie
        files.tidy(tmp_path)
        assert not left.exists()


def test_a_folder_in_the_place_of_a_file_is_named_and_not_the_scratch(tmp_path: Path) -> None:
    (tmp_path / "results.csv").mkdir()
    with pytest.raises(OSError, match="directory") as caught:
        files.write_atomic(tmp_path / "results.csv", b"new")
    assert (caught.value.filename, caught.value.filename2) == (str(tmp_path / "results.csv"), None)
    assert os.listdir(tmp_path) == ["results.csv"]
