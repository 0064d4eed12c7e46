"""What keeps a store in order: a sweep's files verified and mended, and what nobody needs any more removed."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence, Set
from pathlib import Path

from diffsweep.core.locks import Busy, locked
from diffsweep.core.problems import BadInput
from diffsweep.core.text import counted, size, visible
from diffsweep.store import leftover, packing
from diffsweep.store.check import ASIDE, Problem, State, problems, put_aside, put_lot_aside
from diffsweep.store.leftover import KINDS, Leftover, Unsure
from diffsweep.store.stored import Stored, shown_elsewhere

FEW = 5  # of a kind that are listed


def verify(stored: Stored, everything: bool = False, repair: bool = False) -> int:
    """Compare a sweep's files with what they should be, and say what is wrong; everything: all of it. repair: also put
    damaged cells aside and write the sweep's files anew. The exit code: 1 where something is wrong, and stays so."""
    ids = list(dict.fromkeys(cell["cell_id"] for cell in stored.sweep["cells"]))
    failed = {cell["cell_id"] for cell in stored.sweep["cells"] if cell["status"] == "failed"}
    found = list(problems(stored.store, ids))
    whole = all(
        (problem.cell_id in failed and problem.state is State.ABSENT) or problem.state is State.LOT for problem in found
    )
    stale = _stale(stored) if whole else []  # else the sweep's command, which writes them, has to run first
    _list([problem.text for problem in found] + stale, everything)
    number = len(found) + len(stale)
    print(f"{counted('cell', len(ids))}, {counted('problem', number) if number else 'every file as recorded'}")
    if not number:
        return 0
    if not repair:
        print(*_would(stored, found, stale), sep="\n", file=sys.stderr)
        return 1
    return _repaired(stored, found, stale)


def _stale(stored: Stored) -> list[str]:
    from diffsweep.report.check import wrong_files

    return [f"{stored.folder / name}: {why}" for name, why in wrong_files(stored.store, stored.sweep).items()]


def _list(texts: Iterable[str], everything: bool) -> None:
    """The problems, those of a kind together."""
    kinds = defaultdict[str, list[str]](list)
    for text in texts:
        kinds[text.partition(": ")[2].partition(" (")[0]].append(text)
    for kind, own in kinds.items():
        shown = own if everything else own[:FEW]
        print(*map(visible, shown), sep="\n", file=sys.stderr)
        if more := len(own) - len(shown):
            print(f"and {more} more: {kind} (all=true lists them)", file=sys.stderr)


def _damaged(found: Iterable[Problem]) -> list[str]:
    return list(dict.fromkeys(problem.cell_id for problem in found if problem.state is State.DAMAGED))


def _lots(found: Iterable[Problem]) -> list[str]:
    return [problem.cell_id for problem in found if problem.state is State.LOT]


def _would(stored: Stored, found: Sequence[Problem], stale: Sequence[str]) -> list[str]:
    """What repair does, and what it leaves to the sweep's command."""
    lines = []
    if damaged := [cell_id for cell_id in _damaged(found) if not stored.store.packed(cell_id)]:
        lines.append(f"repair=true moves {counted('damaged cell', len(damaged))} to {_aside(stored)}, for the command")
        lines[-1] += " to sample again"
    if lots := _lots(found):
        lines.append(f"repair=true moves {counted('lot', len(lots))} that cannot be read to {_aside(stored)}")
    if stale:
        lines.append("repair=true writes the sweep's files anew from the store")
    return lines + _again(stored, found)


def _again(stored: Stored, found: Iterable[Problem]) -> list[str]:
    """The command that samples what is not there."""
    missing = {problem.cell_id for problem in found if problem.state in (State.DAMAGED, State.ABSENT)}
    command = stored.sweep["command"] or "the sweep's command"
    return [visible(f"{counted('cell', len(missing))} to sample again, by: {command}")] if missing else []


def _aside(stored: Stored) -> Path:
    return stored.root / "cells" / ASIDE


