"""diffsweep as others get it: the source distribution, the wheel built from it, and the commands once installed."""

import csv
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parent.parent
UV = os.environ.get("UV") or shutil.which("uv")
TINY = {str(f.relative_to(ROOT / "src")) for f in ROOT.glob("src/diffsweep/model/tiny/**/*") if f.is_file()}

pytestmark = [pytest.mark.slow, pytest.mark.skipif(UV is None, reason="uv builds and installs; it is not on the path")]


def run(*words: str | Path, folder: Path = ROOT, code: int = 0, path: Path | None = None) -> str:
    """A command's output; it must end with `code`. path: a PYTHONPATH of its own."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV", "HYDRA_FULL_ERROR")}
    if path:
        environment["PYTHONPATH"] = str(path)
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source distribution and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("dist")
    run(str(UV), "build", "--no-build-isolation", "--python", sys.executable, "--out-dir", folder)
    return folder


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a fresh environment: the wheel, and this environment's libraries."""
    home = tmp_path_factory.mktemp("installed") / "venv"
    run(str(UV), "venv", "--python", sys.executable, home)
    (wheel,) = built.glob("*.whl")
    run(str(UV), "pip", "install", "--offline", "--no-deps", "--python", home, wheel)
    paths = {"base": str(home), "platbase": str(home)}
    # lines of a .pth file count, but not those of the .pth files beside the libraries: the checkout stays out of reach
    Path(sysconfig.get_path("purelib", "venv", vars=paths), "libraries.pth").write_text(sysconfig.get_path("purelib"))
    return Path(sysconfig.get_path("scripts", "venv", vars=paths))


