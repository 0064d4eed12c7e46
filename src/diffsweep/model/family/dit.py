"""DiT (Peebles and Xie 2023): a transformer over latents, told a class label of ImageNet, or one more for none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from diffsweep.core.types import Stage
from diffsweep.model.family.family import Configs, Family, Tensors, Told
from diffsweep.model.labels import Labels, named
from diffsweep.model.schedule import whole

if TYPE_CHECKING:
    from torch import Tensor


class Dit(Family):
    pipeline: ClassVar[tuple[str, ...]] = ("DiTPipeline",)
    network: ClassVar[str] = "transformer"
    kind: ClassVar[str] = "DiTTransformer2DModel"
    text: ClassVar[tuple[str, ...]] = ()
    multiple: ClassVar[int | None] = None

    def labels(self, configs: Configs) -> Labels | None:
        count = whole(configs.network, "num_embeds_ada_norm", 1000)
        return Labels(count, named(configs.index.get("id2label"))[:count], count)

    def shapes(self, configs: Configs, told: Told) -> dict[str, tuple[int, ...]]:
        return {"label": ()}

    def ask(self, network: Any, x: Tensor, t: Tensor, given: Tensors, beside: Tensors, stage: Stage) -> Tensor:
        return network(x, timestep=t, class_labels=given["label"].long(), return_dict=False)[0]
