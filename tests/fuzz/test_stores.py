"""Whatever becomes of a store's files, every command ends in words, `verify` finds each changed pixel, and the sweep's
command makes the same pictures again."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffsweep import app, process, results
from diffsweep.core import files
from diffsweep.runner.run import run_sweep
from diffsweep.store.cells import Store
from tests.fuzz.cases import cases
from tests.fuzz.values import SECRET, values

T = TypeVar("T")
ROOT = Path("outputs")
COMMANDS = (
    *("table mine", "compare mine", "grid mine", "figure mine", "report mine", "score mine metric=psnr,ssim", "list"),
    *("verify mine all=true", "verify mine repair=true", "gc", "gc remove=true all=true", "export mine to=exported"),
    *("pack mine", "unpack mine", "export mine to=exported format=webdataset"),
    *("table mine format=csv stat=median", "grid mine pictures=input,image keep=false", "report mine embed=true"),
)
OWN = (".lock", ".NAME.lock", ".unnamed.lock", "work", "logs", "figures", "damaged", "grid_2.png", "wandb", "errors")


@pytest.fixture(scope="session")
def cells(config: Callable[..., Any]) -> list[Any]:
    same = {"technique": "inpaint", "scheduler__steps": 2, "metric__names": ("psnr",), "model__size": 8}
    return [(config(**same, seed=seed, guidance__scale=3.0), {"seed": seed}) for seed in (0, 1)]


@pytest.fixture(scope="session")
def right(cells: list[Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output_dir as the sweep left it."""
    place = tmp_path_factory.mktemp("right")
    before = Path.cwd()
    os.chdir(place)
    try:
        assert run_sweep(cells, "mine", "diffsweep -m seed=0,1").failed == 0
    finally:
        os.chdir(before)
    return place / ROOT


def pictures(root: Path) -> dict[str, bytes | None]:
    """The content of every picture of a cell; None where it is no file."""
    return {str(f.relative_to(root)): content(f) for f in root.glob("cells/??/*/*.png")}


def content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


# -- damage ------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Harm:
    """What becomes of one path, said by numbers alone: which path, what, and how."""

    path: int
    act: int
    kind: int
    other: int
    value: Any

    def happens(self) -> None:
        there = sorted(ROOT.rglob("*"))
        if not there:
            return
        path = pick(there, self.path)
        acts = [self.replaced, self.swapped, self.added]
        if content(path) is not None and not path.is_symlink():
            acts = [*acts, *[self.rewritten] * 3, *([self.edited] * 6 if path.suffix == ".json" else [])]
        pick(acts, self.act)(path)

    def rewritten(self, path: Path) -> None:
        """Cut, changed, emptied, lengthened, or another file's content."""
        data, times = path.read_bytes(), path.stat()
        at = self.other % (len(data) + 1)
        new = {
            "cut": data[:at],
            "flip": data[:at] + bytes(byte ^ (self.kind % 255 + 1) for byte in data[at : at + 1]) + data[at + 1 :],
            "empty": b"",
            "more": data + data[: 1 + at % 9],
            "zero": bytes(len(data)),
            "foreign": content(pick(sorted(filter(Path.is_file, ROOT.rglob("*"))), self.other)) or b"",
            "same": data,
        }
        path.write_bytes(pick(list(new.values()), self.kind))
        if self.value is None or self.value is True:  # as one that keeps times puts it there
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    def edited(self, path: Path) -> None:
        """Another value, or none, somewhere in a JSON file."""
        try:
            tree = json.loads(path.read_bytes())
        except ValueError:
            return
        places = list(leaves(tree))
        if not places:
            return
        *way, last = pick(places, self.other)
        node = tree
        for key in way:
            node = node[key]
        if self.kind % 5 == 0:
            del node[last]
        elif self.kind % 5 == 1 and isinstance(node, dict):
            node[str(self.value)] = node[last]
        else:
            node[last] = self.value
        path.write_text(json.dumps(tree))

    def replaced(self, path: Path) -> None:
        """What is no file there, or nothing."""
        files.remove(path)
        other = pick(sorted(ROOT.rglob("*")) or [ROOT], self.other)
        acts: list[Callable[[], object]] = [
            *(lambda: None, path.mkdir, lambda: os.mkfifo(path), lambda: path.symlink_to(path.name)),
            *(lambda: path.symlink_to("/dev/zero"), lambda: path.symlink_to(other.absolute())),
            lambda: path.write_bytes(b"a file"),
        ]
        pick(acts, self.kind)()

    def added(self, path: Path) -> None:
        """What is no file, or no folder, where diffsweep makes one for a while or may yet make one."""
        folder = path if path.is_dir() else path.parent
        place = folder / pick(OWN, self.other).replace("NAME", path.name)
        if not os.path.lexists(place):
            self.replaced(place)

    def swapped(self, path: Path) -> None:
        """With another of its kind, its times kept."""
        others = [f for f in sorted(ROOT.rglob("*")) if f.is_dir() == path.is_dir() and not f.is_symlink()]
        others = [f for f in others if f != path and f not in path.parents and path not in f.parents]
        if others:
            other, aside = pick(others, self.other), Path("aside")
            os.rename(path, aside)
            os.rename(other, path)
            os.rename(aside, other)


