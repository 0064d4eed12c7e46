"""What checkpoints are refused for, by one message each, before a model is loaded; what a prompt is without text."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import ControlNetModel
from PIL import Image
from safetensors.torch import load_file

from diffsweep.core.problems import BadInput
from diffsweep.model.checkpoint import Checkpoint
from diffsweep.model.labels import Labels, named
from diffsweep.model.layout import configs_of
from diffsweep.runner.cell import Cell
from diffsweep.runner.foresee import foresee
from diffsweep.runner.freeze import freeze
from tests.checkpoints import FAMILIES, saved
from tests.running import run_sweep

ADM = {"num_class_embeds": 4}


@pytest.fixture
def copied(folders: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """A family's checkpoint to be changed. index: what its model_index.json is to hold."""

    def folder(name: str, index: dict[str, Any] | None = None) -> Path:
        copy = Path(shutil.copytree(folders(name), tmp_path / name))
        file = copy / "model_index.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **(index or {})}))
        return copy

    return folder


@pytest.mark.parametrize("name", ["sd3", "pixart", "z_image", "qwen_image", "lumina2"])
def test_calls_are_timed_without_a_text_encoder(folders: Callable[..., Path], name: str) -> None:
    """Of texts as long as they can be, in the shapes of real ones."""
    model = Checkpoint(str(folders(name)), height=32, width=32).load("cpu")
    model.assume(["a dog"])
    model.ready()
    model.encode(["a cat"])
    assumed, real = (model.embedding(prompt) for prompt in ("a dog", "a cat"))
    assert {key: one.shape[1:] for key, one in assumed.items()} == {key: one.shape[1:] for key, one in real.items()}
    assert "mask" not in assumed or assumed["mask"].all()
    x, level = torch.zeros(2, *model.stage.shape), model.stage.process.at(500)
    assert model.predict(x, [level] * 2, ["a dog"] * 2, {}).output.isfinite().all()


@pytest.fixture
def frozen(config: Callable[..., dict[str, Any]]) -> Callable[..., Cell]:
    def made(path: Path, **changes: Any) -> Cell:
        usual = {"model": "tiny_sd", "model__path": str(path), "scheduler": "ddim", "prompt": "auto"}
        return freeze(config(**{**usual, **changes}), {})

    return made


