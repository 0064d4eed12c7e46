"""What was logged of a sweep: `wandb/logged.json` in its folder, an entry for each run.

An entry holds a hash of all that the run holds and of where it belongs, the folder that wandb made for it, and its
address where it is online. `wandb sync` leaves a mark in a folder that it has sent.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffsweep.core import files
from diffsweep.core.files import write_atomic
from diffsweep.store.schema import to_json
from diffsweep.tracker.run_logs import RunLog

FOLDER = re.compile(r"(?:offline-)?run-\d+_\d+-((.+?)(?:-\d+)?)")  # ends in the run's id; a second one adds a number


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """The entries, by their runs' ids."""
    try:
        return dict(json.loads(files.read(folder / "logged.json")))
    except (OSError, ValueError):
        return {}


@dataclass
class Logged:
    """place: server, entity and project. group: that of the runs there. online: whether a run that lies
    here alone counts as not logged yet."""

    folder: Path
    place: str
    group: str
    tags: Sequence[str]
    online: bool
    entries: dict[str, dict[str, Any]]  # by run id
    folders: dict[str, set[str]]

    @classmethod
    @contextmanager
    def of(cls, folder: Path, place: str, group: str, tags: Sequence[str], online: bool) -> Iterator[Logged]:
        """As the last session left it; saved again however this one ends. No other process may use it meanwhile."""
        entries = read(folder)
        folders = defaultdict(set)
        for path in folder.glob("*run-*"):
            if found := FOLDER.fullmatch(path.name):
                for name in found.groups():
                    folders[name].add(path.name)
        logged = cls(folder, place, group, tags, online, entries, folders)
        try:
            yield logged
        finally:
            for path in (*folder.iterdir(), *folder.glob("*run-*/logs/*")):
                if path.is_symlink():  # to the latest run, which `wandb sync` would send twice, and to nowhere
                    path.unlink()
            logged.keep()

    def keep(self) -> None:
        write_atomic(self.folder / "logged.json", to_json(self.entries))

    def has(self, log: RunLog) -> bool:
        """Whether the run holds this already."""
        entry = self.entries.get(log.id, {})
        if entry.get("said") != self._hash(log):
            return False
        return self._sent(entry) or (not self.online and (self.folder / entry["folder"]).is_dir())

    def note(self, log: RunLog, folder: str, url: str | None) -> None:
        """Note a finished run, in this folder. Removes what earlier sessions, or a server out of reach, left of it."""
        self.entries[log.id] = {"said": self._hash(log), "folder": folder, "url": url, "group": self.group}
        for other in self.folders[log.id] - {folder}:
            shutil.rmtree(self.folder / other, ignore_errors=True)
        self.folders[log.id] = {folder}

    def url(self, run_id: str) -> str | None:
        return self.entries.get(run_id, {}).get("url")

    def waiting(self, run_ids: Iterable[str]) -> list[str]:
        """The folders of those runs that were not sent yet."""
        entries = [self.entries[run_id] for run_id in run_ids]
        return [entry["folder"] for entry in entries if not self._sent(entry)]

    def _sent(self, entry: dict[str, Any]) -> bool:
        return bool(entry.get("url")) or any((self.folder / entry.get("folder", "-")).glob("*.wandb.synced"))

    def _hash(self, log: RunLog) -> str:
        return hashlib.sha256(f"{self.place} {self.group} {self.tags} {log.name} {log.content}".encode()).hexdigest()
