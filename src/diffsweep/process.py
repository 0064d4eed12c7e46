"""The process around a command: how it prints, how signals end it, and which exit code it leaves.

Sampling must not end because nobody reads the output: an output whose reader has left, or that was closed before the
start, is discarded from then on. Characters that a terminal cannot show are replaced. A signal that
asks the process to end raises `Stopped`; since a library may swallow that, or take it for an error of its own, the
exit code follows the signal and not the exception. A process that does not come to raise it within some seconds, as in
a long call of a library, gives its leases back and ends; at a second signal, at once.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import platform
import select
import shlex
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from threading import Thread
from types import FrameType
from typing import Any, TextIO

from diffsweep.core.leases import leave_all
from diffsweep.core.locks import Busy
from diffsweep.core.memory import Lacking, out_of_memory
from diffsweep.core.packages import culprit, described
from diffsweep.core.text import in_one_line, visible
from diffsweep.tracker.agent import under_agent

BUG = 70  # sysexits.h: an internal software error
# Slurm warns by USR1, USR2 and XCPU
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGXCPU")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
PLAIN = {"–": "-", "—": "-", "…": "...", "↑": "^", "↓": "v", "±": "+-", "×": "x", "█": "#", "─": "-", "│": "|"}

PATIENCE = 10.0  # seconds for what runs when a signal comes
TWICE = 0.5  # seconds within which a second signal is the first one, sent to a group and passed on by a parent too

_name = "diffsweep"  # of the command
_received: int | None = None  # the first signal that asked this process to end


class Stopped(KeyboardInterrupt):
    """A signal asks the process to end: finished cells stay."""


def run(name: str, act: Callable[[], int], explain: Callable[[Exception], str | None], safe: str) -> int:
    """Run a command; its exit code. explain: one message about a mistake that the user can mend, None for any other
    error. safe: what an error has left as it was, and how to go on."""
    global _name
    _name = name
    lasting_outputs()
    code = BUG
    try:
        with stoppable():
            try:
                code = act()
            except Exception as error:
                check_stopped()
                code = _failed(name, error, explain, safe)
            finally:
                check_stopped()
    except SystemExit as stop:
        if not culprit(stop):  # Hydra's, after --help
            raise
        code = _refuse(name, f"plugins: {described(stop)}")
    except KeyboardInterrupt as error:  # a library may raise one itself, and who asks for an end says who he is
        return _end(name, code, _received or signal.SIGINT, "" if _received else str(error))
    return _end(name, code, _received)


# --- Outputs


class _Lasting(io.FileIO):
    """A descriptor to write to that cannot end the work: after a first error it leads nowhere."""

    lost: OSError | None = None

    def write(self, data: Any, /) -> int:
        try:
            while (written := super().write(data)) is None:  # a terminal that another program set not to block
                select.select([], [self], [])
            return written
        except OSError as error:
            self.lost = error
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return memoryview(data).nbytes


def lasting_outputs() -> None:
    """Let this process print through outputs that last as long as it does. Those that somebody put in place of the
    process's own, such as a notebook's, stay."""
    codecs.register_error("plain", _plain)
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:  # else a file opened later would take a closed one's place
        pass
    os.close(number)
    if sys.stdout is sys.__stdout__:
        sys.stdout = _lasting(sys.stdout, 1)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _lasting(sys.stderr, 2)


def _lasting(before: TextIO | None, number: int) -> TextIO:
    if isinstance(before, io.TextIOWrapper):
        before.flush()
        number, encoding, by_line = before.fileno(), before.encoding, before.line_buffering or before.write_through
    else:
        encoding, by_line = "utf-8", True
    buffer = io.BufferedWriter(_Lasting(number, "w", closefd=False))
    return io.TextIOWrapper(buffer, encoding=encoding, errors="plain", line_buffering=by_line)


def _plain(error: UnicodeError) -> tuple[str, int]:
    """Characters that an encoding lacks, in ASCII."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(PLAIN.get(c) or c.encode("ascii", "backslashreplace").decode() for c in lacking), error.end


def _lost(output: TextIO) -> OSError | None:
    """Why what was printed is not there, where more than a reader's leaving is wrong."""
    with suppress(OSError, ValueError):
        output.flush()
    error = getattr(getattr(getattr(output, "buffer", None), "raw", None), "lost", None)
    return None if isinstance(error, ConnectionError) or (error and error.errno == errno.EIO) else error


# --- Signals


