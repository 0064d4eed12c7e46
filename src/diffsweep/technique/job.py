"""A technique's ingredients (`Job`), its result (`Outcome`), and its contract (`Technique`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from diffsweep.core.loop import denoise
from diffsweep.core.streams import MAIN, Streams
from diffsweep.core.types import (
    BASE,
    Constraint,
    Guidance,
    Level,
    Program,
    Query,
    Scheduler,
    Stage,
    View,
    Watch,
    decoder_of,
    encoder_of,
)
from diffsweep.guidance.rule import About, Rule

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Outcome:
    """A technique's result: the picture (C H W in [-1, 1], not yet clipped), further pictures and facts by name."""

    image: Tensor
    pictures: dict[str, Tensor] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Job:
    """One cell's ingredients. levels: those that the technique visits; picture 3 H W, region 1 H W (where it may
    change), if the technique uses them; image C H W, mask 1 H W: the same as the stage has them, in latents or pixels.

    facts: what the record is to tell of the input. parts: those of further groups that the technique uses, by group,
    such as an operator. first: the noise that the trajectory begins with, where more than the start needs it. low: the
    picture that a super-resolution stage enlarges, C h w; scale: how much larger its own is than the first stage's.
    stage_name, beside: which of the engine's models is asked, and what it sees beside x, as of a query. watch: as the
    loop's.
    """

    prompt: str
    levels: tuple[Level, ...]
    stage: Stage
    scheduler: Scheduler
    guidance: Rule
    streams: Streams
    image: Tensor | None = None
    mask: Tensor | None = None
    picture: Tensor | None = None
    region: Tensor | None = None
    view: View | None = None
    parts: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    first: Tensor | None = None
    low: Tensor | None = None
    scale: float = 1.0
    stage_name: str = BASE
    beside: Mapping[str, Tensor | float] = field(default_factory=dict)
    watch: Watch | None = None

    def noise(self) -> Tensor:
        """The main stream's next draw, shaped as the picture."""
        return self.streams.normal(MAIN, self.stage.shape)

    def level(self, t: float) -> Level:
        """The level of the stage's process at t."""
        return self.stage.process.level(t)

    def noised(self, level: Level) -> Tensor:
        """The input at this level."""
        assert self.image is not None, "the technique's `uses` does not name 'input'"
        return level.noised(self.image, self.noise())

    def decoded(self, x: Tensor) -> Program[Tensor]:
        """The picture (3 H W in [-1, 1]) that x (C H W) is: the stage's decoder is asked where it has latents."""
        if self.stage.factor == 1:
            return x
        (answer,) = yield [Query(x, self.stage.process.clean, stage=decoder_of(self.stage_name))]
        return answer.output

    def encoded(self, picture: Tensor) -> Program[Tensor]:
        """The latents (C h w) of a picture (3 H W), nothing drawn: the stage's encoder is asked."""
        (answer,) = yield [Query(picture, self.stage.process.clean, stage=encoder_of(self.stage_name))]
        return answer.output

    def about(self, prompt: str, look: Callable[[Tensor], Tensor] | None = None) -> About:
        """This job's guidance towards a prompt. look: how pictures that the model sees beside x are looked at."""
        beside = self.beside
        if look is not None:
            beside = {key: value if isinstance(value, int | float) else look(value) for key, value in beside.items()}
        return About(self.guidance, prompt, self.stage_name, beside)

    def denoise(self, x: Tensor, guidance: Guidance, constraint: Constraint | None = None) -> Program[Tensor]:
        """The one loop, with this job's parts."""
        return denoise(x, self.levels, guidance, self.scheduler, self.stage, self.streams, constraint, self.watch)


class Technique(Protocol):
    """An algorithm for one image; its dataclass fields are the keys of its YAML.

    uses: what decides its picture: the prompt, and the groups of which it uses the cell's part (scheduler, guidance,
    input, mask, view; of any other, it finds the part in the job's `parts`). restores: it
    brings the input back as it was, so that without a prompt it asks about none; one that edits needs a prompt. stores:
    what metrics find among its further pictures, of views (`view_0`, ...) and low.
    """

    uses: ClassVar[frozenset[str]]
    restores: ClassVar[bool]
    stores: ClassVar[frozenset[str]]

    def prompts_for(self, prompt: str) -> tuple[str, ...]:
        """The prompts of every step, guidance aside."""
        ...

    def looks(self, view: View) -> tuple[View, ...]:
        """The views through which it sees the picture, where it uses `view`, the group's choice."""
        ...

    def visited(self, levels: tuple[Level, ...], stage: Stage) -> tuple[Level, ...]:
        """The levels of its trajectory, of those that the scheduler visits; BadInput where the technique's keys do not
        fit them."""
        ...

    def settled(self, levels: tuple[Level, ...], stage: Stage) -> Technique:
        """The same technique with its keys in their plainest form, so that equal pictures have equal ids."""
        ...

    def guided(self, job: Job) -> Guidance:
        """The questions of every step, at the first stage and at one that enlarges its picture."""
        ...

    def pinned(self, job: Job) -> Constraint | None:
        """What must not move over the job's levels."""
        ...

    def shown(self, image: Tensor, job: Job) -> Outcome:
        """The outcome that a finished picture makes."""
        ...

    def denoised(self, x: Tensor, job: Job) -> Program[Outcome]:
        """x (C H W, at the first of the job's levels) carried to the end: what every stage does alike."""
        ...

    def program(self, job: Job) -> Program[Outcome]:
        """The first stage."""
        ...


class Plain:
    """The defaults: from noise through all levels, one prompt, keys as they are, nothing pinned, no further pictures.

    A technique overrides what it does otherwise; `denoised` and `program` follow from that.
    """

    stores: ClassVar[frozenset[str]] = frozenset()
    restores: ClassVar[bool] = False

    def prompts_for(self, prompt: str) -> tuple[str, ...]:
        return (prompt,)

    def looks(self, view: View) -> tuple[View, ...]:
        return (view,)

    def visited(self, levels: tuple[Level, ...], stage: Stage) -> tuple[Level, ...]:
        return levels

    def settled(self, levels: tuple[Level, ...], stage: Stage) -> Any:
        return self

    def begin(self, job: Job) -> Tensor:
        """The first image, at the first of the job's levels."""
        return job.scheduler.start(job.levels[0], job.stage) * job.noise()

    def guided(self, job: Job) -> Guidance:
        return job.about(job.prompt)

    def pinned(self, job: Job) -> Constraint | None:
        return None

    def shown(self, image: Tensor, job: Job) -> Outcome:
        return Outcome(image)

    def denoised(self, x: Tensor, job: Job) -> Program[Outcome]:
        x = yield from job.denoise(x, self.guided(job), self.pinned(job))
        return self.shown((yield from job.decoded(x)), job)

    def program(self, job: Job) -> Program[Outcome]:
        return (yield from self.denoised(self.begin(job), job))


class FromInput(Plain):
    """From the noised input, which is shown too."""

    def begin(self, job: Job) -> Tensor:
        return job.noised(job.levels[0])

    def program(self, job: Job) -> Program[Outcome]:
        noisy = self.begin(job)
        outcome = yield from self.denoised(noisy, job)
        return replace(outcome, pictures={"noisy": (yield from job.decoded(noisy)), **outcome.pictures})
