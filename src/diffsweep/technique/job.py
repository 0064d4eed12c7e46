"""What a technique is handed, and what it hands back."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from diffsweep.core.loop import denoise
from diffsweep.core.streams import MAIN, Streams
from diffsweep.core.types import Constraint, Guidance, Program, Stage, View

if TYPE_CHECKING:
    from torch import Tensor

    from diffsweep.guidance.classifier_free import ClassifierFree
    from diffsweep.guidance.none import Unguided
    from diffsweep.scheduler.ddim import Ddim
    from diffsweep.scheduler.ddpm import Ddpm
    from diffsweep.scheduler.dpm_solver import DpmSolver


@dataclass(frozen=True, eq=False)
class Outcome:
    """A technique's result: the picture (C H W in [-1, 1], not yet clipped), further pictures and facts by name."""

    image: Tensor
    pictures: dict[str, Tensor] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Job:
    """One cell's ingredients. timesteps: all that the scheduler visits; image C H W, mask 1 H W where asked for.

    low: the picture that a super-resolution stage enlarges, C h w; scale: how much larger its own is than the first
    stage's. watch: as the loop's.
    """

    prompt: str
    timesteps: tuple[int, ...]
    stage: Stage
    scheduler: Ddpm | Ddim | DpmSolver
    guidance: ClassifierFree | Unguided
    streams: Streams
    image: Tensor | None = None
    mask: Tensor | None = None
    view: View | None = None
    low: Tensor | None = None
    scale: float = 1.0
    watch: Callable[[int, Tensor, Tensor], None] | None = None

    def noise(self) -> Tensor:
        """The main stream's next draw, shaped as the picture."""
        return self.streams.normal(MAIN, self.stage.shape)

    def noised(self, t: int) -> Tensor:
        """The input at noise level t."""
        assert self.image is not None, "the technique's `uses` does not name 'input'"
        return self.stage.schedule.noised(self.image, self.noise(), t)

    def denoise(
        self,
        x: Tensor,
        timesteps: tuple[int, ...],
        guidance: Guidance | None = None,
        constraint: Constraint | None = None,
    ) -> Generator[Any, Any, Tensor]:
        """The one loop, with this job's parts."""
        guidance = guidance or self.guidance.about(self.prompt)
        return denoise(x, timesteps, guidance, self.scheduler, self.stage, self.streams, constraint, self.watch)


class Technique(Protocol):
    """An algorithm for one image; its dataclass fields are the keys of its YAML.

    uses: the parts of a cell that decide its picture, of prompt, scheduler, guidance, input, mask, view. restores: it
    brings the input back as it was, so that without a prompt it asks about none; one that edits needs a prompt. stores:
    what metrics find among its further pictures, of views (`view_0`, ...) and low.
    """

    uses: ClassVar[frozenset[str]]
    restores: ClassVar[bool]
    stores: ClassVar[frozenset[str]]

    def asked(self, prompt: str) -> tuple[str, ...]:
        """The prompts that the model is asked about at every step, guidance aside."""
        ...

    def visited(self, timesteps: tuple[int, ...]) -> tuple[int, ...]:
        """Those timesteps at which the model is asked; BadInput where the technique's keys do not fit them."""
        ...

    def settled(self, timesteps: tuple[int, ...]) -> Technique:
        """The same technique with its keys in their plainest form, so that equal pictures have equal ids."""
        ...

    def guided(self, job: Job) -> Guidance:
        """What is asked at every step, of the first stage and of one that enlarges its picture."""
        ...

    def pinned(self, job: Job, timesteps: tuple[int, ...]) -> Constraint | None:
        """What must not move over these timesteps."""
        ...

    def shown(self, image: Tensor, job: Job) -> Outcome:
        """The outcome that a finished picture makes."""
        ...

    def program(self, job: Job) -> Program[Outcome]: ...


class Plain:
    """The defaults: one prompt, every timestep, keys as they are, nothing pinned, no further pictures."""

    stores: ClassVar[frozenset[str]] = frozenset()

    restores: ClassVar[bool] = False

    def asked(self, prompt: str) -> tuple[str, ...]:
        return (prompt,)

    def visited(self, timesteps: tuple[int, ...]) -> tuple[int, ...]:
        return timesteps

    def settled(self, timesteps: tuple[int, ...]) -> Any:
        return self

    def guided(self, job: Job) -> Guidance:
        return job.guidance.about(job.prompt)

    def pinned(self, job: Job, timesteps: tuple[int, ...]) -> Constraint | None:
        return None

    def shown(self, image: Tensor, job: Job) -> Outcome:
        return Outcome(image)
