"""A command's process: outputs that lose their reader, signals, terminals, and the exit code."""

from __future__ import annotations

import json
import os
import resource
import shlex
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diffsweep import process, results
from diffsweep.core.locks import Busy

SCRIPT = """
import os, signal, sys, time
from pathlib import Path
from diffsweep import process

def act():
{body}
    Path("done").touch()
    return 0

sys.exit(process.run("it", act, lambda error: str(error) if isinstance(error, KeyError) else None, "All is safe"))
"""
TALKS = """\
for i in range(2000):
    print("out", "x" * 100)
    print("err", "x" * 100, file=sys.stderr)
"""
Shell = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """Run a line of bash, in which $it is a command with this body."""

    def run(line: str, body: str, **more: Any) -> subprocess.CompletedProcess[bytes]:
        (tmp_path / "it.py").write_text(SCRIPT.format(body=textwrap.indent(body, "    ")))
        environment = {**os.environ, "it": f"{shlex.quote(sys.executable)} it.py", "TMPDIR": str(tmp_path)}
        bash = ["bash", "-c", f"set -o pipefail; {line}"]
        environment |= more.pop("env", {})
        return subprocess.run(bash, cwd=tmp_path, env=environment, capture_output=True, check=False, **more)

    return run


@pytest.mark.parametrize(
    "line",
    [
        "$it 2>&1 | head -1",
        "$it 2>&1 >/dev/null | head -1",
        "$it 2>/dev/null | head -1",
        "$it 2>&- >/dev/null",
        "$it >&- 2>/dev/null",
        "$it <&- >&- 2>&-",
        "$it >/dev/null 2>/dev/full",
    ],
)
def test_the_work_goes_on_without_a_reader(shell: Shell, tmp_path: Path, line: str) -> None:
    done = shell(line, TALKS)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "done").exists()
    assert len(done.stdout.splitlines()) == ("head" in line)


def test_what_is_printed_and_cannot_be_written_is_an_error(shell: Shell, tmp_path: Path) -> None:
    done = shell("$it >/dev/full", "print('a table')")
    assert done.returncode == 1 and (tmp_path / "done").exists()
    assert done.stderr == b"it: its output cannot be written: No space left on device\n"


def test_a_file_never_takes_the_place_of_a_closed_output(shell: Shell, tmp_path: Path) -> None:
    body = "file = open('picture', 'wb')\nos.write(2, b'words')\nprint('more', file=sys.stderr)\nfile.write(b'pixels')"
    assert shell("$it <&- >&- 2>&-", body).returncode == 0
    assert (tmp_path / "picture").read_bytes() == b"pixels"


def test_a_terminal_that_does_not_block_is_waited_for(shell: Shell) -> None:
    done = shell("$it | (sleep 0.5; wc -l)", "os.set_blocking(1, False)\nfor i in range(20000): print('x' * 50)")
    assert done.returncode == 0 and int(done.stdout) == 20000


@pytest.mark.parametrize("encoding, arrow", [("ascii", b"^"), ("latin-1", b"^"), ("utf-8", "↑".encode())])
def test_characters_that_a_terminal_lacks_are_written_in_others(shell: Shell, encoding: str, arrow: bytes) -> None:
    done = shell("$it", "print('psnr ↑ 犬 \\udcff')\nprint('ß', file=sys.stderr)", env={"PYTHONIOENCODING": encoding})
    dog = "犬".encode() if encoding == "utf-8" else rb"\u72ac"
    assert done.returncode == 0
    assert done.stdout == b"psnr " + arrow + b" " + dog + b" \\udcff\n"


def test_what_bitsandbytes_misses_is_not_told(shell: Shell) -> None:
    """On processors with bfloat16 it wants a kernel as it is imported; what else it logs, and others, is printed."""
    body = "import logging\nlogging.getLogger('others').warning('told')\nbits = 'bitsandbytes.backends.cpu.ops'\n"
    body += "logging.getLogger(bits).warning('Failed to load CPU gemm_4bit_forward from %s', 'x')\n"
    body += "logging.getLogger(bits).warning('its own')"
    assert shell("$it", body).stderr == b"told\nits own\n"


