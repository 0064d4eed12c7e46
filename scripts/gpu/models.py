"""Models of these shapes: folders of configurations, whose networks are made on the device with random weights.

No weights are written or read, and no text encoder is made: a prompt's embedding is drawn from a normal distribution.
The rest is diffsweep's own, from the command line's words to the engine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from diffsweep.app import composed
from diffsweep.runner.cell import Cell
from diffsweep.runner.freeze import freeze
from gpu.shapes import Shape

PROMPT = "a photo of a dog"
WEIGHTS = "diffusion_pytorch_model.safetensors"
GIVEN = {"text": "prompt_embeds", "pooled": "pooled_prompt_embeds"}  # a pipeline's names for what is told


def written(shape: Shape, folder: Path) -> Path:
    """The folder of a checkpoint without weights."""
    encoders = ["text_encoder" + (f"_{n}" if n > 1 else "") for n in range(1, len(shape.texts) + 1)]
    index = {name: ["transformers", kind] for name, kind in zip(encoders, shape.texts, strict=True)}
    index |= {name.replace("text_encoder", "tokenizer"): ["transformers", "T5Tokenizer"] for name in encoders}
    parts = {shape.part: {"_class_name": shape.kind, **shape.network}}
    parts |= {"vae": {"_class_name": "AutoencoderKL", **shape.vae}} if shape.vae else {}
    width = shape.network.get("encoder_hid_dim")  # IF's is read for its text encoder's
    for name, config in {**parts, **{name: {"model_type": "t5", "d_model": width} for name in index}}.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text(json.dumps(config))
        save_file({}, folder / name / (WEIGHTS if name in parts else "model.safetensors"))
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(shape.scheduler))
    whole = {"_class_name": shape.pipeline, **index, **shape.index}
    (folder / "model_index.json").write_text(json.dumps(whole))
    return folder


def cells(shape: Shape, folder: Path, n: int, steps: int, dtype: str = "bfloat16") -> list[Cell]:
    """n seeds, as the command line freezes them."""
    model = [f"model.path={folder}", "model.variant=null", f"model.dtype={dtype}", "model.text.device=cpu"]
    scale = "guidance.embedded" if shape.embedded else "guidance.scale"
    rest = [f'prompt="{PROMPT}"', f"scheduler.steps={steps}", f"{scale}={shape.scale}", "input=none", "metric=none"]
    return [freeze(*one) for one in composed([*shape.choices, f"seed=range(0,{n})", *model, *rest])]


class Drawn:
    """In the place of embeddings: a prompt's are random numbers of the right shapes, the same for the same prompt."""

    def __init__(self, shapes: dict[str, tuple[int, ...]]) -> None:
        self.shapes = shapes

    def __getitem__(self, prompt: str | None) -> dict[str, torch.Tensor]:
        seed = int.from_bytes(hashlib.sha256(str(prompt).encode()).digest()[:4], "big")
        generator = torch.Generator().manual_seed(seed)
        return {key: torch.randn(shape, generator=generator) for key, shape in self.shapes.items()}

    get = __getitem__

    def encode(self, prompts: Sequence[str | None]) -> int:
        return 0


def loaded(cell: Cell, device: str) -> Any:
    """The cell's model, in memory on the device."""
    model = cell.model.load(device)
    model.embeddings = Drawn(model.told())

    def part(kind: Any, name: str, dtype: torch.dtype = torch.float32) -> Any:
        torch.manual_seed(0)
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            with torch.device(device):
                network = kind.from_config(model.source.config(name, "config.json"))
        finally:
            torch.set_default_dtype(before)
        return network.eval().requires_grad_(False)

    model.part = part
    model.ready()
    return model


def pipeline(shape: Shape, model: Any) -> Any:
    """The pipeline of diffusers around the same network, all of it in the network's type; without text encoders."""
    import copy
    import inspect

    import diffusers

    kind = getattr(diffusers, shape.pipeline)
    parameters = inspect.signature(kind.__init__).parameters
    own = [name for name in parameters if name != "self" and parameters[name].default is inspect.Parameter.empty]
    settings = dict(shape.index)
    schedule = dict(shape.scheduler)
    scheduler = getattr(diffusers, schedule.pop("_class_name"))(**schedule)
    parts = {shape.part: model.network, "scheduler": scheduler}
    if shape.vae:
        parts["vae"] = copy.deepcopy(model.codec.vae).to(model.dtype)
    off = {"requires_safety_checker": False} if "requires_safety_checker" in parameters else {}
    made = kind(**{**dict.fromkeys(own), **parts, **settings, **off})
    made.set_progress_bar_config(disable=True)
    return made


def told(shape: Shape, model: Any, cell: Cell) -> dict[str, Any]:
    """What its pipeline is given for a cell, the embeddings among it."""
    given = {GIVEN[key]: value[None].to(model.device, model.dtype) for key, value in model.embeddings[PROMPT].items()}
    if not shape.embedded:
        against = model.embeddings[cell.prompts[0]]
        given |= {f"negative_{GIVEN[key]}": v[None].to(model.device, model.dtype) for key, v in against.items()}
    height, width = cell.stage.size
    return {**given, "guidance_scale": shape.scale, "height": height, "width": width}
