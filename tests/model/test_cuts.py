"""Prompts that are too long for their text encoders are noted before anything is loaded, by the tokenizers' count."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from diffsweep.core.types import AGAINST
from diffsweep.model.checkpoint import Checkpoint, TextKeys
from diffsweep.model.deepfloyd import DeepFloyd
from diffsweep.model.latent import ClipText, LatentUpscaler
from diffsweep.model.t5 import T5
from diffsweep.model.text import Cut
from diffsweep.runner.cost import Speed
from diffsweep.runner.foresee import foresee
from diffsweep.runner.listener import Listener
from tests.checkpoints import FAMILIES

READERS = [name for name in FAMILIES if name not in ("ddpm", "dit", "qwen_image")]
LONG = "a red dog, " * 60


@pytest.fixture
def truncated(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens each call of a tokenizer leaves out, as pipelines make them."""
    call, found = PreTrainedTokenizerBase.__call__, []

    def watched(self: Any, text: Any, *more: Any, **options: Any) -> Any:
        if options.get("truncation"):
            (one,) = [text] if isinstance(text, str) else text
            found.append(max(0, len(call(self, one, verbose=False).input_ids) - options["max_length"]))
        return call(self, text, *more, **options)

    monkeypatch.setattr(PreTrainedTokenizerBase, "__call__", watched)
    return found


@pytest.mark.parametrize(
    "name, length",
    [*((name, None) for name in READERS), *((name, 40) for name in READERS if name not in ("sd", "sdxl"))],
)
def test_what_is_cut_is_what_the_pipeline_cuts(
    name: str, length: int | None, folders: Callable[..., Path], truncated: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    """Its own warnings are not heard: planning told."""
    keys = TextKeys() if length is None else TextKeys(max_length=length)
    model = Checkpoint(str(folders(name)), text=keys)
    negative = [AGAINST + LONG] if name in ("sana", "lumina2") else []
    for prompt in ("a dog", LONG, f"  {LONG.upper()} ", *negative):
        model.load("cpu").encode([prompt])
        if name == "lumina2":  # which reads a prompt as a negative one too
            truncated[:] = truncated[1:] if prompt.startswith(AGAINST) else truncated[:1]
        own = [cut.tokens for cut in model.cuts(prompt) for _ in cut.tokenizers]
        assert sorted(own) == sorted(filter(None, truncated))
        assert own or prompt == "a dog"
        truncated.clear()
    assert not caplog.messages


@pytest.mark.parametrize("name", ["z_image", "qwen_image", "lumina2"])
def test_what_is_cut_is_what_a_longer_text_has_more(name: str, folders: Callable[..., Path]) -> None:
    """The tokens that the network is told of."""
    longest = Checkpoint(str(folders(name))).family.lengths
    assert longest is not None

    def told(length: int) -> int:
        model = Checkpoint(str(folders(name)), text=TextKeys(max_length=length)).load("cpu")
        model.encode(["a red dog"])
        return int(model.embedding("a red dog")["mask"].sum())

    (cut,) = Checkpoint(str(folders(name)), text=TextKeys(max_length=5)).cuts("a red dog")
    assert cut.kept == told(5) == 5
    assert cut.tokens == told(longest[1]) - 5
    assert cut.most == longest[1]


def test_other_text_encoders_count_likewise(checkpoint: Path, latent: Path) -> None:
    """Tokens of letters; T5 ends a text with one more, CLIP has one at either end."""
    letters = "abcdefghij" * 10
    (cut,) = DeepFloyd(str(checkpoint), text=T5(max_length=20)).cuts(letters.upper() + "  ")
    tokens = AutoTokenizer.from_pretrained(checkpoint / "tokenizer")(letters).input_ids
    assert cut == Cut(len(tokens) - 20, ("tokenizer",), 20, 512)
    assert not DeepFloyd(str(checkpoint), text=T5(max_length=512)).cuts(letters)
    upscaler = LatentUpscaler(str(latent), None, "float32", False, ClipText(), (8, 8))
    assert upscaler.cuts(letters) == [Cut(len(letters) + 2 - 77, ("tokenizer",), 77)]
    assert not upscaler.cuts("abc") and not Checkpoint("tiny_sd").cuts("a dog")


NOTES = {  # "abc " * n is 4 n letters; T5 adds one token, CLIP two
    ("sd", 30, None): ["its last 45 tokens are cut, the model's tokenizer keeps 77"],
    ("sdxl", 19, None): ["its last 1 token is cut, the model's tokenizer and tokenizer_2 keep 77"],
    ("pixart", 30, 40): ["its last 80 tokens are cut by model.text.max_length=40; 120 keeps all"],
    ("pixart", 200, None): ["its last 500 tokens are cut by model.text.max_length=300; it can be 512 at most"],
    ("flux", 30, 100): [
        "its last 45 tokens are cut, the model's tokenizer keeps 77",
        "its last 21 tokens are cut by model.text.max_length=100; 121 keeps all",
    ],
    ("flux", 10, None): [],
    ("ddpm", 0, None): [],
}


@pytest.mark.parametrize("name, repeats, length", NOTES)
def test_what_is_cut_is_noted_while_planning(
    name: str,
    repeats: int,
    length: int | None,
    config: Callable[..., dict[str, Any]],
    folders: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Once for each prompt, whatever the seeds."""
    told: list[str] = []
    monkeypatch.setattr(Listener, "note", lambda self, text: told.append(text))
    monkeypatch.setattr("diffsweep.runner.foresee.timed", lambda cell, rows, device: Speed(1.0, "call", "told"))
    usual = {"model": "tiny_sd", "model__path": str(folders(name)), "scheduler": "euler", "scheduler__steps": 2}
    usual |= {"output_dir": str(tmp_path), "prompt": "abc " * repeats if repeats else "auto"}
    usual |= {"model__text__max_length": length} if length else {}
    foresee([(config(**usual, seed=seed), {"seed": seed}) for seed in (0, 1)], "mine")
    shown = ("abc " * repeats)[:39] + "…"
    found = [text for text in told if "cut" in text]
    assert found == [f"note: prompt={shown}: {text}" for text in NOTES[name, repeats, length]]
