#!/usr/bin/env python
"""Break the workers of a sweep in every way that a machine does, and count what is lost.

    python scripts/chaos.py                 all faults, 200 kills: about half an hour on two cores
    python scripts/chaos.py --kills 20      fewer kills
    python scripts/chaos.py stop signals    only these rows: kill, stop, signals, memory, disk, removed, clocks, nan

Each run is a sweep of 16 cells by the command that users type, in one to eight processes forked from one that has
imported it. After each fault a checker of its own reads the store: every cell that is there has its pictures, whose
hashes match its record; a sweep's files list no cell that is not there. After the command was typed again, the pictures
are byte for byte those of an undisturbed run, every exit code is the documented one, and nothing else lies there.
A named point is a change to a file (open, link, rename, mkdir, remove), before which the process gets a signal.

Prints a page in Markdown; --write keeps it in benchmarks/ under today's date.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import multiprocessing
import os
import platform
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date
from io import BytesIO
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
NUMBER = 16  # cells
CELLS = f"scheduler.steps=3 device=cpu seed=range(0,{NUMBER}) guidance.scale=3 metric=none engine.rows=4"
SWEEP = ("-m", "plugins=[chaos_parts]", "technique=begun", *CELLS.split(), "engine.threads=1", "sweep.name=it")
ANALYTIC = ("model=analytic", "model.size=4")
SOON = 10.0  # seconds within which a signal ends a worker
LONG = 120.0  # seconds after which a run counts as stuck
PRELOADED = [
    *(
        "torch",
        "pandas",
        "pyarrow.parquet",
        "matplotlib",
        "matplotlib.pyplot",
        "PIL.Image",
        "rich.progress",
        "rich.table",
    ),
    *("diffsweep.app", "diffsweep.terminal", "diffsweep.runner.run", "diffsweep.report.write", "diffsweep.engine"),
    *("diffsweep.model.analytic", "hydra_plugins.diffsweep_fused.fused", "hydra_plugins.diffsweep_fused.workers"),
]
PARTS = {  # a user's own: a technique that notes which cells it begins, and models with faults
    "technique/begun.py": """
import hashlib, os, time
from dataclasses import dataclass
from pathlib import Path
from diffsweep.technique.text_to_image import TextToImage

@dataclass(frozen=True)
class Begun(TextToImage):
    def program(self, job):
        begun = Path(os.environ["BEGUN"])
        (begun / f"{os.getpid()}-{job.streams.seed}-{time.monotonic_ns()}").touch()
        time.sleep(float(os.environ.get("SLOWLY", 0)))
        while self.alone(begun) > int(os.environ.get("ALONE", 1000)):
            time.sleep(0.05)
        if "STUCK" in os.environ:  # in a call that no signal interrupts
            hashlib.pbkdf2_hmac("sha256", b"", b"", 2_000_000_000)
        return super().program(job)

    def alone(self, begun):
        # the cells that this worker has begun, 0 once another has begun one
        pids = [name.partition("-")[0] for name in os.listdir(begun)]
        return len(pids) if set(pids) == {str(os.getpid())} else 0
""",
    "model/faulty.py": """
import os
from dataclasses import dataclass
from diffsweep.model.analytic import Analytic, GaussianMixture

class Loaded(GaussianMixture):
    def predict(self, x, levels, prompts, beside):
        if len(x) > int(os.environ.get("FITS", 1000)):
            raise MemoryError("out of memory")
        if any("huge" in prompt for prompt in prompts):
            raise MemoryError("out of memory")
        answer = super().predict(x, levels, prompts, beside)
        last = min(level.t for level in levels)
        for row, (level, prompt) in enumerate(zip(levels, prompts)):
            if "nan" in prompt and level.t < 700:
                answer.output[row] = float("nan")
        return answer

@dataclass(frozen=True)
class Faulty(Analytic):
    def load(self, device, kept=None):
        loaded = super().load(device, kept)
        loaded.__class__ = Loaded
        return loaded
