"""On a CUDA device: as diffusers draws it there, the same bits whatever the neighbours, and no wait within the loop."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffsweep.engine import Engine
from diffsweep.model.deepfloyd import DeepFloyd
from diffsweep.runner import preflight
from diffsweep.runner.cell import Cell
from diffsweep.runner.freeze import freeze
from diffsweep.runner.ingredients import to_pixels, work

pytestmark = pytest.mark.gpu
DEVICE = "cuda"


@pytest.fixture(scope="module")
def model() -> Any:
    model = DeepFloyd().load(DEVICE)
    model.ready()
    return model


@pytest.fixture
def cells(config: Callable[..., dict[str, Any]]) -> Callable[..., list[Cell]]:
    def made(n: int, **changes: Any) -> list[Cell]:
        usual = {"model": "tiny", "prompt": "a photo of a penguin", "scheduler__steps": 10, "guidance__scale": 4.0}
        return [freeze(config(**{**usual, **changes, "seed": seed}), {}) for seed in range(n)]

    return made


def sampled(model: Any, cells: list[Cell], rows: int) -> list[torch.Tensor]:
    engine = Engine({"base": model}, rows)
    engine.encode(prompt for cell in cells for prompt in cell.prompts)
    ended = {finished.owner: finished for finished in engine.run(work(cell, DEVICE) for cell in cells)}
    for finished in ended.values():
        if finished.error:
            raise finished.error
    return [ended[cell].result.image for cell in cells]


def pipeline(model: Any) -> Any:
    from diffusers import IFPipeline

    pipe = IFPipeline.from_pretrained(model.source.root, unet=model.network, dtype=model.dtype).to(DEVICE)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize("prompt", ["a photo of a penguin", "an oil painting of a skull"])
def test_a_picture_is_the_pipelines(model: Any, cells: Callable[..., list[Cell]], prompt: str) -> None:
    own = cells(3, prompt=prompt)
    pipe = pipeline(model)
    for cell, image in zip(own, sampled(model, own, 8), strict=True):
        theirs = pipe(
            prompt,
            guidance_scale=4.0,
            num_inference_steps=10,
            generator=torch.Generator().manual_seed(cell.seed),
            clean_caption=False,
        ).images[0]
        apart = np.abs(to_pixels(image).astype(int) - np.asarray(theirs))
        assert apart.max() <= 1 and (apart > 0).mean() <= 0.02


def test_a_pictures_bits_do_not_depend_on_its_neighbours(model: Any, cells: Callable[..., list[Cell]]) -> None:
    own = cells(5)
    together = sampled(model, own, 8)
    for cell, image in zip(own[::2], together[::2], strict=True):
        assert torch.equal(sampled(model, [cell], 8)[0], image)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"scheduler": "ddim", "scheduler__eta": 0.5},
        {"scheduler": "dpm_solver"},
        {"scheduler": "heun", "scheduler__churn": 5.0},
        {"technique": "anagram"},
        {"technique": "hybrid"},
        {"technique": "inpaint", "input": "world"},
        {"technique": "inpaint", "input": "world", "technique__jump": 3, "technique__resamples": 2},
    ],
)
def test_nothing_waits_for_the_device_within_the_loop(
    model: Any, cells: Callable[..., list[Cell]], changes: dict[str, Any]
) -> None:
    own = cells(3, **changes)
    sampled(model, own, 8)  # libraries load what they need
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        sampled(model, own, 8)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_cells_seconds_are_the_devices(model: Any, cells: Callable[..., list[Cell]]) -> None:
    """They sum up to the time that a process takes that waits for each run to be done; launches alone take less."""
    works = [work(cell, DEVICE) for cell in cells(8)]
    for _ in range(2):  # the first run warms up
        torch.cuda.synchronize()
        began = time.perf_counter()
        ends = list(Engine({"base": model}, 8).run(works))
        torch.cuda.synchronize()
        whole = time.perf_counter() - began
    assert sum(end.seconds for end in ends) == pytest.approx(whole, rel=0.25)


def test_the_memory_counted_is_the_devices(model: Any) -> None:
    """Weights to the byte but for the allocator's rounding; a call's peak within what libraries take on top."""
    need = model.model.needs(DEVICE)
    assert sum(p.numel() * p.element_size() for p in model.network.parameters()) == need.weights
    x, t = torch.zeros(16, 3, 32, 32, device=DEVICE), torch.full((16,), 500, device=DEVICE)
    states = torch.zeros(16, 77, 128, device=DEVICE)
    with torch.inference_mode():
        model.network(x, t, encoder_hidden_states=states)
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        model.network(x, t, encoder_hidden_states=states)
        torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated() - before
    assert 0.7 * 16 * need.row < peak < 16 * need.row + preflight.SPARE


@pytest.mark.slow
@pytest.mark.parametrize("size", ["m", "xl"])
def test_ifs_own_shapes_are_the_pipelines(
    size: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cells: Callable[..., list[Cell]]
) -> None:
    """The real list of channels, random weights, single precision for M; half for XL, to what half precision allows."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "scripts"))
    folder = importlib.import_module("bench_gpu").checkpoint(size, 1, DEVICE, tmp_path / size)
    dtype, levels = ("float32", 1) if size == "m" else ("bfloat16", 24)
    model = DeepFloyd(str(folder), dtype=dtype).load(DEVICE)
    model.ready()
    (cell,) = cells(1, model__path=str(folder), model__dtype=dtype, scheduler__steps=3)
    (image,) = sampled(model, [cell], 2)
    pipe = pipeline(model)
    theirs = pipe(
        cell.prompt,
        guidance_scale=4.0,
        num_inference_steps=3,
        generator=torch.Generator().manual_seed(0),
        clean_caption=False,
    ).images[0]
    apart = np.abs(to_pixels(image).astype(int) - np.asarray(theirs))
    assert apart.max() <= levels