def _repaired(stored: Stored, found: Sequence[Problem], stale: Sequence[str]) -> int:
    from diffsweep.report.write import write_all
    from diffsweep.terminal import show_failures

    moved = [place for cell_id in _damaged(found) if (place := put_aside(stored.store, cell_id))]
    if moved:
        print(f"{counted('damaged cell', len(moved))} moved to {_aside(stored)}")
    if lots := [place for name in _lots(found) if (place := put_lot_aside(stored.store, name))]:
        print(f"{counted('lot', len(lots))} that cannot be read moved to {_aside(stored)}")
    failures = False
    if _damaged(found) or stale:
        with locked(stored.folder, name="report"):
            report = write_all(stored.store, stored.sweep)
        print(f"{stored.folder}/: tables, sheets and report.html written anew from the store")
        show_failures(report)
        failures = bool(report.failures)
    for line in _again(stored, found):
        print(line, file=sys.stderr)
    return 1 if found or failures else 0


def pack(stored: Stored) -> int:
    """Move a sweep's cells into lots, and write its files again, which say where they are. The exit code: 1 where one
    is damaged, and stays as it is, or is not in the store."""
    ids, _ = stored.with_bases()
    moving = {cell_id for cell_id in ids if not stored.store.packed(cell_id)}
    number = packing.pack(stored.store, ids, shows=True)
    return _moved(stored, number, moving, f"packed under {stored.store.lots.folder}")


def unpack(stored: Stored) -> int:
    """Give a sweep's cells folders of their own again, and write its files again. The exit code: 1 where one is
    damaged, and stays as it is, or is not in the store."""
    ids, _ = stored.with_bases()
    moving = {cell_id for cell_id in ids if stored.store.packed(cell_id)}
    number = packing.unpack(stored.store, ids, shows=True)
    return _moved(stored, number, moving, f"in folders under {stored.root / 'cells'}")


def _moved(stored: Stored, number: int, moving: Set[str], where: str) -> int:
    from diffsweep.report.write import write_all
    from diffsweep.terminal import show_failures

    lost = stored.lost
    whole = not lost and not stored.store.damaged
    told = f"all cells are {where} already" if whole else f"no cell to move: all others are {where} already"
    print(f"{counted('cell', number)} {where}" if number else told)
    failures = False
    if number:
        with locked(stored.folder, name="report"):
            report = write_all(stored.store, stored.sweep)
        show_failures(report)
        failures = bool(report.failures)
        for note in shown_elsewhere(stored.root, stored.sweep["name"], moving):
            print(visible(note), file=sys.stderr)
    _list([f"{cell_id}: not in the store" for cell_id in lost], everything=False)
    return 1 if failures or stored.store.damaged or lost else 0


def gc(root: Path, everything: bool = False, remove: bool = False) -> int:
    """List what is left over under an output_dir, and its bytes, by kind. remove: also remove it. The exit code: 1
    where something stays that was to go, or nobody can tell which cells are needed."""
    if not root.is_dir():
        raise BadInput(f"output_dir={root}: no such folder")
    code, young, cells = 0, 0, list[Leftover]()
    try:
        cells, young = leftover.cells(root)
    except Unsure as error:
        print(visible(f"no cell is removed: {error}"), file=sys.stderr)
        code = 1
    others = list(leftover.others(root))
    for kind, (one, several) in KINDS.items():
        _show([found for found in (*cells, *others) if found.kind == kind], one, several, everything)
    if young:
        stay = counted("cell", young), "is" if young == 1 else "are"
        print(f"{stay[0]} that no sweep names {stay[1]} younger than an hour, and left alone")
    if not cells and not others:
        print(f"nothing is left over under {root}")
        return code
    if not remove:
        print(f"remove=true removes {_bytes([*cells, *others])}")
        return code
    return _removed(root, cells, others) or code


def _show(found: Sequence[Leftover], one: str, several: str, everything: bool) -> None:
    if not found:
        return
    print(f"{counted(one, len(found), several=several)}, {_bytes(found)}")
    for left in found if everything else found[:FEW]:
        print(visible(f"  {left.path}"))
    if not everything and len(found) > FEW:
        print(f"  and {len(found) - FEW} more (all=true lists them)")


def _removed(root: Path, cells: Sequence[Leftover], others: Iterable[Leftover]) -> int:
    gone = [left for left in others if leftover.remove(left)]
    stay = [left for left in others if left not in gone]
    if cells:
        try:
            gone += leftover.remove_cells(root)
        except (Busy, Unsure) as error:
            print(visible(f"no cell is removed: {error}; run gc again later"), file=sys.stderr)
            stay += cells
    print(f"removed {_bytes(gone)}")
    for left in stay:
        print(visible(f"not removed: {left.path}"), file=sys.stderr)
    return 1 if stay else 0


def _bytes(found: Iterable[Leftover]) -> str:
    return size(sum(left.bytes for left in found))