@pytest.fixture
def refused(frozen: Callable[..., Cell], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """The only message that a checkpoint is refused with; none of its networks is loaded."""
    from diffusers import ModelMixin

    def loads(*arguments: Any, **options: Any) -> None:
        raise AssertionError("a network was loaded")

    monkeypatch.setattr(ModelMixin, "from_pretrained", loads)

    def message(path: Path, **changes: Any) -> str:
        with pytest.raises(BadInput) as error:
            frozen(path, **changes)
        (only,) = error.value.messages
        return only

    return message


# -- what is not a checkpoint in a layout of diffusers -----------------------------------------------------------------
@pytest.mark.parametrize(
    "name, why",
    [
        ("model.safetensors", "a single file; diffsweep reads folders that diffusers saves"),
        ("model.CKPT", "a single file; diffsweep reads folders that diffusers saves"),
        ("model.pth", "a single file; diffsweep reads folders that diffusers saves"),
        ("model-Q4.gguf", "quantised weights of one network; diffsweep reads folders that diffusers saves"),
    ],
)
def test_a_single_file_is_told_from_a_folder(refused: Any, tmp_path: Path, name: str, why: str) -> None:
    (tmp_path / name).write_bytes(b"anything")
    assert refused(tmp_path / name).startswith(f"model.path={tmp_path / name}: {why}")


def test_a_control_net_is_no_pipeline(refused: Any, tmp_path: Path) -> None:
    blocks = {"block_out_channels": (8, 8), "norm_num_groups": 4, "conditioning_embedding_out_channels": (8, 8)}
    kinds = {"down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "cross_attention_dim": 8}
    ControlNetModel(**blocks, **kinds, attention_head_dim=4, layers_per_block=1).save_pretrained(tmp_path)
    assert refused(tmp_path) == (
        f"model.path={tmp_path}: ControlNetModel alone; a whole pipeline is needed, a folder with model_index.json"
    )


@pytest.mark.parametrize("kind", ["WanPipeline", "StableDiffusionControlNetPipeline", "Unheard"])
def test_a_family_that_is_not_known_is_named_beside_those_that_are(refused: Any, copied: Any, kind: str) -> None:
    told = refused(copied("sd", {"_class_name": kind}))
    assert f"a {kind}, which diffsweep cannot sample; it can IFPipeline, " in told
    for known in ("StableDiffusionPipeline", "DDPMPipeline", "DiTPipeline", "PixArtSigmaPipeline", "SanaPipeline"):
        assert known in told


# -- what is missing or damaged ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("name, part", [("sd", "text_encoder"), ("sdxl", "text_encoder"), ("pixart", "tokenizer")])
def test_a_text_encoder_that_is_left_out_is_missed(refused: Any, copied: Any, name: str, part: str) -> None:
    folder = copied(name, {part: [None, None]})
    assert refused(folder) == f"model.path={folder}: {part} missing in it, by its model_index.json"


@pytest.mark.parametrize("name, part", [("sdxl", "text_encoder_2"), ("dit", "vae"), ("sana", "transformer")])
def test_a_part_without_a_folder_is_missed(refused: Any, copied: Any, name: str, part: str) -> None:
    folder = copied(name)
    shutil.rmtree(folder / part)
    assert refused(folder) == f"model.path={folder}: not a checkpoint, {part} missing in it"


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder"])
def test_pickles_alone_are_refused(refused: Any, copied: Any, part: str) -> None:
    folder = copied("pixart")
    (weights,) = (folder / part).glob("*.safetensors")
    weights.rename(weights.with_suffix(".bin"))
    told = f"no .safetensors file in {part}/; {weights.stem}.bin is a pickle, which is never loaded"
    assert refused(folder).startswith(f"model.path={folder}: {told}")


@pytest.mark.parametrize("name, network", [("ddpm", "unet"), ("dit", "transformer")])
def test_the_told_way_makes_safetensors_of_pickles(
    config: Any, folders: Any, tmp_path: Path, name: str, network: str
) -> None:
    """By diffusers itself, as a user would type it."""
    folder = folders(name)
    diffusers.DiffusionPipeline.from_pretrained(folder).save_pretrained(tmp_path, safe_serialization=False)
    with pytest.raises(BadInput, match="is a pickle, which is never loaded: where you trust it") as refused:
        freeze(config(model="tiny_sd", model__path=str(tmp_path)), {})
    (told,) = re.findall("`(.*?)`", str(refused.value))
    exec(told.replace("FOLDER", str(tmp_path / "new")))
    before, after = (load_file(next(place.glob(f"{network}/*.safetensors"))) for place in (folder, tmp_path / "new"))
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize("name, part", [("ddpm", "unet"), ("dit", "vae"), ("sana", "text_encoder")])
def test_damaged_weights_are_told(refused: Any, copied: Any, name: str, part: str) -> None:
    folder = copied(name)
    (weights,) = (folder / part).glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-100])
    assert refused(folder) == f"model.path={folder}: {part}/{weights.name} is cut short or damaged"


def test_a_variant_that_is_not_there_is_told_beside_those_that_are(refused: Any, folders: Any) -> None:
    folder = folders("pixart")
    told = f"model.path={folder}: no .safetensors file of variant fp16 in transformer/; there is variant=null"
    assert refused(folder, model__variant="fp16") == told


@pytest.mark.parametrize(
    "file, text, told",
    [
        ("model_index.json", "[]", "model_index.json cannot be read (keys and values are expected)"),
        ("model_index.json", '{"unet": []}', "model_index.json in it names no pipeline: _class_name=None"),
        ("text_encoder/config.json", "[]", "text_encoder/config.json cannot be read (keys and values are expected)"),
        ("unet/config.json", '"text"', "unet/config.json cannot be read (keys and values are expected)"),
    ],
)
def test_a_configuration_that_is_none_is_told(refused: Any, copied: Any, file: str, text: str, told: str) -> None:
    folder = copied("sd")
    (folder / file).write_text(text)
    assert refused(folder) == f"model.path={folder}: {told}"


def test_a_text_encoder_without_a_configuration_is_told(refused: Any, copied: Any) -> None:
    folder = copied("sd")
    (folder / "text_encoder" / "config.json").unlink()
    assert refused(folder).startswith(f"model.path={folder}: text_encoder/config.json cannot be read")


