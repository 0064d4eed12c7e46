"""A sweep's artifact: its page with the pictures in it, tables, sheets and figures as files.

What they hold decides the version: logging an unchanged sweep again from the same place makes none. wandb tells its
server, and notes in a run's folder, where on this machine its copy of each file lies. So the copies of an online run
lie in a temporary folder (`WANDB_DATA_DIR`); those of an offline run in the run's own, named from the folder around it.
Such a run can be moved: `wandb sync`, called in the folder around it, finds them.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from diffsweep.store.cells import sha256
from diffsweep.store.schema import Document

if TYPE_CHECKING:
    from wandb import Artifact, Run

    from diffsweep.report.write import Report


def log_artifact(run: Run, sweep: Document, report: Report, page: str) -> str | None:
    """page: as `report.write.standalone_page` gives it. Answers what went wrong, if something did: the run goes on
    without the artifact."""
    import wandb

    try:
        artifact = wandb.Artifact(artifact_name(sweep["name"]), type="sweep")
        with artifact.new_file("report.html", encoding="utf-8") as file:
            file.write(page)
        for path in (report.folder / "sweep.json", *report.files):
            if path.name != "report.html":
                artifact.add_file(str(path), path.relative_to(report.folder).as_posix(), skip_cache=True)
        if run.offline:
            _keep(artifact, Path(run.dir).parent)
        run.log_artifact(artifact)
    except Exception as error:  # a full disk, a key that may not, a name that is another type's
        return f"no artifact: {error}"
    return None


def artifact_name(sweep: str) -> str:
    """A name of letters, digits, dots, dashes and underscores, which all of W&B's pages take; no other sweep has it."""
    plain = re.sub(r"[^\w.-]+", "-", sweep, flags=re.ASCII)[:128]
    return plain if plain == sweep else f"{plain[:119]}-{sha256(sweep.encode())[:8]}"


def _keep(artifact: Artifact, folder: Path) -> None:
    """Move the copies of the files into the run's folder."""
    for name, entry in artifact.manifest.entries.items():
        assert entry.local_path
        place = folder / "artifact" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(entry.local_path, place)
        place.chmod(0o644)
        entry.local_path = place.relative_to(folder.parent).as_posix()
