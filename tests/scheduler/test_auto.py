"""The rule that a checkpoint is made for. That it draws what each family's pipeline draws, is in tests/model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import pytest

from diffsweep.core.problems import BadInput
from diffsweep.model.schedule import NEAR, rule
from diffsweep.model.schedule import RULES as CLASSES
from diffsweep.runner.freeze import freeze
from diffsweep.runner.parts import build
from diffsweep.scheduler.auto import RULES, Automatic
from tests.checkpoints import saved

OWN = {"analytic": "ddpm", "analytic_flow": "euler", "tiny": "ddpm", "tiny_sd": "ddim", "tiny_flow": "euler"}


@pytest.mark.parametrize(("model", "own"), OWN.items())
def test_it_is_the_same_cell_as_the_rule_by_its_name(config: Any, model: str, own: str) -> None:
    keys = {"scheduler__steps": 7, "scheduler__spacing": "linspace", "scheduler__threshold": "clip"}
    cells = [freeze(config(model=model, scheduler=name, **keys), {}) for name in ("auto", own)]
    assert cells[0].id == cells[1].id
    assert cells[0].scheduler == cells[1].scheduler and type(cells[0].scheduler) is RULES[own]
    assert {cell.config["scheduler"]["name"] for cell in cells} == {own}


def test_a_stage_that_enlarges_has_a_rule_of_its_own(config: Any) -> None:
    """That of tiny_upscale's scheduler, which is DDPM's."""
    known = config(model="tiny", upscale="tiny")
    left = {**known, "upscale": {**known["upscale"], "scheduler": {**known["upscale"]["scheduler"], "name": "auto"}}}
    assert freeze(left, {}).id == freeze(known, {}).id


@pytest.mark.parametrize("name", [*CLASSES, *NEAR])
def test_the_classes_are_diffusers(name: str) -> None:
    if "Gaussian" not in name:  # as the first DDPM checkpoints call it
        assert getattr(diffusers, name)
    found = rule({"_class_name": name})
    assert found["rule"] in RULES and found.get("stands_for") == (name if name in NEAR else None)


@pytest.mark.parametrize("named, own", [("PNDMScheduler", "ddim"), ("FlowMatchLCMScheduler", "euler")])
def test_a_class_that_is_not_known_has_what_any_model_of_its_process_has_and_that_is_told(
    config: Any, tmp_path: Path, named: str, own: str
) -> None:
    assert rule({"_class_name": named}) == {"rule": own, "stands_for": named}
    folder = saved(tmp_path / "sd", "sd")
    file = folder / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"_class_name": "PNDMScheduler"}))
    told = (
        "scheduler=auto: ddim, in the place of the checkpoint's PNDMScheduler; scheduler=diffusers scheduler.cls=PNDM"
    )
    for scheduler in ("auto", "ddim"):
        cell = freeze(config(model="tiny_sd", model__path=str(folder), scheduler=scheduler), {})
        assert any(note.startswith(told) for note in cell.notes) == (scheduler == "auto")


def test_a_stage_whose_rule_is_none_is_told(config: Any) -> None:
    stage = replace(freeze(config(), {}).stage, rule="pndm")
    with pytest.raises(BadInput, match=r"^scheduler=auto: the model's rule=pndm: must be one of ddim, "):
        build("scheduler", {"name": "auto"}).chosen(stage)
    assert Automatic() == build("scheduler", {"name": "auto"})
