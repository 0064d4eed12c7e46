"""The rules of who may import what (pyproject.toml, `[tool.importlinter]`), and what stays quick to import."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = "torch", "torchvision", "torchmetrics", "diffusers", "transformers", "wandb"
LINT = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """The import rules on the checkout in `folder`."""
    environment = {**os.environ, "PYTHONPATH": str(folder / "src")}
    return subprocess.run(
        [sys.executable, "-c", LINT], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copy(ROOT / "pyproject.toml", folder)
    code = shutil.ignore_patterns("__pycache__", ".*", "tiny")
    shutil.copytree(ROOT / "src", folder / "src", ignore=code)
    return folder


def test_imports_point_down_only() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "module, line, rule",
    [
        ("diffsweep/core/loop.py", "import numpy", "The core needs torch and the standard library only"),
        ("diffsweep/core/streams.py", "from diffsweep.view import flip", "Imports point down only"),
        ("diffsweep/view/flip.py", "from diffsweep.technique import job", "Imports point down only"),
        ("diffsweep/input/world.py", "def late(): from diffsweep.sweep import store", "Imports point down only"),
        ("diffsweep/engine.py", "from diffsweep.scheduler import ddim", "The engine knows the core alone"),
        ("diffsweep/technique/start.py", "from diffsweep.model import analytic", "A technique never knows"),
        ("diffsweep/sweep/plan.py", "from omegaconf import OmegaConf", "Only the command line knows Hydra"),
        ("diffsweep/sweep/store.py", "import hydra", "Only the command line knows Hydra"),
        ("diffsweep/scheduler/ddpm.py", "import diffusers", "Only models know diffusers"),
        ("diffsweep/input/file.py", "import transformers", "Only models and metrics know transformers"),
        ("diffsweep/report/text.py", "def late(): import wandb", "Only the tracker knows wandb"),
        ("diffsweep/results.py", "def late(): import wandb_workspaces", "Only the tracker knows wandb"),
        ("diffsweep/report/text.py", "def late(): import torch", "Reports and stored results need no torch"),
        ("diffsweep/newcomer.py", "", "Imports point down only"),
    ],
)
def test_each_rule_bites(copied: Path, module: str, line: str, rule: str) -> None:
    file = copied / "src" / module
    before = file.read_text() if file.exists() else None
    try:
        file.write_text(f"{before or ''}\n{line}\n")
        done = lint(copied)
    finally:
        if before is None:
            file.unlink()
        else:
            file.write_text(before)
    assert done.returncode == 1
    broken = [text for text in done.stdout.splitlines() if " BROKEN" in text]
    assert any(rule in text for text in broken), done.stdout + done.stderr


@pytest.mark.parametrize(
    "names",
    [
        ("diffsweep",),
        ("diffsweep.app",),
        ("diffsweep.sweep.plan",),
        ("diffsweep.sweep.runner",),
        ("diffsweep.report", "diffsweep.report.write", "diffsweep.results"),
    ],
    ids=lambda names: names[0],
)
def test_is_imported_without_heavy_libraries(names: tuple[str, ...]) -> None:
    assert loaded_by(names) == []


def test_every_part_is_found_without_heavy_libraries() -> None:
    """Names and their `did you mean` import every module of a group."""
    groups = "model", "scheduler", "guidance", "technique", "view", "mask", "input", "tracker"
    lines = [f"assert names({group!r})" for group in groups]
    assert loaded_by(("diffsweep.sweep.parts",), "from diffsweep.sweep.parts import names", *lines) == []


def loaded_by(names: tuple[str, ...], *lines: str) -> list[str]:
    """The heavy libraries that a fresh process holds after these imports and lines."""
    program = [*(f"import {name}" for name in names), *lines, "import sys", f"print(*{{*{HEAVY}}} & {{*sys.modules}})"]
    done = subprocess.run([sys.executable, "-c", "\n".join(program)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()
