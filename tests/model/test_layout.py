"""A folder laid out as the hub's DeepFloyd repositories are: shards, variants, a sentencepiece file, pickles."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import IFPipeline, UNet2DConditionModel
from transformers import T5EncoderModel

from diffsweep.core.problems import BadInput
from diffsweep.model.deepfloyd import DeepFloyd
from diffsweep.model.source import suited


@pytest.fixture(scope="module")
def repository(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The random checkpoint in single precision, and in half precision as the variant fp16, each in many shards."""
    sentencepiece = pytest.importorskip("sentencepiece")
    folder = tmp_path_factory.mktemp("repository") / "IF-I-Tiny-v1.0"
    shutil.copytree(checkpoint, folder)
    for part, kind in (("unet", UNet2DConditionModel), ("text_encoder", T5EncoderModel)):
        for file in (folder / part).glob("*.safetensors"):
            file.unlink()
        network = kind.from_pretrained(checkpoint / part)
        network.save_pretrained(folder / part, max_shard_size="20KB")
        network.half().save_pretrained(folder / part, max_shard_size="20KB", variant="fp16")
        (folder / part / "pytorch_model.bin").write_bytes(b"\x80\x04a pickle")
        config = folder / part / "config.json"
        config.write_text((checkpoint / part / "config.json").read_text())
    words = io.StringIO("a photo of a red dog\nan oil painting of a skull\n" * 20)
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(words), model_writer=model, vocab_size=30, pad_id=0, eos_id=1, unk_id=2, bos_id=-1,
        hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    shutil.rmtree(folder / "tokenizer")
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "spiece.model").write_bytes(model.getvalue())
    config = {"tokenizer_class": "T5Tokenizer", "model_max_length": 512, "extra_ids": 0}
    (folder / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def copy(repository: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(repository, tmp_path / "copy"))


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_shards_of_a_variant_are_the_pipelines_weights(repository: Path, variant: str | None) -> None:
    assert len(list((repository / "unet").glob("*.safetensors"))) > 4
    model = DeepFloyd(str(repository), variant).load("cpu")
    model.encode(["a dog"])
    model.ready()
    pipeline = IFPipeline.from_pretrained(
        repository, variant=variant, safety_checker=None, watermarker=None, dtype=torch.float32
    )
    ours, theirs = model.network.state_dict(), pipeline.unet.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    expected, _ = pipeline.encode_prompt("a dog", do_classifier_free_guidance=False)
    torch.testing.assert_close(model.embeddings["a dog"]["text"], expected[0], atol=1e-6, rtol=0)


def test_a_variant_is_other_weights(repository: Path) -> None:
    assert DeepFloyd(str(repository)).fingerprint() != DeepFloyd(str(repository), "fp16").fingerprint()
    files = DeepFloyd(str(repository), "fp16").files()
    assert all("fp16" in name for name in files if "safetensors" in name)
    assert not any(name.endswith(".bin") for name in files)


@pytest.mark.parametrize(
    "dtype, stored, own",
    [
        ("float16", ("fp16", "bf16", None), "fp16"),
        ("bfloat16", ("fp16", "bf16", None), "bf16"),
        ("bfloat16", ("fp16", None), "fp16"),
        ("float32", ("fp16", None), None),
        ("float16", (None,), None),
        ("float32", ("fp16",), "fp16"),
        ("float32", ("ema",), "ema"),
        ("float16", (), None),
    ],
)
def test_the_variant_that_suits_a_type_is_found_of_those_that_are_stored(
    tmp_path: Path, dtype: str, stored: tuple[str | None, ...], own: str | None
) -> None:
    (tmp_path / "unet").mkdir()
    (tmp_path / "vae").mkdir()
    for variant in stored:
        (tmp_path / "unet" / f"diffusion_pytorch_model{f'.{variant}' * bool(variant)}.safetensors").touch()
    (tmp_path / "vae" / "diffusion_pytorch_model.other.safetensors").touch()
    assert suited(str(tmp_path), "auto", dtype).variant == own
    assert suited(str(tmp_path), "said", dtype).variant == "said" and suited(str(tmp_path), None, dtype).variant is None


def missing(copy: Path) -> None:
    min((copy / "unet").glob("*fp16*.safetensors")).unlink()


def short(copy: Path) -> None:
    shard = max((copy / "text_encoder").glob("*fp16*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-7])


def pickled(copy: Path) -> None:
    for file in (copy / "unet").glob("*.safetensors*"):
        file.unlink()


def other(copy: Path) -> None:
    for file in (copy / "unet").glob("*fp16*"):
        file.unlink()


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (missing, r"unet/ is not whole: diffusion_pytorch_model.*fp16.*safetensors missing"),
        (short, r"text_encoder/model.*safetensors is cut short or damaged"),
        (pickled, r"no \.safetensors file of variant fp16 in unet/; pytorch_model\.bin is a pickle, which is never"),
        (other, r"no \.safetensors file of variant fp16 in unet/; there is variant=null"),
    ],
)
def test_what_is_not_whole_is_told_before_anything_is_loaded(
    copy: Path, harm: Callable[[Path], None], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    harm(copy)

    def load(*arguments: Any, **options: Any) -> None:
        raise AssertionError("loaded")

    monkeypatch.setattr(UNet2DConditionModel, "from_pretrained", load)
    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(BadInput, match=told):
        DeepFloyd(str(copy), "fp16").fingerprint()
