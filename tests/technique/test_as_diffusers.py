"""Whole runs against diffusers' own IF pipelines: same weights, seed and settings, the same picture.

The promise: at most 1 level of 255, in at most 2 % of the channel values (5 % where a timestep of 990 or more is
visited). It holds across batch shapes: the cells here share model calls, the pipelines run one picture at a time. On
random weights, whose pictures are all texture, and on the embedded model.

Where definitions differ, by intention:
* text_to_image: up to scale 1 diffusers asks about the prompt alone; here that is scale 1, and 0 is unconditional. (Its
  last step to clean is noisy where it starts above timestep 0: the spacings here end at 0.)
* image_to_image: they agree. Strength w of n steps is the last int(w n); the start is the stream's first draw.
* inpaint: IFInpaintingPipeline is known=clean, start=input, blend=each_step with a hard mask (a soft one is made hard
  there, at one half). Its start is the noised input even at strength 1, so start=noise, which owes nothing to what was
  under the mask, has no counterpart. It puts back what the previous step held, which is the input itself.
* ddim: diffusers' pipelines keep the noise estimate as it was where the clean one is thresholded, here it is computed
  anew: they agree where nothing is thresholded. IF's pipelines part off the learned variance only if the scheduler's
  configuration says that there is none.
* dpm_solver: its own `leading` is another; told the timesteps, it agrees.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    IFImg2ImgPipeline,
    IFInpaintingPipeline,
    IFPipeline,
)
from diffusers.pipelines.deepfloyd_if import fast27_timesteps
from PIL import Image

from diffsweep.model import deepfloyd
from diffsweep.model.source import Source
from diffsweep.runner.cell import Cell
from diffsweep.runner.freeze import freeze
from diffsweep.runner.ingredients import to_pixels

PROMPT = "a photo of a dog"
NEGATIVE = "an oil painting of a skull"


@dataclass
class Weights:
    """One checkpoint, as diffusers has it and as we do."""

    path: str
    pipeline: IFPipeline
    model: Any


@pytest.fixture(scope="module", params=["random", pytest.param("tiny", marks=pytest.mark.slow)])
def weights(request: pytest.FixtureRequest, checkpoint: Path, loaded: Any) -> Weights:
    random = request.param == "random"
    folder = checkpoint if random else Source("tiny").root
    pipeline = IFPipeline.from_pretrained(folder, safety_checker=None, watermarker=None).to(torch.float32)
    return Weights(str(folder), pipeline, loaded if random else deepfloyd.DeepFloyd("tiny").load("cpu"))


@pytest.fixture
def ours(weights: Weights, config: Callable[..., dict[str, Any]], sampled: Any) -> Callable[..., list[Any]]:
    """For every combination of the lists in `changes`: the cell and its picture, all from one engine."""

    def drawn(**changes: Any) -> list[tuple[Cell, np.ndarray]]:
        lists = [value if isinstance(value, list) else [value] for value in changes.values()]
        usual = {"model": "tiny", "model__path": weights.path, "prompt": PROMPT, "guidance__negative_prompt": NEGATIVE}
        asked = [usual | dict(zip(changes, values, strict=True)) for values in product(*lists)]
        cells = [freeze(config(**one), {}) for one in asked]
        ended = sampled(cells, weights.model, sum(len(cell.prompts) for cell in cells))
        return [(cell, to_pixels(end.result.image)) for cell, end in zip(cells, ended, strict=True)]

    return drawn


@pytest.fixture
def theirs(weights: Weights) -> Callable[..., np.ndarray]:
    """The picture that a pipeline of diffusers draws for a cell."""

    def drawn(kind: type, cell: Cell, scheduler: Any = None, **settings: Any) -> np.ndarray:
        parts = {**weights.pipeline.components, **({"scheduler": scheduler} if scheduler else {})}
        pipeline = kind(**parts, requires_safety_checker=False)
        pipeline.set_progress_bar_config(disable=True)
        if "timesteps" not in settings:
            settings["num_inference_steps"] = len(cell.levels)
        (image,) = pipeline(
            cell.prompt,
            guidance_scale=cell.guidance.scale,
            negative_prompt=cell.guidance.negative_prompt,
            generator=torch.Generator("cpu").manual_seed(cell.seed),
            clean_caption=False,
            **settings,
        ).images
        return np.asarray(image)

    return drawn


def assert_as_promised(got: np.ndarray, expected: np.ndarray, share: float = 0.02) -> None:
    assert expected.std() > 10 and ((expected > 0) & (expected < 255)).mean() > 0.5  # a picture that shows a difference
    apart = np.abs(got.astype(int) - expected)
    assert apart.max() <= 1
    assert (apart > 0).mean() <= share


@pytest.mark.parametrize(("steps", "scales"), [(10, [1.0, 4.0, 7.0, 10.0]), (25, [7.0])], ids=["10", "25"])
def test_text_to_image_is_ifpipelines(ours: Any, theirs: Any, steps: int, scales: list[float]) -> None:
    for cell, picture in ours(guidance__scale=scales, scheduler__steps=steps, seed=steps):
        assert_as_promised(picture, theirs(IFPipeline, cell))


def test_ifs_own_timesteps_are_ifpipelines(ours: Any, theirs: Any) -> None:
    for cell, picture in ours(guidance__scale=[1.0, 7.0], scheduler__spacing="fast27"):
        assert_as_promised(picture, theirs(IFPipeline, cell, timesteps=list(fast27_timesteps)), 0.05)


@pytest.mark.parametrize("strength", [0.34, 0.7])
def test_image_to_image_is_ifimg2imgpipelines(ours: Any, theirs: Any, strength: float) -> None:
    settings = {"technique": "image_to_image", "technique__strength": strength, "scheduler__steps": 10}
    for cell, picture in ours(guidance__scale=[1.0, 7.0], **settings):
        expected = theirs(IFImg2ImgPipeline, cell, image=Image.fromarray(cell.pixels), strength=strength)
        assert_as_promised(picture, expected)


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_inpaint_with_a_clean_known_region_is_ifinpaintingpipelines(ours: Any, theirs: Any, strength: float) -> None:
    keys = {"technique__known": "clean", "technique__start": "input", "technique__strength": strength}
    for cell, picture in ours(
        technique="inpaint", mask="ellipse", guidance__scale=[1.0, 7.0], scheduler__steps=10, **keys
    ):
        given = {"image": Image.fromarray(cell.pixels), "mask_image": Image.fromarray(cell.mask)}
        expected = theirs(IFInpaintingPipeline, cell, strength=strength, **given)
        inside = cell.mask == 255
        assert_as_promised(picture[inside], expected[inside])
        assert (picture[~inside] == expected[~inside]).all()


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_ddim_is_a_pipelines_where_nothing_is_thresholded(ours: Any, theirs: Any, weights: Weights, eta: float) -> None:
    plain = {"thresholding": False, "clip_sample": False, "variance_type": "fixed_small"}
    scheduler = DDIMScheduler.from_config({**weights.pipeline.scheduler.config, **plain})
    settings = {"scheduler__eta": eta, "scheduler__threshold": "none", "scheduler__steps": 10}
    for cell, picture in ours(
        technique="image_to_image", technique__strength=0.5, scheduler="ddim", guidance__scale=[1.0, 3.0], **settings
    ):
        given = {"image": Image.fromarray(cell.pixels), "strength": 0.5}
        assert_as_promised(picture, theirs(IFImg2ImgPipeline, cell, scheduler, eta=eta, **given))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers and numpy 2
def test_dpm_solver_is_a_pipelines(ours: Any, theirs: Any, weights: Weights) -> None:
    scheduler = DPMSolverMultistepScheduler.from_config(weights.pipeline.scheduler.config, final_sigmas_type="zero")
    for cell, picture in ours(scheduler="dpm_solver", scheduler__steps=10, guidance__scale=[1.0, 7.0]):
        assert_as_promised(picture, theirs(IFPipeline, cell, scheduler, timesteps=[level.t for level in cell.levels]))
