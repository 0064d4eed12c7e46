"""Files that are complete or absent, whenever their writer is killed, and that the next writer tidies up after it; the
folder that they lie under.

What is being written lies beside its place as `.<name>.<host>-<pid>-<random>`. So anybody can see whether its writer
lives: a process of this host by its pid, another host's by how old the file is.
"""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import re
import secrets
import shutil
import stat
import time
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TextIO

from diffsweep.core.problems import BadInput

OWNED = re.compile(r"\.(?P<name>.+)\.(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-[0-9a-f]{8}")
LINKLESS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
OLD = 24 * 3600.0  # seconds, after which no writer is waited for
IRREGULAR = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
# how to open what lies here: no link is followed, no pipe waited for
ONLY_HERE = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)

# of whatever a user typed: no file has a name that is too long, where pathlib raises
is_there, is_folder, is_file = os.path.exists, os.path.isdir, os.path.isfile


def irregular(path: Path) -> str | None:
    """What a path names where that is no regular file: reading a pipe or a device can wait for ever. OSError where
    there is nothing."""
    return IRREGULAR.get(stat.S_IFMT(path.stat().st_mode))


def require_regular(path: Path) -> None:
    """OSError unless a path names a regular file."""
    if kind := irregular(path):
        raise OSError(f"{kind}, where a file is needed")


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old content or the new one, never a part. Its mode is the umask's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    place = scratch(path)
    try:
        write(place, data)
        os.replace(place, path)
    except OSError as error:
        if error.errno is not None:  # a full disk gives no name, a folder in the way that of the scratch
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        place.unlink(missing_ok=True)  # still there only where something failed
    tidy(path.parent, path.name)


def write(path: Path, data: bytes) -> None:
    """Write a file that is not there yet, down to the disk."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def linked(written: Path, path: Path) -> bool | None:
    """Give a written file a second name; whether that was free, None on a disk without hard links.

    link(2) is atomic and exclusive on local disks and over NFS, where O_EXCL and flock may not be.
    """
    try:
        os.link(written, path)
    except FileExistsError:
        return written.stat().st_nlink == 2  # NFS: the answer was lost, and the second try met the first one
    except OSError as error:
        if error.errno not in LINKLESS:
            raise
        return None
    return True


def read(path: Path, most: int = -1) -> bytes:
    """A regular file's content, or its first bytes; OSError for anything else, of which a FIFO would be waited for."""
    number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(number, "rb") as file:
        if not stat.S_ISREG(os.fstat(number).st_mode):
            raise OSError("not a regular file")
        return file.read(most)


def appending(path: Path) -> TextIO:
    """A file to append to. A link or a pipe in its place gives way to it, as to a file that is written whole: a pipe
    could wait for ever for its reader, and what a link leads to is somebody else's."""
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(path.lstat().st_mode):
            path.unlink()
    number = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | ONLY_HERE, 0o666)
    return os.fdopen(number, "a", encoding="utf-8")


def scratch(path: Path) -> Path:
    """A name beside a path, for what is to be put there or was taken away."""
    return path.with_name(f".{path.name}.{_host()}-{os.getpid()}-{secrets.token_hex(4)}")


def tidy(folder: Path, *names: str) -> None:
    """Remove the scratch of writers that are dead, of these names, or of all."""
    for path in left(folder, *names):
        remove(path)


def left(folder: Path, *names: str) -> list[Path]:
    """The scratch in a folder whose writers are dead, of these names, or of all."""
    found = [(entry, OWNED.fullmatch(entry.name)) for entry in os.scandir(folder)]
    own = ((entry, match) for entry, match in found if match and (not names or match["name"] in names))
    return [Path(entry.path) for entry, match in own if _left(match, entry)]


def remove(path: Path) -> None:
    """Remove a file, a link or a folder, as far as the system allows."""
    try:
        path.unlink()
    except FileNotFoundError:
        return
    except OSError:
        shutil.rmtree(path, ignore_errors=True)


def _left(found: re.Match[str], entry: os.DirEntry[str]) -> bool:
    """Whether the writer of this scratch is dead."""
    if found["host"] == _host():
        return not _lives(int(found["pid"]))
    try:
        return time.time() - entry.stat(follow_symlinks=False).st_mtime > OLD
    except FileNotFoundError:
        return False


def _lives(pid: int) -> bool:
    if os.name == "nt":  # there, signal 0 would end the process
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return state(pid)[:1] not in (["Z"], ["X"])  # of one that has ended, and that nobody has waited for yet


def state(pid: int) -> list[str]:
    """A process of this machine as Linux tells of it, from its state on; nothing where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


@lru_cache
def _host() -> str:
    """This host, and its process numbers' name space, in 8 hexadecimal digits: containers may share a host's name."""
    try:
        space = Path("/proc/self/ns/pid").readlink()
    except OSError:
        space = Path()
    return hashlib.sha256(f"{platform.node()} {space}".encode()).hexdigest()[:8]


def root_of(output_dir: str, writes: bool = False) -> Path:
    """The folder that output_dir names, which may not be there yet; BadInput where it can be none, or, with `writes`,
    where nothing can be written to it."""
    try:
        root = Path(output_dir).expanduser()
        with suppress(FileNotFoundError, NotADirectoryError):
            os.lstat(root)  # too long, with a NUL, in a loop of links
        there = next(place for place in (root.absolute(), *root.absolute().parents) if os.path.lexists(place))
        if not there.is_dir():
            raise OSError(f"{there} is {'a link that leads to no' if there.is_symlink() else 'not a'} folder")
        os.listdir(there)
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: of ~nobody, where there is no such user
        raise BadInput(f"output_dir={output_dir}: {getattr(error, 'strerror', None) or error}") from None
    if writes:
        probe = scratch(there / "diffsweep")
        try:
            probe.mkdir()
            probe.rmdir()
            tidy(there, "diffsweep")
        except OSError as error:
            raise BadInput(f"output_dir={output_dir}: {there} cannot be written to ({error.strerror})") from None
    return root
