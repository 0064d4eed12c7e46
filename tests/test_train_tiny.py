"""The training script end to end on very small models: a few steps, going on, and exports that others load."""

from __future__ import annotations

import hashlib
import importlib
import json
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

pytestmark = pytest.mark.slow

SCRIPTS = Path(__file__).parent.parent / "scripts"
SMALL = ("--pictures", "40", "--batch", "4", "--workers", "1", "--threads", "1", "--samples-every", "0")
CHANNELS = ("--channels", "16", "32")
PARTS = {"stage1": CHANNELS, "stage2": CHANNELS, "clip": (), "judge": ()}
PARTS |= {"vae": ("--channels", "8", "8", "8", "16"), "latent": CHANNELS, "flow": ("--channels", "32")}
EXPORTED = ("stage1", "stage2", "clip", "latent", "flow")


@pytest.fixture(scope="module", autouse=True)
def scripts_on_the_path() -> Any:
    sys.path.insert(0, str(SCRIPTS))
    yield
    sys.path.remove(str(SCRIPTS))


def run(*arguments: object) -> None:
    """The script's command line, in this process."""
    threads = torch.get_num_threads()
    importlib.import_module("train_tiny").main([str(argument) for argument in arguments])
    torch.set_num_threads(threads)


def checkpoint_of(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "checkpoint.pt", weights_only=True)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each part: three steps, then three more from the checkpoint."""
    root = tmp_path_factory.mktemp("trained")
    for part, channels in PARTS.items():
        common = ("--out", root / part, "--cache", root / "world", "--device", "cpu", *SMALL, *channels)
        run(part, "--steps", 3, *common)
        assert checkpoint_of(root / part)["state"]["step"] == 3
        run(part, "--steps", 6, *common)
    return root


@pytest.fixture(scope="module")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("exported")
    for part in EXPORTED:
        run("export", part, "--root", trained, "--to", to / part)
    return to


@pytest.mark.parametrize("part", PARTS)
def test_the_checkpoint_holds_all_that_going_on_needs(trained: Path, part: str) -> None:
    saved = checkpoint_of(trained / part)
    assert saved["state"]["step"] == 6
    assert {"model", "average", "optimiser", "state"} == set(saved)
    assert all(value["step"] == 6 for value in saved["optimiser"]["state"].values())
    assert json.loads((trained / part / "recipe.json").read_text())["step"] == 6


def test_the_judge_has_pictures_of_its_own(trained: Path) -> None:
    """Training seeds of the others and of the judge share no number, and none is held out."""
    others, own = (np.load(trained / "world" / f"world-{first}-40.npy") for first in (0, 10_000_000))
    assert not {picture.tobytes() for picture in others} & {picture.tobytes() for picture in own}


def test_export_writes_the_average_in_half_precision(trained: Path, exported: Path) -> None:
    from safetensors.torch import load_file

    for part in ("stage1", "stage2"):
        average = checkpoint_of(trained / part)["average"]
        weights = load_file(exported / part / "unet" / "diffusion_pytorch_model.safetensors")
        assert weights
        for name, value in weights.items():
            assert value.dtype == torch.float16
            assert torch.equal(value, average[f"unet.{name}"].half()), name


def test_diffusers_loads_the_export_and_draws(exported: Path) -> None:
    from diffusers import IFPipeline, IFSuperResolutionPipeline

    first = IFPipeline.from_pretrained(exported / "stage1")
    second = IFSuperResolutionPipeline.from_pretrained(exported / "stage2")
    for pipeline in (first, second):
        pipeline.set_progress_bar_config(disable=True)
        assert pipeline.unet.dtype == pipeline.text_encoder.dtype == torch.float32
    generator = torch.Generator().manual_seed(0)
    image = first("A dog, quickly!", num_inference_steps=2, generator=generator).images[0]
    assert image.size == (32, 32)
    larger = second("A dog", image=image, num_inference_steps=2, noise_level=100, generator=generator).images[0]
    assert larger.size == (64, 64)


def test_transformers_loads_the_exported_clip(exported: Path) -> None:
    from transformers import CLIPModel, CLIPProcessor

    model = CLIPModel.from_pretrained(exported / "clip", dtype=torch.float32)
    processor = CLIPProcessor.from_pretrained(exported / "clip")
    inputs = processor(text=["a dog", "Zebras, 42%!"], images=[Image.new("RGB", (64, 64), "red")] * 2, padding=True)
    inputs = {key: torch.as_tensor(np.array(value)) for key, value in inputs.items()}
    assert inputs["pixel_values"].shape == (2, 3, 32, 32)
    end = processor.tokenizer.eos_token_id
    assert inputs["input_ids"][1].tolist().count(end) == 1  # no letter is taken for the end
    assert model(**inputs).logits_per_image.shape == (2, 2)


def test_the_tokenizer_reads_any_words(exported: Path) -> None:
    from transformers import AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(exported / "stage1" / "tokenizer")
    known = tokens("an oil painting of a snowy mountain village").input_ids
    assert len(known) == 9  # a piece a word, and the end
    unknown = tokens("zebra xylophone, 42% of q's!").input_ids
    assert tokens.unk_token_id not in unknown
    assert tokens.decode(known, skip_special_tokens=True) == "an oil painting of a snowy mountain village"


def test_the_exports_sums_are_those_of_their_files(exported: Path) -> None:
    for part in EXPORTED:
        lines = (exported / part / "SHA256SUMS").read_text().splitlines()
        names = {line.split()[1]: line.split()[0] for line in lines}
        assert any(name.endswith(".safetensors") for name in names)
        for name, expected in names.items():
            assert hashlib.sha256((exported / part / name).read_bytes()).hexdigest() == expected


def test_the_card_says_how_it_was_made(exported: Path) -> None:
    card = " ".join((exported / "stage1" / "README.md").read_text().split())
    assert "6 steps, 24 pictures seen" in card
    assert "channels [16, 32]" in card


def test_an_export_can_be_gone_on_from_in_a_larger_world(exported: Path) -> None:
    """Words that both know keep their embedding; the UNet is taken over."""
    from safetensors.torch import load_file

    diffusion = importlib.import_module("tiny.diffusion")
    part = diffusion.Diffusion("stage1", (16, 32), exported / "stage1")
    assert part.recipe["start"]["step"] == 6
    weights = load_file(exported / "stage1" / "unet" / "diffusion_pytorch_model.safetensors")
    state = part.module.unet.state_dict()
    assert all(torch.equal(state[name], value.float()) for name, value in weights.items())
    embedding = load_file(exported / "stage1" / "text_encoder" / "model.safetensors")["shared.weight"]
    assert torch.equal(part.module.t5.get_input_embeddings().weight.detach(), embedding.float())


def test_clips_soft_targets_are_cross_entropy_where_one_is_right() -> None:
    clip = importlib.import_module("tiny.clip")
    logits = torch.randn(5, 5, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.cross_entropy(logits, torch.arange(5))
    torch.testing.assert_close(clip.cross_entropy(logits, torch.eye(5)), expected)
    assert clip.cross_entropy(logits, torch.ones(5, 5)).abs() < 1e-6  # nothing is wrong


@pytest.mark.parametrize(
    ("picture", "words", "right"),
    [
        (("dog", "photo"), ("dog", "photo"), True),
        (("dog", "photo"), ("dog", "sketch"), False),
        (("dog", "photo"), ("dog", ""), True),
        (("dog", ""), ("dog", "photo"), True),
        (("dog", "photo"), ("cat", "photo"), False),
    ],
)
def test_which_words_fit_a_picture(picture: Any, words: Any, right: bool) -> None:
    assert importlib.import_module("tiny.clip").fits(picture, words) is right


def test_a_batch_holds_what_its_labels_say(trained: Path) -> None:
    """Rows are drawn with replacement, mirrored or not; pictures and labels stay together."""
    data = importlib.import_module("tiny.data")
    world = data.World(trained / "world", 40, 1)
    batch = world.batch(16, torch.Generator().manual_seed(1), random.Random(1))
    from diffsweep.world import training

    drawn = [training(seed, 64) for seed in range(40)]
    for pixels, subject, style in zip(batch.pixels, batch.subjects, batch.styles, strict=True):
        picture = ((pixels + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
        same = [p for p in drawn if (p.pixels == picture).all() or (p.pixels[:, ::-1] == picture).all()]
        assert [(p.subject, p.style) for p in same] == [(subject, style)]


def test_clip_sees_half_its_pictures_as_one_band() -> None:
    """scipy's Gaussian as the oracle: a quarter low, a quarter what the low band leaves, the rest as they were."""
    from scipy.ndimage import gaussian_filter

    clip = importlib.import_module("tiny.clip")
    pictures = torch.rand(16, 3, 32, 32, generator=torch.Generator().manual_seed(0)) - 0.5
    sigma = random.Random(3).uniform(1, 4)
    low = torch.from_numpy(gaussian_filter(pictures.double().numpy(), (0, 0, sigma, sigma), mode="mirror", truncate=9))
    kinds = {"whole": pictures, "low": low.float(), "high": pictures - low.float()}
    shown = clip.banded(pictures, random.Random(3))
    named = [
        [name for name, rows in kinds.items() if (rows[i] - row).abs().max() < 1e-2] for i, row in enumerate(shown)
    ]
    assert sorted(map(tuple, named)) == [("high",)] * 4 + [("low",)] * 4 + [("whole",)] * 8


