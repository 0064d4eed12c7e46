"""On a CUDA device: as diffusers draws it there, the same bits whatever the neighbours, and no wait within the loop.

    pytest -m gpu -n 0                            # on a machine that has one
    DIFFSWEEP_GPU=cpu pytest -m gpu -n 0          # what can be shown on a processor, the large shapes in small

Pictures are compared in single precision: convolutions in TF32, which torch has on by default, are turned off.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from diffsweep.engine import Engine
from diffsweep.model import codec, memory
from diffsweep.model.deepfloyd import DeepFloyd
from diffsweep.runner import preflight
from diffsweep.runner.cell import Cell
from diffsweep.runner.freeze import freeze
from diffsweep.runner.ingredients import to_pixels, work
from diffsweep.runner.translation import with_translators
from tests.checkpoints import saved

pytestmark = pytest.mark.gpu
DEVICE = os.environ.get("DIFFSWEEP_GPU", "cuda")
SHRINK = 1 if DEVICE == "cuda" else 16
of_cuda = pytest.mark.skipif(DEVICE == "cpu", reason="of CUDA alone")
FAMILIES = {"sd": "DDIMScheduler", "sdxl": None, "sd3": None, "flux": None, "tiny_sd": "DDIMScheduler"}


@pytest.fixture(autouse=True)
def _single_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


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
    engine = Engine(*with_translators({"base": model}, {"base": rows}))
    engine.encode(prompt for cell in cells for prompt in cell.prompts)
    ended = {finished.owner: finished for finished in engine.run(work(cell, DEVICE, model=model) for cell in cells)}
    for finished in ended.values():
        if finished.error:
            raise finished.error
    return [ended[cell].result.image for cell in cells]


def pipeline(model: Any) -> Any:
    from diffusers import IFPipeline

    pipe = IFPipeline.from_pretrained(model.source.root, unet=model.network, dtype=model.dtype).to(DEVICE)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def assert_same(ours: torch.Tensor, theirs: np.ndarray) -> None:
    """theirs: H W 3 in [0, 1]."""
    apart = np.abs(to_pixels(ours).astype(int) - (theirs * 255).round())
    assert apart.max() <= 1 and (apart > 0).mean() <= 0.02, (apart.max(), (apart > 0).mean())


@contextmanager
def no_waits() -> Iterator[None]:
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


# -- pixels ------------------------------------------------------------------------------------------------------------
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
            output_type="np",
        ).images[0]
        assert_same(image, theirs)


def test_a_pictures_bits_do_not_depend_on_its_neighbours(model: Any, cells: Callable[..., list[Cell]]) -> None:
    own = cells(5)
    together = sampled(model, own, 8)
    for cell, image in zip(own[::2], together[::2], strict=True):
        assert torch.equal(sampled(model, [cell], 8)[0], image)


@of_cuda
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
    with no_waits():
        sampled(model, own, 8)


@of_cuda
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


@of_cuda
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


# -- latents -----------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """The path of a family's random checkpoint, or of an embedded one."""
    kept = {"tiny_sd": "tiny_sd"}

    def path(name: str) -> str:
        if name not in kept:
            kept[name] = str(saved(tmp_path_factory.mktemp(name), name))
        return kept[name]

    return path


@pytest.fixture
def family(
    config: Callable[..., dict[str, Any]], checkpoints: Callable[[str], str]
) -> Callable[..., tuple[Any, list[Cell]]]:
    """A family's model on the device, and five cells of it."""

    def made(name: str, **changes: Any) -> tuple[Any, list[Cell]]:
        size = {} if name == "tiny_sd" else {"model__height": 32, "model__width": 32}
        usual = {"model": "tiny_sd", "model__path": checkpoints(name), "prompt": "a red fox", "scheduler__steps": 4}
        own = {**usual, **size, "scheduler": "ddim" if FAMILIES[name] else "euler", **changes}
        cells = [freeze(config(**{**own, "seed": seed}), {}) for seed in range(5)]
        model = cells[0].model.load(DEVICE)
        model.encode([prompt for cell in cells for prompt in cell.prompts])
        model.ready()
        return model, cells

    return made