@pytest.mark.parametrize(
    "name, part, changes, why",
    [
        ("sd", "unet", {"in_channels": 9}, "in_channels=9: its latents have 4; networks that see a mask"),  # inpainting
        ("sdxl", "unet", {"in_channels": 9}, "in_channels=9: its latents have 4"),
        ("flux", "transformer", {"in_channels": 384}, "in_channels=384: its latents have 64"),  # FLUX.1 Fill
        ("pixart", "transformer", {"in_channels": 8}, "in_channels=8: its latents have 4"),
        ("sd", "unet", {"time_cond_proj_dim": 256}, "time_cond_proj_dim=256: this network is told more"),  # LCM's
        ("sdxl", "unet", {"time_cond_proj_dim": 256}, "time_cond_proj_dim=256: this network is told more"),
        ("sd", "unet", {"num_class_embeds": 1000}, "num_class_embeds=1000: this network is told more"),
        ("sd", "unet", {"_class_name": "UNetMotionModel"}, "unet is of class UNetMotionModel"),
        ("sdxl", "vae", {"_class_name": "AutoencoderTiny"}, "vae is of class AutoencoderTiny"),
        ("sd", "vae", {"scaling_factor": None}, "scaling_factor=None of the autoencoder: must be above 0"),
        ("sd", "vae", {"scaling_factor": 0}, "scaling_factor=0 of the autoencoder: must be above 0"),
        ("sd", "unet", {"sample_size": 0}, "sample_size=0 in unet/config.json: a whole number above 0 is needed"),
        ("sd", "unet", {"sample_size": None}, "sample_size=null in unet/config.json: a whole number above 0"),
        ("sdxl", "unet", {"sample_size": -16}, "sample_size=-16 in unet/config.json: a whole number above 0"),
        ("ddpm", "unet", {"sample_size": [16, "16"]}, "sample_size=[16, '16'] in unet/config.json: a whole number"),
        ("ddpm", "unet", {"sample_size": 16.5}, "sample_size=16.5 in unet/config.json: a whole number above 0"),
        ("dit", "transformer", {"sample_size": "16"}, "sample_size=16 in transformer/config.json: a whole number"),
        ("pixart", "transformer", {"sample_size": True}, "sample_size=True in transformer/config.json: a whole"),
        ("sd3", "transformer", {"sample_size": 7}, "sample_size=7 in transformer/config.json: 14 pixels, and pictures"),
        ("sana", "transformer", {"sample_size": [16, 8, 8]}, "sample_size=[16, 8, 8] in transformer/config.json"),
        ("lumina2", "transformer", {"sample_size": {}}, "sample_size={} in transformer/config.json: a whole number"),
        ("sd", "scheduler", {"num_train_timesteps": 1}, "num_train_timesteps=1: a whole number from 2"),
        ("sd", "scheduler", {"beta_end": float("nan")}, "the scheduler's betas are not all between 0 and 1"),
        ("sd", "scheduler", {"beta_end": 3.0, "beta_schedule": "linear"}, "the scheduler's betas are not all between"),
    ],
)
def test_parts_that_do_not_fit_the_family_are_told(
    refused: Any, copied: Any, name: str, part: str, changes: dict[str, Any], why: str
) -> None:
    folder = copied(name)
    (file,) = (*folder.glob(f"{part}/config.json"), *folder.glob(f"{part}/scheduler_config.json"))
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    told = refused(folder)
    assert told.startswith(f"model.path={folder}: not a checkpoint, its configuration says otherwise (")
    assert why in told


WIDTHS = [  # what takes a text or a pooled vector, and what makes it
    ("sd", "cross_attention_dim", "text embeddings 32", ["text_encoder.hidden_size"]),
    ("sdxl", "cross_attention_dim", "text embeddings 64", ["text_encoder.hidden_size", "text_encoder_2.hidden_size"]),
    ("sdxl", "addition_time_embed_dim", "pooled embeddings 32", ["text_encoder_2.projection_dim"]),
    ("sd3", "joint_attention_dim", "text embeddings 64", ["text_encoder_3.d_model"]),
    ("sd3", "pooled_projection_dim", "pooled embeddings 64", ["text_encoder.projection_dim"]),
    ("flux", "joint_attention_dim", "text embeddings 32", ["text_encoder_2.d_model"]),
    ("flux", "pooled_projection_dim", "pooled embeddings 32", ["text_encoder.hidden_size"]),
    ("klein", "joint_attention_dim", "text embeddings 48", ["text_encoder.hidden_size"]),
    ("z_image", "cap_feat_dim", "text embeddings 16", ["text_encoder.hidden_size"]),
    ("qwen_image", "joint_attention_dim", "text embeddings 16", []),
    ("lumina2", "cap_feat_dim", "text embeddings 16", ["text_encoder.hidden_size"]),
    ("pixart", "caption_channels", "text embeddings 32", ["text_encoder.d_model"]),
    ("sana", "caption_channels", "text embeddings 16", ["text_encoder.hidden_size"]),
]


