"""Weights that contradict their configurations are told before a prompt is encoded; what loads whole is let through."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from diffsweep.core.problems import BadInput
from diffsweep.model.checkpoint import Checkpoint
from diffsweep.model.deepfloyd import DeepFloyd
from diffsweep.model.latent import ClipText, LatentUpscaler
from diffsweep.model.weights import Part, contradiction
from diffsweep.runner.run import run_sweep
from tests.checkpoints import FAMILIES, t5

Tensors = dict[str, torch.Tensor]


@pytest.fixture
def copied(folders: Callable[..., Path], tmp_path: Path) -> Callable[[str], Path]:
    return lambda name: Path(shutil.copytree(folders(name), tmp_path / name))


def rewritten(folder: Path, change: Callable[[Tensors], Tensors]) -> None:
    """Change the tensors in a part's one file."""
    (file,) = folder.glob("*.safetensors")
    save_file({key: tensor.contiguous() for key, tensor in change(load_file(file)).items()}, file, {"format": "pt"})


def largest(tensors: Tensors) -> str:
    return max(tensors, key=lambda name: (tensors[name].numel(), name))


def without(tensors: Tensors) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if name != largest(tensors)}


def reshaped(tensors: Tensors) -> Tensors:
    return tensors | {largest(tensors): torch.zeros([side + 1 for side in tensors[largest(tensors)].shape])}


def with_more(tensors: Tensors) -> Tensors:
    return tensors | {"mid_block.resnets.9.conv1.weight": torch.zeros(3)}


def loads_whole(part: Part) -> bool:
    """By the library itself."""
    library: Any = diffusers if part.library == "diffusers" else transformers
    try:
        _, report = getattr(library, part.kind).from_pretrained(part.source.root / part.name, output_loading_info=True)
    except (ValueError, RuntimeError):  # another shape
        return False
    unread = part.library == "diffusers" and report["unexpected_keys"]
    return not report["missing_keys"] and not report["mismatched_keys"] and not unread


# -- what loads --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", FAMILIES)
def test_every_familys_weights_are_as_described(name: str, folders: Callable[..., Path]) -> None:
    model = Checkpoint(str(folders(name)))
    assert len(model.weighted()) == 1 + bool(model.family.vae) + len(model.networks)
    model.check()


def test_the_embedded_weights_and_those_of_stages_in_pixels_are_as_described(
    checkpoint: Path, enlarging: Path, latent: Path
) -> None:
    for path in ("tiny_sd", "tiny_flow"):
        Checkpoint(path).check()
    for path in ("tiny", str(checkpoint)):
        DeepFloyd(path).check()
    for path in ("tiny_upscale", str(enlarging)):
        DeepFloyd(path, enlarges=True).check()
    LatentUpscaler(str(latent), None, "float32", False, ClipText(), (8, 8)).check()


def test_weights_in_shards_of_a_variant_or_at_the_root_are_as_described(tmp_path: Path) -> None:
    FAMILIES["sdxl"]().save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    FAMILIES["pixart"]().to(torch.float16).save_pretrained(tmp_path / "half", variant="fp16")
    pipeline = FAMILIES["ddpm"]()
    pipeline.unet.save_pretrained(tmp_path / "root")
    pipeline.scheduler.save_pretrained(tmp_path / "root")
    assert len([*(tmp_path / "shards" / "unet").glob("*.safetensors")]) > 2
    for model in (
        Checkpoint(str(tmp_path / "shards")),
        Checkpoint(str(tmp_path / "half"), variant="fp16"),
        Checkpoint(str(tmp_path / "root")),
    ):
        model.check()


OLD = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def old_attention(tensors: Tensors) -> Tensors:
    """As diffusers once called the attention of an autoencoder."""

    def named(name: str) -> str:
        for new, old in OLD.items():
            name = name.replace(new, old) if "mid_block.attentions" in name else name
        return name

    return {named(name): tensor for name, tensor in tensors.items()}


def old_positions(tensors: Tensors) -> Tensors:
    return tensors | {"embeddings.position_ids": torch.arange(77)[None]}


