"""Packages of a user's own: what counts as one, and how their mistakes are reported."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from diffsweep.core.packages import culprit, imported, modules, packages
from diffsweep.core.problems import BadInput

Make = Callable[..., str]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Write a package of files, and return its name."""
    monkeypatch.syspath_prepend(tmp_path)
    names = []

    def written(name: str, path: str, text: str = "") -> str:
        file = tmp_path / name / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        importlib.invalidate_caches()
        names.append(name)
        return name

    packages.cache_clear()
    yield written
    packages.cache_clear()
    for module in [m for m in sys.modules if m.split(".")[0] in names]:
        del sys.modules[module]


def told(*plugins: str) -> str:
    with pytest.raises(BadInput) as caught:
        list(modules("metric", plugins))
    return "\n".join(caught.value.messages)


def test_a_folder_of_a_group_makes_a_plugin(make: Make) -> None:
    name = make("their_good", "metric/mine.py", "METRICS = ()")  # no __init__.py is needed
    assert packages((name,))[0] == name
    assert next(modules("metric", (name,))) == "their_good.metric.mine"
    assert not any(path.startswith(name) for path in modules("view", (name,)))


@pytest.mark.parametrize("name", ["os", "json", "sys", "math", "pytest"])
def test_a_module_that_holds_no_parts_is_refused(name: str) -> None:
    groups = "guidance, input, mask, metric, model, scheduler, technique, tracker, upscale, view"
    assert told(name) == f"plugins={name}: not a package with parts; it needs at least one of the folders {groups}"


def test_no_code_runs_before_a_package_is_found_to_hold_parts(make: Make, tmp_path: Path) -> None:
    name = make("their_code", "__init__.py", f"import os; os.mkdir({str(tmp_path / 'ran')!r})")
    make(name, "inner/module.py")
    for plugin in (name, f"{name}.inner", f"{name}.inner.module", f"{name}.nothing", f"{name}.{'n' * 300}"):
        assert told(plugin).startswith(f"plugins={plugin}: no")
    assert not (tmp_path / "ran").exists()
    make(name, "inner/metric/mine.py", "METRICS = ()")
    assert next(modules("metric", (f"{name}.inner",))) == f"{name}.inner.metric.mine"
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["nonexistent", "nonexistent.inner", "os.inner", "../x", "a b", "", "a..b"])
def test_what_is_not_there_is_refused(name: str) -> None:
    mended = "install it, or set PYTHONPATH to the folder it is in"
    assert told(name) == f"plugins={name}: no such package can be imported; {mended}"


def test_the_program_itself_is_no_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    assert told("__main__") == "plugins=__main__: not a package"


@pytest.mark.parametrize(
    "line, reason",
    [
        ("raise SystemExit(0)", "SystemExit: 0"),
        ("import sys; sys.exit()", "SystemExit"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("import nonexistent", "ModuleNotFoundError: No module named 'nonexistent'"),
    ],
)
def test_one_that_fails_to_import_is_told_with_its_line(make: Make, tmp_path: Path, line: str, reason: str) -> None:
    name = make("their_bad", "metric/__init__.py", f"\n{line}")
    assert told(name) == f"plugins={name}.metric: {reason} ({tmp_path / name}/metric/__init__.py, line 2)"
    above = make("their_above", "__init__.py", line)
    make(above, "inner/metric/mine.py")
    assert told(f"{above}.inner").startswith(f"plugins={above}.inner.metric: ")
    of_module = make("their_module", "metric/mine.py", line)
    with pytest.raises(BadInput, match=f"plugins={of_module}.metric.mine: {reason.partition(':')[0]}"):
        imported(next(modules("metric", (of_module,))))


def test_a_syntax_error_is_a_mistake_too(make: Make) -> None:
    assert "SyntaxError" in told(make("their_syntax", "metric/__init__.py", "def"))


def test_who_is_to_blame(make: Make, tmp_path: Path) -> None:
    name = make("their_blamed", "view/mine.py", "import json\n\ndef bad():\n    json.loads('{')\n")
    packages((name,))
    with pytest.raises(ValueError, match="Expecting") as caught:
        imported(f"{name}.view.mine").bad()
    assert culprit(caught.value) == f"{tmp_path / name}/view/mine.py, line 4"
    outer = RuntimeError("wrapped")
    outer.__cause__ = caught.value
    assert culprit(outer) == culprit(caught.value)
    assert culprit(ValueError("ours")) is None
