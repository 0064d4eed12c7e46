"""The rules of who may import what (pyproject.toml, `[tool.importlinter]`), and what stays quick to import."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = "torch", "torchvision", "torchmetrics", "diffusers", "transformers", "wandb"
DOWN, CIRCLES = "Imports point down only", "No circles within a floor"
# in this module, this import, breaks this rule; None: that it is there
MUTANTS = [
    ("diffsweep/core/loop.py", "numpy", "The core needs torch and the standard library only"),
    ("diffsweep/core/streams.py", "diffsweep.view.flip", DOWN),
    ("diffsweep/view/flip.py", "diffsweep.technique.job", DOWN),
    ("diffsweep/input/world.py", "diffsweep.store.cells", DOWN),
    ("diffsweep/engine/engine.py", "diffsweep.scheduler.ddim", "The engine knows the core alone"),
    ("diffsweep/engine/policy.py", "diffsweep.engine.execution", "The engine's parts meet in its step alone"),
    ("diffsweep/technique/start.py", "diffsweep.model.analytic", "A technique never knows"),
    ("diffsweep/runner/plan.py", "omegaconf", "Only the command line knows Hydra"),
    ("diffsweep/store/cells.py", "hydra", "Only the command line knows Hydra"),
    ("diffsweep/scheduler/ddpm.py", "diffusers", "Only models, and the scheduler that wraps it, know diffusers"),
    ("diffsweep/input/file.py", "transformers", "Only models and metrics know transformers"),
    ("diffsweep/report/text.py", "wandb", "Only the tracker knows wandb"),
    ("diffsweep/results.py", "wandb_workspaces", "Only the tracker knows wandb"),
    ("diffsweep/report/text.py", "torch", "Reports, stored results and the engine's policy need no torch"),
    ("diffsweep/newcomer.py", None, DOWN),
    # each floor of the house, and the one above it
    ("diffsweep/paths.py", "diffsweep.core.text", DOWN),
    ("diffsweep/technique/prompts.py", "diffsweep.upscale", DOWN),
    ("diffsweep/upscale/none.py", "diffsweep.store.pictures", DOWN),
    ("diffsweep/store/pictures.py", "diffsweep.metric.settings", DOWN),
    ("diffsweep/metric/settings.py", "diffsweep.report.text", DOWN),
    ("diffsweep/report/text.py", "diffsweep.tracker.agent", DOWN),
    ("diffsweep/tracker/agent.py", "diffsweep.runner.prompts", DOWN),
    ("diffsweep/runner/prompts.py", "diffsweep.process", DOWN),
    ("diffsweep/process.py", "diffsweep.results", DOWN),
    # rooms beside each other
    ("diffsweep/explain.py", "diffsweep.process", DOWN),
    ("diffsweep/commands.py", "diffsweep.explain", DOWN),
    ("diffsweep/mask/mask.py", "diffsweep.input.picture", DOWN),
    ("diffsweep/view/rotate.py", "diffsweep.guidance.none", DOWN),
    ("diffsweep/results.py", "diffsweep.app", DOWN),
    # circles
    ("diffsweep/store/schema.py", "diffsweep.store.cells", CIRCLES),
    ("diffsweep/tracker/session.py", "diffsweep.tracker.wandb", CIRCLES),
    ("diffsweep/report/figure/data.py", "diffsweep.report.figure.plot", CIRCLES),
]
FOR_TYPES = "diffsweep/store/schema.py"  # here the import is for a type checker alone
LINT = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """The import rules on the checkout in `folder`."""
    environment = {**os.environ, "PYTHONPATH": str(folder / "src")}
    return subprocess.run(
        [sys.executable, "-c", LINT], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the linter says of each rule that a copy of the checkout with all mutants in it breaks."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copy(ROOT / "pyproject.toml", folder)
    code = shutil.ignore_patterns("__pycache__", ".*", "tiny")
    shutil.copytree(ROOT / "src", folder / "src", ignore=code)
    for module, imported, _ in MUTANTS:
        with (folder / "src" / module).open("a") as file:
            when = "if TYPE_CHECKING" if module == FOR_TYPES else "def late()"
            file.write(f"\n{when}:\n    import {imported}\n" if imported else "")
    done = lint(folder)
    assert done.returncode == 1
    _, _, details = done.stdout.partition("Broken contracts")
    names = [line.partition(" BROKEN")[0] for line in done.stdout.splitlines() if " BROKEN" in line]
    starts = sorted((details.index(f"\n{name}\n"), name) for name in names)
    ends = [*(start for start, _ in starts[1:]), len(details)]
    return {name: details[start:end] for (start, name), end in zip(starts, ends, strict=True)}


def test_imports_point_down_only() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("module", "imported", "rule"), MUTANTS)
def test_each_rule_bites(broken: dict[str, str], module: str, imported: str | None, rule: str) -> None:
    (found,) = (text for name, text in broken.items() if rule in name)
    module = module.removesuffix(".py").replace("/", ".")
    if rule == CIRCLES:
        assert f"No cycles are allowed in {module.rpartition('.')[0]}." in found
    else:
        assert f"{module} -> {imported} (" in found if imported else module in found


@pytest.mark.parametrize(
    "names",
    [
        ("diffsweep",),
        ("diffsweep.app",),
        ("diffsweep.runner.plan",),
        ("diffsweep.runner.run",),
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
    assert loaded_by(("diffsweep.runner.parts",), "from diffsweep.runner.parts import names", *lines) == []


RUNS = """
import sys
from diffsweep import app, results
words = "model=analytic", "model.size=4", "scheduler.steps=2", "device=cpu", "metric=none", "sweep.name=mine"
for command, main in (["diffsweep", *words], app.main), (["diffsweep-results", "table", "mine"], results.main):
    sys.argv = command
    assert main() == 0
assert "torch" in sys.modules
print([name for name in sys.modules if name.partition(".")[0] in ("wandb", "wandb_workspaces")])
"""


def test_a_run_without_a_tracker_and_its_results_import_no_wandb(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", RUNS], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["[]"]), done.stderr


def loaded_by(names: tuple[str, ...], *lines: str) -> list[str]:
    """The heavy libraries that a fresh process holds after these imports and lines."""
    program = [*(f"import {name}" for name in names), *lines, "import sys", f"print(*{{*{HEAVY}}} & {{*sys.modules}})"]
    done = subprocess.run([sys.executable, "-c", "\n".join(program)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()