@pytest.mark.parametrize("name, key, made, encoders", WIDTHS)
def test_a_text_encoder_of_another_width_than_the_networks_is_told(
    refused: Any, copied: Any, name: str, key: str, made: str, encoders: list[str]
) -> None:
    """Whichever of the two configurations is another model's."""
    folder = copied(name)
    (network,) = (part for part in ("unet", "transformer") if (folder / part).is_dir())
    for part, own in [(network, key), *(tuple(encoder.split(".")) for encoder in encoders)]:
        file = folder / part / "config.json"
        whole = file.read_text()
        config = json.loads(whole)
        file.write_text(json.dumps({**config, own: config[own] + 8}))
        told = refused(folder, scheduler="euler")
        file.write_text(whole)
        assert told.startswith(f"model.path={folder}: not a checkpoint, its configuration says otherwise (text_encoder")
        assert made.partition(" ")[0] in told and f" wide, {network} takes " in told
        if part == network:
            gives = "gives" if name not in ("sdxl", "sd3", "flux") else "give"
            assert f" {gives} {made} wide, {network} takes " in told


def test_a_size_that_the_checkpoint_does_not_tell_can_be_chosen(frozen: Any, copied: Any) -> None:
    folder = copied("sd")
    file = folder / "unet" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "sample_size": None}))
    assert frozen(folder, model__height=32, model__width=48).stage.size == (32, 48)


# -- what a family cannot do -------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "name, height, near", [("sd", 30, "8 for this family, such as 32"), ("pixart", 40, "16"), ("sana", 48, "32")]
)
def test_a_side_that_is_no_multiple_is_refused(refused: Any, folders: Any, name: str, height: int, near: str) -> None:
    assert refused(folders(name), model__height=height).startswith(
        f"model.height={height}: must be a multiple of {near}"
    )


@pytest.mark.parametrize("name, own", [("ddpm", 16), ("dit", 32)])
def test_a_size_that_is_fixed_cannot_be_chosen(refused: Any, frozen: Any, folders: Any, name: str, own: int) -> None:
    told = f"model.width=64: {folders(name)} draws {own} pixels alone; leave it out"
    assert refused(folders(name), model__width=64) == told
    assert frozen(folders(name), model__width=own).stage.size == (own, own)


def test_half_precision_is_refused_where_it_overflows(refused: Any, folders: Any) -> None:
    told = "model.dtype=float16: a transformer's numbers overflow in it; give bfloat16 or float32"
    for name in FAMILIES.keys() - {"sd", "sdxl", "ddpm"}:
        assert refused(folders(name), model__dtype="float16", scheduler="euler") == told
    told = "model.text.dtype=float16: must be one of float32, bfloat16; did you mean 'bfloat16'?"
    assert refused(folders("pixart"), model__text__dtype="float16") == told


@pytest.mark.parametrize("key, value", [("clip_skip", 1), ("max_length", 20)])
def test_keys_of_text_are_refused_where_there_is_none(refused: Any, folders: Any, key: str, value: int) -> None:
    assert refused(folders("dit"), **{f"model__text__{key}": value}).startswith(
        f"model.text.{key}={value}: this family's"
    )


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3"])
def test_layers_that_a_text_encoder_does_not_have_cannot_be_left_out(
    refused: Any, frozen: Any, folders: Any, name: str
) -> None:
    told = "model.text.clip_skip=3: must be between 0 and 2"
    assert refused(folders(name), model__text__clip_skip=3, scheduler="euler") == told
    assert frozen(folders(name), model__text__clip_skip=2, scheduler="euler").model.text.clip_skip == 2