def test_the_wheel_holds_all_that_runs_and_nothing_else(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with ZipFile(wheel) as archive:
        held = set(archive.namelist())
    for folder in "conf", "sweeps":
        shipped = {f"diffsweep/{file.relative_to(ROOT)}" for file in (ROOT / folder).rglob("*.yaml")}
        assert shipped
        assert shipped <= held
    code = {str(file.relative_to(ROOT / "src")) for file in (ROOT / "src").rglob("*.py")}
    page = {str(file.relative_to(ROOT / "src")) for file in (ROOT / "src/diffsweep/report/html").rglob("*.*")}
    assert code | TINY | page | {"diffsweep/py.typed"} <= held
    assert "hydra_plugins/__init__.py" not in held
    assert {name.split("/")[0] for name in held} - {"diffsweep", "hydra_plugins"} == {
        wheel.stem.removesuffix("-py3-none-any") + ".dist-info"
    }
    assert any(name.endswith("/licenses/LICENSE") for name in held)
    assert not [name for name in held if "cache" in name or "/." in name]


def test_the_source_distribution_is_a_checkout(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"LICENSE", "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "pyproject.toml", "scripts/check"}
    wanted |= {"conf/config.yaml", "sweeps/quickstart.yaml", "tests/conftest.py", "src/diffsweep/engine/engine.py"}
    assert wanted | {f"src/{name}" for name in TINY} <= held
    assert not [name for name in held if name.startswith(("outputs", ".venv", ".train")) or "cache" in name]


def test_runs_a_sweep_from_another_folder(installed: Path, tmp_path: Path) -> None:
    run(
        installed / "diffsweep", "-m", "model=analytic", "seed=0,1", "scheduler.steps=5", "metric=none", folder=tmp_path
    )
    (sweep,) = (tmp_path / "outputs/sweeps").iterdir()
    rows = list(csv.DictReader((sweep / "results.csv").read_text().splitlines()))
    assert [(row["seed"], row["status"]) for row in rows] == [("0", "done"), ("1", "done")]
    assert all((tmp_path / "outputs" / row["image"]).is_file() for row in rows)
    assert {path.name for path in tmp_path.iterdir()} == {"outputs"}


def test_every_config_runs_once_installed(installed: Path, tmp_path: Path) -> None:
    """`test_configs.py`, as it is, in the other environment and another folder."""
    (tmp_path / "tests").mkdir()
    for name in ("conftest.py", "checkpoints.py", "test_configs.py"):
        shutil.copy(ROOT / "tests" / name, tmp_path / "tests")
    command = installed / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_configs.py"
    done = run(*command, folder=tmp_path)
    assert " passed" in done


def test_runs_a_users_own_sweeps_file(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps/mine.yaml").write_text(
        "# @package _global_\n"
        "defaults: [override /model: analytic, override /metric: none]\n"
        "scheduler: {steps: 5}\n"
        "hydra: {mode: MULTIRUN, sweeper: {params: {guidance.scale: '1,3'}}}\n"
    )
    run(installed / "diffsweep", "+sweeps=mine", folder=tmp_path)
    rows = (tmp_path / "outputs/sweeps/mine/results.csv").read_text().splitlines()
    assert [float(row["guidance.scale"]) for row in csv.DictReader(rows)] == [1, 3]


HALFWAY = """
import math
from dataclasses import dataclass
from typing import ClassVar

from diffsweep.technique.job import FromInput


@dataclass(frozen=True)
class Halfway(FromInput):
    uses: ClassVar[frozenset[str]] = frozenset({"prompt", "scheduler", "guidance", "input"})
    share: float = 0.5

    def visited(self, levels, stage):
        return levels[-math.ceil(self.share * len(levels)) :]
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder with a user's package in `lib` and its YAML in `conf`."""
    files = {"lib/my_package/__init__.py": "", "lib/my_package/technique/__init__.py": ""}
    files |= {
        "lib/my_package/technique/halfway.py": HALFWAY,
        "conf/technique/halfway.yaml": "{name: halfway, share: 1}",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_runs_a_users_own_technique(installed: Path, own: Path) -> None:
    words = "model=analytic", "technique=halfway", "technique.share=0.5,1", "scheduler.steps=4", "metric=none"
    words = ("-m", "--config-dir", "conf", *words, "sweep.name=own", "plugins=[my_package]")
    run(installed / "diffsweep", *words, folder=own, path=own / "lib")
    rows = list(csv.DictReader((own / "outputs/sweeps/own/results.csv").read_text().splitlines()))
    evaluations = {float(row["technique.share"]): int(row["nfe"]) for row in rows}
    assert evaluations[1.0] == 2 * evaluations[0.5] > 0


def test_finds_a_users_technique_by_its_entry_point(installed: Path, own: Path) -> None:
    declared = own / "lib/my_package-1.dist-info"
    declared.mkdir()
    (declared / "METADATA").write_text("Metadata-Version: 2.1\nName: my_package\nVersion: 1\n")
    (declared / "entry_points.txt").write_text("[diffsweep.plugins]\nmine = my_package\n")
    words = "--config-dir", "conf", "model=analytic", "technique=halfway", "+technique.shar=1"
    message = run(installed / "diffsweep", *words, folder=own, path=own / "lib", code=2)
    assert "technique.shar: unknown key of technique=halfway; it has share" in message


def test_a_shipped_sweeps_file_is_found(installed: Path, tmp_path: Path) -> None:
    shown = run(installed / "diffsweep", "+sweeps=mask_softness", "--cfg", "job", folder=tmp_path)
    assert "name: inpaint" in shown


@pytest.mark.parametrize("command", ["diffsweep", "diffsweep-results"])
def test_help_and_bad_input(installed: Path, command: str, tmp_path: Path) -> None:
    assert "diffsweep" in run(installed / command, "--help", folder=tmp_path)
    assert "Traceback" not in run(installed / command, "nonsense", folder=tmp_path, code=2)


def test_it_is_the_installed_code_that_runs(installed: Path, tmp_path: Path) -> None:
    shown = "import diffsweep.paths as p, hydra_plugins.diffsweep_fused as f; print(p.shipped('conf'), f.__file__)"
    conf, plugin = run(installed / "python", "-c", shown, folder=tmp_path).split()
    home = installed.parent
    assert Path(conf).is_relative_to(home)
    assert (Path(conf) / "config.yaml").is_file()
    assert Path(plugin).is_relative_to(home)
