"""LoRAs against `load_lora_weights` of diffusers' own pipelines, which needs peft: one picture at every strength."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from diffsweep.core.problems import BadInput
from diffsweep.model.lora import Lora
from diffsweep.runner.cell import Cell
from diffsweep.runner.freeze import freeze
from diffsweep.runner.ingredients import to_pixels
from tests.checkpoints import saved

KINDS = {"sd": "StableDiffusionPipeline", "sdxl": "StableDiffusionXLPipeline"}
LAYERS = ["to_q", "to_k", "to_v", "to_out.0", "conv1", "ff.net.0.proj"]
FILE = "pytorch_lora_weights.safetensors"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: saved(tmp_path_factory.mktemp(name), name) for name in KINDS}


def made(folder: Path, base: Path, name: str, seed: int, layers: list[str] = LAYERS) -> Path:
    """A random LoRA, saved as diffusers saves one."""
    pipeline: Any = getattr(diffusers, KINDS[name]).from_pretrained(base)
    torch.manual_seed(seed)
    config = {"r": 2, "lora_alpha": 2, "init_lora_weights": False}
    pipeline.unet.add_adapter(LoraConfig(target_modules=layers, **config))
    type(pipeline).save_lora_weights(folder, unet_lora_layers=get_peft_model_state_dict(pipeline.unet))
    return folder


@pytest.fixture
def ours(config: Callable[..., dict[str, Any]], sampled: Any) -> Callable[..., list[tuple[Cell, np.ndarray]]]:
    def drawn(base: Path, *loras: list[str], **changes: Any) -> list[tuple[Cell, np.ndarray]]:
        usual = {"model": "tiny_sd", "model__path": str(base), "scheduler": "euler", "scheduler__steps": 3}
        cells = [freeze(config(**{**usual, **changes, "model__lora": own}), {}) for own in loras]
        ended = []
        for model in dict.fromkeys(cell.model for cell in cells):
            own = [cell for cell in cells if cell.model == model]
            ended += zip(own, sampled(own, model.load("cpu"), 4), strict=True)
        pictures = {id(cell): to_pixels(end.result.image) for cell, end in ended}
        return [(cell, pictures[id(cell)]) for cell in cells]

    return drawn


def theirs(base: Path, name: str, loras: dict[Path, float]) -> np.ndarray:
    pipeline: Any = getattr(diffusers, KINDS[name]).from_pretrained(base)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = diffusers.EulerDiscreteScheduler.from_config(pipeline.scheduler.config)
    for number, folder in enumerate(loras):
        pipeline.load_lora_weights(str(folder), weight_name=FILE, adapter_name=f"n{number}")
    if loras:
        pipeline.set_adapters([f"n{number}" for number in range(len(loras))], [*loras.values()])
    told = {"guidance_scale": 4.0, "num_inference_steps": 3, "generator": torch.Generator().manual_seed(0)}
    drawn = pipeline("a photo of a dog", output_type="np", **told)
    return (drawn.images[0] * 255).round().astype(np.uint8)


def assert_same(ours: np.ndarray, theirs: np.ndarray) -> None:
    apart = np.abs(ours.astype(int) - theirs.astype(int))
    assert apart.max() <= 1 and (apart > 0).mean() <= 0.02, (apart.max(), (apart > 0).mean())


pytestmark = pytest.mark.filterwarnings(
    "ignore:.*:UserWarning:peft",
    "ignore:Already found:UserWarning",
)


@pytest.mark.parametrize("name", KINDS)
def test_every_strength_is_diffusers_picture_and_all_share_their_calls(
    folders: Any, ours: Any, tmp_path: Path, name: str
) -> None:
    base = folders[name]
    one, other = (made(tmp_path / str(seed), base, name, seed) for seed in (1, 2))
    strengths = [(0.0, 0.0), (0.7, 0.0), (1.0, -0.5), (0.3, 2.0)]
    drawn = ours(base, *([f"{one}:{a}", f"{other}:{b}"] for a, b in strengths))
    assert len({cell.model for cell, _ in drawn}) == 1
    assert len({cell.id for cell, _ in drawn}) == len(strengths)
    for (a, b), (_, picture) in zip(strengths, drawn, strict=True):
        assert_same(picture, theirs(base, name, {one: a, other: b} if a or b else {}))
    assert len({picture.tobytes() for _, picture in drawn}) == len(strengths)


def test_a_cells_bits_do_not_depend_on_the_strengths_beside_it(folders: Any, ours: Any, tmp_path: Path) -> None:
    one = made(tmp_path, folders["sd"], "sd", 1)
    (_, alone), *_ = ours(folders["sd"], [f"{one}:0.7"])
    (_, among), *_ = ours(folders["sd"], [f"{one}:0.7"], [f"{one}:-1"], [f"{one}:3"])
    assert np.array_equal(alone, among)


# the file of each test is merged into the checkpoint by hand: transformers asks for a newer peft
def test_a_lora_of_the_text_encoder_changes_what_prompts_are_encoded_to(
    folders: Any, ours: Any, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    layer, down, up = "text_model.encoder.layers.0.self_attn.q_proj", torch.randn(2, 32), torch.randn(32, 2)
    name = f"text_encoder.{layer}.lora_linear_layer"
    save_file({f"{name}.down.weight": down, f"{name}.up.weight": up}, tmp_path / FILE)
    drawn = ours(folders["sd"], [f"{tmp_path}:0.5"], [f"{tmp_path}:1"])
    assert len({cell.model for cell, _ in drawn}) == 2
    for strength, (_, picture) in zip((0.5, 1.0), drawn, strict=True):
        merged = _merged(folders["sd"], tmp_path / str(strength), "text_encoder", layer, strength * up @ down)
        assert_same(picture, ours(merged, [])[0][1])
    assert not np.array_equal(drawn[0][1], drawn[1][1])


def test_a_lora_of_an_alpha_of_its_own_and_of_kohyas_names_is_read(folders: Any, ours: Any, tmp_path: Path) -> None:
    layer = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
    torch.manual_seed(0)
    down, up = torch.randn(2, 32), torch.randn(32, 2)
    name = f"lora_unet_{layer.replace('.', '_')}"
    weights = {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.alpha": torch.tensor(0.5)}
    save_file(weights, tmp_path / FILE)
    ((_, picture),) = ours(folders["sd"], [f"{tmp_path / FILE}:0.8"])
    merged = _merged(folders["sd"], tmp_path / "merged", "unet", layer, 0.8 * 0.5 / 2 * up @ down)
    assert_same(picture, ours(merged, [])[0][1])
    assert not np.array_equal(picture, ours(folders["sd"], [])[0][1])


def _merged(base: Path, folder: Path, part: str, layer: str, more: torch.Tensor) -> Path:
    """The checkpoint, one layer's weights with more added."""
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(base)
    with torch.no_grad():
        layers = dict(getattr(pipeline, part).named_modules())
        layers[next(name for name in layers if name.endswith(layer.removeprefix("text_model.")))].weight += more
    pipeline.save_pretrained(folder)
    return folder