def test_the_second_stages_loss_is_the_velocitys_as_diffusers_has_it() -> None:
    diffusion = importlib.import_module("tiny.diffusion")
    generator = torch.Generator().manual_seed(0)
    x0, eps, off = (torch.randn(4, 3, 8, 8, generator=generator) for _ in range(3))
    t = torch.tensor([0, 300, 600, 999])
    scheduler = diffusion.scheduler(1.0, "v_prediction")
    a = scheduler.alphas_cumprod
    x = scheduler.add_noise(x0, eps, t)
    velocity, variance = scheduler.get_velocity(x0, eps, t), torch.zeros_like(x0)
    for wrong, expected in ((0.0, 0.0), (0.1, (0.1 * off).square().mean().item())):
        output = torch.cat([velocity + wrong * off, variance], 1)
        simple, bound, penalty = diffusion.losses(output, x0, x, eps, t, a, True)
        assert simple.item() == pytest.approx(expected, abs=1e-6)
        assert penalty == 0
        if not wrong:  # the noise that it means is the true one: so is the bound of the variance
            told = diffusion.losses(torch.cat([eps, variance], 1), x0, x, eps, t, a)[1]
            torch.testing.assert_close(bound, told, atol=1e-4, rtol=1e-3)


def test_the_latent_models_ship_their_parts_in_half_precision(trained: Path, exported: Path) -> None:
    """The averages of the network and of the autoencoder, and the embedded CLIP's text encoder as it is."""
    from safetensors.torch import load_file

    clip = load_file(SCRIPTS.parent / "src" / "diffsweep" / "model" / "tiny_clip" / "model.safetensors")
    vae = checkpoint_of(trained / "vae")["average"]
    for part, folder in (("latent", "unet"), ("flow", "transformer")):
        average = checkpoint_of(trained / part)["average"]
        for expected, name in ((average, folder), (vae, "vae")):
            weights = load_file(exported / part / name / "diffusion_pytorch_model.safetensors")
            assert weights.keys() == expected.keys()
            assert all(torch.equal(value, expected[key].half()) for key, value in weights.items())
        names = ("text_encoder",) if part == "latent" else ("text_encoder", "text_encoder_2")
        for file in (exported / part / name / "model.safetensors" for name in names):
            weights = load_file(file)
            assert all(torch.equal(value, clip[key]) for key, value in weights.items())


