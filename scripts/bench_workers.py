#!/usr/bin/env python
"""Measure many workers, and large sweeps.

    python scripts/bench_workers.py shared    two workers against one: seconds and rows; what a claim costs a cell
    python scripts/bench_workers.py scale     planning, running again and reporting 1,000, 10,000 and 100,000 cells

Work is counted first, then timed; arms are run in turn, in rounds. `scale` plants a store: each cell has the pictures
and the record of one that was sampled, under its own id. Each prints a page in Markdown; --write keeps it in
benchmarks/ under today's date.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DIFFSWEEP = Path(sys.executable).with_name("diffsweep")
RESULTS = Path(sys.executable).with_name("diffsweep-results")
SMALL = ("model=analytic", "seed=range(0,256)", "scheduler.steps=50", "metric=none", "engine.threads=1")
TINY = ("model=tiny", "seed=range(0,32)", "guidance.scale=1,4", "scheduler.steps=10", "metric=none", "engine.threads=1")
PROBE = (
    "import resource, sys, time; begun = time.perf_counter(); from diffsweep.{module} import main; code = main(); "
    "print('measured', time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "
    "file=sys.stderr); sys.exit(code)"
)


def runs(folder: Path) -> list[dict[str, Any]]:
    """What the workers of the folder's sweep have counted."""
    (file,) = folder.glob("*/sweeps/*/sweep.json")
    found: list[dict[str, Any]] = json.loads(file.read_text())["runs"]
    return found