def test_a_lora_moved_elsewhere_is_the_same_and_another_strength_or_file_is_not(
    folders: Any, config: Any, tmp_path: Path
) -> None:
    one, other = (made(tmp_path / str(seed), folders["sd"], "sd", seed) for seed in (1, 2))
    copy = made(tmp_path / "copy", folders["sd"], "sd", 1)
    asked = [f"{one}", f"{one}:1.0", f"{copy / FILE}:1", f"{one}:0.9", f"{other}"]
    usual = {"model": "tiny_sd", "model__path": str(folders["sd"])}
    ids = [freeze(config(**usual, model__lora=[own]), {}).id for own in asked]
    assert len(set(ids)) == 3 and len(set(ids[:3])) == 1
    assert freeze(config(**usual), {}).id not in ids


@pytest.mark.parametrize(
    "text, lora",
    [
        ("style.safetensors:0.8", Lora("style.safetensors", 0.8)),
        ("style.safetensors", Lora("style.safetensors", 1.0)),
        ("C:/styles/a.safetensors", Lora("C:/styles/a.safetensors", 1.0)),
        ("owner/name:-1", Lora("owner/name", -1.0)),
    ],
)
def test_a_strength_follows_a_colon(text: str, lora: Lora) -> None:
    assert Lora.read(text) == lora


def test_what_is_wrong_with_a_lora_is_told_before_anything_is_loaded(folders: Any, config: Any, tmp_path: Path) -> None:
    base = folders["sd"]
    foreign = made(tmp_path / "xl", folders["sdxl"], "sdxl", 1)
    wide = made(tmp_path / "wide", base, "sd", 1, ["to_q"])
    weights = {key: w.repeat_interleave(2, dim=1) if "A" in key else w for key, w in load_file(wide / FILE).items()}
    save_file(weights, wide / FILE)
    q, clip = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q", "text_model.encoder.layers"
    bad = {
        "flux": _halves("transformer.transformer_blocks.0.attn.to_q", (2, 32), (32, 2)),
        "clip": _halves(f"text_encoder.{clip}.0.self_attn.q_proj", (2, 768), (768, 2)),
        "deep": _halves(f"text_encoder.{clip}.11.self_attn.q_proj", (2, 32), (32, 2)),
        "rank": _halves(f"unet.{q}", (2, 32), (32, 5)),
        "kernel": _halves("unet.conv_in", (2, 4, 1, 1), (16, 2, 1, 1)),
    }
    for name, halves in bad.items():
        save_file(halves, tmp_path / f"{name}.safetensors")
    (tmp_path / "none").mkdir()
    (tmp_path / "junk.safetensors").write_text("junk")
    for text, message in {
        f"{foreign}": "made for another base: of .* it has 64 to 32 channels, the network 32 to 32",
        f"{wide}": "made for another base: of .* channels, the network",
        f"{tmp_path / 'gone.safetensors'}": "no such file or folder",
        f"{tmp_path / 'none'}": "there is none|no .safetensors file",
        f"{tmp_path / 'junk.safetensors'}": "cannot be read as a LoRA",
        f"{wide}:strong": "the strength must be a number",
        f"{wide}:nan": "the strength must be a number",
        f"{wide}:1e999": "the strength must be a number",
        f"{tmp_path / 'flux.safetensors'}": "another base: it changes transformer, and there are unet, text_encoder",
        f"{tmp_path / 'clip.safetensors'}": "another base: of .* it has 768 to 768 channels, the network 32 to 32",
        f"{tmp_path / 'deep.safetensors'}": "another base: it changes .*, and there is no such layer",
        f"{tmp_path / 'rank.safetensors'}": "another base: .* it has a 32 x 5 matrix, the network needs 32 x 2",
        f"{tmp_path / 'kernel.safetensors'}": "another base: .* it has a 2 x 4 x 1 x 1 matrix, .* 2 x 4 x 3 x 3",
    }.items():
        with pytest.raises(BadInput, match=rf"model\.lora={text.partition(':')[0]}.*({message})") as told:
            freeze(config(model="tiny_sd", model__path=str(base), model__lora=[text]), {})
        assert len(told.value.messages) == 1


def _halves(layer: str, down: tuple[int, ...], up: tuple[int, ...]) -> dict[str, torch.Tensor]:
    return {f"{layer}.lora_A.weight": torch.ones(down), f"{layer}.lora_B.weight": torch.ones(up)}