def test_diffusers_loads_the_latent_models_and_draws(exported: Path) -> None:
    from diffusers import StableDiffusion3Pipeline, StableDiffusionPipeline

    sd = StableDiffusionPipeline.from_pretrained(exported / "latent")
    flow = StableDiffusion3Pipeline.from_pretrained(exported / "flow")
    assert sd.unet.dtype == sd.text_encoder.dtype == flow.transformer.dtype == flow.text_encoder_2.dtype
    assert sd.tokenizer.model_max_length == flow.tokenizer_2.model_max_length == 77
    assert not flow.text_encoder_3(torch.tensor([[3, 2, 1]]))[0].any()
    assert sd.vae.config.scaling_factor == flow.vae.config.scaling_factor != 0.18215
    for pipeline in (sd, flow):
        pipeline.set_progress_bar_config(disable=True)
        generator = torch.Generator().manual_seed(0)
        image = pipeline("A dog, quickly!", num_inference_steps=2, generator=generator).images[0]
        assert image.size == (128, 128)


def test_latents_have_unit_variance_and_are_those_of_the_pictures(trained: Path) -> None:
    """Every other picture mirrored; the scale makes their standard deviation 1."""
    from diffsweep.world import training

    data, latent = (importlib.import_module(f"tiny.{name}") for name in ("data", "latent"))
    codec = latent.codec(trained)
    world = data.World(trained / "world", 40, 1, size=128)
    latents = latent.Latents(world, codec, trained / "world", "cpu")
    batch = latents.batch(40, torch.Generator().manual_seed(0), random.Random(0))
    assert batch.latents.shape == (40, 4, 16, 16)
    assert latents.scale * np.sqrt(latents.posteriors[:, 0].var() + np.square(latents.posteriors[:, 1]).mean()) == (
        pytest.approx(1, abs=0.01)
    )
    for seed in range(8):
        pixels = torch.from_numpy(training(seed, 128).pixels.copy()).permute(2, 0, 1)[None] / 127.5 - 1
        asis, mirrored = (codec.vae.encode(p).latent_dist.mean[0].numpy() for p in (pixels, pixels.flip(-1)))
        right, wrong = (mirrored, asis) if seed % 2 else (asis, mirrored)
        errors = [np.abs(latents.posteriors[seed, 0] - expected).mean() for expected in (right, wrong)]
        assert errors[0] < 0.02 < errors[1]


