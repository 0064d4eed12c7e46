"""Checkpoints in DeepFloyd IF's layout, against what diffusers makes of the same folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from diffsweep.core.problems import BadInput
from diffsweep.model.deepfloyd import DeepFloyd
from diffsweep.sweep.cell import freeze


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_the_stage_is_read_from_the_checkpoints_configurations(checkpoint: Path) -> None:
    stage = DeepFloyd(str(checkpoint)).stage()
    assert stage.shape == (3, 16, 16)
    assert (stage.threshold, stage.threshold_ratio, stage.threshold_max) == ("dynamic", 0.95, 1.5)
    assert (stage.spacing, stage.offset, len(stage.schedule)) == ("leading", 0, 1000)


def test_a_prompts_embedding_is_the_pipelines(checkpoint: Path, loaded: Any) -> None:
    from diffusers import IFPipeline

    pipeline = IFPipeline.from_pretrained(checkpoint, safety_checker=None, watermarker=None)
    for prompt in ["a photo of a dog", "  A Red SKULL ", "", "a dog " * 60]:
        loaded.encode([prompt])
        expected, _ = pipeline.encode_prompt(prompt, do_classifier_free_guidance=False)
        torch.testing.assert_close(loaded._prompts[prompt], expected[0], atol=1e-6, rtol=0)


def test_the_unets_answer_is_parted_into_noise_and_variance(checkpoint: Path, loaded: Any) -> None:
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel.from_pretrained(checkpoint / "unet")
    x, t = torch.randn((2, 3, 16, 16), generator=torch.Generator().manual_seed(0)), torch.tensor([3, 800])
    loaded.encode(["a dog", ""])
    got = loaded.predict(x, t, ["a dog", ""])
    with torch.no_grad():
        states = torch.stack([loaded._prompts[p] for p in ("a dog", "")])
        expected = unet(x, t, encoder_hidden_states=states).sample
    torch.testing.assert_close(torch.cat([got.noise, got.variance], 1), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_every_prediction_type_is_turned_into_noise(copy: Path, prediction: str) -> None:
    from diffusers import DDPMScheduler

    edit(copy / "scheduler" / "scheduler_config.json", prediction_type=prediction)
    model = DeepFloyd(str(copy)).load("cpu")
    g = torch.Generator().manual_seed(0)
    clean, eps = torch.randn((2, 1, 3, 16, 16), generator=g)
    t = torch.tensor([400])
    scheduler = DDPMScheduler.from_pretrained(copy / "scheduler")
    x = scheduler.add_noise(clean, eps, t)
    output = {"epsilon": eps, "sample": clean, "v_prediction": scheduler.get_velocity(clean, eps, t)}[prediction]
    torch.testing.assert_close(model._noise(output, x, t), eps, atol=1e-4, rtol=0)


def test_the_fingerprint_follows_the_contents_and_not_the_place(checkpoint: Path, copy: Path) -> None:
    original = DeepFloyd(str(checkpoint)).fingerprint()
    assert DeepFloyd(str(copy)).fingerprint() == original
    edit(copy / "scheduler" / "scheduler_config.json", sample_max_value=1.25)
    assert DeepFloyd(str(copy)).fingerprint() != original


def test_a_changed_byte_of_the_weights_changes_the_fingerprint(checkpoint: Path, copy: Path) -> None:
    (weights,) = (copy / "unet").glob("*.safetensors")
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert DeepFloyd(str(copy)).fingerprint() != DeepFloyd(str(checkpoint)).fingerprint()


def test_a_missing_folder_or_part_is_named(copy: Path) -> None:
    with pytest.raises(BadInput, match="path=nowhere: no such folder"):
        DeepFloyd("nowhere").stage()
    shutil.rmtree(copy / "tokenizer")
    with pytest.raises(BadInput, match="tokenizer missing"):
        DeepFloyd(str(copy)).stage()


def test_a_damaged_configuration_is_named(copy: Path) -> None:
    (copy / "unet" / "config.json").write_text("{")
    with pytest.raises(BadInput, match=r"unet/config\.json cannot be read"):
        DeepFloyd(str(copy)).stage()


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
@pytest.mark.parametrize("damage", [lambda data: b"not weights", lambda data: data[:-500], lambda data: data + b"0"])
def test_damaged_weights_are_told_before_anything_is_loaded(copy: Path, part: str, damage: Any) -> None:
    (weights,) = (copy / part).glob("*.safetensors")
    weights.write_bytes(damage(weights.read_bytes()))
    with pytest.raises(BadInput, match=rf"{part}/{weights.name} is cut short or damaged"):
        DeepFloyd(str(copy)).fingerprint()


def test_weights_of_another_shape_are_bad_input(copy: Path) -> None:
    edit(copy / "unet" / "config.json", block_out_channels=[8, 16])
    with pytest.raises(BadInput, match="cannot be loaded"):
        DeepFloyd(str(copy)).load("cpu").ready()


def test_a_super_resolution_stage_is_refused_before_it_is_loaded(copy: Path) -> None:
    edit(copy / "unet" / "config.json", in_channels=6, class_embed_type="timestep")
    with pytest.raises(BadInput, match=r"in_channels=6: first stages .* given as upscale\.path"):
        DeepFloyd(str(copy)).stage()


def test_a_variance_that_the_checkpoint_does_not_learn_is_not_used(copy: Path, config: Any, sampled: Any) -> None:
    """IFPipeline drops the network's last channels for `fixed_small`: the posterior's variance is left."""
    from diffusers import IFPipeline

    edit(copy / "scheduler" / "scheduler_config.json", variance_type="fixed_small")
    pipeline = IFPipeline.from_pretrained(copy, safety_checker=None, watermarker=None)
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        "a dog",
        guidance_scale=3.0,
        num_inference_steps=4,
        generator=torch.Generator().manual_seed(1),
        output_type="pt",
        clean_caption=False,
    ).images[0]
    changes = {"prompt": "a dog", "seed": 1, "guidance__scale": 3.0, "scheduler__steps": 4}
    cell = freeze(config(model="tiny", model__path=str(copy), **changes), {})
    ours = sampled([cell], cell.model.load("cpu"))[0].result.image
    torch.testing.assert_close((ours / 2 + 0.5).clamp(0, 1), (theirs / 2 + 0.5).clamp(0, 1), atol=2e-3, rtol=0)


def test_a_prompt_that_is_cut_is_told(loaded: Any, caplog: pytest.LogCaptureFixture) -> None:
    loaded.encode(["a red dog " * 10])
    assert not caplog.messages
    loaded.encode(["a red dog " * 60])
    assert any("cut after 77 tokens" in message for message in caplog.messages)


def test_a_pickle_is_refused_and_never_opened(copy: Path) -> None:
    (weights,) = (copy / "unet").glob("*.safetensors")
    weights.rename(weights.with_name("diffusion_pytorch_model.bin"))
    with pytest.raises(BadInput, match=r"diffusion_pytorch_model\.bin is a pickle, which is never loaded"):
        DeepFloyd(str(copy)).fingerprint()


def test_half_precision_is_the_unets_alone(checkpoint: Path, loaded: Any) -> None:
    model = DeepFloyd(str(checkpoint), dtype="bfloat16").load("cpu")
    model.encode(["a dog"])
    model.ready()
    loaded.encode(["a dog"])
    x, t = torch.randn((1, 3, 16, 16), generator=torch.Generator().manual_seed(0)), torch.tensor([500])
    ours, exact = model.predict(x, t, ["a dog"]), loaded.predict(x, t, ["a dog"])
    assert ours.noise.dtype == torch.float32
    assert model.embeddings["a dog"].dtype == torch.float32
    torch.testing.assert_close(model.embeddings["a dog"], loaded.embeddings["a dog"], atol=0, rtol=0)
    torch.testing.assert_close(ours.noise, exact.noise, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("dtype", ["float16", "bfloat"])
def test_other_types_are_refused(dtype: str) -> None:
    with pytest.raises(BadInput, match=f"dtype={dtype}: must be one of float32, bfloat16"):
        DeepFloyd(dtype=dtype)