@pytest.mark.parametrize(
    "network, why",
    [
        ({"in_channels": 1, "out_channels": 1}, "in_channels=1: pictures have 3"),
        ({"time_embedding_type": "fourier"}, "time_embedding_type=fourier: its noise levels are no timesteps"),
        ({"class_embed_type": "timestep"}, "class_embed_type=timestep: its classes are no labels"),
    ],
)
def test_a_network_of_pixels_that_is_none_of_ddpms_is_refused(
    refused: Any, folders: Any, network: dict[str, Any], why: str
) -> None:
    folder = folders("ddpm", network=network)
    told = f"model.path={folder}: not a checkpoint, its configuration says otherwise ({why})"
    assert refused(folder) == told


# -- prompts where there is no text ------------------------------------------------------------------------------------
@pytest.mark.parametrize("technique", ["text_to_image", "image_to_image", "inpaint"])
def test_without_text_auto_asks_about_nothing_at_a_row_a_step(frozen: Any, folders: Any, technique: str) -> None:
    cell = frozen(folders("ddpm"), technique=technique)
    assert (cell.prompt, cell.prompts, cell.guidance.scale) == ("", ("",), 1)
    assert not any("prompt" in note for note in cell.notes)


@pytest.mark.parametrize("technique", ["hybrid", "anagram"])
@pytest.mark.parametrize("name", ["ddpm", "dit"])
def test_without_text_a_technique_of_several_prompts_is_refused(
    refused: Any, folders: Any, name: str, technique: str
) -> None:
    """By its name, where the prompts are its own; labels of the user's own will do."""
    folder = folders(name)
    told = refused(folder, technique=technique)
    assert told == (
        f"technique={technique}: asks about 'an oil painting of people around a campfire' too, and "
        f"model.path={folder} reads no text; choose a model that does"
        + (", or give labels, as technique.prompts=[0,1]" if name == "dit" else "")
    )
    typed = refused(folder, technique=technique, technique__prompts=["a", "b"])
    none = f"model.path={folder} is told of no prompt; its technique needs a model that reads text"
    label = f"no label of model.path={folder}; give a number from 0 to 999, …"
    assert typed.startswith(f"technique.prompts=a: {none if name == 'ddpm' else label.rstrip('…')}")


def test_labels_will_do_for_a_technique_of_several_prompts(frozen: Any, folders: Any) -> None:
    cell = frozen(folders("dit"), technique="hybrid", technique__prompts=["tench", "2"])
    assert cell.technique.prompts_for("") == ("tench", "2")


@pytest.mark.parametrize(
    "changes, told",
    [
        ({"prompt": "a dog"}, "prompt=a dog: model.path={path} is told of no prompt; leave it out"),
        ({"guidance__scale": 5.0}, "guidance.scale=5: this checkpoint is made to run unguided: leave it out"),
        (
            {"guidance__negative_prompt": "a cat"},
            "guidance.negative_prompt=a cat: this checkpoint is made to run unguided: leave it out",
        ),
    ],
)
def test_without_text_a_prompt_and_guidance_are_refused(
    refused: Any, folders: Any, changes: dict[str, Any], told: str
) -> None:
    assert refused(folders("ddpm"), **changes) == told.format(path=folders("ddpm"))


def test_a_label_is_a_number_or_a_name_and_others_are_refused_with_some_that_are_known(
    refused: Any, frozen: Any, folders: Any
) -> None:
    names = "give a number from 0 to 999, or a name: tench, 1 (crane), goldfish, 3 (crane), great white shark"
    folder = folders("dit")
    assert refused(folder, prompt="1000") == f"prompt=1000: no label of model.path={folder}; {names}"
    near = f"prompt=tensh: no label of model.path={folder}; {names}; did you mean 'tench'?"
    assert refused(folder, prompt="tensh") == near
    assert refused(folder, prompt="crane") == "prompt=crane: means the labels 1 and 3; give one's number"
    told = f"guidance.negative_prompt=x: no label of model.path={folder}; {names}"
    assert refused(folder, prompt="0", guidance__negative_prompt="x") == told
    assert frozen(folder, prompt="2").id == frozen(folder, prompt="Goldfish").id
    assert frozen(folder, prompt="2").prompts == ("", "goldfish")
    assert frozen(folder, prompt="1").prompt == "1"  # its name is another's too


