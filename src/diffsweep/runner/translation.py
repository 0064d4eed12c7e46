"""Decoders and encoders of latents: the engine asks them as it asks the models that sample these, some rows a call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, cast

from diffsweep.core.types import SAMPLE, Estimate, LatentModel, Level, Model, Stage, decoder_of, encoder_of
from diffsweep.model import codec
from diffsweep.runner.shape import Rows

if TYPE_CHECKING:
    from torch import Tensor


class Translator:
    """What decodes a model's latents or encodes pictures, in the engine's terms: its answer is a clean estimate."""

    def __init__(self, stage: Stage, translate: Callable[[Tensor], Tensor]) -> None:
        self.stage, self.translate = stage, translate

    def encode(self, prompts: Sequence[str | None]) -> int:
        return 0

    def ready(self) -> int:
        return 0

    def predict(
        self, x: Tensor, levels: Sequence[Level], prompts: Sequence[str | None], beside: Mapping[str, Tensor]
    ) -> Estimate:
        return Estimate(self.translate(x), kind=SAMPLE)

    def finish(self, x: Tensor) -> Tensor:
        return x


def with_translators(models: Mapping[str, Model], rows: Rows) -> tuple[dict[str, Model], dict[str, int]]:
    """The engine's models and the rows of their calls, decoders and encoders among them. rows: of the models, by
    stage."""
    found, theirs = dict(models), dict(rows)
    for name, model in models.items():
        if model.stage.factor > 1:
            latent = cast("LatentModel", model)
            for key, translate in ((decoder_of(name), latent.decode), (encoder_of(name), latent.encoded)):
                found[key] = Translator(model.stage, translate)
                theirs[key] = min(rows[name], codec.rows(*model.stage.size))
    return found, theirs
