"""Weights that wait in the processor's memory change no bit, and no more is on the device than is foreseen.

The device is `tests.card`: numbers are the processor's, and an operation of tensors that lie apart raises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from safetensors.torch import save_file

from diffsweep.core.problems import BadInput
from diffsweep.core.types import EMBEDDED
from diffsweep.model import t5
from diffsweep.model.checkpoint import Checkpoint
from diffsweep.model.memory import there
from diffsweep.model.offload import OFFLOADS
from diffsweep.runner import preflight
from diffsweep.runner.freeze import freeze
from tests.card import CARD, card
from tests.checkpoints import FAMILIES

PROMPTS = {"dit": "2", "ddpm": ""}
CALLS = 3
LONG = ("flux", "klein", "z_image", "qwen_image")


class Asked:
    """What a checkpoint answers on a card, and what of its weights is there meanwhile, in bytes."""

    def __init__(self, folder: Path, how: str, prompt: str = "a dog", **keys: Any) -> None:
        self.model = Checkpoint(str(folder), offload=how, **keys)
        with pytest.MonkeyPatch.context() as patched, card(patched) as self.card, torch.no_grad():
            self.loaded = self.model.load(str(CARD))
            self.loaded.encode([prompt])
            self.text = self.card.most_loaded
            self.loaded.embedding(prompt)
            x = torch.randn(2, *self.loaded.stage.shape, generator=torch.Generator().manual_seed(0)).to(CARD)
            self.card.most_loaded = before = self.card.loaded
            self.loaded.ready()
            self.idle = self.card.loaded - before
            self.answers = [*self.asked(x, prompt)]
            self.most = self.card.most_loaded - before

    def asked(self, x: torch.Tensor, prompt: str) -> Iterator[torch.Tensor]:
        model = self.loaded
        levels = [model.stage.process.level(500)] * 2
        beside = {EMBEDDED: torch.tensor([1.0, 3.5])} | dict.fromkeys(self.model.beside(), torch.tensor([0.5, 2.0]))
        self.came, self.decoded = [], 0  # bytes that came, call by call
        for _ in range(CALLS):
            before = self.card.moved
            yield model.predict(x, levels, [prompt] * 2, beside).output
            self.came.append(self.card.moved - before)
        if model.stage.factor > 1:
            before = self.card.moved
            pictures = [model.decode(x) for _ in range(CALLS)]
            self.decoded = self.card.moved - before
            yield from pictures
            yield model.encoded(pictures[0].clamp(-1, 1))
            yield model.predict(x, levels, [prompt] * 2, beside).output


def size(*networks: Any) -> int:
    own = (tensor for one in networks if one is not None for tensor in [*one.parameters(), *one.buffers()])
    return sum(tensor.numel() * tensor.element_size() for tensor in own if tensor.is_floating_point())


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in LONG)) for name in FAMILIES])
def test_no_bit_depends_on_where_weights_wait_and_no_more_come_than_must(
    name: str, folders: Callable[..., Path]
) -> None:
    """Once a network until another is asked, or all layers in every call; and as many lie there as are foreseen."""
    asked = {how: Asked(folders(name), how, PROMPTS.get(name, "a dog")) for how in OFFLOADS}
    none, model, layers = asked.values()
    for other in (model, layers):
        assert len(other.answers) == len(none.answers)
        assert all(torch.equal(a, b) for a, b in zip(none.answers, other.answers, strict=True))

    network, vae = none.loaded.network, getattr(none.loaded.weights.codec, "vae", None)
    weights, little = size(network), 0.02 * size(network) + 1000  # timesteps and the like
    assert none.idle == pytest.approx(weights + size(vae), abs=little)
    assert max(model.idle, layers.idle) < little
    again = size(network.transformer_blocks[0].norm1.emb) if name == "dit" else 0  # asked at the end, too
    for own, came in ((none, [0, 0, 0]), (model, [weights, 0, 0]), (layers, [weights + again] * CALLS)):
        assert own.came == pytest.approx(came, abs=little)
    if vae is not None:
        assert (none.decoded, model.decoded) == (0, size(vae))
        whole = CALLS * size(vae.decoder, getattr(vae, "post_quant_conv", None))
        assert layers.decoded == pytest.approx(whole, rel=0.05)

    needs = {how: own.model.needs(str(CARD)) for how, own in asked.items()}
    assert model.most == pytest.approx(max(weights, size(vae)), abs=little)
    assert needs["layers"].weights < needs["none"].weights and needs["layers"].text <= needs["none"].text
    assert layers.most <= max(needs["layers"].weights, there(sizes(vae), "layers")) + little
    assert layers.text <= needs["layers"].text + little
    assert model.text <= needs["model"].text + little


def sizes(network: Any) -> dict[str, int]:
    own = [] if network is None else [*network.named_parameters(), *network.named_buffers()]
    return {name: tensor.numel() * tensor.element_size() for name, tensor in own}


@pytest.mark.parametrize("how", ["model", "layers"])
def test_loras_act_on_layers_that_come_and_go(how: str, folders: Callable[..., Path], tmp_path: Path) -> None:
    base, draw = folders("sd"), torch.Generator().manual_seed(0)
    unet = diffusers.UNet2DConditionModel.from_pretrained(base / "unet")
    halves = {}
    for name, layer in unet.named_modules():
        if name.endswith(("to_q", "conv1")):
            rows, columns, *kernel = layer.weight.shape
            halves[f"unet.{name}.lora_A.weight"] = torch.randn(2, columns, *kernel, generator=draw)
            halves[f"unet.{name}.lora_B.weight"] = torch.randn(rows, 2, *[1] * len(kernel), generator=draw)
    save_file(halves, tmp_path / "lora.safetensors")
    keys = {"lora": (f"{tmp_path}/lora.safetensors:0.7",)}
    none, other, without = Asked(base, "none", **keys), Asked(base, how, **keys), Asked(base, how)
    assert all(torch.equal(a, b) for a, b in zip(none.answers, other.answers, strict=True))
    assert not torch.equal(none.answers[0], without.answers[0])


def test_what_lies_there_together_is_a_layer_all_around_it_and_the_next_one() -> None:
    """Of weights of 1, 2, 4, 8 and 16: the deepest path is 1 + 2 + 8, and the largest layer beside it."""
    weights = {"token": 1, "block.scale": 2, "block.near.weight": 4, "block.far.weight": 8, "out.weight": 6}
    assert there(weights, "layers") == (1 + 2 + 8) + 8
    assert there(weights, "model") == there(weights, "none") == 21
    assert there({}, "layers") == 0


@pytest.mark.parametrize("how", ["model", "layers"])
def test_offload_decides_no_picture_and_is_refused_where_it_cannot_be(
    how: str, config: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = freeze(config(model="tiny_sd"), {})
    assert freeze(config(model="tiny_sd", model__offload=how), {}).id == usual.id
    with pytest.raises(BadInput, match=f"compile=true: what is compiled stays .*offload={how} out"):
        Checkpoint(offload=how, compile=True)
    with pytest.raises(BadInput, match="offload=sometimes: must be one of none, model, layers"):
        Checkpoint(offload="sometimes")
    monkeypatch.setattr(t5, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match=rf"offload={how}: needs accelerate: pip install 'diffsweep\[offload\]'"):
        Checkpoint(offload=how)


def test_a_processor_has_nothing_to_offload_to(config: Callable[..., dict[str, Any]]) -> None:
    cells = [freeze(config(model="tiny_sd", model__offload="layers"), {})]
    assert preflight.idle(cells, "cpu") == "model.offload=layers: saves no memory on cpu"
    assert preflight.idle(cells, "cuda") is None
    assert preflight.idle([freeze(config(model="tiny_sd"), {})], "cpu") is None
    assert cells[0].model.needs("cpu") == Checkpoint().needs("cpu")
