"""What a technique asks and what a model answers.

Letters used throughout: `x` the image at the current noise level, `t > s` timesteps of the model's own training
schedule, `eps` its noise. Images are float32, C H W, in [-1, 1]; masks float32, 1 H W, in [0, 1], 1 = regenerate.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

    from diffsweep.core.schedule import NoiseSchedule

BASE = "base"  # the stage that makes the first picture; a super-resolution stage is called by its checkpoint
CLEAN = -1  # the noiseless end of the trajectory, one below timestep 0

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Given:
    """What a super-resolution stage is conditioned on: the low-resolution image, enlarged to the stage's size and
    noised to a timestep of its own schedule. For one row: C H W and a number; for a batch: B C H W and B."""

    image: Tensor
    noise_level: int | Tensor


@dataclass(frozen=True, eq=False)
class Query:
    """One row for the model: what noise is in `image` (C H W) at timestep `t`, if it shows `prompt`?

    stage: which of the engine's models is asked; given: what a super-resolution stage sees beside the image.
    """

    image: Tensor
    t: int
    prompt: str = ""
    stage: str = BASE
    given: Given | None = None


@dataclass(frozen=True, eq=False)
class Estimate:
    """The model's answer, or several merged into one.

    noise: C H W. variance: C H W, iDDPM's interpolation v, where -1 is the posterior's variance and 1 is beta
    (iDDPM (15)); as the network gives it, never clamped. None where the model does not learn it.
    """

    noise: Tensor
    variance: Tensor | None = None


Program = Generator[list[Query], list[Estimate], T]
"""An algorithm for one image: yields questions, is sent their answers in the same order, returns its result."""


@dataclass(frozen=True)
class Stage:
    """One network of a model: its picture shape (C, H, W), training schedule and sampling habits.

    factor: pixels of the picture to one of the shape, above 1 for latents, whose channels are not colours.
    threshold is the clean estimate's treatment that the checkpoint's scheduler configuration asks for, one of
    `scheduler.threshold.KINDS`, with its parameters; spacing likewise, with its timestep offset.
    """

    shape: tuple[int, int, int]
    schedule: NoiseSchedule
    threshold: str = "none"
    threshold_ratio: float = 0.995
    threshold_max: float = 1.0
    spacing: str = "leading"
    offset: int = 0
    factor: int = 1

    @property
    def side(self) -> int:
        """Of the picture, in pixels."""
        return self.shape[-1] * self.factor


class Model(Protocol):
    """One stage's network, and the only batched signature of the repository."""

    stage: Stage

    def encode(self, prompts: Sequence[str]) -> int:
        """Know these prompts' embeddings, each encoded on its own; returns how many nobody had encoded yet."""
        ...

    def ready(self) -> int:
        """Load what `predict` needs; returns how many networks that were (0 where it is loaded)."""
        ...

    def predict(self, x: Tensor, t: Tensor, prompts: Sequence[str], given: Given | None = None) -> Estimate:
        """x: B C H W float32, t: B int64, one prompt a row; noise and variance come back B C H W float32."""
        ...

    def finish(self, x: Tensor) -> Tensor:
        """The picture (C H W in [-1, 1]) that a sampled x is: a latent stage decodes it."""
        ...


class Scheduler(Protocol):
    """One update rule. `memory` serves multistep rules; the loop drops it where t rises."""

    def timesteps(self, stage: Stage) -> tuple[int, ...]:
        """The timesteps visited, falling; BadInput where they do not fit the stage's schedule."""
        ...

    def draws(self, s: int) -> bool:
        """Whether the step to `s` consumes a noise draw."""
        ...

    def step(
        self, x: Tensor, estimate: Estimate, t: int, s: int, noise: Tensor | None, memory: object, stage: Stage
    ) -> tuple[Tensor, object]: ...


class Guidance(Protocol):
    """What the model is asked about `x` at `t`, and how the answers become one estimate."""

    @property
    def prompts(self) -> tuple[str, ...]:
        """The prompt of each question, in the order of `queries`: a step costs so many model rows."""
        ...

    def queries(self, x: Tensor, t: int) -> list[Query]: ...

    def merge(self, x: Tensor, t: int, answers: list[Estimate]) -> Estimate: ...


class Constraint(Protocol):
    """What is pinned after the step from `t` to `s`."""

    def __call__(self, x: Tensor, s: int) -> Tensor: ...


class View(Protocol):
    """How a picture is looked at. Spatial views move noise and variance alike; negate flips the noise alone."""

    def apply(self, x: Tensor) -> Tensor: ...

    def invert(self, estimate: Estimate) -> Estimate: ...
