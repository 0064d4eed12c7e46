"""Every YAML under conf/ and sweeps/ composes through the command line, and runs one small cell."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from diffsweep.paths import shipped
from tests.checkpoints import saved

pytestmark = pytest.mark.usefixtures("hydra_restore_singletons")  # the command runs in this process
SMALL = ("model=analytic", "scheduler.steps=2", "device=cpu")
# what a choice needs beside itself
BESIDE = {
    "mask": ("technique=inpaint",),
    "input": ("technique=inpaint", "prompt=red"),
    "view": ("technique=anagram",),
}
# weights of a random checkpoint of the same kind, instead of the hub's
WEIGHTS = {("model", f"if_{size}"): "checkpoint" for size in ("m", "l", "xl")}
WEIGHTS |= {("upscale", f"if_{size}"): "enlarging" for size in ("m", "l")} | {("upscale", "x4"): "latent"}
# random checkpoints of the same family, and how they are made
FAMILY: dict[str, tuple[str, dict[str, Any]]] = {
    "sd15": ("sd", {}),
    "sd21": ("sd", {}),
    "sdxl": ("sdxl", {}),
    "sd35_medium": ("sd3", {}),
    "sd35_large": ("sd3", {}),
    "flux_dev": ("flux", {}),
    "flux_schnell": ("flux", {"guidance": False, "dynamic": False}),
    "flux2_klein": ("klein", {"distilled": True}),
    "z_image": ("z_image", {}),
    "qwen_image": ("qwen_image", {}),
    "lumina2": ("lumina2", {}),
    "ddpm_celebahq": ("ddpm", {"network": {"sample_size": 32}}),
    "dit": ("dit", {}),
    "pixart_sigma": ("pixart", {}),
    "sana": ("sana", {}),
}
CHOICES = sorted((file.parent.name, file.stem) for file in shipped("conf").glob("*/*.yaml"))
SWEEPS = sorted(file.stem for file in shipped("sweeps").glob("*.yaml"))


def together() -> list[tuple[str, tuple[str, ...]]]:
    """The choices of each group: those that need words of their own, or hold for all cells, alone, the others in one
    sweep."""
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    for group, choice in CHOICES:
        own = (*WEIGHTS, *(("model", name) for name in FAMILY), ("input", "none"), ("guidance", "embedded"))
        alone = group in ("metric", "tracker") or choice == "file" or (group, choice) in own
        key = group, choice if alone else ""
        found[key] = (*found.get(key, ()), choice)
    return [(group, choices) for (group, _), choices in found.items()]


def run(monkeypatch: pytest.MonkeyPatch, folder: Path, *words: str) -> dict[str, object]:
    """Run the command in a folder of its own; its sweep.json."""
    from diffsweep import app

    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["diffsweep", *words])
    assert app.main() == 0
    (file,) = Path("outputs/sweeps").glob("*/sweep.json")
    return json.loads(file.read_text())


@pytest.mark.slow
@pytest.mark.parametrize(("group", "choices"), together())
def test_every_choice_runs_a_cell(
    group: str,
    choices: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    (choice, *others) = choices
    extra = list(BESIDE.get(group, ()))
    if (group, choice) in WEIGHTS:
        folder = request.getfixturevalue(WEIGHTS[group, choice])
        extra += [f"{group}.path={folder}", f"{group}.variant=null"]
        if group == "upscale":
            extra.append(f"{group}.scheduler.steps={27 if choice.startswith('if') else 2}")
        if group == "upscale" and choice.startswith("if"):
            extra += ["upscale.text.path=auto", "upscale.scheduler.spacing=super27"]
    if choice == "file":
        Image.new("L", (8, 8), 200).save(tmp_path / "picture.png")
        extra.append(f"{group}.path=picture.png")
    if group == "metric":
        extra.append("metric.missing=skip")  # weights of torchvision's, which may not be here
    if (group, choice) == ("input", "none"):
        extra = ["technique=text_to_image"]
    monkeypatch.setenv("WANDB_MODE", "offline")
    small = [word for word in SMALL if not word.startswith(f"{group}=")]
    if (group, choice) == ("guidance", "embedded"):
        small[0] = "model=flux_dev"
    model = choice if group == "model" else small[0].removeprefix("model=")
    if model in FAMILY:
        family, settings = FAMILY[model]
        folder = saved(tmp_path / "weights", family, **settings)
        extra += [f"model.path={folder}", "model.variant=null", "model.height=32", "model.width=32"]
    sweep = ["-m"] if others else []
    document = run(monkeypatch, tmp_path, *sweep, *small, *extra, f"{group}={','.join(choices)}")
    assert [cell["status"] for cell in document["cells"]] == ["done"] * len(choices)  # type: ignore[attr-defined]
    name = document["name"]
    for file in ("results.parquet", "results.csv", "table.md", "table.tex", "grid.png", "report.html"):
        assert (tmp_path / "outputs" / "sweeps" / str(name) / file).stat().st_size > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", SWEEPS)
def test_every_sweep_runs_one_cell(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (shipped("sweeps") / f"{name}.yaml").read_text()
    for word in ("Question:", "Command:", "Cost:", "Expected:", f"+sweeps={name}"):
        assert word in text
    params = yaml.safe_load(text)["hydra"]["sweeper"]["params"]
    first = [f"{axis}={str(values).split(',')[0]}" for axis, values in params.items() if axis != "scheduler.steps"]
    if "scheduler.spacing" in params:
        first = [word for word in first if not word.startswith("scheduler.spacing")]
    if "technique.start_index" in params:
        first = [word for word in first if not word.startswith("technique.start_index")] + ["technique.start_index=1"]
    small = [word for word in SMALL if "override /model" not in text or not word.startswith("model=")]
    document = run(monkeypatch, tmp_path, f"+sweeps={name}", *small, *first)
    assert document["name"] == name
    assert {cell["status"] for cell in document["cells"]} == {"done"}  # type: ignore[attr-defined]