""",
    "conf/technique/begun.yaml": "name: begun\n",
    "conf/model/faulty.yaml": "name: faulty\nsize: 4\nspread: 0.25\nreach: 3.0\nprocess: ddpm\n",
}


# -- a worker ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Point:
    """A change to a file, the n-th of this name, before which the process gets a signal."""

    name: str
    nth: int = 0
    number: int = signal.SIGKILL


@dataclass(frozen=True)
class Fault:
    """What is wrong with a worker's process. notes: where it writes the names of all points that it comes by."""

    at: Point | None = None
    notes: Path | None = None
    clock: tuple[float, float] | None = None  # seconds by which time.time is wrong, at the start and after a second
    largest: int | None = None  # bytes of a file


class Listening:
    """Hears of all changes to files under a folder."""

    CHANGES = ("open", "os.link", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "shutil.rmtree")

    def __init__(self, root: Path, fault: Fault) -> None:
        self.root, self.fault, self.counts = str(root), fault, Counter[str]()

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in self.CHANGES or (name := self.name(event, arguments)) is None:
            return
        nth, self.counts[name] = self.counts[name], self.counts[name] + 1
        at = self.fault.at
        if at and (at.name, at.nth) == (name, nth):
            os.kill(os.getpid(), at.number)
        if self.fault.notes:
            number = os.open(self.fault.notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(number, f"{name}\n".encode())
            os.close(number)

    def name(self, event: str, arguments: tuple[Any, ...]) -> str | None:
        path = arguments[1] if event in ("os.link", "os.rename") else arguments[0]
        if event == "open":
            mode, flags = arguments[1:3]
            writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) if mode is None else set(mode) & set("wxa+")
            if not writes:
                return None
        if not isinstance(path, str | os.PathLike):
            return None
        text = str(Path.cwd() / os.fsdecode(path))
        return (
            f"{event.rpartition('.')[2]} {general(text[len(self.root) + 1 :])}" if text.startswith(self.root) else None
        )


def general(path: str) -> str:
    """A path without what differs from run to run, or from cell to cell."""
    path = re.sub(r"cells/[0-9a-f]{2}\b", "cells/XX", path)
    path = re.sub(r"\b[0-9a-f]{20}\b", "CELL", path)
    path = re.sub(r"\.[0-9a-f]{8}-\d+-[0-9a-f]{8}", ".SCRATCH", path)
    path = re.sub(r"/\.[0-9a-f]{16}\b", "/.WRITTEN", path)
    path = re.sub(r"work/(\.?)[0-9a-f]{12}\b", r"work/\1DIGEST", path)
    path = re.sub(r"workers/[^.][^/]*\.json", "workers/NAME.json", path)
    path = re.sub(r"\.diffsweep-\w+", ".diffsweep-XXXX", path)
    return re.sub(r"(claims|done)/\d+-\d+\+?", r"\1/LOT", re.sub(r"encoded-[0-9a-f]+", "encoded", path))


def live(folder: str, words: Sequence[str], log: str, fault: Fault, variables: Mapping[str, str]) -> None:
    """A worker's whole life, in a process of its own."""
    os.chdir(folder)
    number = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(number, descriptor)
    os.environ.update(variables)
    sys.argv = ["diffsweep", *words]
    sys.path.insert(0, variables["PYTHONPATH"])
    if fault.clock:
        real, began, (first, then) = time.time, time.monotonic(), fault.clock
        time.time = lambda: real() + (first if time.monotonic() - began < 1 else then)
    if fault.largest:
        resource.setrlimit(resource.RLIMIT_FSIZE, (fault.largest, fault.largest))
    from diffsweep import entry

    if fault.at or fault.notes:
        sys.addaudithook(Listening(Path(folder, "outputs"), fault))
    code = 70
    try:
        code = entry.sweep()
        sys.stdout.flush()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        traceback.print_exc()
    os._exit(code)


