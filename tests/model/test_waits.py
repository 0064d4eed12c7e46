"""Nothing waits for the device within the loop: every family, technique and scheduler, found without such a device."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch

from diffsweep.core.types import Latents
from diffsweep.engine import Engine
from diffsweep.runner.cell import Cell
from diffsweep.runner.freeze import freeze
from diffsweep.runner.ingredients import work
from diffsweep.runner.translation import with_translators
from tests.checkpoints import FAMILIES
from tests.waiting_for_device import DEVICE, NoWaits, Waits

UNTOLD = {"ddpm": {"prompt": "auto"}, "dit": {"prompt": "auto"}}  # no text, and one size
SMALL = {"prompt": "a dog", "model__height": 32, "model__width": 32}
WAITING = ("z_image", "qwen_image", "lumina2")  # whose networks wait by themselves, in diffusers


def drawn(cells: list[Cell], excused: bool = False) -> None:
    """excused: whether the network may wait, not what is around it."""
    model: Any = cells[0].model.load(DEVICE)
    model.encode([prompt for cell in cells for prompt in cell.prompts])
    model.ready()

    def latents(picture: torch.Tensor, key: Any) -> Latents:
        """Without how well they hold the picture, which is read once for each."""
        mean, std = model.codec.encode(picture[None])
        return Latents(mean[0], std[0], 0.0)

    model.latents = latents
    engine = Engine(*with_translators({"base": model}, {"base": 4}))
    with NoWaits() as mode, ExitStack() as stack:
        if excused:
            model.network.register_forward_pre_hook(lambda *_: stack.enter_context(mode.excused()))
            model.network.register_forward_hook(lambda *_: stack.close())
        for finished in engine.run(work(cell, DEVICE, model=model) for cell in cells):
            if finished.error is not None:
                raise finished.error
            assert finished.result.image.is_meta


@pytest.fixture
def cells(config: Callable[..., dict[str, Any]], folders: Callable[..., Path]) -> Callable[..., list[Cell]]:
    """Of a random checkpoint of a family, whose text is encoded on the processor."""

    def made(name: str, **changes: Any) -> list[Cell]:
        usual = {"model": "tiny_sd", "model__path": str(folders(name)), "model__text__device": "cpu"}
        own = {**usual, "scheduler": "euler", "scheduler__steps": 3, **UNTOLD.get(name, SMALL), **changes}
        return [freeze(config(**{**own, "seed": seed}), {}) for seed in range(3)]

    return made


@pytest.mark.parametrize("name", FAMILIES)
def test_a_familys_calls_wait_for_nothing(name: str, cells: Callable[..., list[Cell]]) -> None:
    drawn(cells(name), excused=name in WAITING)


@pytest.mark.parametrize(
    "changes",
    [
        {"scheduler": "ddpm"},
        {"scheduler": "dpm_solver"},
        {"scheduler": "heun", "scheduler__churn": 5.0},
        {"scheduler": "euler_ancestral"},
        {"scheduler": "diffusers", "scheduler__cls": "DDIMScheduler"},
        {"scheduler": "diffusers", "scheduler__cls": "EulerDiscreteScheduler"},
        {"scheduler": "diffusers", "scheduler__cls": "DPMSolverMultistepScheduler"},
        {"scheduler": "diffusers", "scheduler__cls": "PNDMScheduler", "scheduler__steps": 8},
        {"scheduler": "diffusers", "scheduler__cls": "HeunDiscreteScheduler"},
        {"scheduler": "diffusers", "scheduler__cls": "LMSDiscreteScheduler"},
        {"scheduler__threshold": "dynamic"},
        {"guidance__rescale": 0.5},
        {"technique": "hybrid"},
        {"technique": "inpaint", "input": "drawing", "mask": "box", "technique__paste": True},
        {"technique": "inpaint", "input": "drawing", "mask": "box", "technique__blend": "change_map"},
        {"technique": "image_to_image", "input": "drawing"},
        {"technique": "anagram", "technique__space": "decoded"},
    ],
)
def test_schedulers_guidances_and_techniques_wait_for_nothing(
    changes: dict[str, Any], cells: Callable[..., list[Cell]]
) -> None:
    drawn(cells("sd", **changes))


@pytest.mark.parametrize(
    "changes",
    [
        {},  # dynamic thresholding, a learned variance
        {"technique": "anagram", "view": "jigsaw"},
        {"technique": "gaussian_denoise", "input": "drawing", "technique__sigma": 1.0},
        {"model": "analytic"},
    ],
)
def test_models_of_pixels_wait_for_nothing(changes: dict[str, Any], config: Callable[..., dict[str, Any]]) -> None:
    own = {} if "model" in changes else {"model": "tiny", "model__text__device": "cpu"}
    drawn([freeze(config(**{**own, "scheduler__steps": 3, **changes, "seed": seed}), {}) for seed in range(3)])


WAITS: dict[str, Callable[[torch.Tensor], Any]] = {
    "numbers": lambda x: x.new_tensor([1.0, 2.0]),
    "a tensor": lambda x: torch.tensor([1.0, 2.0], device=DEVICE),
    "there": lambda x: torch.zeros(3).to(DEVICE),
    "copied": lambda x: x.copy_(torch.zeros(3)),
    "a mask": lambda x: x[x > 0],
    "put by a mask": lambda x: x.index_put_((x > 0,), x[0]),
    "here and there": lambda x: x + torch.zeros(3),
    "taken back": lambda x: x.cpu(),
}


@pytest.mark.parametrize("name", WAITS)
def test_what_waits_is_found(name: str) -> None:
    x = torch.zeros(3, device=DEVICE)
    with pytest.raises(Waits), NoWaits():
        WAITS[name](x)


@pytest.mark.parametrize("read", [torch.Tensor.item, torch.Tensor.__bool__, torch.Tensor.tolist])
def test_a_number_cannot_be_read(read: Callable[[torch.Tensor], Any]) -> None:
    """By torch itself: the device has no contents."""
    with pytest.raises(RuntimeError):
        read(torch.zeros((), device=DEVICE))


def test_what_does_not_wait_is_let_through() -> None:
    with NoWaits():
        x = torch.zeros(3).to(DEVICE, non_blocking=True)
        x = x + torch.tensor(2.0) + x.new_full((), 3.0) + torch.arange(3, device=DEVICE)
        x.copy_(torch.zeros(3), non_blocking=True)
        assert x[torch.zeros(2, dtype=torch.long, device=DEVICE)].shape == (2,)
