"""The training script end to end on a very small model: a few steps, going on, and an export that diffusers loads."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parent.parent / "scripts" / "train_tiny.py"
SMALL = ("--channels", "16", "32", "--pictures", "40", "--batch", "4", "--workers", "1", "--threads", "1")


def run(*arguments: object) -> None:
    """The script's command line, in this process."""
    spec = importlib.util.spec_from_file_location("train_tiny", SCRIPT)
    assert spec and spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.main([str(argument) for argument in arguments])


def checkpoint_of(folder: Path) -> dict:
    return torch.load(folder / "checkpoint.pt", weights_only=True)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three steps, then three more from the checkpoint."""
    out, threads = tmp_path_factory.mktemp("trained"), torch.get_num_threads()
    common = ("--out", out, "--device", "cpu", "--samples-every", 0, *SMALL)
    run("train", "--steps", 3, *common)
    assert checkpoint_of(out)["state"]["step"] == 3
    run("train", "--steps", 6, *common)
    torch.set_num_threads(threads)
    return out


@pytest.fixture(scope="module")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("exported")
    run("export", "--checkpoint", trained, "--to", to)
    return to


def test_the_checkpoint_holds_all_that_going_on_needs(trained: Path) -> None:
    saved = checkpoint_of(trained)
    assert saved["state"]["step"] == 6
    assert {"model", "average", "optimiser", "state"} == set(saved)
    assert all(value["step"] == 6 for value in saved["optimiser"]["state"].values())
    assert json.loads((trained / "recipe.json").read_text())["steps"] == 6


def test_export_writes_the_average_in_half_precision(trained: Path, exported: Path) -> None:
    from safetensors.torch import load_file

    average = checkpoint_of(trained)["average"]
    weights = load_file(exported / "unet" / "diffusion_pytorch_model.safetensors")
    assert weights
    for name, value in weights.items():
        assert value.dtype == torch.float16
        assert torch.equal(value, average[f"unet.{name}"].half()), name


def test_diffusers_loads_the_export_and_draws(exported: Path) -> None:
    from diffusers import IFPipeline

    pipeline = IFPipeline.from_pretrained(exported)
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline.unet.dtype == pipeline.text_encoder.dtype == torch.float32
    image = pipeline("A dog, quickly!", num_inference_steps=2, generator=torch.Generator().manual_seed(0)).images[0]
    assert np.asarray(image).shape == (32, 32, 3)


def test_the_tokenizer_reads_any_words(exported: Path) -> None:
    from transformers import AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(exported / "tokenizer")
    known = tokens("an oil painting of a snowy mountain village").input_ids
    assert len(known) == 9  # a piece a word, and the end
    unknown = tokens("zebra xylophone, 42% of q's!").input_ids
    assert tokens.unk_token_id not in unknown
    assert tokens.decode(known, skip_special_tokens=True) == "an oil painting of a snowy mountain village"


def test_the_card_says_how_it_was_made(exported: Path) -> None:
    card = (exported / "README.md").read_text()
    assert "6 steps, 24 pictures seen" in card
    assert "channels [16, 32]" in card