@dataclass
class Worker:
    process: Any
    log: Path

    @property
    def pid(self) -> int:
        return int(self.process.pid)

    @property
    def told(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def send(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def ended(self, within: float = LONG) -> int | None:
        """The exit code, as the system has it; None where it still runs."""
        self.process.join(within)
        return self.process.exitcode  # type: ignore[no-any-return]

    @property
    def stopped(self) -> bool:
        with suppress(OSError):
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
        return False


@dataclass
class Place:
    """A folder in which workers of one sweep run. wrong: what was found to be broken."""

    folder: Path
    parts: Path
    wrong: list[str] = field(default_factory=list)
    workers: list[Worker] = field(default_factory=list)
    words: tuple[str, ...] = (*ANALYTIC,)

    @property
    def root(self) -> Path:
        return self.folder / "outputs"

    def start(self, *words: str, fault: Fault | None = None, **variables: Any) -> Worker:
        (self.folder / "begun").mkdir(exist_ok=True)
        log = self.folder / f"{len(self.workers)}.log"
        own = {key: str(value) for key, value in variables.items()}
        own |= {"BEGUN": str(self.folder / "begun"), "PYTHONPATH": str(self.parts), "OMP_NUM_THREADS": "1"}
        typed = (SWEEP[0], f"--config-dir={self.parts}/conf", *SWEEP[1:], *self.words, *words)
        process = _context().Process(
            target=live, args=(str(self.folder), typed, str(log), fault or Fault(), own), daemon=True
        )
        process.start()
        self.workers.append(Worker(process, log))
        return self.workers[-1]

    def expect(self, holds: bool, text: str) -> None:
        if not holds:
            self.wrong.append(text)

    def ends(self, worker: Worker, *codes: int, within: float = LONG) -> None:
        """The worker ends with one of these exit codes."""
        code = worker.ended(within)
        if code is None:
            worker.send(signal.SIGKILL)
        last = worker.told.strip().splitlines()[-3:]
        self.expect(code in codes, f"exit code {code}, not {codes}: {last}")
        self.expect("Traceback" not in worker.told and "a bug of diffsweep" not in worker.told, f"a traceback: {last}")

    def begun(self, *workers: Worker) -> list[int]:
        """The seeds of the cells that these workers have begun, or all."""
        names = [name.split("-") for name in os.listdir(self.folder / "begun")]
        pids = {str(worker.pid) for worker in workers}
        return [int(seed) for pid, seed, _ in names if not pids or pid in pids]

    def until(self, holds: Callable[[], bool], what: str, within: float = LONG / 2) -> None:
        end = time.monotonic() + within
        while not holds():
            if time.monotonic() > end:
                self.wrong.append(f"never: {what}")
                return
            time.sleep(0.01)

    def stored(self) -> int:
        return sum(1 for _ in self.root.glob("cells/*/[!.]*/record.json"))

    def close(self) -> None:
        for worker in self.workers:
            if worker.ended(0) is None:
                worker.send(signal.SIGKILL)
                worker.ended()


def _context() -> Any:
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker")  # killed processes leak semaphores of tqdm's
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


# -- the checker -------------------------------------------------------------------------------------------------------
Pictures = Mapping[str, Mapping[str, bytes]]


def whole(root: Path) -> tuple[dict[str, dict[str, bytes]], list[str]]:
    """The files of each stored cell, and what is wrong with them; reads records and hashes by itself."""
    from PIL import Image

    found: dict[str, dict[str, bytes]] = {}
    wrong = []
    for place in sorted(root.glob("cells/*/[!.]*")):
        try:
            record = json.loads((place / "record.json").read_bytes())
            files = {name: (place / name).read_bytes() for name in record["files"]}
            wrong += [
                f"{place}: {name} differs" for name, data in files.items() if digest(data) != record["files"][name]
            ]
            for data in files.values():
                with Image.open(BytesIO(data)) as image:
                    image.load()
            if record["cell_id"] != place.name or "image.png" not in files:
                wrong.append(f"{place}: not of this cell")
            found[place.name] = files
        except (OSError, ValueError, KeyError) as error:
            wrong.append(f"{place}: {error!r}")
    return found, wrong


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def listed(root: Path) -> tuple[set[str], list[str]]:
    """The cells that the sweep's files call done, and what of these files cannot be read."""
    folder, wrong = root / "sweeps/it", []
    ids: set[str] = set()
    try:
        if (folder / "sweep.json").exists():
            sweep = json.loads((folder / "sweep.json").read_bytes())
            ids |= {cell["cell_id"] for cell in sweep["cells"] if cell["status"] == "done"}
        if (folder / "results.csv").exists():
            with (folder / "results.csv").open(newline="") as file:
                ids |= {row["cell_id"] for row in csv.DictReader(file) if row["status"] == "done"}
        if (folder / "results.parquet").exists():
            import pyarrow.parquet

            rows = pyarrow.parquet.read_table(folder / "results.parquet").to_pylist()
            ids |= {row["cell_id"] for row in rows if row["status"] == "done"}
        if (folder / "report.html").exists() and not (folder / "report.html").read_text().rstrip().endswith("</html>"):
            wrong.append("report.html is cut")
    except (OSError, ValueError, KeyError) as error:
        wrong.append(f"the sweep's files: {error!r}")
    return ids, wrong


def check(place: Place) -> int:
    """Look at the store as it is, while others may work; how many cells are there."""
    ids, wrong = listed(place.root)
    there, damaged = whole(place.root)
    place.wrong += [*wrong, *damaged, *(f"{cell} is listed and not stored" for cell in ids - there.keys())]
    return len(there)


def check_end(place: Place, reference: Pictures, failed: int = 0) -> None:
    """Everything is stored as an undisturbed run stores it, and nothing else lies there."""
    check(place)
    there, _ = whole(place.root)
    place.expect(there.keys() == reference.keys(), f"{len(there)} cells, not {len(reference)}")
    place.expect(all(there[cell] == reference[cell] for cell in there if cell in reference), "pictures differ")
    left = [path for path in place.root.rglob("*") if path.name.startswith(".") or path.name == "work"]
    left += [path for path in place.folder.iterdir() if path.name.startswith(".")]
    place.expect(not left, f"left: {[str(path.relative_to(place.folder)) for path in left]}")
    folder = place.root / "sweeps/it"
    try:
        sweep = json.loads((folder / "sweep.json").read_bytes())
        counts = Counter(cell["status"] for cell in sweep["cells"])
        expected = {"done": len(reference), "failed": failed}
        place.expect(counts == Counter({key: n for key, n in expected.items() if n}), f"sweep.json: {dict(counts)}")
    except (OSError, ValueError) as error:
        place.wrong.append(f"sweep.json: {error!r}")
    place.expect(len(listed(place.root)[0]) >= len(reference), "results list fewer cells")
    place.expect((folder / "report.html").exists(), "no report")


# -- runs --------------------------------------------------------------------------------------------------------------
@dataclass
class Row:
    """A line of the page. lost: cells that a run had begun and not stored when its fault came, at most."""

    fault: str
    how: str
    runs: int = 0
    broken: int = 0
    lost: int = 0

    @property
    def text(self) -> str:
        kept = f"{self.runs - self.broken} / {self.broken}"
        return f"| {self.fault} | {self.how} | {self.runs} | {kept} | {self.lost} |"


class Chaos:
    """Runs in folders of their own, and the rows that they come to."""

    def __init__(self, base: Path, seed: int = 0, keep: bool = False) -> None:
        self.base, self.random, self.keep = base, random.Random(seed), keep
        self.rows: list[Row] = []
        self.wrong: list[str] = []
        self.number = 0
        for name, text in PARTS.items():
            file = base / "parts" / (name if name.startswith("conf") else f"chaos_parts/{name}")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        self.points: list[str] = []  # that an undisturbed run comes by, in order
        self.seconds = 0.0  # that it takes
        self.reference: Pictures = {}

    def begin(self) -> None:
        """The undisturbed run."""
        with self.place() as warm:
            warm.ends(warm.start(), 0)
        with self.place() as place:
            notes = place.folder / "points"
            began = time.monotonic()
            place.ends(place.start(fault=Fault(notes=notes)), 0)
            self.seconds = time.monotonic() - began
            self.reference, wrong = whole(place.root)
            place.wrong += wrong
            place.expect(len(self.reference) == NUMBER, f"{len(self.reference)} cells")
            self.points = notes.read_text().splitlines()
        if self.wrong:
            raise SystemExit(f"the undisturbed run: {self.wrong}")

    @contextmanager
    def place(self, row: Row | None = None) -> Iterator[Place]:
        """A folder for one run, which counts in a row."""
        self.number += 1
        place = Place(self.base / str(self.number), self.base / "parts")
        place.folder.mkdir()
        try:
            yield place
        finally:
            place.close()
            if row:
                row.runs += 1
                row.broken += bool(place.wrong)
            self.wrong += place.wrong
            if place.wrong:
                print(f"BROKEN {row.how if row else ''} ({place.folder}): {place.wrong}", file=sys.stderr, flush=True)
            if not (place.wrong and self.keep):
                shutil.rmtree(place.folder, ignore_errors=True)

    def row(self, fault: str, how: str) -> Row:
        self.rows.append(Row(fault, how))
        print(f"{fault}: {how}", file=sys.stderr, flush=True)
        return self.rows[-1]

    def lost(self, row: Row, place: Place, worker: Worker) -> None:
        """Count the cells that this worker has begun, and nobody has stored by now."""
        records = [json.loads(path.read_bytes()) for path in place.root.glob("cells/*/[!.]*/record.json")]
        stored = {record["config"]["seed"] for record in records}
        row.lost = max(row.lost, len(set(place.begun(worker)) - stored))

    def resumed(self, place: Place, *words: str) -> None:
        """The same command again ends the sweep."""
        place.ends(place.start(*words), 0)
        check_end(place, self.reference)

    # -- faults --------------------------------------------------------------------------------------------------------
    def kill(self, times: int) -> None:
        """Half of the kills at random instants, half at named points, which go round."""
        row = self.row("SIGKILL", "at random instants, 1 to 8 workers")
        for _ in range(times // 2):
            with self.place(row) as place:
                number = self.random.choice((1, 1, 1, 2, 2, 3, 8))
                workers = [place.start(SLOWLY=0.02) for _ in range(number)]
                victims = self.random.sample(workers, self.random.randint(1, number))
                moments = sorted(self.random.uniform(0, self.seconds * (1 + number / 2)) for _ in victims)
                began = time.monotonic()
                for victim, moment in zip(victims, moments, strict=True):
                    time.sleep(max(0.0, began + moment - time.monotonic()))
                    victim.send(signal.SIGKILL)
                    victim.ended()
                    self.lost(row, place, victim)
                    check(place)
                for worker in workers:
                    place.ends(worker, *((0, -signal.SIGKILL) if worker in victims else (0,)))
                self.resumed(place)
        points = self.named()
        row = self.row("SIGKILL", f"before a change to a file, {len(points)} named points, 1 or 2 workers")
        for k in range(times - times // 2):
            self.killed_at(row, points[k % len(points)], k // len(points))

    def killed_at(self, row: Row, point: Point, others: int) -> None:
        with self.place(row) as place:
            victim = place.start(fault=Fault(point), SLOWLY=0.02)
            workers = [place.start(SLOWLY=0.02) for _ in range(others % 2)]
            place.ends(victim, -signal.SIGKILL, *([0] if workers else []))
            self.lost(row, place, victim)
            check(place)
            for worker in workers:
                place.ends(worker, 0)
            self.resumed(place)
            if place.wrong:
                place.wrong.insert(0, str(point))

    def named(self, number: int = signal.SIGKILL) -> list[Point]:
        """The first and the last time that an undisturbed run comes by each name, in any order."""
        counts = Counter(self.points)
        points = [Point(name, nth, number) for name, n in counts.items() for nth in sorted({0, n - 1})]
        self.random.shuffle(points)
        return points

    def stop(self, times: int) -> None:
        row = self.row("SIGSTOP", "beyond its lease, at named points of work and cells; SIGCONT after the others' end")
        # not while it writes the sweep's files: their lock is the system's, others give up after locks.PATIENCE
        points = [point for point in self.named(signal.SIGSTOP) if re.search(r"/work|cells/", point.name)]
        points.insert(0, Point("rename cells/XX/CELL", 3, signal.SIGSTOP))
        for k in range(times):
            with self.place(row) as place:
                first = place.start("engine.grace=1", fault=Fault(points[k % len(points)]), SLOWLY=0.02)
                place.until(lambda first=first: first.stopped or first.ended(0) is not None, "it stops")  # type: ignore[misc]
                place.ends(place.start("engine.grace=1"), 0)
                self.lost(row, place, first)
                check_end_but(place, self.reference)
                before = nodes(place.root)
                first.send(signal.SIGCONT)
                place.ends(first, 0)
                place.expect(nodes(place.root) == before, "it has written a cell again")
                check_end(place, self.reference)
                self.resumed(place)
                if place.wrong:
                    place.wrong.insert(0, str(points[k % len(points)]))

    def signals(self, times: int) -> None:
        row = self.row("TERM, INT, USR1, HUP", "in mid-batch; a second worker goes on")
        for name in ("SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP")[:times]:
            number = getattr(signal, name)
            with self.place(row) as place:
                first = place.start(SLOWLY=0.1)
                place.until(lambda place=place: place.stored() > 1, "cells are stored")  # type: ignore[misc]
                second = place.start(SLOWLY=0.02)
                first.send(number)
                place.ends(first, 128 + number, within=SOON)
                self.lost(row, place, first)
                place.ends(second, 0)
                check_end(place, self.reference)
        row = self.row("TERM, INT, USR1, HUP", "before a change to a file, at named points (in mid-report too)")
        points = self.named()
        for k in range(times):
            number = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)[k % 4]
            point = Point(points[k % len(points)].name, points[k % len(points)].nth, number)
            with self.place(row) as place:
                first = place.start(fault=Fault(point))
                place.ends(first, 128 + number, within=SOON + self.seconds)
                self.lost(row, place, first)
                check(place)
                self.resumed(place)
                if place.wrong:
                    place.wrong.insert(0, str(point))
        row = self.row("INT, TERM", "within a call that does not return: once, it ends after 10 s; twice, at once")
        for number, again in ((signal.SIGINT, 1), (signal.SIGTERM, 0), (signal.SIGTERM, 1))[:times]:
            with self.place(row) as place:
                first = place.start(STUCK=1)
                place.until(lambda place=place: bool(place.begun()), "a cell begins")  # type: ignore[misc]
                for _ in range(1 + again):
                    first.send(number)
                    time.sleep(0.6)
                place.ends(first, 128 + number, within=2 if again else SOON + 2)
                states = [
                    json.loads(file.read_bytes())["state"] for file in place.root.glob("sweeps/it/work/*/workers/*")
                ]
                place.expect(states == ["left"], f"leases are not given back: {states}")
                self.resumed(place)

    def memory(self, times: int) -> None:
        faulty = ("model=faulty", "engine.rows=4")
        row = self.row("out of memory", "above 2 rows: halves, every cell once")
        with self.place(row) as place:
            place.words = faulty
            place.ends(place.start(FITS=2), 0)
            runs = json.loads((place.root / "sweeps/it/sweep.json").read_bytes())["runs"]
            place.expect([run["halvings"] for run in runs] == [1] and runs[0]["rows"] == 2, f"runs: {runs}")
            place.expect(runs[0]["cells"] == NUMBER, "a cell twice")
            check_end(place, whole(place.root)[0])
        row = self.row("out of memory", "at one row: that cell alone fails")
        with self.place(row) as place:
            place.words = (*faulty, "prompt='a red field','a huge field'", "seed=range(0,4)")
            place.ends(place.start(), 1)
            check(place)
            counts = statuses(place.root)
            place.expect(counts == {"a red field": {"done": 4}, "a huge field": {"failed": 4}}, f"{counts}")
        row = self.row("out of memory", "a worker that joins begins with the fewer rows")
        with self.place(row) as place:
            place.words = faulty
            first = place.start(FITS=2, ALONE=NUMBER // 2)  # of the others, some are left for the second
            place.until(lambda: place.stored() > 1, "cells are stored")
            second = place.start(FITS=2)
            place.ends(first, 0)
            place.ends(second, 0)
            runs = json.loads((place.root / "sweeps/it/sweep.json").read_bytes())["runs"]
            place.expect(sorted(run["halvings"] for run in runs) == [0, 1], f"runs: {runs}")
            place.expect({run["rows"] for run in runs} == {2} and len(runs) == 2, f"runs: {runs}")
            check_end(place, whole(place.root)[0])

    def disk(self, times: int) -> None:
        row = self.row("disk full", "files of at most n bytes (RLIMIT_FSIZE); typed again without")
        for largest in (700, 2500, 6000, 20000)[:times]:
            with self.place(row) as place:
                first = place.start(fault=Fault(largest=largest))
                place.ends(first, 1)
                place.expect("File too large" in first.told and "make room" in first.told, first.told[-300:])
                check(place)
                self.resumed(place)
                if place.wrong:
                    place.wrong.insert(0, f"{largest} bytes")
        row = self.row("disk full", "a tmpfs that fills while 2 workers sample; typed again with room")
        for k in range(min(times, 3)):
            with self.place(row) as place, mounted(place.root) as can:
                if not can:
                    row.how += " (not run: no right to mount)"
                    break
                workers = [place.start(SLOWLY=0.1), place.start(SLOWLY=0.1)]
                place.until(lambda place=place, k=k: place.stored() > 3 * k, "cells are stored")  # type: ignore[misc]
                fill(place.root / "full")
                for worker in workers:
                    place.ends(worker, 1)
                    place.expect("No space left on device" in worker.told, worker.told[-300:])
                check(place)
                (place.root / "full").unlink()
                self.resumed(place)
        row = self.row("read-only", "the disk becomes so while 2 workers sample")
        with self.place(row) as place, mounted(place.root) as can:
            if can:
                workers = [place.start(SLOWLY=0.1), place.start(SLOWLY=0.1)]
                place.until(lambda: place.stored() > 1, "cells are stored")
                remounted(place.root, "ro")
                for worker in workers:
                    place.ends(worker, 1)
                    place.expect("Read-only file system" in worker.told, worker.told[-300:])
                check(place)
                late = place.start()
                place.ends(late, 2)
                place.expect("cannot be written to" in late.told, late.told[-300:])
                remounted(place.root, "rw")
                self.resumed(place)
            else:
                row.how += " (not run: no right to mount)"

    def removed(self, times: int) -> None:
        for what in ("sweeps/it/work", "cells", "sweeps", "."):
            row = self.row("folder removed", f"rm -r {what} while 2 workers sample")
            for k in range(min(times, 3)):
                with self.place(row) as place:
                    workers = [place.start(SLOWLY=0.05), place.start(SLOWLY=0.05)]
                    place.until(lambda place=place, k=k: place.stored() > 4 * k, "cells are stored")  # type: ignore[misc]
                    shutil.rmtree(place.root / what, ignore_errors=True)
                    for worker in workers:
                        place.ends(worker, 0, 1)
                    there, wrong = whole(place.root)
                    place.wrong += wrong
                    place.expect(what != "sweeps/it/work" or len(there) == NUMBER, f"{len(there)} cells")
                    self.resumed(place)

    def clocks(self, times: int) -> None:
        row = self.row("clocks", "hosts 10 minutes apart; a clock that jumps; no cell is begun twice")
        for clock in ((600.0, 600.0), (-600.0, -600.0), (0.0, 7200.0), (0.0, -7200.0))[:times]:
            with self.place(row) as place:
                workers = [place.start(SLOWLY=0.05), place.start(fault=Fault(clock=clock), SLOWLY=0.05)]
                for worker in workers:
                    place.ends(worker, 0)
                place.expect(sorted(place.begun()) == list(range(NUMBER)), f"begun: {sorted(place.begun())}")
                check_end(place, self.reference)

    def nan(self, times: int) -> None:
        row = self.row("NaN", "in the rows of one prompt, from the second step on: those cells alone")
        with self.place(row) as place:
            place.words = ("model=faulty", "prompt='a red field','a nan field'", "seed=range(0,4)")
            place.ends(place.start(), 1)
            check(place)
            counts = statuses(place.root)
            place.expect(counts == {"a red field": {"done": 4}, "a nan field": {"failed": 4}}, f"{counts}")
            mixed, _ = whole(place.root)
            with self.place() as other:
                other.words = ("model=faulty", "prompt='a red field'", "seed=range(0,4)")
                other.ends(other.start(), 0)
                place.expect(mixed == whole(other.root)[0], "the neighbours' pictures differ")
            sweep = json.loads((place.root / "sweeps/it/sweep.json").read_text(), parse_constant=lambda word: 1 / 0)
            place.expect(len(sweep["cells"]) == 8, "sweep.json lacks cells")


FAULTS: dict[str, Callable[[Chaos, int], None]] = {
    "kill": Chaos.kill,
    "stop": Chaos.stop,
    "signals": Chaos.signals,
    "memory": Chaos.memory,
    "disk": Chaos.disk,
    "removed": Chaos.removed,
    "clocks": Chaos.clocks,
    "nan": Chaos.nan,
}


def check_end_but(place: Place, reference: Pictures) -> None:
    """The end, but for what a stopped process still holds."""
    before = len(place.wrong)
    check_end(place, reference)
    place.wrong[before:] = [text for text in place.wrong[before:] if not text.startswith("left: ")]


def nodes(root: Path) -> dict[str, int]:
    """Each stored picture's inode."""
    return {path.relative_to(root).as_posix(): path.stat().st_ino for path in root.glob("cells/*/[!.]*/*.png")}


def statuses(root: Path) -> dict[str, dict[str, int]]:
    """How many cells of each prompt sweep.json has, by their status."""
    found: dict[str, Counter[str]] = {}
    for cell in json.loads((root / "sweeps/it/sweep.json").read_bytes())["cells"]:
        found.setdefault(str(cell["axes"]["prompt"]), Counter())[cell["status"]] += 1
    return {prompt: dict(counts) for prompt, counts in found.items()}


@contextmanager
def mounted(root: Path) -> Iterator[bool]:
    """Within, a small disk of its own lies there; whether it could be mounted."""
    root.mkdir()
    can = (
        shutil.which("mount") is not None
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(root)], capture_output=True, check=False
        ).returncode
    )
    try:
        yield can
    finally:
        if can:
            subprocess.run(["umount", "-l", str(root)], check=True)


def remounted(root: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(root)], check=True)


def fill(file: Path) -> None:
    """Leave no room on this disk."""
    with suppress(OSError), file.open("wb", buffering=0) as there:
        while True:
            there.write(bytes(4096))


# -- the page ----------------------------------------------------------------------------------------------------------
def head() -> str:
    """The commit that is tried."""
    git = ["git", "-C", str(REPOSITORY), "rev-parse", "--short", "HEAD"]
    return subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()


def page(chaos: Chaos, commit: str, typed: str) -> str:
    from importlib.metadata import version

    lines = "\n".join(row.text for row in chaos.rows)
    return f"""# What faults cost a sweep

{NUMBER} cells, workers forked from one process. Kept: every stored cell whole, nothing unfinished listed; after the
command was typed again, all pictures byte for byte those of an undisturbed run, documented exit codes, nothing left.
Lost: the cells that a worker had begun and not stored, at most in one run; an engine has up to 8 of them at hand here.

| fault | how | runs | kept / broken | cells lost at most |
|---|---|---|---|---|
{lines}

{date.today()}, {platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch {version("torch")},
commit {commit}; `python scripts/chaos.py {typed}`
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faults", nargs="*", metavar="fault", help=f"which; by default all: {', '.join(FAULTS)}")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--times", type=int, default=12, help="runs of each other row, at most")
    parser.add_argument("--seed", type=int, default=0, help="of what is random")
    parser.add_argument("--keep", action="store_true", help="keep the folders of broken runs")
    parser.add_argument("--write", action="store_true", help="keep the page in benchmarks/")
    args = parser.parse_args()
    if unknown := [name for name in args.faults if name not in FAULTS]:
        parser.error(f"{', '.join(unknown)}: must be of {', '.join(FAULTS)}")
    commit = head()
    base = Path(tempfile.mkdtemp(prefix="chaos-"))
    chaos = Chaos(base, args.seed, args.keep)
    try:
        chaos.begin()
        for name in args.faults or FAULTS:
            FAULTS[name](chaos, args.kills if name == "kill" else args.times)
    except KeyboardInterrupt:
        print("stopped: the page has what has run so far", file=sys.stderr)
        args.write = False
    finally:
        if not (args.keep and chaos.wrong):
            shutil.rmtree(base, ignore_errors=True)
    text = page(chaos, commit, " ".join(sys.argv[1:]))
    print(text)
    if args.write:
        (REPOSITORY / "benchmarks").mkdir(exist_ok=True)
        (REPOSITORY / "benchmarks" / f"{date.today()}-chaos.md").write_text(text)
    return int(any(row.broken for row in chaos.rows))


if __name__ == "__main__":
    sys.exit(main())
