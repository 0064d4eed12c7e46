"""What README and CONTRIBUTING print to be copied works as it is printed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffsweep.store.cells import Store

ROOT = Path(__file__).parent.parent
SMALL = ("model=analytic", "scheduler.steps=2", "device=cpu")
DIFFSWEEP = Path(sys.executable).with_name("diffsweep")


def block(document: str, holds: str) -> str:
    """The one block of code that holds these words."""
    blocks = re.findall(r"^```\w*\n(.*?)^```$", (ROOT / document).read_text(), re.DOTALL | re.MULTILINE)
    (found,) = [text for text in blocks if holds in text]
    return found


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def ran(folder: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> dict[str, Any]:
    """Run the command in a folder, which is on PYTHONPATH; its sweep.json."""
    monkeypatch.setenv("PYTHONPATH", ".")
    done = subprocess.run([DIFFSWEEP, *words], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (file,) = (folder / "outputs/sweeps").glob("*/sweep.json")
    return json.loads(file.read_text())


@pytest.mark.slow
def test_the_sweeps_file_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "sweeps/hole.yaml", block("README.md", "hole.png"))
    Image.new("L", (8, 8), 255).save(tmp_path / "hole.png")
    sweep = ran(tmp_path, monkeypatch, "-m", "+sweeps=hole", *SMALL)
    assert (sweep["name"], sweep["axes"]) == ("hole", {"guidance.scale": [1, 3, 7], "seed": [0, 1, 2, 3]})
    config = Store(tmp_path / "outputs").record(sweep["cells"][0]["cell_id"])["config"]
    assert (config["technique"]["name"], config["mask"]["name"]) == ("inpaint", "file")


@pytest.mark.slow
def test_parts_of_ones_own_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "my_package/technique/halfway.py", block("CONTRIBUTING.md", "class Halfway"))
    write(tmp_path / "my_package/metric/mae.py", block("CONTRIBUTING.md", "class Mae"))
    write(tmp_path / "my_conf/technique/halfway.yaml", "name: halfway\nshare: 0.5\n")
    command = block("CONTRIBUTING.md", "--config-dir").replace("PYTHONPATH=. diffsweep ", "").split()
    sweep = ran(tmp_path, monkeypatch, *command, "metric.names=[psnr,mae]", *SMALL)
    store, cell_id = Store(tmp_path / "outputs"), sweep["cells"][0]["cell_id"]
    image, reference = (store.pixels(cell_id, name).astype(float) for name in ("image", "input"))
    value = store.record(cell_id)["metrics"]["mae"]["value"]
    assert value == pytest.approx(np.abs(image - reference).mean()) and value > 0
    write(tmp_path / "my_package/view/roll.py", block("CONTRIBUTING.md", "class Roll"))
    views = "technique.views=[identity,{name:roll,by:3}]"
    own = (*SMALL, "technique=anagram", "plugins=[my_package]", views, "metric=none", "output_dir=rolled")
    done = subprocess.run([DIFFSWEEP, *own], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rolled = Store(tmp_path / "rolled")
    (record,) = (tmp_path / "rolled").glob("cells/*/*/record.json")
    image, view = (rolled.pixels(record.parent.name, name) for name in ("image", "view_1"))
    assert (view == np.roll(image, 3, axis=1)).all()
