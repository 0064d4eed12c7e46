"""Text encoders: each prompt once for a whole sweep and ever after, and out of memory before the UNet comes in."""

from __future__ import annotations

import gc
import json
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, CLIPTextModel, T5EncoderModel

from diffsweep.core.problems import BadInput
from diffsweep.model.checkpoint import Checkpoint, TextKeys
from diffsweep.model.deepfloyd import DeepFloyd
from diffsweep.model.t5 import T5
from diffsweep.runner import sampling
from diffsweep.runner.run import run_sweep
from diffsweep.store.cells import Store


@pytest.fixture(autouse=True)
def nothing_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loaded model is kept for a process: each test here begins as a process does."""
    monkeypatch.setattr(sampling, "_models", {})


@pytest.fixture
def encoders(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every T5 that is loaded from now on, weakly."""
    load, loaded = T5EncoderModel.from_pretrained, []

    def watched(*arguments: Any, **options: Any) -> Any:
        network, told = load(*arguments, **options)
        if arguments[0] is not None:  # else of no contents, to see what its files hold
            loaded.append(weakref.ref(network))
        return network, told

    monkeypatch.setattr(T5EncoderModel, "from_pretrained", watched)
    return loaded


@pytest.fixture
def sweep(config: Callable[..., dict[str, Any]], checkpoint: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """A run's entry in sweep.json, of a sweep over prompts with two steps."""

    def run(*prompts: str, **changes: Any) -> dict[str, Any]:
        settings = {"model": "tiny", "model__path": str(checkpoint), "output_dir": str(tmp_path / "outputs")}
        settings |= {"scheduler__steps": 2, "guidance__scale": 3.0, "sweep__replace": True, **changes}
        raw = [(config(**settings, prompt=prompt), {"prompt": prompt}) for prompt in prompts]
        runs = json.loads((run_sweep(raw, "mine").folder / "sweep.json").read_bytes())["runs"]
        new, counted[0] = runs[counted[0] :], len(runs)
        return new[0] if new else {"cells": 0}  # a run that samples nothing is none

    counted = [0]

    return run


def test_a_sweep_encodes_each_distinct_prompt_once_and_never_again(
    sweep: Callable[..., dict[str, Any]], encoders: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The prompts, and the empty one of guidance; read alike, they are one."""
    assert sweep("a dog", "a photo of a dog", " A dog ")["encodes"] == 3
    assert len(encoders) == 1
    monkeypatch.setattr(sampling, "_models", {})  # as in another process
    again = sweep("a dog", "a photo of a dog", seed=1)
    assert (again["encodes"], again["model_loads"], len(encoders)) == (0, 1, 1)
    assert sweep("a skull", seed=1)["encodes"] == 1


def test_the_encoder_is_gone_when_the_unet_is_loaded(
    sweep: Callable[..., dict[str, Any]], encoders: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers import UNet2DConditionModel

    load, there = UNet2DConditionModel.from_pretrained, []

    def watched(*arguments: Any, **options: Any) -> Any:
        gc.collect()
        there.extend(encoder() for encoder in encoders)
        return load(*arguments, **options)

    monkeypatch.setattr(UNet2DConditionModel, "from_pretrained", watched)
    sweep("a dog")
    assert there == [None]


@pytest.fixture
def other(enlarging: Path, tmp_path: Path) -> Path:
    """The second stage, its text encoder not the first's."""
    from safetensors.torch import load_file, save_file

    copy = Path(shutil.copytree(enlarging, tmp_path / "other"))
    file = copy / "text_encoder" / "model.safetensors"
    save_file({name: tensor * 1.5 for name, tensor in load_file(file).items()}, file, {"format": "pt"})
    return copy


def test_stages_of_one_text_encoder_load_it_once(
    sweep: Callable[..., dict[str, Any]], encoders: list[Any], other: Path
) -> None:
    again = {"upscale": "tiny", "upscale__path": str(other), "upscale__scheduler__steps": 2}
    run = sweep("a dog", **again, upscale__text__path="model", upscale__guidance__scale=2.0)
    assert (len(encoders), run["encodes"], run["model_loads"]) == (1, 2, 2)
    sweep("a dog", **again, upscale__guidance__scale=2.0)  # its own, with other weights
    assert len(encoders) == 2


def test_a_kept_embedding_is_the_one_first_made(checkpoint: Path, tmp_path: Path) -> None:
    model = DeepFloyd(str(checkpoint))
    first, second, alone = (model.load("cpu", kept) for kept in (tmp_path, tmp_path, None))
    assert [m.encode(["a dog", "a skull"]) for m in (first, second, alone)] == [2, 0, 2]
    for prompt in ("a dog", "a skull"):
        assert torch.equal(first.embeddings[prompt]["text"], second.embeddings[prompt]["text"])
        assert torch.equal(first.embeddings[prompt]["text"], alone.embeddings[prompt]["text"])


@pytest.mark.parametrize("changes", [{"dtype": "bfloat16"}, {"max_length": 20}])
def test_another_way_to_encode_is_another_embedding(checkpoint: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    DeepFloyd(str(checkpoint)).load("cpu", tmp_path).encode(["a dog"])
    other = DeepFloyd(str(checkpoint), text=T5(**changes)).load("cpu", tmp_path)
    assert other.encode(["a dog"]) == 1
    assert other.embeddings["a dog"]["text"].dtype == (torch.bfloat16 if "dtype" in changes else torch.float32)
    assert len(other.embeddings["a dog"]["text"]) == changes.get("max_length", 77)


def test_another_encoders_weights_are_another_embedding(checkpoint: Path, other: Path, tmp_path: Path) -> None:
    DeepFloyd(str(checkpoint)).load("cpu", tmp_path).encode(["a dog"])
    assert DeepFloyd(str(checkpoint), text=T5(path=str(other))).load("cpu", tmp_path).encode(["a dog"]) == 1


def test_a_damaged_file_is_encoded_again(checkpoint: Path, tmp_path: Path) -> None:
    model = DeepFloyd(str(checkpoint))
    model.load("cpu", tmp_path).encode(["a dog"])
    (file,) = tmp_path.rglob("*.safetensors")
    whole = file.read_bytes()
    file.write_bytes(whole[:-9])
    assert model.load("cpu", tmp_path).encode(["a dog"]) == 1
    assert file.read_bytes() == whole


def test_an_embedding_that_is_not_finite_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    copy = Path(shutil.copytree(checkpoint, tmp_path / "copy"))
    file = copy / "text_encoder" / "model.safetensors"
    tensors = load_file(file)
    save_file({name: tensor * float("nan") for name, tensor in tensors.items()}, file, {"format": "pt"})
    with pytest.raises(BadInput, match="NaN or infinite values: 'a dog'"):
        DeepFloyd(str(copy)).load("cpu").encode(["A dog"])


def test_a_checkpoint_without_a_text_encoder_borrows_one(
    checkpoint: Path, tmp_path: Path, sweep: Callable[..., dict[str, Any]]
) -> None:
    bare = Path(shutil.copytree(checkpoint, tmp_path / "bare"))
    shutil.rmtree(bare / "text_encoder")
    with pytest.raises(BadInput, match="text_encoder missing"):
        DeepFloyd(str(bare)).fingerprint()
    borrowing = DeepFloyd(str(bare), text=T5(path=str(checkpoint)))
    assert borrowing.fingerprint() == DeepFloyd(str(checkpoint)).fingerprint()
    sweep("a dog")
    assert sweep("a dog", model__path=str(bare), model__text__path=str(checkpoint))["cells"] == 0  # the same cell


def test_the_encoders_place_is_no_other_picture(sweep: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    sweep("a dog")
    assert sweep("a dog", model__text__device="cpu")["cells"] == 0
    assert sweep("a dog", model__text__dtype="bfloat16")["cells"] == 1
    assert len(list((Store(tmp_path / "outputs").root / "embeddings").rglob("*.safetensors"))) == 4


@pytest.mark.parametrize(
    "changes, told",
    [
        ({"dtype": "float16"}, "dtype=float16: must be one of float32, bfloat16"),
        ({"device": "tpu"}, "device=tpu: must be one of"),
        ({"max_length": 0}, "max_length=0: must be between 1 and 512"),
        ({"load_in_8bit": True}, r"load_in_8bit=true: needs accelerate, bitsandbytes: pip install 'diffsweep\[int8\]'"),
        ({"clean_caption": True}, r"clean_caption=true: needs bs4, ftfy: pip install 'diffsweep\[deepfloyd\]'"),
    ],
)
def test_settings_that_cannot_be_are_told(changes: dict[str, Any], told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffsweep.model.t5.find_spec", lambda name: None)
    with pytest.raises(BadInput, match=told):
        T5(**changes)


def test_a_key_of_the_text_encoder_is_told_by_its_whole_name(config: Callable[..., dict[str, Any]]) -> None:
    from diffsweep.runner.freeze import freeze

    raw = config(model="tiny", model__text__dtype="half")
    raw["model"]["text"]["lenght"] = 3
    with pytest.raises(BadInput) as caught:
        freeze(raw, {})
    told = sorted(caught.value.messages)
    assert told[0].startswith("model.text.dtype=half: must be one of")
    assert told[1].startswith("model.text.lenght: unknown key; it has path, ") and "did you mean" in told[1]


def test_captions_are_cleaned_as_if_does(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers import IFPipeline

    pipeline = IFPipeline.from_pretrained(checkpoint, safety_checker=None, watermarker=None)
    prompts = ["A Dog &amp; a <b>cat</b>!!! http://x.org/a.jpg #1234", "photo of “a skull” (1920x1080)", " plain "]
    assert [T5(clean_caption=True).cleaned(p) for p in prompts] == pipeline._text_preprocessing(prompts, True)
    assert [T5().cleaned(p) for p in prompts] == pipeline._text_preprocessing(prompts, False)
    assert T5(clean_caption=True).cleaned(prompts[0]) != T5().cleaned(prompts[0])


@pytest.mark.parametrize("part", ["text_encoder", "unet"])
def test_weights_that_are_missing_are_not_made_up(checkpoint: Path, tmp_path: Path, part: str) -> None:
    from safetensors.torch import load_file, save_file

    copy = Path(shutil.copytree(checkpoint, tmp_path / "copy"))
    (file,) = (copy / part).glob("*.safetensors")
    tensors = load_file(file)
    gone = max(tensors, key=lambda name: tensors[name].numel())
    save_file({name: tensor for name, tensor in tensors.items() if name != gone}, file, {"format": "pt"})
    model = DeepFloyd(str(copy)).load("cpu")
    step = model.ready if part == "unet" else lambda: model.encode(["a dog"])
    with pytest.raises(BadInput, match=rf"weights? missing in {part}/"):
        step()


def test_a_text_encoder_of_another_width_is_told(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="its text encoder's width is 128, and 16 is needed"):
        DeepFloyd(str(checkpoint), text=T5(path="tiny")).stage()


@pytest.mark.parametrize("skip", [0, 1, 2])
def test_layers_of_clip_are_left_out_from_the_end(folders: Callable[..., Path], skip: int) -> None:
    """Against transformers itself: the layer's output, through the last norm."""
    folder = folders("sd")
    model = Checkpoint(str(folder), text=TextKeys(clip_skip=skip)).load("cpu")
    model.encode(["a dog"])
    tokens = AutoTokenizer.from_pretrained(folder / "tokenizer")
    words = tokens("a dog", padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    clip = CLIPTextModel.from_pretrained(folder / "text_encoder")
    with torch.no_grad():
        layer = clip(words, output_hidden_states=True).hidden_states[-1 - skip]
        norm = next(part for name, part in clip.named_modules() if name.endswith("final_layer_norm"))
        torch.testing.assert_close(model.embedding("a dog")["text"], norm(layer)[0], atol=1e-6, rtol=0)
