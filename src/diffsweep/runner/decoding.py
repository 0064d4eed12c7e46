"""Decoders of latents: the engine asks them as it asks the models that sample these, several rows a call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

from diffsweep.core.types import SAMPLE, Estimate, LatentModel, Level, Model, Stage, decoder_of
from diffsweep.runner.shape import Rows

if TYPE_CHECKING:
    from torch import Tensor

MOST = 1024 * 1024  # pixels that a call decodes, unless one picture has more: an autoencoder takes some 3 kB a pixel


class Decoder:
    """What decodes a model's latents, in the engine's terms: the picture is the clean estimate."""

    def __init__(self, model: LatentModel) -> None:
        self.model, self.stage = model, model.stage

    def encode(self, prompts: Sequence[str | None]) -> int:
        return 0

    def ready(self) -> int:
        return 0

    def predict(
        self, x: Tensor, levels: Sequence[Level], prompts: Sequence[str | None], beside: Mapping[str, Tensor]
    ) -> Estimate:
        return Estimate(self.model.decode(x), kind=SAMPLE)

    def finish(self, x: Tensor) -> Tensor:
        return x


def rows_of(stage: Stage, rows: int) -> int:
    """The rows of a call of a stage's decoder, where the model's calls have `rows`."""
    _, height, width = stage.shape
    return max(1, min(rows, MOST // (height * width * stage.factor**2)))


def with_decoders(models: Mapping[str, Model], rows: Rows) -> tuple[dict[str, Model], dict[str, int]]:
    """The engine's models and the rows of their calls, decoders among them. rows: of the models, by stage."""
    latent = {name: model for name, model in models.items() if model.stage.factor > 1}
    decoders: dict[str, Model] = {
        decoder_of(name): Decoder(cast("LatentModel", model)) for name, model in latent.items()
    }
    theirs = {decoder_of(name): rows_of(model.stage, rows[name]) for name, model in latent.items()}
    return {**models, **decoders}, {**rows, **theirs}
