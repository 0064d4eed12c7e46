"""What a cell is to the engine: a program, its ingredients as tensors, and its picture as pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from diffsweep.core.failures import NOT_FINITE
from diffsweep.core.loop import rises, steps
from diffsweep.core.streams import MAIN, Streams, placed
from diffsweep.runner.cell import Cell
from diffsweep.store.pictures import STEP

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from diffsweep.core.types import Level, Program, Watch
    from diffsweep.engine import Work
    from diffsweep.technique.job import Job


class Trajectory:
    """The steps to store of a cell's way from noise: x and the clean estimate, at `number` of its steps."""

    def __init__(self, cell: Cell, number: int) -> None:
        last = sum(not rises(t, s) for t, s in steps(cell.visited, cell.stage.process)) - 1
        self.number = number
        shown = min(number, last + 1)
        self.kept = {round(i * last / max(1, shown - 1)) for i in range(shown)}
        self.step = 0
        self.seen: list[tuple[int, float, Tensor, Tensor]] = []
        self.pictures: dict[str, Tensor] = {}  # of `tensors`, once they are decoded

    def __call__(self, level: Level, x: Tensor, clean: Tensor) -> None:
        if self.step in self.kept:
            self.seen.append((self.step, level.t, x, clean))
        self.step += 1

    @property
    def tensors(self) -> dict[str, Tensor]:
        """By the names their pictures are stored under: the same for the same step, however many are asked for."""
        return {
            f"{STEP}{step:04}_{kind}": x
            for step, _, noisy, clean in self.seen
            for kind, x in (("noisy", noisy), ("clean", clean))
        }

    @property
    def facts(self) -> dict[str, Any]:
        return {"asked": self.number, "t": [t for _, t, _, _ in self.seen]}


def work(
    cell: Cell,
    device: str,
    pixels: Callable[[str], np.ndarray] | None = None,
    watch: Callable[[], Trajectory] | None = None,
    model: Any = None,
) -> Work:
    """A cell as work for the engine, which makes its tensors when it starts. pixels: a stored picture by its cell's id.
    watch: makes the loop's watcher, each time that the engine starts the cell. model: the stage's, in memory, which has
    the latents of an input."""
    from diffsweep.engine import Work

    def start() -> Program[Any]:
        watcher = watch() if watch else None
        if cell.base is None:
            own = job(cell, device, None, watcher, model)
            outcome = yield from cell.technique.program(own)
        else:
            assert pixels is not None
            own = job(cell, device, pixels(cell.base.id), watcher, model)
            outcome = yield from cell.upscale.program(cell.technique, own)
        outcome = replace(outcome, facts={**own.facts, **outcome.facts})
        if watcher:
            for name, x in watcher.tensors.items():
                watcher.pictures[name] = yield from own.decoded(x if x.ndim == 3 else x[0])  # of several views' one
        return outcome

    return Work(cell, start, cell.rounds, len(cell.prompts), cell.stage_name)


def job(
    cell: Cell,
    device: str = "cpu",
    low: np.ndarray | None = None,
    watch: Watch | None = None,
    model: Any = None,
) -> Job:
    """A technique's ingredients for a cell. low: the picture to enlarge, uint8 h w 3. model: as of `work`."""
    import torch

    from diffsweep.technique.job import Job

    streams, factor = Streams(cell.seed, device), cell.stage.factor
    region = mask = picture = image = None
    if cell.mask is not None:
        region = placed(torch.tensor(cell.mask)[None].float() / 255, device)
        mask = region[:, ::factor, ::factor].contiguous()  # the nearest, as diffusers' pipelines take it
    if cell.pixels is not None:
        picture = image = to_tensor(cell.pixels, device)
    facts: dict[str, Any] = {}
    if factor > 1 and cell.pixels is not None:
        latents = model.latents(picture, cell.pixels.tobytes())  # drawn before all else, as diffusers' pipelines do
        image = latents.mean
        if latents.std is not None:
            image = image + latents.std * streams.normal(MAIN, cell.stage.shape)
        facts = {"vae_psnr": latents.psnr}
    return Job(
        prompt=cell.prompt,
        levels=cell.visited,
        stage=cell.stage,
        scheduler=cell.scheduler,
        guidance=cell.guidance,
        streams=streams,
        image=image,
        mask=mask,
        picture=picture,
        region=region,
        facts=facts,
        stage_name=cell.stage_name,
        beside=cell.beside,
        view=cell.view,
        parts=cell.parts,
        low=None if low is None else to_tensor(low, device),
        scale=cell.stage.size[0] / cell.cascade[0].stage.size[0],
        watch=watch,
    )


def to_tensor(pixels: np.ndarray, device: str) -> Tensor:
    """C H W in [-1, 1] from uint8 H W 3."""
    import torch

    return placed((torch.tensor(pixels).permute(2, 0, 1).float() / 127.5 - 1).contiguous(), device)


def require_finite(x: Tensor, mend: str = "") -> None:
    """FloatingPointError where a picture is not finite. mend: what may help."""
    if not bool(x.isfinite().all()):
        raise FloatingPointError(f"{NOT_FINITE}{mend}")


def to_pixels(x: Tensor) -> np.ndarray:
    """uint8 H W 3 from C H W in [-1, 1], clipped and rounded; ValueError where it is no picture, FloatingPointError
    where it is not finite."""
    if x.ndim != 3 or x.shape[0] != 3:
        raise ValueError(f"a picture of three channels is needed, not {tuple(x.shape)}")
    require_finite(x)
    return ((x.float() / 2 + 0.5).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