def together(words: Sequence[str], number: int) -> tuple[float, list[dict[str, Any]]]:
    """Seconds until so many processes of one command have ended, and what they counted."""
    with tempfile.TemporaryDirectory() as place:
        command = [str(DIFFSWEEP), "-m", *words, "sweep.name=it"]
        began = time.perf_counter()
        processes = [
            subprocess.Popen(command, cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            for _ in range(number)
        ]
        if any(process.wait() for process in processes):
            raise SystemExit(f"{' '.join(command)} failed")
        return time.perf_counter() - began, runs(Path(place))


def claims() -> str:
    """Microseconds a cell that claiming and settling take, of lots of eight cells, by one worker alone."""
    from types import SimpleNamespace

    from diffsweep.core.leases import Leases
    from diffsweep.runner.lots import lots
    from diffsweep.runner.shared import Shared

    lines = []
    for number in (1_000, 10_000, 100_000):
        cells: Any = [
            SimpleNamespace(id=f"c{k}", rounds=10, prompts=("", ""), base=None, model="m", config_key="model")
            for k in range(number)
        ]
        with tempfile.TemporaryDirectory() as place, Leases(Path(place)) as leases:
            groups = lots(cells, {"model": 16})
            shared = Shared(leases, groups, {cell.id for cell in cells}, lambda cell: False)
            began = time.perf_counter()
            while taken := shared.take(0):
                for cell in taken:
                    shared.end(cell.id, None)
            seconds = time.perf_counter() - began
            assert shared.over
        lines.append(f"| {number:,} | {len(groups[0]):,} | {seconds / number * 1e6:.0f} |")
    return "\n".join(lines)


def shared(rounds: int) -> str:
    lines = []
    for name, words in (("analytic", SMALL), ("tiny", TINY)):
        found: dict[int, list[tuple[float, list[dict[str, Any]]]]] = {1: [], 2: []}
        for _ in range(rounds):
            for number in found:
                found[number].append(together(words, number))
        one = [seconds for seconds, _ in found[1]]
        for number, ends in found.items():
            seconds = [own for own, _ in ends]
            rows = sorted({sum(run["model_rows"] for run in counted) for _, counted in ends})
            sampling = [max(run["sampling_seconds"] for run in counted) for _, counted in ends]
            ratio = statistics.median(mine / alone for mine, alone in zip(seconds, one, strict=True))
            lines.append(
                f"| {name} | {number} | {', '.join(map(str, rows))} | {statistics.median(seconds):.1f} | {ratio:.2f} | "
                f"{statistics.median(sampling):.1f} |"
            )
    return f"""# Two workers against one

The same command, typed once and typed twice at once, on two cores with a thread a worker; whole commands, start and
report included. *Rows* are those of all workers: none twice. *Sampling*: of the worker that sampled longest.

| model | workers | rows | seconds | ratio | sampling |
|---|---|---|---|---|---|
{chr(10).join(lines)}

Words: `{" ".join(SMALL)}`; `{" ".join(TINY)}`.

What claiming costs a worker alone, in lots of eight cells, on this disk:

| cells | lots | microseconds a cell |
|---|---|---|
{claims()}
"""


def measured(module: str, *words: str, folder: Path) -> tuple[float, float]:
    """Seconds and MB of a command, its imports included."""
    command = [sys.executable, "-c", PROBE.format(module=module), *words]
    done = subprocess.run(command, cwd=folder, text=True, capture_output=True, check=False)
    told = [line for line in done.stderr.splitlines() if line.startswith("measured ")]
    if not told:
        raise SystemExit(f"{' '.join(words)} failed:\n{done.stderr[-2000:]}")
    seconds, memory = map(float, told[-1].split()[1:])
    return seconds, memory


def planted(number: int, folder: Path) -> tuple[str, ...]:
    """A store in the folder that holds every cell of a sweep of so many; the sweep's words."""
    from diffsweep.app import composed
    from diffsweep.runner.plan import plan

    words = ("model=analytic", "scheduler.steps=2", f"seed=range(0,{number // 100})", "metric.names=[clip_score,psnr]")
    scales = "guidance.scale=" + ",".join(f"{1 + k / 10:g}" for k in range(100))
    words = (*words, scales, "technique=inpaint", "input=drawing", "prompt=red", "sweep.name=it", "metric.missing=skip")
    one = [word for word in words if not word.startswith(("seed=", "guidance.scale="))]
    command = [str(DIFFSWEEP), "-m", *one, "seed=0", "guidance.scale=1.5"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    (made,) = (folder / "outputs/cells").glob("*/*")
    record = json.loads((made / "record.json").read_bytes())
    pictures = {name: (made / name).read_bytes() for name in record["files"]}
    shutil.rmtree(folder / "outputs")
    for cell in plan(composed(words)).cells:
        place = folder / f"outputs/cells/{cell.id[:2]}/{cell.id}"
        place.mkdir(parents=True)
        own = copy.deepcopy(record) | {"cell_id": cell.id, "config": cell.config}
        for name, data in pictures.items():
            (place / name).write_bytes(data)
            state = (place / name).stat()
            own["stats"][name] = [state.st_size, state.st_mtime_ns]
        (place / "record.json").write_text(json.dumps(own, sort_keys=True, indent=1))
    return words


def scale(most: int) -> str:
    lines = []
    for number in (n for n in (1_000, 10_000, 100_000) if n <= most):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            began = time.perf_counter()
            words = planted(number, folder)
            print(f"{number:,} cells planted in {time.perf_counter() - began:.0f} s", file=sys.stderr)
            for stored in ("folders", "lots"):
                own = (*words, f"store.format={stored}")
                makes = (
                    measured("app", "-m", *own, folder=folder)
                    if stored == "folders"
                    else measured("results", "pack", "it", folder=folder)
                )
                found = [measured("app", "-m", *own, "plan=true", folder=folder), makes]
                found.append(measured("app", "-m", *own, folder=folder))
                found.append(measured("results", "report", "it", folder=folder))
                lines.append(_line(number, stored, folder, found))
    return f"""# Large sweeps

A stored sweep of inpaintings, four pictures and up to two metrics a cell: seconds / MB of memory at most, of whole
commands. *Files* lie under `outputs/cells` and `outputs/lots`. *Plan*: `plan=true`, which composes and freezes every
cell and reads its record. *First*: of folders, the sweep's command, which writes its files for the first time; of lots,
`diffsweep-results pack`, which moves every cell and writes them again. *Again*: the sweep's command. *Report*:
`diffsweep-results report`.

| cells | stored in | files | MB on disk | plan | first | again | report | page, MB |
|---|---|---|---|---|---|---|---|---|
{chr(10).join(lines)}
"""


def _line(number: int, stored: str, folder: Path, found: Sequence[tuple[float, float]]) -> str:
    files = [file for top in ("cells", "lots") for file in (folder / "outputs" / top).rglob("*") if file.is_file()]
    disk = sum(file.stat().st_blocks for file in files) * 512 / 1e6
    page = (folder / "outputs/sweeps/it/report.html").stat().st_size / 1e6
    text = " | ".join(f"{seconds:.1f} / {memory:.0f}" for seconds, memory in found)
    return f"| {number:,} | {stored} | {len(files):,} | {disk:.0f} | {text} | {page:.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("shared", "scale"))
    parser.add_argument("--rounds", type=int, default=3, help="of `shared`")
    parser.add_argument("--most", type=int, default=100_000, help="of `scale`: cells")
    parser.add_argument("--write", action="store_true", help="keep the page in benchmarks/")
    args = parser.parse_args()
    page = shared(args.rounds) if args.what == "shared" else scale(args.most)
    commit = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    command = f"`python scripts/bench_workers.py {args.what}`"
    page += f"""
{date.today()}, {platform.machine()}, {os.cpu_count()} cores, torch {version("torch")}, commit {commit.stdout.strip()};
{command}
"""
    print(page)
    if args.write:
        (ROOT / "benchmarks" / f"{date.today()}-workers-{args.what}.md").write_text(page)


if __name__ == "__main__":
    main()
