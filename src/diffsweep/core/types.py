"""What a technique asks and what a model answers.

Letters used throughout: `x` the image at the current noise level, `t` and `s` the level of a step and the next one,
`eps` noise. Images are float32, C H W: pixels in [-1, 1], latents in the model's own units. Masks are float32, 1 H W,
in [0, 1], 1 = regenerate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

BASE = "base"  # the stage that makes the first picture; a super-resolution stage is called by its checkpoint
DECODER, ENCODER = " decoder", " encoder"  # end the names of what makes pictures of a stage's latents, and back
AGAINST = "\0"  # begins a prompt that is encoded as a negative one
CLEAN = -1  # the `t` of the level at the end of every trajectory

# what a network predicts, in diffusers' words (`prediction_type`)
EPSILON, SAMPLE, VELOCITY, FLOW = "epsilon", "sample", "v_prediction", "flow_prediction"

# what steers a checkpoint's pictures: two answers pushed apart, or a number that its network is told
CLASSIFIER_FREE, EMBEDDED = "classifier_free", "embedded"

T = TypeVar("T")


@dataclass(frozen=True)
class Level:
    """How far a picture is from clean: x = alpha * clean + sigma * eps. t: what the network is given for it."""

    t: float
    alpha: float
    sigma: float

    @property
    def is_end(self) -> bool:
        return self.t == CLEAN

    @property
    def ratio(self) -> float:
        """Noise over signal: the sigma of k-diffusion and of Karras et al.; infinite where nothing is left."""
        return self.sigma / self.alpha if self.alpha else math.inf

    def noised(self, clean: Tensor, eps: Tensor) -> Tensor:
        """A clean image (C H W) with unit noise, at this level."""
        return self.alpha * clean + self.sigma * eps


class Process(Hashable, Protocol):
    """How a model's training noised its pictures: a level for each `t`. Plain numbers, so that planning needs no torch.

    T: how many places a spacing can choose from. clean: the end of every trajectory.
    """

    @property
    def T(self) -> int: ...

    @property
    def clean(self) -> Level: ...

    def level(self, t: float) -> Level:
        """The level of `t`; BadInput where the model knows no such t."""
        ...

    def at(self, place: float, first: int = 0) -> Level:
        """The level at a place, counted from `first`, the cleanest; the noisiest is the T-th."""
        ...

    def nearest(self, ratio: float) -> Level:
        """The level whose noise over signal is nearest, in its logarithm."""
        ...


@dataclass(frozen=True, eq=False)
class Query:
    """One row for the model: what does it make of `image` (C H W) at `level`, if that shows `prompt`?

    prompt: None asks for what the checkpoint itself takes for no prompt. stage: which of the engine's models is asked.
    beside: what else the network sees, by name, such as a picture to enlarge (C H W) and its noise level (a number).
    pull: a cotangent v (C H W); the answer then holds the vector-Jacobian product v^T d(clean estimate)/dx too.
    """

    image: Tensor
    level: Level
    prompt: str | None = ""
    stage: str = BASE
    beside: Mapping[str, Tensor | float] = field(default_factory=dict)
    pull: Tensor | None = None


def decoder_of(stage: str) -> str:
    """What the engine calls the decoder of a stage's latents."""
    return stage + DECODER


def encoder_of(stage: str) -> str:
    """What the engine calls what encodes pictures to a stage's latents."""
    return stage + ENCODER


def translates(stage: str) -> bool:
    """Whether what the engine calls so is between pictures and latents, and costs no evaluation of a model."""
    return stage.endswith((DECODER, ENCODER))