@pytest.mark.parametrize("name", FAMILIES)
def test_a_familys_picture_is_its_pipelines(name: str, family: Callable[..., tuple[Any, list[Cell]]]) -> None:
    model, cells = family(name)
    pipe: Any = diffusers.DiffusionPipeline.from_pretrained(model.source.root).to(DEVICE)
    pipe.set_progress_bar_config(disable=True)
    if (scheduler := FAMILIES[name]) is not None:
        pipe.scheduler = getattr(diffusers, scheduler).from_config(pipe.scheduler.config)
    height, width = model.stage.size
    for cell, image in zip(cells[:2], sampled(model, cells, 4), strict=False):
        theirs = pipe(
            cell.prompt,
            height=height,
            width=width,
            guidance_scale=cell.guidance.embedded or cell.guidance.scale,
            num_inference_steps=4,
            generator=torch.Generator().manual_seed(cell.seed),
            output_type="np",
        ).images[0]
        assert_same(image, theirs)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_familys_bits_do_not_depend_on_neighbours(
    name: str, dtype: str, family: Callable[..., tuple[Any, list[Cell]]]
) -> None:
    """Five cells in calls of four rows: some of these calls, of those that decode too, are not full."""
    model, cells = family(name, model__dtype=dtype)
    together = sampled(model, cells, 4)
    for cell, image in zip(cells[::2], together[::2], strict=True):
        assert bool(image.isfinite().all()) and image.std() > 0
        assert torch.equal(sampled(model, [cell], 4)[0], image)


@of_cuda
@pytest.mark.parametrize("changes", [{}, {"technique": "inpaint", "input": "drawing", "mask": "box"}])
@pytest.mark.parametrize("name", FAMILIES)
def test_nothing_waits_for_the_device_in_a_familys_loop(
    name: str, changes: dict[str, Any], family: Callable[..., tuple[Any, list[Cell]]]
) -> None:
    """An input's latents are known from the first run: how well they hold it is read once."""
    model, cells = family(name, **changes)
    sampled(model, cells, 4)
    with no_waits():
        sampled(model, cells, 4)


# -- public checkpoints' shapes ----------------------------------------------------------------------------------------
@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "scripts"))
    return importlib.import_module


@pytest.mark.slow
@pytest.mark.parametrize("name", ["m", "xl", "sd15", "sdxl", "sd35_medium", "flux"])
def test_real_shapes_are_the_pipelines(name: str, tmp_path: Path, scripts: Callable[[str], Any]) -> None:
    """Random weights, single precision."""
    models, shape = scripts("gpu.models"), scripts("gpu.shapes").SHAPES[name](SHRINK)
    (cell,) = models.cells(shape, models.written(shape, tmp_path / name), 1, 3, "float32")
    model = models.loaded(cell, DEVICE)
    (image,) = sampled(model, [cell], 2)
    given = {"generator": torch.Generator().manual_seed(0), "num_inference_steps": 3, "output_type": "np"}
    assert_same(image, models.pipeline(shape, model)(**models.told(shape, model, cell), **given).images[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sd15", "sdxl", "sd35_medium", "flux"])
def test_real_shapes_take_the_memory_that_is_foreseen(name: str, tmp_path: Path, scripts: Callable[[str], Any]) -> None:
    """Weights to the byte, a loop's peak within what preflight lets libraries take on top."""
    models, shape = scripts("gpu.models"), scripts("gpu.shapes").SHAPES[name](SHRINK)
    cells, rows = models.cells(shape, models.written(shape, tmp_path / name), 4, 2), 4
    model, need = models.loaded(cells[0], DEVICE), cells[0].model.needs("cuda")
    parameters = [*model.network.parameters(), *model.codec.vae.parameters()]
    height, width = model.stage.size
    _, decoding = memory.decoder(shape.vae, [height // 8, width // 8])
    weights = sum(p.numel() * p.element_size() for p in parameters)
    assert weights == need.weights - decoding * codec.rows(height, width)
    if DEVICE == "cpu":
        return
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated() - weights
    torch.cuda.reset_peak_memory_stats()
    sampled(model, cells, rows)
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated() - before
    assert weights < peak < need.weights + rows * need.row + 2 * need.prompt + preflight.SPARE