def test_the_flow_is_trained_on_what_its_pipeline_shows_it(trained: Path) -> None:
    """One weighted zero token answers as the pipeline's 256 do, in diffusers' own attention."""
    latent = importlib.import_module("tiny.latent")
    part = latent.Flow(latent.codec(trained), 1.0, (32,), None)
    for network in (part.words.text_encoder, part.words.text_encoder_2, part.module):
        network.double()
    generator = torch.Generator().manual_seed(0)
    for weight in part.module.parameters():
        weight.data.normal_(std=0.1, generator=generator)
    x, t = torch.randn(2, 4, 16, 16, generator=generator, dtype=torch.float64), torch.tensor([300.0, 900.0])
    prompts = ["a dog", "a sketch of an owl"]
    shown, _, pooled, _ = part.words.encode_prompt(prompts, None, None, "cpu", do_classifier_free_guidance=False)
    assert shown.shape == (2, 77 + 256, 256)
    with torch.no_grad():
        expected = part.module(x, shown, pooled, t).sample
        told = part.predict(x, t, part.embedded(prompts))
        part.module.set_attn_processor(latent.Weighted(1))
        unweighted = part.module(x, *part.embedded(prompts), t).sample
    torch.testing.assert_close(told, expected, atol=1e-5, rtol=1e-5)
    assert (unweighted - expected).abs().max() > 1e-3


