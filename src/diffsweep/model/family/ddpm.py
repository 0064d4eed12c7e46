"""Models of pixels without text: DDPM (Ho et al. 2020), ADM (Dhariwal and Nichol 2021), both as UNet2DModel.

A network may be told a class label. If the checkpoint names all labels but the last one, that one means none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from diffsweep.core.types import Stage
from diffsweep.model.family.family import Configs, Family, Tensors, Told
from diffsweep.model.labels import Labels, named
from diffsweep.model.schedule import whole

if TYPE_CHECKING:
    from torch import Tensor

COLOURS = 3


class Ddpm(Family):
    pipeline: ClassVar[tuple[str, ...]] = ("DDPMPipeline", "DDIMPipeline")
    kind: ClassVar[str] = "UNet2DModel"
    vae: ClassVar[str | None] = None
    text: ClassVar[tuple[str, ...]] = ()
    multiple: ClassVar[int | None] = None

    def stage(self, configs: Configs, size: tuple[int | None, int | None]) -> Stage:
        network = configs.network
        if (channels := network["in_channels"]) != COLOURS:
            raise ValueError(f"in_channels={channels}: pictures have {COLOURS}")
        if network.get("time_embedding_type", "positional") != "positional":
            raise ValueError(f"time_embedding_type={network['time_embedding_type']}: its noise levels are no timesteps")
        if network.get("class_embed_type"):
            raise ValueError(f"class_embed_type={network['class_embed_type']}: its classes are no labels")
        return super().stage(configs, size)

    def labels(self, configs: Configs) -> Labels | None:
        count = whole(configs.network, "num_class_embeds") if configs.network.get("num_class_embeds") else 0
        names = named(configs.index.get("id2label"))
        has_null = count and len(names) == count - 1
        return Labels(count - 1, names, count - 1) if has_null else Labels(count, names[:count])

    def shapes(self, configs: Configs, told: Told) -> dict[str, tuple[int, ...]]:
        return {"label": ()} if configs.network.get("num_class_embeds") else {}

    def ask(self, network: Any, x: Tensor, t: Tensor, given: Tensors, beside: Tensors, stage: Stage) -> Tensor:
        labels = given["label"].long() if "label" in given else None
        return network(x, t, class_labels=labels, return_dict=False)[0]
