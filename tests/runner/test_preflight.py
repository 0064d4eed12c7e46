"""Is there room? Asked before anything is downloaded or loaded, with what would mend it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from diffsweep.core.problems import BadInput
from diffsweep.model import memory
from diffsweep.model.deepfloyd import DeepFloyd
from diffsweep.model.t5 import T5
from diffsweep.runner import preflight, run, sampling
from diffsweep.runner.cell import Cell
from diffsweep.runner.freeze import freeze
from tests.running import run_sweep

MB = 10**6


# -- counting ----------------------------------------------------------------------------------------------------------
def test_the_peak_is_what_lives_at_one_time() -> None:
    """4 MB each: the sum's second term is made while its first still lives; a view takes nothing."""
    x = torch.zeros(1000, 1000)
    assert memory.peak(lambda: x.t()) == 0
    assert memory.peak(lambda: x + 1) == 4 * MB
    assert memory.peak(lambda: (x + 1) + 1) == 8 * MB
    assert memory.peak(lambda: [x + i for i in range(3)]) == 12 * MB
    assert memory.peak(lambda: [(x + i).sum() for i in range(3)]) == pytest.approx(4 * MB, abs=100)


def test_a_convolutions_peak_is_its_closed_form() -> None:
    """Two layers of 64 channels on 32 x 32: input and output of the second live together."""
    with torch.device("meta"):
        layers = torch.nn.Sequential(torch.nn.Conv2d(3, 64, 3, padding=1), torch.nn.Conv2d(64, 64, 3, padding=1))
        x = torch.empty(1, 3, 32, 32)
        assert memory.peak(lambda: layers(x)) == 2 * 64 * 32 * 32 * 4


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_models_needs_are_those_of_its_parameters(checkpoint: Path, loaded: Any, dtype: str) -> None:
    from transformers import T5EncoderModel

    need = DeepFloyd(str(checkpoint), dtype=dtype).needs("cpu")
    width = getattr(torch, dtype).itemsize
    assert need.weights == width * sum(p.numel() for p in loaded.network.parameters())
    text = T5EncoderModel.from_pretrained(checkpoint / "text_encoder")
    assert need.text == 4 * sum(p.numel() for p in text.parameters())
    assert need.row > 16 * 16 * 16 * width  # a map of the first level's at least


def test_the_meta_devices_peak_is_the_processors(checkpoint: Path, loaded: Any) -> None:
    """The same count over a call with real numbers in it."""
    x, t = torch.zeros(1, 3, 16, 16), torch.tensor([500])
    states = torch.zeros(1, 77, 16)
    real = memory.peak(lambda: loaded.network(x, t, encoder_hidden_states=states, return_dict=False))
    assert DeepFloyd(str(checkpoint)).needs("cpu").row == pytest.approx(real, rel=0.15)
    wide = memory.peak(
        lambda: loaded.network(torch.zeros(1, 3, 16, 48), t, encoder_hidden_states=states, return_dict=False)
    )
    stage = replace(DeepFloyd(str(checkpoint)).stage(), shape=(3, 16, 48))
    config = DeepFloyd(str(checkpoint)).source.config("unet", "config.json")
    assert memory.unet(config, stage, "float32")[1] == pytest.approx(wide, rel=0.15)


@pytest.mark.slow
def test_the_largest_models_weights_are_known() -> None:
    """IF-I-XL has 4.3 billion parameters (its card): 8.6 GB in half precision."""
    config = DeepFloyd().source.config("unet", "config.json") | {
        "sample_size": 64, "block_out_channels": [704, 1408, 2112, 2816], "layers_per_block": 3,
        "norm_num_groups": 32, "attention_head_dim": 64, "encoder_hid_dim": 4096, "cross_attention_dim": 2816,
        "addition_embed_type_num_heads": 64, "act_fn": "gelu",
        "down_block_types": ["ResnetDownsampleBlock2D"] + ["SimpleCrossAttnDownBlock2D"] * 3,
        "up_block_types": ["SimpleCrossAttnUpBlock2D"] * 3 + ["ResnetUpsampleBlock2D"],
    }  # fmt: skip
    stage = replace(DeepFloyd().stage(), shape=(3, 64, 64))
    weights, row, _ = memory.unet(config, stage, "bfloat16")
    assert weights == pytest.approx(8.6e9, rel=0.01)
    assert 50 * MB < row < 500 * MB


# -- what is told ------------------------------------------------------------------------------------------------------
class Sized:
    """A model of known needs, in bytes. text: whether its text encoder has keys of its own."""

    def __init__(
        self, text: int, weights: int, row: int, dtype: str = "float32", keys: bool = True, prompt: int = 0
    ) -> None:
        self.need, self.dtype = memory.Needs(text, weights, row, prompt), dtype
        if keys:
            self.text = T5()

    def needs(self, device: str) -> memory.Needs:
        return self.need

    def size(self) -> int:
        return self.need.weights