def test_a_network_of_labels_without_one_that_means_none_runs_unguided(refused: Any, frozen: Any, folders: Any) -> None:
    folder = folders("ddpm", network=ADM)
    assert frozen(folder, prompt="3").prompts == ("3",)
    told = "guidance.scale=3: this checkpoint is made to run unguided: leave it out"
    assert refused(folder, prompt="3", guidance__scale=3.0) == told
    empty = f"prompt=: model.path={folder} knows no empty prompt; give a number from 0 to 3"
    assert refused(folder, prompt="") == empty
    edited = "prompt: image_to_image edits the picture towards one: give a label, such as prompt='0'"
    assert refused(folder, technique="image_to_image") == edited


def test_one_class_beyond_those_that_have_names_means_none(frozen: Any, folders: Any, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders("ddpm", network=ADM), tmp_path / "named"))
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "id2label": {"0": "a", "1": "b", "2": "c"}}))
    cell = frozen(folder, prompt="b", guidance__scale=2.0)
    assert cell.prompts == ("", "b")
    assert cell.model.labels == Labels(3, ("a", "b", "c"), 3)


PAIR = ': a library and a class are needed, such as ["diffusers", "AutoencoderKL"]'


@pytest.mark.parametrize("entry", ["UNet", ["UNet"], [], {}, 3, True, [None, "UNet"], ["diffusers", 3], [["a"], "b"]])
@pytest.mark.parametrize("part", ["unet", "vae", "scheduler", "text_encoder", "tokenizer"])
def test_an_entry_of_the_index_that_names_no_class_is_told(refused: Any, copied: Any, part: str, entry: Any) -> None:
    folder = copied("sd", {part: entry})
    assert refused(folder) == f"model.path={folder}: {part}={json.dumps(entry)} in model_index.json{PAIR}"


@pytest.mark.parametrize("entry", ["Checker", 0, True, {}, [], [None, None]])
def test_entries_of_parts_that_are_not_used_do_not_matter(frozen: Any, copied: Any, entry: Any) -> None:
    """diffsweep builds the pipeline without these, whatever they are."""
    unused = dict.fromkeys(("safety_checker", "feature_extractor", "image_encoder"), entry)
    cell = frozen(copied("sd", {**unused, "requires_safety_checker": "no"}))
    assert cell.model.cuts("a dog") == []


@pytest.mark.parametrize("names", [{"x": "a"}, {"0": "a", "-1": "b"}, {"0": 3}, {"0": None}, ["a"], "a", 3])
@pytest.mark.parametrize("name", ["dit", "ddpm"])
def test_labels_that_have_no_number_or_no_name_are_told(refused: Any, copied: Any, name: str, names: Any) -> None:
    folder = copied(name, {"id2label": names})
    assert re.fullmatch(f"model.path={folder}: id2label.* in model_index.json: .* needed", refused(folder))


@pytest.mark.parametrize("name, part, key", [
    ("dit", "transformer", "num_embeds_ada_norm"), ("ddpm", "unet", "num_class_embeds"),
])  # fmt: skip
def test_a_number_of_labels_that_is_none_is_told(refused: Any, copied: Any, name: str, part: str, key: str) -> None:
    folder = copied(name)
    file = folder / part / "config.json"
    for value in ("x", -1, 1.5, [4]):
        file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))
        told = f"model.path={folder}: {key}={json.dumps(value)}: a whole number from 1 to 1,000,000 is needed"
        configs_of.cache_clear()
        assert refused(folder) == told


NO_COUNT, NO_NUMBER = ("x", -1, 0, 0.5, None, [], {}, True, 10**30), ("x", -1, [], {}, True, math.inf)


@pytest.mark.parametrize("name, key, wrong", [
    ("sd", "num_train_timesteps", NO_COUNT),
    ("ddpm", "num_train_timesteps", NO_COUNT),
    ("sd3", "num_train_timesteps", NO_COUNT),
    ("sd", "steps_offset", [value for value in NO_COUNT if value != 0]),
    ("sd", "sample_max_value", NO_NUMBER),
    ("sd", "dynamic_thresholding_ratio", NO_NUMBER),
    ("sd3", "shift", NO_NUMBER),
    ("qwen_image", "shift_terminal", [*NO_NUMBER, 1]),
])  # fmt: skip
def test_a_number_that_a_scheduler_cannot_have_is_told(
    refused: Any, copied: Any, name: str, key: str, wrong: Any
) -> None:
    folder = copied(name)
    file = folder / "scheduler" / "scheduler_config.json"
    for value in wrong:
        file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))
        configs_of.cache_clear()
        told = refused(folder, scheduler="euler")
        assert told.startswith(f"model.path={folder}: not a checkpoint, its configuration says otherwise ({key}=")