@dataclass(frozen=True, eq=False)
class Estimate:
    """The model's answer, or several merged into one; guidance is linear in any kind of it.

    output: C H W, the network's own, of this kind: EPSILON, SAMPLE, VELOCITY or FLOW. variance: C H W, iDDPM's
    interpolation v, where -1 is the posterior's variance and 1 is beta (iDDPM (15)); as the network gives it, never
    clamped, and None where the model does not learn it. pulled: C H W, the answer to `Query.pull`.
    """

    output: Tensor
    variance: Tensor | None = None
    kind: str = EPSILON
    pulled: Tensor | None = None

    def clean(self, x: Tensor, level: Level) -> Tensor:
        """The clean image that the answer about x implies. Noise alone is divided by alpha, which therefore must not be
        0: a model that was trained without any signal left predicts something else."""
        return clean_of(self.kind, x, self.output, level.alpha, level.sigma)


def clean_of(kind: str, x: Tensor, output: Tensor, alpha: Any, sigma: Any) -> Tensor:
    """The clean image from a network's output: DDPM (4) solved for x_0; Salimans and Ho 2022, appendix D; a flow's
    velocity eps - x_0. alpha, sigma: numbers, or tensors that broadcast over x."""
    if kind == EPSILON:
        return (x - sigma * output) / alpha
    if kind == VELOCITY:
        return alpha * x - sigma * output
    if kind == FLOW:
        return (x - sigma * output) / (alpha + sigma)
    return output


Program = Generator[list[Query], list[Estimate], T]
"""An algorithm for one image: yields questions, is sent their answers in the same order, returns its result."""


@dataclass(frozen=True)
class Stage:
    """One network of a model: its picture shape (C, H, W), noise process and sampling habits.

    factor: pixels of the picture to one of the shape, above 1 for latents, whose channels are not colours. steps,
    scale: how many steps and how much guidance the checkpoint is made for. steers: what guides it, of CLASSIFIER_FREE
    and EMBEDDED; the scale is the embedded one where there is that. unconditional: the prompt that means none, None
    where that is no text. against: whether negative prompts are encoded otherwise than positive ones. keeps: the
    channels, height and width of the blocks whose length in the conditional answer a guided one keeps, 0 for all that
    there are; None where it keeps none. assumed: the prompt that auto stands for where the network reads no text: a
    class label, or an empty one where it is told nothing. variance: where the network learns none, its place between
    the posterior's, -1 and the default, and beta's, 1. partial_steps: whether a share of the steps counts the one that
    it ends within, as the checkpoint's pipeline does.
    rule: which update rule it is sampled by, one of `scheduler.auto.RULES`, unless another is asked for;
    stands_for: the class of diffusers that this rule is near and not the same as, None where it is the same.
    threshold is the clean estimate's treatment that the checkpoint's scheduler configuration asks for, one of
    `core.threshold.KINDS`, with its parameters; spacing likewise, with its timestep offset.
    """

    shape: tuple[int, int, int]
    process: Process
    threshold: str = "none"
    threshold_ratio: float = 0.995
    threshold_max: float = 1.0
    spacing: str = "leading"
    offset: int = 0
    factor: int = 1
    steps: int = 50
    scale: float = 4.0
    steers: frozenset[str] = frozenset({CLASSIFIER_FREE})
    unconditional: str | None = ""
    partial_steps: bool = False
    assumed: str | None = None
    against: bool = False
    keeps: tuple[int, int, int] | None = None
    variance: float | None = None
    rule: str = "ddpm"
    stands_for: str | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the picture, in pixels."""
        return self.shape[1] * self.factor, self.shape[2] * self.factor


class Model(Protocol):
    """One stage's network, and the only batched signature of the repository."""

    stage: Stage

    def encode(self, prompts: Sequence[str | None]) -> int:
        """Know these prompts' embeddings, each encoded on its own; returns how many were new."""
        ...

    def ready(self) -> int:
        """Load what `predict` needs; returns how many networks that were (0 where it is loaded)."""
        ...

    def predict(
        self, x: Tensor, levels: Sequence[Level], prompts: Sequence[str | None], beside: Mapping[str, Tensor]
    ) -> Estimate:
        """x: B C H W float32; a level and a prompt a row; beside: each entry stacked, B C H W or B. The answer's
        tensors are B C H W float32. Differentiable in x where gradients are on."""
        ...

    def finish(self, x: Tensor) -> Tensor:
        """What is stored of a picture (C H W in [-1, 1]): a checkpoint may mark it, or black it out."""
        ...


