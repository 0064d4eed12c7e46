"""Rows of every family of checkpoints share calls: a picture's bits do not depend on what is drawn beside it.

The same comparison sees what a wrong row would do, where a call's rows swap prompts, timesteps or guidance scales.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from diffsweep.core.types import EMBEDDED
from diffsweep.runner.freeze import freeze
from tests.checkpoints import saved

CELLS = (
    {"seed": 0, "prompt": "a dog", "guidance__scale": 5.0, "scheduler__steps": 4},
    {"seed": 1, "prompt": "an old man", "guidance__scale": 1.0, "scheduler__steps": 3},
    {"seed": 2, "prompt": "a cat", "guidance__scale": 2.5, "scheduler__steps": 2, "guidance__negative_prompt": "a dog"},
)
TOLD = tuple({**cell, "guidance__embedded": scale} for cell, scale in zip(CELLS, (1.0, 3.5, 7.0), strict=True))
LONG = {"seed": 3, "prompt": "a cat by the sea " * 4, "scheduler__steps": 3}  # of another lane than its negative
SMALL = {"model__height": 32, "model__width": 32, "scheduler": "euler"}


class Reversed:
    """A model that is given one thing of every call's rows in the wrong order."""

    def __init__(self, model: Any, what: str) -> None:
        self.model, self.what = model, what

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def predict(self, x: torch.Tensor, levels: Sequence[Any], prompts: Sequence[Any], beside: dict[str, Any]) -> Any:
        levels = levels[::-1] if self.what == "level" else levels
        prompts = prompts[::-1] if self.what == "prompt" else prompts
        beside = {key: value.flip(0) if key == self.what else value for key, value in beside.items()}
        return self.model.predict(x, levels, prompts, beside)


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3", "flux", "klein", "pixart", "z_image", "qwen_image", "lumina2"])
def test_fused_equals_alone_bit_for_bit_and_no_row_is_anothers(
    name: str, tmp_path: Path, config: Callable[..., dict[str, Any]], sampled: Callable[..., list[Any]]
) -> None:
    folder = saved(tmp_path, name)
    asked = {"flux": TOLD, **dict.fromkeys(("z_image", "qwen_image", "lumina2"), (*CELLS, LONG))}.get(name, CELLS)
    cells = [freeze(config(model="tiny_sd", model__path=str(folder), **SMALL, **one), {}) for one in asked]
    model = cells[0].model.load("cpu")

    def drawn(cells: list[Any], model: Any) -> list[torch.Tensor]:
        return [end.result.image for end in sampled(cells, model, 4)]

    fused = drawn(cells, model)
    for cell, picture in zip(cells, fused, strict=True):
        (alone,) = drawn([cell], model)
        assert torch.equal(alone, picture)
    for what in ("prompt", "level", *([EMBEDDED] if name == "flux" else [])):
        wrong = drawn(cells, Reversed(model, what))
        assert not all(torch.equal(a, b) for a, b in zip(wrong, fused, strict=True)), what


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3", "flux", "klein", "z_image", "qwen_image", "lumina2"])
def test_memory_is_foreseen_from_configurations(
    name: str, tmp_path: Path, config: Callable[..., dict[str, Any]]
) -> None:
    """Text encoders to the byte; of the network and the autoencoder, which decodes, at least the weights."""
    import diffusers

    folder = saved(tmp_path, name)
    pipeline = diffusers.DiffusionPipeline.from_pretrained(folder)

    def size(part: Any) -> int:
        return sum(parameter.numel() * parameter.element_size() for parameter in part.parameters())

    network = pipeline.unet if name.startswith("sd") and name != "sd3" else pipeline.transformer
    texts = [part for key, part in pipeline.components.items() if key.startswith("text_encoder")]
    needs = freeze(config(model="tiny_sd", model__path=str(folder), **SMALL), {}).model.needs("cpu")
    assert needs.text == sum(map(size, texts))
    assert needs.weights > size(network) + size(pipeline.vae)
    assert 0 < needs.row < needs.weights * 1000
    assert needs.prompt > 0