def a_whole_t5(tensors: Tensors) -> Tensors:
    """The encoder and its decoder, as the whole model is saved."""
    config = t5(32).config
    whole = transformers.T5ForConditionalGeneration(config)
    return {name: tensor.clone() for name, tensor in whole.state_dict().items() if "embed_tokens" not in name}


def tied_anew(tensors: Tensors) -> Tensors:
    """A tensor twice, under both names of it."""
    return {**tensors, "encoder.embed_tokens.weight": tensors["shared.weight"].clone()}


@pytest.mark.parametrize(
    "name, part, change",
    [
        ("sd", "vae", old_attention),
        ("sd", "text_encoder", old_positions),
        ("pixart", "text_encoder", a_whole_t5),
        ("pixart", "text_encoder", tied_anew),
    ],
)
def test_what_the_libraries_read_of_old_or_larger_files_is_let_through(
    name: str, part: str, change: Callable[[Tensors], Tensors], copied: Callable[[str], Path]
) -> None:
    folder = copied(name)
    rewritten(folder / part, change)
    model = Checkpoint(str(folder))
    (own,) = (one for one in model.weighted() if one.name == part)
    assert loads_whole(own)
    model.check()


def test_a_buffer_that_the_network_makes_itself_may_be_among_its_weights(copied: Callable[[str], Path]) -> None:
    folder = copied("dit")
    with torch.device("meta"):
        config = diffusers.DiTTransformer2DModel.load_config(folder / "transformer")
        network = diffusers.DiTTransformer2DModel.from_config(config)
    made = {name: b.shape for name, b in network.named_buffers() if name not in network.state_dict()}
    assert made
    more = {name: torch.zeros(shape) for name, shape in made.items()}
    rewritten(folder / "transformer", lambda tensors: tensors | more)
    Checkpoint(str(folder)).check()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2])
def test_any_floating_type_is_let_through(dtype: torch.dtype, copied: Callable[[str], Path]) -> None:
    folder = copied("sd")
    for part in ("unet", "vae", "text_encoder"):
        rewritten(folder / part, lambda tensors: {name: tensor.to(dtype) for name, tensor in tensors.items()})
    Checkpoint(str(folder)).check()


@pytest.mark.parametrize("dtype, called", [(torch.int32, "I32"), (torch.uint8, "U8"), (torch.bool, "BOOL")])
@pytest.mark.parametrize(
    "name, part", [("sd", "unet"), ("sd", "vae"), ("sd", "text_encoder"), ("flux", "text_encoder_2")]
)
def test_whole_numbers_are_no_weights(
    name: str, part: str, dtype: torch.dtype, called: str, copied: Callable[[str], Path]
) -> None:
    """Of a text encoder, whose file calls its parameters otherwise than the network does, too."""
    folder = copied(name)
    rewritten(folder / part, lambda tensors: {**tensors, largest(tensors): tensors[largest(tensors)].to(dtype)})
    (file,) = (folder / part).glob("*.safetensors")
    with pytest.raises(BadInput, match="1 tensor of no floating-point numbers") as told:
        Checkpoint(str(folder)).check()
    assert str(told.value).endswith(f"{largest(load_file(file))} is of type {called}")


def test_quantised_weights_are_not_judged(copied: Callable[[str], Path]) -> None:
    folder = copied("sd")
    rewritten(folder / "unet", reshaped)
    file = folder / "unet" / "config.json"
    file.write_text(
        json.dumps({**json.loads(file.read_text()), "quantization_config": {"quant_method": "bitsandbytes"}})
    )
    Checkpoint(str(folder)).check()