class LanedModel(Model, Protocol):
    """One that not every two rows can be asked together of, such as one whose texts have lengths of their own."""

    def lane(self, prompt: str | None) -> Hashable:
        """What rows of a call have in common. It depends on the prompt alone, so that a row's bits do."""
        ...


class LatentModel(Model, Protocol):
    """One whose stage has latents: its `factor` is above 1."""

    def decode(self, x: Tensor) -> Tensor:
        """The pictures (B 3 H W in [-1, 1]) of latents (B C h w)."""
        ...

    def encoded(self, pictures: Tensor) -> Tensor:
        """The latents (B C h w) of pictures (B 3 H W in [-1, 1]), nothing drawn."""
        ...

    def latents(self, picture: Tensor, key: Hashable) -> Latents:
        """What a picture (3 H W in [-1, 1]) is in latents. key: the same for the same picture, encoded once."""
        ...


@dataclass(frozen=True, eq=False)
class Latents:
    """A picture's latents: mean and standard deviation (C h w) of the encoder's Gaussian, the latter None where nothing
    is drawn. psnr: in decibels, of the picture that the mean is decoded to, both in 8 bits: no setting of the latents
    can pass it by much."""

    mean: Tensor
    std: Tensor | None
    psnr: float


@dataclass(frozen=True)
class Weights:
    """A scheduler's step: x' = x * x_t + clean * clean_t + other * clean_other + noise * eps, each field the weight.

    clean_other: the clean estimate of the step before, or of a step's second question. noise: a standard deviation.
    between: logarithms of the least and the greatest variance, which replace `noise` where the model learns it.
    """

    x: float
    clean: float
    other: float = 0.0
    noise: float = 0.0
    between: tuple[float, float] | None = None


class Scheduler(Protocol):
    """One update rule, in plain numbers: a step is its weights."""

    def on(self, stage: Stage) -> Stage:
        """The stage, its clean estimate thresholded as the scheduler's keys ask for, ending as its rule does."""
        ...

    def levels(self, stage: Stage) -> tuple[Level, ...]:
        """The levels visited, falling; BadInput where they do not fit the stage."""
        ...

    def start(self, level: Level, stage: Stage) -> float:
        """What unit noise is multiplied by where a trajectory begins with it, at this level."""
        ...

    def raised(self, level: Level, steps: int, process: Process) -> Level:
        """The level from which a step at `level` begins: noise is added up to it before the model is asked."""
        ...

    def weights(self, t: Level, s: Level, before: Level | None) -> Weights:
        """The step from `t` down to `s`. before: the level of the step before, None where none leads up to this one."""
        ...

    def corrected(self, t: Level, s: Level) -> Weights | None:
        """Of a rule that asks a second time, about its own step to `s`: the step from `t` with both answers, of which
        the second is weighed by `other`."""
        ...


class Guidance(Protocol):
    """What the model is asked about `x`, and how the answers become one estimate."""

    @property
    def prompts(self) -> tuple[str | None, ...]:
        """The prompt of each question: an estimate costs so many model rows."""
        ...

    def estimate(self, x: Tensor, level: Level) -> Program[Estimate]:
        """Asks about x (C H W), once or more often."""
        ...


class Constraint(Protocol):
    """What is pinned at each step."""

    def clean(self, clean: Tensor, x: Tensor, level: Level) -> Tensor:
        """The clean estimate made from `x` at `level`, corrected."""
        ...

    def noisy(self, x: Tensor, level: Level) -> Tensor:
        """The next x, at its level, corrected."""
        ...


class View(Protocol):
    """How a picture is looked at. Spatial views move output and variance alike; negate flips the output alone."""

    def apply(self, x: Tensor) -> Tensor: ...

    def invert(self, estimate: Estimate) -> Estimate: ...


Watch = Callable[[Level, "Tensor", "Tensor"], None]
"""Sees every step: its level, x and the clean estimate that the step uses."""