def test_a_tokenizer_that_cannot_be_loaded_is_told_by_a_plan(config: Any, copied: Any) -> None:
    folder = copied("sd")
    (folder / "tokenizer" / "tokenizer.json").write_text("{}")
    raw = [(config(model="tiny_sd", model__path=str(folder), prompt="a dog"), {})]
    with pytest.raises(BadInput, match=rf"^model\.path={folder}: tokenizer/ cannot be loaded \(KeyError: '"):
        foresee(raw)


def test_names_that_leave_a_number_out_are_none() -> None:
    assert named({"0": "a", "2": "c"}) == named(None) == ()
    assert named({"1": "b", "0": "a"}) == ("a", "b")


def test_a_large_picture_is_decoded_in_tiles_in_less_memory(tmp_path: Path, config: Any) -> None:
    """diffusers' own tiling, of pictures above the autoencoder's own size."""
    folder = saved(tmp_path, "sd")
    whole, tiled = (Checkpoint(str(folder), height=128, width=96, tiling=tiling) for tiling in (False, True))
    assert tiled.needs("cpu").weights < whole.needs("cpu").weights
    loaded = [model.load("cpu") for model in (whole, tiled)]
    for model in loaded:
        model.encode([""])
        model.ready()
    x = torch.randn(1, 4, 64, 48, generator=torch.Generator().manual_seed(0))
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(folder)
    pipeline.vae.enable_tiling()
    with torch.no_grad():
        theirs = pipeline.vae.decode(x / pipeline.vae.config.scaling_factor).sample
        plain, own = (model.decode(x) for model in loaded)
    torch.testing.assert_close(own, theirs, atol=1e-6, rtol=0)
    assert not torch.allclose(own, plain, atol=1e-3)


def test_sizes_share_one_set_of_weights_in_memory(
    folders: Callable[..., Path], config: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    usual = {"model": "tiny_sd", "model__path": str(folders("sd")), "scheduler": "ddim", "scheduler__steps": 1}
    sizes = [{"model__height": height, "model__width": width} for height in (32, 48) for width in (32, 64)]
    others = [{"model__tiling": True}]  # another autoencoder
    raw = [(config(**usual, **one, output_dir=str(tmp_path)), one) for one in [*sizes, *others]]
    outcome = run_sweep(raw, "sizes")
    (entry,) = json.loads((outcome.folder / "sweep.json").read_text())["runs"]
    assert (entry["cells"], entry["model_loads"]) == (5, 2)
    shapes = {Image.open(BytesIO(file.read_bytes())).size for file in (tmp_path / "cells").glob("*/*/image.png")}
    assert shapes == {(width, height) for height in (32, 48) for width in (32, 64)}


@pytest.mark.parametrize(
    "dtype, mend",
    [
        ("float16", ": {path} in float16; try model.dtype=bfloat16 or float32"),
        ("bfloat16", ": {path} in bfloat16; try model.dtype=float32"),
        ("float32", ": the weights of {path} may be damaged, or a key's number far too large"),
    ],
)
def test_a_picture_that_overflows_fails_alone_and_names_wider_types(
    dtype: str, mend: str, folders: Any, config: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In calls that it shares with another cell, which has the bits that it has alone. It would fail again."""
    folder = folders("sd")
    usual = {"model": "tiny_sd", "model__path": str(folder), "model__dtype": dtype, "scheduler__steps": 2}

    def sweep(name: str, *scales: float) -> Any:
        more = {"output_dir": str(tmp_path / name), "engine__rows": 4}
        return run_sweep(
            [(config(**usual, **more, guidance__scale=scale), {"guidance.scale": scale}) for scale in scales], name
        )

    both, alone = sweep("both", 2.0, 1e38), sweep("alone", 2.0)
    assert (
        "failed: guidance.scale=1e+38" in (told := capsys.readouterr().err) and "tries failed cells again" not in told
    )
    good, bad = json.loads((both.folder / "sweep.json").read_text())["cells"]
    assert (good["status"], bad["status"]) == ("done", "failed")
    told = "FloatingPointError: the picture holds NaN or infinite values"
    assert bad["reason"] == told + mend.format(path=folder)
    ((one,), (other,)) = ([*(run.folder.parents[1] / "cells").glob("*/*/image.png")] for run in (both, alone))
    assert one.read_bytes() == other.read_bytes()
