"""Notes on models, before anything is sampled: a folder of another family than the choice's numbers are for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import yaml  # type: ignore[import-untyped]

from diffsweep.core.keys import AUTO
from diffsweep.model.checkpoint import Checkpoint
from diffsweep.model.family import families
from diffsweep.model.layout import class_of
from diffsweep.paths import shipped

if TYPE_CHECKING:
    from diffsweep.runner.cell import Cell

SUITED = ("dtype", "default_steps", "default_scale")
ANY = "tiny_sd"  # the choice whose numbers are for no family


def model_notes(cells: Sequence[Cell]) -> Iterator[str]:
    """The checkpoints that take a choice's numbers and are of another family, and the choices that suit them."""
    models = dict.fromkeys(cell.cascade[0].model for cell in cells)
    told = {
        model.path: _other(model) for model in models if isinstance(model, Checkpoint) and model.default_for != AUTO
    }
    yield from filter(None, told.values())


def _other(model: Checkpoint) -> str | None:
    made = families().get(str(model.default_for))
    if made is model.family:
        return None
    own = ", ".join(f"{key}={value}" for key in SUITED if (value := getattr(model, key)) != AUTO)
    fitting = [name for name, pipeline in _choices() if families().get(pipeline) is model.family] or [ANY]
    return (
        f"model.path={model.path}: {class_of(model.source)}; {own} suit {model.default_for}: "
        f"{' or '.join(f'model={name}' for name in fitting)} has what suits it"
    )


def _choices() -> Iterator[tuple[str, str]]:
    """Each choice of a checkpoint, and the pipeline that its numbers are for."""
    for file in sorted((shipped("conf") / "model").glob("*.yaml")):
        yield file.stem, yaml.safe_load(file.read_text()).get("default_for", "")