def pick(some: Sequence[T], number: int) -> T:
    return some[number % len(some)]


def leaves(node: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where the values of a JSON file stand."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield (*way, key)
        yield from leaves(value, (*way, key))


number = st.integers(0, 2**20)
odd = st.sampled_from([7, "7", None, True, [], {}, -1, 0.5, "../../x", "../../x.png", [None], [[]], {"name": None}, ""])
harms = st.builds(Harm, number, number, number, number, odd | values)


# -- what follows ------------------------------------------------------------------------------------------------------
def command(words: str) -> int:
    """Run diffsweep-results; its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["diffsweep-results", *words.split()])
        return results.main()


def again(cells: list[Any]) -> int:
    """Run the sweep once more; the exit code of its command."""
    act = lambda: int(run_sweep(cells, "mine", "diffsweep -m seed=0,1").failed > 0)  # noqa: E731
    return process.run("diffsweep", act, app.mistake, "stored cells stay")


@cases(60)
@given(
    some=st.lists(harms, min_size=1, max_size=3),
    typed=st.lists(st.sampled_from(COMMANDS), max_size=2),
    packed=st.booleans(),
)
def test_a_store_that_was_tampered_with_is_told_and_mended(
    some: list[Harm],
    typed: list[str],
    packed: bool,
    cells: list[Any],
    right: Path,
    alone: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    for place in (ROOT, Path("exported")):
        files.remove(place)
    shutil.copytree(right, ROOT)
    was = pictures(right)
    if packed:
        assert command("pack mine") == 0 and pictures(ROOT) == {}
    for harm in some:
        harm.happens()
    now = pictures(ROOT)
    if not packed and any(now.get(name) != data for name, data in was.items()):
        assert command("verify mine") in (1, 2)
    for words in typed:
        assert command(words) in (0, 1, 2), words
    code = again(cells)
    if code == 0 and command("verify mine") == 1:  # what had kept its size and its time, and no verify had seen
        code = again(cells)
    assert code in (0, 1, 2)
    if code == 0:
        assert command("verify mine repair=true") in ((0, 1) if packed else (0,))  # a lot that cannot be read goes
        store = Store(ROOT)
        assert {name: store.read(Path(name).parent.name, Path(name).name) for name in was} == was
        assert command("verify mine") == 0
    out, err = capfd.readouterr()
    assert SECRET not in out + err and "Traceback" not in err and "\x1b" not in out + err
    assert {path.name for path in alone.iterdir()} <= {"outputs", "exported", "folder", "fifo"}
