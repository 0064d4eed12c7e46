"""Checkpoints in DeepFloyd IF's layout, against what diffusers makes of the same folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffsweep.core.problems import BadInput
from diffsweep.core.types import Estimate
from diffsweep.model.deepfloyd import DeepFloyd
from diffsweep.runner.freeze import freeze
from diffsweep.runner.run import run_sweep


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_the_stage_is_read_from_the_checkpoints_configurations(checkpoint: Path) -> None:
    stage = DeepFloyd(str(checkpoint)).stage()
    assert stage.shape == (3, 16, 16)
    assert (stage.threshold, stage.threshold_ratio, stage.threshold_max) == ("dynamic", 0.95, 1.5)
    assert (stage.spacing, stage.offset, stage.process.T) == ("leading", 0, 1000)


def test_a_prompts_embedding_is_the_pipelines(checkpoint: Path, loaded: Any) -> None:
    from diffusers import IFPipeline

    pipeline = IFPipeline.from_pretrained(checkpoint, safety_checker=None, watermarker=None)
    for prompt in ["a photo of a dog", "  A Red SKULL ", "", "a dog " * 60]:
        loaded.encode([prompt])
        expected, _ = pipeline.encode_prompt(prompt, do_classifier_free_guidance=False)
        torch.testing.assert_close(loaded.embedding(prompt)["text"], expected[0], atol=1e-6, rtol=0)


def test_the_unets_answer_is_parted_into_noise_and_variance(checkpoint: Path, loaded: Any) -> None:
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel.from_pretrained(checkpoint / "unet")
    x, t = torch.randn((2, 3, 16, 16), generator=torch.Generator().manual_seed(0)), torch.tensor([3, 800])
    loaded.encode(["a dog", ""])
    got = loaded.predict(x, [loaded.stage.process.level(3), loaded.stage.process.level(800)], ["a dog", ""], {})
    with torch.no_grad():
        states = torch.stack([loaded.embedding(p)["text"] for p in ("a dog", "")])
        expected = unet(x, t, encoder_hidden_states=states).sample
    torch.testing.assert_close(torch.cat([got.output, got.variance], 1), expected, atol=1e-5, rtol=0)


def test_few_embeddings_are_on_the_device_at_once_and_a_call_has_all_of_its_own(
    loaded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that were used last; the answers are the same as with room for all."""
    prompts = ["a dog", "red", "a red dog", "", "oil"]
    loaded.encode(prompts)
    loaded.ready()
    x = torch.randn((5, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    levels = [loaded.stage.process.level(500)] * 5
    expected = loaded.predict(x, levels, prompts, {}).output
    monkeypatch.setattr("diffsweep.model.network.HELD", 2)
    loaded._placed.clear()
    assert torch.equal(loaded.predict(x, levels, prompts, {}).output, expected)
    assert list(loaded._placed) == prompts[-2:]
    loaded.embedding("")
    loaded.embedding("a dog")
    assert list(loaded._placed) == ["", "a dog"]


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_every_prediction_type_implies_the_clean_image(copy: Path, prediction: str) -> None:
    from diffusers import DDPMScheduler

    edit(copy / "scheduler" / "scheduler_config.json", prediction_type=prediction)
    model = DeepFloyd(str(copy)).load("cpu")
    g = torch.Generator().manual_seed(0)
    clean, eps = torch.randn((2, 1, 3, 16, 16), generator=g)
    t = torch.tensor([400])
    scheduler = DDPMScheduler.from_pretrained(copy / "scheduler")
    x = scheduler.add_noise(clean, eps, t)
    output = {"epsilon": eps, "sample": clean, "v_prediction": scheduler.get_velocity(clean, eps, t)}[prediction]
    found = Estimate(output[0], kind=model.prediction).clean(x[0], model.stage.process.level(400))
    torch.testing.assert_close(found, clean[0], atol=1e-4, rtol=0)


def test_a_checkpoint_without_terminal_signal_is_sampled_on_its_own_schedule(copy: Path) -> None:
    """rescale_betas_zero_snr: diffusers' own alphas, and no signal at the last timestep."""
    from diffusers import DDPMScheduler

    edit(copy / "scheduler" / "scheduler_config.json", prediction_type="v_prediction", rescale_betas_zero_snr=True)
    process: Any = DeepFloyd(str(copy)).stage().process
    theirs = DDPMScheduler.from_pretrained(copy / "scheduler").alphas_cumprod
    torch.testing.assert_close(torch.tensor(process.alphas_cumprod), theirs, atol=1e-5, rtol=1e-3)
    assert process.level(999).alpha == 0


def test_noise_predicted_without_any_signal_is_refused(copy: Path) -> None:
    edit(copy / "scheduler" / "scheduler_config.json", rescale_betas_zero_snr=True)
    with pytest.raises(BadInput, match="noise predicted without any signal gives no clean picture"):
        DeepFloyd(str(copy)).stage()


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
    x = torch.randn((1, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    levels = [model.stage.process.level(500)]
    ours, exact = model.predict(x, levels, ["a dog"], {}), loaded.predict(x, levels, ["a dog"], {})
    assert ours.output.dtype == torch.float32
    assert model.embeddings["a dog"]["text"].dtype == torch.float32
    torch.testing.assert_close(model.embeddings["a dog"]["text"], loaded.embeddings["a dog"]["text"], atol=0, rtol=0)
    torch.testing.assert_close(ours.output, exact.output, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("dtype", ["float16", "bfloat"])
def test_other_types_are_refused(dtype: str) -> None:
    with pytest.raises(BadInput, match=f"dtype={dtype}: must be one of float32, bfloat16"):
        DeepFloyd(dtype=dtype)


# -- IF's safety checker and watermark, where they are asked for -------------------------------------------------------
@pytest.fixture
def guarded(copy: Path) -> Callable[[float], Path]:
    """The checkpoint with a safety checker, which finds everything unsafe or nothing, and a watermark."""

    def made(bias: float) -> Path:
        from diffusers.pipelines.deepfloyd_if import IFSafetyChecker, IFWatermarker
        from safetensors.torch import save_file
        from transformers import CLIPConfig, CLIPImageProcessor

        tower = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        vision = {**tower, "image_size": 16, "patch_size": 8, "projection_dim": 8}
        checker = IFSafetyChecker(CLIPConfig(text_config={**tower, "vocab_size": 10}, vision_config=vision))
        torch.nn.init.constant_(checker.p_head.bias, bias)
        torch.nn.init.constant_(checker.w_head.bias, -9.0)
        checker.config.save_pretrained(copy / "safety_checker")
        save_file(checker.state_dict(), copy / "safety_checker" / "model.safetensors")
        CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}).save_pretrained(
            copy / "feature_extractor"
        )
        mark = IFWatermarker()
        mark.watermark_image.fill_(255.0)
        mark.save_pretrained(copy / "watermarker")
        return copy

    return made


def test_an_unsafe_picture_is_black_and_a_safe_one_as_it_was(guarded: Callable[[float], Path]) -> None:
    x = torch.rand((3, 16, 16), generator=torch.Generator().manual_seed(0)) * 2 - 1
    for bias, black in ((9.0, True), (-9.0, False)):
        model = DeepFloyd(str(guarded(bias)), safety_checker=True).load("cpu")
        model.ready()
        shown = model.finish(x)
        assert bool((shown == -1).all()) is black
        assert black or (shown - x).abs().max() <= 1 / 255


def test_what_is_not_finite_is_no_black_picture_with_a_watermark(
    guarded: Callable[[float], Path], config: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    folder = guarded(1.0)
    (file,) = (folder / "unet").glob("*.safetensors")
    tensors = load_file(file)
    save_file({**tensors, "conv_out.bias": tensors["conv_out.bias"] / 0}, file, {"format": "pt"})
    settings = {"model": "tiny", "model__path": str(folder), "model__watermark": True, "scheduler__steps": 2}
    outcome = run_sweep([(config(**settings, output_dir=str(tmp_path)), {})], "mine")
    (cell,) = json.loads((outcome.folder / "sweep.json").read_text())["cells"]
    told = "FloatingPointError: the picture holds NaN or infinite values: the weights of "
    assert cell["reason"].startswith(f"{told}{folder} may be damaged")
    assert not [*(tmp_path / "cells").glob("*/*/image.png")]


def test_the_watermark_is_the_pipelines(guarded: Callable[[float], Path]) -> None:
    from diffusers.pipelines.deepfloyd_if import IFWatermarker
    from PIL import Image

    folder = guarded(-9.0)
    model = DeepFloyd(str(folder), watermark=True).load("cpu")
    model.ready()
    shown = ((model.finish(torch.zeros(3, 64, 64)) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    (theirs,) = IFWatermarker.from_pretrained(folder / "watermarker").apply_watermark(
        [Image.new("RGB", (64, 64), (128, 128, 128))], 16
    )
    assert (shown == np.asarray(theirs)).all() or abs(shown.astype(int) - np.asarray(theirs)).max() <= 1
    assert (shown == 255).any()


def test_a_checker_that_is_not_there_is_told(checkpoint: Path) -> None:
    with pytest.raises(
        BadInput,
        match="not a checkpoint with what safety_checker=true needs, safety_checker, feature_extractor missing",
    ):
        DeepFloyd(str(checkpoint), safety_checker=True).fingerprint()


def test_compiling_is_torchs_own_and_another_picture(
    checkpoint: Path, config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers import UNet2DConditionModel

    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(UNet2DConditionModel, "compile", lambda self, **options: calls.append(options))
    for compiled in (False, True):
        DeepFloyd(str(checkpoint), compile=compiled).load("cpu").ready()
    assert calls == [{"dynamic": False}]
    ids = {freeze(config(model="tiny", model__path=str(checkpoint), model__compile=c), {}).id for c in (False, True)}
    assert len(ids) == 2  # it changes bits