def test_the_latent_models_targets_lead_back_to_the_picture(trained: Path) -> None:
    """From x and the true answer, diffusers' schedulers step to the clean latent."""
    latent = importlib.import_module("tiny.latent")
    codec = latent.codec(trained)
    generator = torch.Generator().manual_seed(0)
    x0, eps = (torch.randn(1, 4, 16, 16, generator=generator) for _ in range(2))
    sd = latent.Latent(codec, 1.0, (16, 32), None)
    x, t, target = sd.noised(x0, eps, torch.tensor([0.6]))
    told = sd.words.scheduler
    told.set_timesteps(1000)
    torch.testing.assert_close(told.step(target, int(t), x).pred_original_sample, x0, atol=1e-4, rtol=1e-4)
    flow = latent.Flow(codec, 1.0, (32,), None)
    x, t, target = flow.noised(x0, eps, torch.tensor([0.5]))
    assert t.item() == pytest.approx(500)  # the median of the logit-normal
    torch.testing.assert_close(flow.words.scheduler.scale_noise(x0, t, eps), x, atol=1e-2, rtol=1e-2)
    torch.testing.assert_close(x - t / 1000 * target, x0, atol=1e-5, rtol=1e-5)


def test_a_latent_model_is_not_exported_with_another_encoder(trained: Path, tmp_path: Path) -> None:
    """A decoder trained on keeps the latents as they were; another encoder does not."""
    latent = importlib.import_module("tiny.latent")
    codec, recipe = latent.codec(trained), json.loads((trained / "latent" / "recipe.json").read_text())
    average = checkpoint_of(trained / "latent")["average"]
    codec.vae.decoder.conv_in.weight.data.zero_()
    latent.save(average, recipe, codec, tmp_path / "kept")
    codec.vae.encoder.conv_in.weight.data.zero_()
    with pytest.raises(SystemExit, match="another autoencoder"):
        latent.save(average, recipe, codec, tmp_path / "other")


def test_a_decoder_goes_on_alone(trained: Path, exported: Path, tmp_path: Path) -> None:
    latent = importlib.import_module("tiny.latent")
    alone = (*SMALL, *PARTS["vae"], "--decoder")
    with pytest.raises(SystemExit, match="--start"):
        run("vae", "--steps", 2, "--out", tmp_path / "vae", "--cache", trained / "world", *alone)
    start = ("--start", exported / "latent", "--device", "cpu")
    run("vae", "--steps", 2, "--out", tmp_path / "vae", "--cache", trained / "world", *start, *alone)
    before, after = latent.codec(trained), latent.codec(tmp_path)
    assert before.id == after.id
    assert not torch.equal(before.vae.decoder.conv_in.weight, after.vae.decoder.conv_in.weight)


def test_the_latent_models_are_gone_on_from(trained: Path, exported: Path) -> None:
    """Without a trained autoencoder beside them, from the exported one."""
    latent = importlib.import_module("tiny.latent")
    for part in ("latent", "flow"):
        codec = latent.codec(exported / "nothing", exported / part)
        assert codec.id == latent.codec(trained).id
        begun = latent.KINDS[part](codec, 1.0, tuple(int(c) for c in PARTS[part][1:]), exported / part)
        average = checkpoint_of(trained / part)["average"]
        assert all(
            torch.equal(value, average[name].half().float()) for name, value in begun.module.state_dict().items()
        )


def test_a_latent_models_card_tells_how_well_pictures_are_given_back(exported: Path) -> None:
    """scikit-image's PSNR, of the exported autoencoder as diffusers loads it."""
    from diffusers import AutoencoderKL
    from skimage.metrics import peak_signal_noise_ratio

    from diffsweep.world import held_out

    vae = AutoencoderKL.from_pretrained(exported / "latent" / "vae")
    each = []
    for index in range(147):
        pixels = held_out(index, 128).pixels
        x = torch.from_numpy(pixels / 127.5 - 1).float().permute(2, 0, 1)[None]
        with torch.no_grad():
            again = vae(x).sample[0].clamp(-1, 1).permute(1, 2, 0).numpy()
        each.append(peak_signal_noise_ratio(pixels / 127.5 - 1, again, data_range=2))
    card = " ".join((exported / "latent" / "README.md").read_text().split())
    told = float(card.partition("n = 147: PSNR ")[2].split()[0])
    assert told == pytest.approx(np.mean(each), abs=0.02)
