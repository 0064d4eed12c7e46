"""A new config group needs its own folder, and one line of conf/config.yaml."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffsweep.core.problems import BadInput
from diffsweep.runner.freeze import freeze
from diffsweep.runner.parts import groups, usable

ROOT = Path(__file__).parents[2]
NEW = {
    "src/diffsweep/operator/__init__.py": """
from diffsweep.core.group import Group

GROUP = Group(mark="forward")
""",
    "src/diffsweep/operator/dim.py": """
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Dim:
    factor: float = 1.0
    remark: str = field(default="", metadata={"decides": False})

    def forward(self, x):
        return self.factor * x
""",
    "src/diffsweep/technique/dimmed.py": """
from dataclasses import dataclass
from typing import ClassVar

from diffsweep.technique.job import Outcome, Plain


@dataclass(frozen=True)
class Dimmed(Plain):
    uses: ClassVar[frozenset[str]] = frozenset({"input", "operator"})
    restores: ClassVar[bool] = True

    def visited(self, levels, stage):
        return ()

    def program(self, job):
        return Outcome(job.parts["operator"].forward(job.image))
        yield
""",
    "conf/operator/dim.yaml": "name: dim\nfactor: 1.0\nremark: ''\n",
    "conf/technique/dimmed.yaml": "name: dimmed\n",
}


def test_a_technique_chooses_among_the_groups_that_it_may_use() -> None:
    assert {*groups()} == {path.name for path in (ROOT / "conf").iterdir() if path.is_dir()} - {"metric"}
    assert {*usable()} == {"prompt", "scheduler", "guidance", "input", "mask", "view"}


@pytest.mark.slow
def test_a_new_group_is_a_folder_and_a_line(tmp_path: Path) -> None:
    for name in ("src", "conf", "sweeps", "pyproject.toml"):
        (shutil.copy if (ROOT / name).is_file() else shutil.copytree)(ROOT / name, tmp_path / name)
    for file, text in NEW.items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(text)
    root = tmp_path / "conf/config.yaml"
    root.write_text(root.read_text().replace("  - view: flip ", "  - operator: dim\n  - view: flip ", 1))

    def run(*words: str, code: int = 0) -> str:
        command = [sys.executable, "-c", "import sys; from diffsweep.app import main; sys.exit(main())", *words]
        environment = {**os.environ, "PYTHONPATH": str(tmp_path / "src")}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    words = ("model=analytic", "technique=dimmed", "input=drawing", "metric=none", "sweep.name=dimmed", "device=cpu")
    run("-m", *words, "operator.factor=1.0,0.5", "operator.remark=a,b")
    cells = json.loads((tmp_path / "outputs/sweeps/dimmed/sweep.json").read_text())["cells"]
    assert [cell["axes"]["operator.factor"] for cell in cells] == [1.0, 1.0, 0.5, 0.5]
    ids = [cell["cell_id"] for cell in cells]
    assert ids[0] == ids[1] != ids[2] == ids[3]  # a remark decides nothing
    folders = [tmp_path / f"outputs/cells/{cell_id[:2]}/{cell_id}" for cell_id in (ids[0], ids[2])]
    whole, half = (np.asarray(Image.open(folder / "image.png"), dtype=float) for folder in folders)
    given = np.asarray(Image.open(folders[0] / "input.png"), dtype=float)
    assert (whole == given).all() and np.abs(half - (given + 127.5) / 2).max() <= 0.5
    record = json.loads((folders[1] / "record.json").read_text())
    assert record["config"]["operator"].items() > {"name": "dim", "factor": 0.5}.items()
    assert "operator.factor=much: must be a number" in run(*words, "operator.factor=much", code=2)
    assert "operator.factor=2: not used by technique=text_to_image" in run(
        "model=analytic", "scheduler.steps=2", "metric=none", "operator.factor=2"
    )


def test_mistakes_come_in_one_order(config: Callable[..., dict[str, Any]]) -> None:
    """Not in that of a set, which is another in each process."""
    raw = config(technique="inpaint")
    own = [name for name in groups() if name not in ("tracker", "model", "technique")]
    for name in own:
        raw[name]["no_such_key"] = 1
    with pytest.raises(BadInput) as error:
        freeze(raw, {})
    told = [message.partition(".")[0] for message in error.value.messages if "no_such_key" in message]
    assert told == sorted(own) and len(own) >= 6
