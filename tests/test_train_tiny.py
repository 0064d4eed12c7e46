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
    for part in ("stage1", "stage2", "clip"):
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
    for part in ("stage1", "stage2", "clip"):
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