def test_nor_in_a_program_that_imports_diffsweep() -> None:
    code = "import logging, diffsweep\n" + (
        "logging.getLogger('bitsandbytes.backends.cpu.ops').warning('Failed to load CPU gemm_4bit_forward from x')\n"
        "logging.getLogger('bitsandbytes').warning('told')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "told\n"


@pytest.mark.parametrize("name", ["INT", "TERM", "HUP", "QUIT", "USR1", "USR2", "XCPU"])
def test_a_signal_lets_go_and_has_its_exit_code(shell: Shell, tmp_path: Path, name: str) -> None:
    body = f"try: os.kill(os.getpid(), signal.SIG{name}); time.sleep(9)\nfinally: Path('let_go').touch()"
    done = shell("$it", body)
    assert done.returncode == 128 + getattr(signal, f"SIG{name}")
    assert done.stderr.decode() == f"it: stopped by SIG{name}\n"
    assert (tmp_path / "let_go").exists() and not (tmp_path / "done").exists()


@pytest.mark.parametrize(("busy", "signals"), [("hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)", 1), ("let_go()", 2)])
def test_what_does_not_let_go_is_ended_and_its_leases_are_free(
    shell: Shell, tmp_path: Path, busy: str, signals: int
) -> None:
    """A long call of a library, which no signal interrupts; and cleaning up that takes longer than a second signal."""
    body = f"""\
import hashlib, subprocess
from diffsweep.core.leases import Leases
process.PATIENCE, process.TWICE = 2, 0.1
def let_go():
    try: time.sleep(99)
    finally: time.sleep(99)
with Leases(Path('work'), name='me'):
    line = 'for i in 1 2; do sleep 0.5; kill -TERM {{0}}; [ $i = {signals} ] && break; done'
    subprocess.Popen(['bash', '-c', line.format(os.getpid())])
    {busy}
"""
    done = shell("$it", body, timeout=20)
    assert done.returncode == 143 and not (tmp_path / "done").exists()
    assert json.loads((tmp_path / "work/workers/me.json").read_bytes())["state"] == "left"


@pytest.mark.parametrize("swallows", ["except BaseException: pass", "except BaseException as e: raise KeyError('no')"])
def test_a_signal_that_a_library_takes_for_something_else_counts(shell: Shell, swallows: str) -> None:
    done = shell("$it", f"try: os.kill(os.getpid(), signal.SIGTERM); time.sleep(9)\n{swallows}")
    assert (done.returncode, done.stderr) == (143, b"it: stopped by SIGTERM\n")


def test_nohup_keeps_its_promise(shell: Shell, tmp_path: Path) -> None:
    done = shell("trap '' HUP; $it", "os.kill(os.getpid(), signal.SIGHUP)")
    assert done.returncode == 0 and (tmp_path / "done").exists()


def test_a_full_disk_is_one_message(shell: Shell) -> None:
    limit = (1000, resource.RLIM_INFINITY)
    done = shell(
        "$it",
        "from diffsweep.core.files import write_atomic\nwrite_atomic(Path('big'), bytes(5000))",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
    )
    assert done.returncode == 1
    assert done.stderr.decode().splitlines() == [
        "it: File too large: big",
        "it: All is safe: make room, then run the same command again",
    ]


def test_a_bug_leaves_its_traceback_in_a_file_and_the_code_70(shell: Shell, tmp_path: Path) -> None:
    done = shell("$it", "[][1]")
    what, where, safe = done.stderr.decode().splitlines()
    (file,) = tmp_path.glob("diffsweep-*.txt")
    assert done.returncode == 70
    assert what == "it: a bug of diffsweep: IndexError: list index out of range"
    assert (where, safe) == (f"it: please report it, with {file}", "it: All is safe")
    assert "it.py\n" in file.read_text() and file.read_text().endswith("IndexError: list index out of range\n")
    assert b"Traceback" in shell("$it", "[][1]", env={"HYDRA_FULL_ERROR": "1"}).stderr
    assert shell("$it", "raise KeyError('a mistake')").returncode == 2


def test_memory_that_does_not_suffice_is_one_message(shell: Shell, tmp_path: Path) -> None:
    done = shell("$it", "bytearray(2**60)")
    assert (done.returncode, [*tmp_path.glob("diffsweep-*.txt")]) == (1, [])
    assert done.stderr.decode().splitlines() == [
        "it: not enough memory (MemoryError)",
        "it: All is safe: free some memory, then run the same command again",
    ]
    done = shell("$it", "import torch\nraise torch.OutOfMemoryError('CUDA out of memory.\\nTried')")
    assert done.returncode == 1 and b"(OutOfMemoryError: CUDA out of memory. Tried)" in done.stderr


@pytest.mark.parametrize("command", ["diffsweep", "diffsweep-results"])
@pytest.mark.parametrize("name", ["INT", "TERM"])
def test_a_signal_while_all_is_imported_is_told(tmp_path: Path, command: str, name: str) -> None:
    """It comes while `diffsweep.process` is imported, and again while the command's module is."""
    script = """
import os, signal, sys
class Sends:
    def find_spec(self, name, *_):
        if name == "diffsweep.{where}":
            os.kill(os.getpid(), signal.SIG{name})
from diffsweep import entry
sys.meta_path.insert(0, Sends())
sys.exit(entry.{entry}())
"""
    entry, module = ("sweep", "app") if command == "diffsweep" else ("results", "results")
    for where in "process", module:
        words = [sys.executable, "-c", script.format(where=where, name=name, entry=entry)]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (
            128 + getattr(signal, f"SIG{name}"),
            f"{command}: stopped by SIG{name}\n",
        )


@pytest.mark.parametrize(
    "error",
    [
        "ImportError('libtorch_cuda.so: failed to map segment from shared object')",
        "OSError('libgomp.so.1: cannot allocate memory in static TLS block')",
        "OSError(12, 'Cannot allocate memory')",
    ],
)
def test_memory_that_does_not_suffice_to_import_is_no_bug(shell: Shell, tmp_path: Path, error: str) -> None:
    done = shell("$it", f"raise {error}")
    assert done.returncode == 1 and done.stderr.startswith(b"it: not enough memory ("), done.stderr
    assert shell("$it", "raise ImportError('no such name')").returncode == 70
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/broken.py").write_text(f"raise {error}")
    done = shell("$it", "from diffsweep.core.packages import imported\nimported('mine.broken')")
    assert done.returncode == 1 and done.stderr.startswith(b"it: not enough memory ("), done.stderr


def test_an_explanation_that_fails_is_a_bug_with_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process.tempfile, "tempdir", str(tmp_path))

    def act() -> int:
        raise KeyError("first")

    def explain(error: Exception) -> str:
        raise TypeError("second")

    class Mute(Exception):
        def __str__(self) -> str:
            raise ValueError("no words")

    def says_nothing() -> int:
        raise Mute

    assert process.run("it", act, explain, "All is safe") == 70
    assert process.run("it", says_nothing, lambda error: None, "All is safe") == 70
    one, other = sorted((file.read_text() for file in tmp_path.glob("diffsweep-*.txt")), key=len)[::-1]
    texts = one + other
    assert "KeyError: 'first'" in texts and "TypeError: second" in texts and "ValueError: no words" in texts


def test_control_characters_reach_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    def act() -> int:
        raise Busy("held by \x1b[31mred\x9b")

    assert process.run("it", act, lambda error: None, "All is safe") == 1
    assert capsys.readouterr().err.splitlines()[0] == "it: held by \\x1b[31mred\\x9b"


def test_results_end_the_same_way(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["diffsweep-results", "list"])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        before = signal.getsignal(number)
        monkeypatch.setattr(results, "run", lambda words, number=number: os.kill(os.getpid(), number))
        assert results.main() == 128 + number
        assert capsys.readouterr().err == f"diffsweep-results: stopped by {signal.Signals(number).name}\n"
        assert signal.getsignal(number) is before
    monkeypatch.setattr(process.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(results, "run", lambda words: [][1])
    assert results.main() == 70
    monkeypatch.setattr(results, "run", lambda words: os.listdir(tmp_path / "gone"))
    capsys.readouterr()
    assert results.main() == 1
    assert capsys.readouterr().err.startswith(f"diffsweep-results: No such file or directory: {tmp_path / 'gone'}\n")