@pytest.fixture
def cells(config: Callable[..., dict[str, Any]]) -> Callable[..., list[Cell]]:
    def made(**models: Sized) -> list[Cell]:
        first = replace(freeze(config(), {}), model=models["model"])
        if "upscale" not in models:
            return [first]
        return [
            first,
            replace(first, base=first, upscale=SimpleNamespace(model=models["upscale"], prompts_for=lambda p: p)),
        ]

    return made


@pytest.fixture(autouse=True)
def card(monkeypatch: pytest.MonkeyPatch) -> None:
    """1,000 bytes free."""
    monkeypatch.setattr(preflight, "available", lambda device: 1000)


def test_embeddings_count_for_each_distinct_prompt_up_to_those_held(
    cells: Callable[..., list[Cell]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (first,) = cells(model=Sized(0, 300, 100, prompt=100))  # a prompt and the empty one
    many = [replace(first, prompt=f"dog {i}") for i in range(9)]
    for own, rows in (([first], 5), ([first, first], 5), (many[:2], 4)):
        assert preflight.memory(own, "cuda", {"model": 32}, chosen=False) == {"model": rows}
    with pytest.raises(BadInput, match="the weights take"):
        preflight.memory(many, "cuda", {"model": 32}, chosen=False)
    monkeypatch.setattr(preflight, "HELD", 3)
    assert preflight.memory(many, "cuda", {"model": 32}, chosen=False) == {"model": 4}


def test_rows_are_as_many_as_fit_each_stage(cells: Callable[..., list[Cell]]) -> None:
    both = cells(model=Sized(0, 300, 10), upscale=Sized(0, 300, 150))
    assert preflight.memory(both, "cuda", {"model": 32, "upscale": 32}, chosen=False) == {"model": 32, "upscale": 2}
    assert preflight.memory(both, "cuda", {"model": 8, "upscale": 1}, chosen=True) == {"model": 8, "upscale": 1}


@pytest.mark.parametrize(
    ("models", "chosen", "told"),
    [
        ({"model": Sized(1200, 1, 1)}, False, "its text encoder takes .*model.text.load_in_8bit=true takes less"),
        ({"model": Sized(1200, 1, 1, keys=False)}, False, "its text encoder takes .*: a device with more memory"),
        (
            {"model": Sized(0, 600, 1), "upscale": Sized(0, 600, 1, "bfloat16")},
            False,
            "the weights take .*model .*upscale .* model.dtype=bfloat16 takes half",
        ),
        ({"model": Sized(0, 1600, 1, "bfloat16")}, False, "the weights take .* choose a smaller model; a device with"),
        ({"model": Sized(0, 900, 200)}, False, "engine.rows=1: model takes .* a row beside"),
        ({"model": Sized(0, 500, 100)}, True, "engine.rows=8: model takes .*; 5 rows fit"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told(
    cells: Callable[..., list[Cell]], models: dict[str, Sized], chosen: bool, told: str
) -> None:
    with pytest.raises(BadInput, match=told):
        preflight.memory(cells(**models), "cuda", dict.fromkeys(models, 8), chosen)


def test_a_huge_picture_of_a_small_model_is_counted_on_a_processor_too(
    cells: Callable[..., list[Cell]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "available", lambda device: 10_000)
    (usual,) = cells(model=Sized(0, 1, 20_000))
    huge = replace(usual, stage=replace(usual.stage, shape=(3, 1024, 1024)))
    assert preflight.memory([usual], "cpu", {"model": 8}, chosen=False) == {"model": 8}
    with pytest.raises(BadInput, match=r"engine\.rows=1: model takes 0\.02 MB a row"):
        preflight.memory([huge], "cpu", {"model": 8}, chosen=False)


def test_a_processor_is_not_offered_as_the_way_out_of_a_processors_memory(cells: Callable[..., list[Cell]]) -> None:
    with pytest.raises(BadInput, match=r"text encoder takes .* free on cpu: a device with more memory is needed$"):
        preflight.memory(cells(model=Sized(1200, 200, 1)), "cpu", {"model": 8}, False)


def test_a_sweep_that_does_not_fit_loads_nothing(
    config: Callable[..., dict[str, Any]], checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "_models", {})
    monkeypatch.setattr(DeepFloyd, "load", lambda *arguments: pytest.fail("loaded"))
    raw = config(model="tiny", model__path=str(checkpoint), output_dir=str(tmp_path / "outputs"))
    with pytest.raises(BadInput, match=r"0\.0 GB are free on cpu"):
        run_sweep([(raw, {})], "mine")


def test_a_disk_that_is_too_small_is_told(cells: Callable[..., list[Cell]], monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = Sized(0, 1, 1)
    model.missing = lambda: {"a/unet": 3 * 10**9, "a/t5": 2 * 10**9}
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("Usage", (), {"free": 4 * 10**9}))
    with pytest.raises(BadInput, match=r"5\.0 GB to download, 4\.0 GB free in .*HF_HOME"):
        preflight.disk(cells(model=model))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("Usage", (), {"free": 6 * 10**9}))
    preflight.disk(cells(model=model))


# -- devices, and shapes that were recorded ----------------------------------------------------------------------------
@pytest.mark.skipif(torch.cuda.is_available(), reason="what is told where there is no CUDA device")
def test_a_device_that_is_not_there_is_told(config: Callable[..., dict[str, Any]], checkpoint: Path) -> None:
    own = [freeze(config(model="tiny", model__path=str(checkpoint), model__text__device="cuda"), {})]
    assert preflight.device("auto", []) == preflight.device("cpu", []) == "cpu"
    with pytest.raises(BadInput, match=r"^device=cuda:1: no CUDA device is available"):
        preflight.device("cuda:1", [])
    with pytest.raises(BadInput, match=r"^model\.text\.device=cuda: no CUDA device is available"):
        preflight.device("cpu", own)


def test_a_recorded_shape_that_fits_no_more_is_told(
    config: Callable[..., dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(seeds: int) -> list[int]:
        raw = [
            (config(model__size=4, scheduler__steps=1, output_dir=str(tmp_path), seed=seed), {"seed": seed})
            for seed in range(seeds)
        ]
        document = json.loads((run_sweep(raw, "mine").folder / "sweep.json").read_bytes())
        return [run["rows"] for run in document["runs"]]

    most = run(4)
    assert most[0] > 2
    monkeypatch.setattr(preflight, "memory", lambda cells, device, rows, chosen: dict.fromkeys(rows, 2))
    assert run(6) == [*most, 2]
    assert "only 2 fit in memory now. Pictures may differ" in capsys.readouterr().err
    monkeypatch.undo()
    assert run(7) == [*most, 2, *most]
    assert "may differ" not in capsys.readouterr().err


def test_rows_that_no_memory_holds_are_refused_before_anything_is_loaded(
    config: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint: Path
) -> None:
    monkeypatch.setattr(preflight, "available", lambda device: 10e9)
    monkeypatch.setattr(sampling, "_models", {})
    monkeypatch.setattr(DeepFloyd, "load", lambda *arguments: pytest.fail("loaded"))
    for model in ({"model": "analytic"}, {"model": "tiny", "model__path": str(checkpoint)}):
        raw = config(**model, engine__rows=10**7, output_dir=str(tmp_path / "outputs"))
        with pytest.raises(BadInput, match=r"^engine\.rows=10000000: model takes .* MB a row .*; \d+ rows fit$"):
            run_sweep([(raw, {})], "mine")


def test_rows_that_nobody_asks_for_are_told_and_far_too_many_refused(
    config: Callable[..., dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Two cells of a guided picture ask for 2 x 2 rows at once."""
    monkeypatch.setattr(preflight, "available", lambda device: 10e9)
    monkeypatch.setattr(sampling, "_models", {})

    def run(rows: int) -> str:
        held = {
            "model__size": 4,
            "scheduler__steps": 2,
            "guidance__scale": 3.0,
            "output_dir": str(tmp_path / str(rows)),
        }
        run_sweep([(config(**held, engine__rows=rows, seed=seed), {"seed": seed}) for seed in (0, 1)], "mine")
        return capsys.readouterr().err

    assert "padding" not in run(4)
    assert "note: engine.rows=9: 5 of them are padding, this sweep asks model for at most 4 at once\n" in run(9)
    assert "padding" in run(1028)
    with pytest.raises(BadInput, match=r"^engine\.rows=1029: 1025 of them are padding.*; at most 1024 .* 1028 rows$"):
        run(1029)
    assert not (tmp_path / "1029" / "sweeps" / "mine" / "sweep.json").exists()


@pytest.mark.parametrize(("key", "value", "most"), [("threads", 10**6, 1024), ("trajectory", 10**9, 10_000)])
def test_numbers_that_no_machine_bears_are_refused(
    config: Callable[..., dict[str, Any]], key: str, value: int, most: int
) -> None:
    with pytest.raises(BadInput, match=rf"^engine\.{key}={value}: must be between \d and {most}$"):
        run.plan([(config(**{f"engine__{key}": value}), {})])


@pytest.mark.parametrize(
    ("dtype", "device", "flags", "noted"),
    [
        ("bfloat16", "cpu", ["fpu", "avx2"], True),
        ("bfloat16", "cpu", ["avx2", "avx512_bf16"], False),
        ("bfloat16", "cpu", ["fp", "asimd", "bf16"], False),  # as an ARM processor names it
        ("bfloat16", "cpu", [], False),  # a system that does not tell
        ("bfloat16", "cuda", ["avx2"], False),
        ("float32", "cpu", ["avx2"], False),
    ],
)
def test_half_precision_on_a_processor_without_it_is_noted(
    cells: Callable[..., list[Cell]], dtype: str, device: str, flags: list[str], noted: bool
) -> None:
    note = preflight.slow(cells(model=Sized(0, 1, 1, dtype)), device, flags)
    assert bool(note) == noted
    if note:
        assert note.startswith("model.dtype=bfloat16: this processor has no bfloat16") and "model.dtype=float32" in note