def test_without_accelerate_text_encoders_are_not_judged(
    copied: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copied("sd")
    rewritten(folder / "text_encoder", without)
    monkeypatch.setattr("diffsweep.model.weights.find_spec", lambda name: None)
    Checkpoint(str(folder)).check()


# -- what does not -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("change, what", [(without, "missing"), (reshaped, "another shape"), (with_more, "not have")])
@pytest.mark.parametrize("name", ["sd", "sd3", "ddpm", "klein", "qwen_image", "sana"])
def test_weights_that_do_not_fit_are_told(
    name: str, change: Callable[[Tensors], Tensors], what: str, copied: Callable[[str], Path]
) -> None:
    folder = copied(name)
    for part in Checkpoint(str(folder)).weighted():
        if part.library == "transformers" and change is with_more:
            continue  # which may be a larger model's
        own = folder / part.source.place(part.name)
        kept = {file: file.read_bytes() for file in own.iterdir()}
        rewritten(own, change)
        assert not loads_whole(part)
        told = contradiction(part)
        assert told is not None and what in told
        assert told.startswith(
            f"path={folder}: the weights in {part.name}/ are not those that its config.json describes"
        )
        for file, data in kept.items():
            file.write_bytes(data)
        assert contradiction(part) is None


@pytest.mark.parametrize(
    "name, part, changes",
    [
        ("sd", "unet", {"layers_per_block": 2}),
        ("sd", "unet", {"cross_attention_dim": 64}),
        ("sd", "vae", {"latent_channels": 8}),
        ("flux", "transformer", {"num_layers": 1}),
        ("flux", "transformer", {"num_layers": 3}),
        ("flux", "text_encoder_2", {"num_layers": 3}),
        ("sdxl", "text_encoder_2", {"num_hidden_layers": 4}),
    ],
)
def test_a_configuration_of_another_model_is_told(
    name: str, part: str, changes: dict[str, Any], copied: Callable[[str], Path]
) -> None:
    folder = copied(name)
    (own,) = (one for one in Checkpoint(str(folder)).weighted() if one.name == part)
    file = folder / part / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    assert not loads_whole(own)
    assert f"the weights in {part}/ are not those" in (contradiction(own) or "")


def test_a_configuration_that_describes_no_network_is_told(copied: Callable[[str], Path]) -> None:
    folder = copied("sd")
    file = folder / "unet" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "norm_num_groups": 7}))
    with pytest.raises(BadInput, match=r"unet/config\.json describes no UNet2DConditionModel \(ValueError: num_"):
        Checkpoint(str(folder)).check()


def test_a_tensor_that_a_shard_lacks_is_told(tmp_path: Path) -> None:
    FAMILIES["sdxl"]().save_pretrained(tmp_path, max_shard_size="20KB")
    file = max((tmp_path / "unet").glob("*.safetensors"), key=lambda file: file.stat().st_size)
    tensors = load_file(file)
    gone = largest(tensors)
    save_file({"another": torch.zeros(1), **{name: t for name, t in tensors.items() if name != gone}}, file)
    told = contradiction(Part(Checkpoint(str(tmp_path)).source, "unet", "UNet2DConditionModel"))
    assert told is not None and told.endswith(
        f"1 tensor missing, as {gone}; 1 tensor that it does not have, as another"
    )


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_it_is_told_before_a_prompt_is_encoded(
    part: str,
    config: Callable[..., dict[str, Any]],
    copied: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By one message, under the model's key."""
    folder = copied("sd")
    rewritten(folder / part, without)

    def encodes(*arguments: Any) -> None:
        raise AssertionError("a prompt was encoded")

    monkeypatch.setattr("diffsweep.model.text.Embeddings.encode", encodes)
    raw = [
        (config(model="tiny_sd", model__path=str(folder), output_dir=str(tmp_path), seed=seed), {"seed": seed})
        for seed in (0, 1)
    ]
    with pytest.raises(BadInput) as caught:
        run_sweep(raw, "mine")
    (told,) = caught.value.messages
    assert told.startswith(f"model.path={folder}: the weights in {part}/ are not those that its config.json describes")


def test_weights_are_seen_once_for_each_model(folders: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from diffsweep.model import weights

    read: list[Path] = []
    header = weights.header
    monkeypatch.setattr(weights, "header", lambda file: read.append(file) or header(file))
    weights._contradiction.cache_clear()
    for height in (32, 48, 64):
        Checkpoint(str(folders("sd")), height=height).check()
    assert len(read) == 3  # network, autoencoder, text encoder