@contextmanager
def stoppable() -> Iterator[None]:
    """Signals that ask a process to end raise `Stopped` here; one that is ignored at the start, as by nohup, stays
    ignored."""
    global _received
    _received = None
    numbers = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]
    before = {n: signal.signal(n, _stop) for n in numbers if signal.getsignal(n) not in (signal.SIG_IGN, None)}
    try:
        with _watched({*before}):
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _watched(numbers: Collection[int]) -> Iterator[None]:
    """Within, a thread hears of these signals too, and ends the process where the main thread does not."""
    if os.name == "nt":  # there, nothing waits for a pipe
        yield
        return
    hears, told = os.pipe()
    os.set_blocking(told, False)
    before = signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    thread = Thread(target=_watch, args=(hears, numbers), name="signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(told)  # ends the thread
        thread.join()
        os.close(hears)


def _watch(hears: int, numbers: Collection[int]) -> None:
    """hears: gets a byte a signal, its number, as soon as it comes; the main thread may be in a call meanwhile."""
    first, since = 0, 0.0
    while True:
        late = first and _received is None  # the main thread has not come to it
        ready, _, _ = select.select([hears], [], [], PATIENCE if late else None)
        if not ready:
            _end_now(first)
        for number in (received := os.read(hears, 64)):
            if number in numbers and first and time.monotonic() - since > TWICE:
                _end_now(first)
            if number in numbers and not first:
                first, since = number, time.monotonic()
        if not received:
            return


def _end_now(number: int) -> None:
    leave_all()
    with suppress(OSError):
        os.write(2, f"\n{_name}: stopped by {signal.Signals(number).name}\n".encode())
    os._exit(128 + number)


def check_stopped() -> None:
    """Raise `Stopped` where a signal came, whatever became of the first one."""
    if _received is not None:
        raise Stopped(_received)


def _stop(number: int, frame: FrameType | None) -> None:
    global _received
    if _received is None:
        _received = number
        raise Stopped(number)


# --- Ends


def _end(name: str, code: int, number: int | None, by: str = "") -> int:
    """The exit code, after a signal of this number. `wandb agent` takes one of a signal for a failure, and gives up
    after some: there the signal itself ends the process."""
    if number is None:
        if lost := _lost(sys.stdout):
            _print(name, f"its output cannot be written: {lost.strerror}")
        return code or int(lost is not None)
    _print(name, f"stopped by {by or signal.Signals(number).name}")
    if under_agent():
        sys.stdout.flush()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    return 128 + number


def _failed(name: str, error: Exception, explain: Callable[[Exception], str | None], safe: str) -> int:
    """Report an error that ended a command; its exit code."""
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        traceback.print_exception(error)
    try:
        return _told(name, error, explain(error), safe)
    except Exception as found:  # its traceback holds both
        return _bug(name, found, safe)


def _told(name: str, error: Exception, mistake: str | None, safe: str) -> int:
    if mistake is not None:
        return _refuse(name, mistake)
    if out_of_memory(error):
        what = str(error) if isinstance(error, Lacking) else f"not enough memory ({in_one_line(error)})"
        _print(name, what, f"{safe}: free some memory, then run the same command again")
        return 1
    if culprit(error):
        _print(name, f"plugins: {described(error)}", f"traceback: {_written(error)}")
        return 2
    if isinstance(error, Busy):
        _print(name, str(error), f"{safe}: run the same command again later")
        return 1
    if isinstance(error, OSError) and error.strerror:
        room = "make room" if error.errno in FULL else "mend that"
        place = f": {error.filename}" if error.filename is not None else ""
        _print(name, f"{error.strerror}{place}", f"{safe}: {room}, then run the same command again")
        return 1
    return _bug(name, error, safe)


def _bug(name: str, error: Exception, safe: str) -> int:
    _print(name, f"a bug of diffsweep: {described(error)}", f"please report it, with {_written(error)}", safe)
    return BUG


def _refuse(name: str, message: str) -> int:
    _print(name, *message.splitlines())
    return 2


def _print(name: str, *lines: str) -> None:
    """Each line behind the command's name, but for those that are set in: to copy, or about the one before."""
    told = (line if line.startswith("  ") else f"{name}: {line}" for line in lines)
    print(visible("\n".join(told)), file=sys.stderr, flush=True)


def _written(error: BaseException) -> str:
    """The file that an error's traceback goes to."""
    versions = f"diffsweep {version('diffsweep')}, Python {platform.python_version()}, {platform.platform()}"
    text = "".join([versions, "\n", shlex.join(sys.argv), "\n\n", *traceback.format_exception(error)])
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="diffsweep-", suffix=".txt", delete=False, encoding="utf-8", errors="backslashreplace"
        ) as file:
            file.write(text)
    except OSError:  # no room for it either
        print(text, file=sys.stderr)
        return "the traceback above"
    return file.name
