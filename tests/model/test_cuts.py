"""Prompts that are too long for their text encoders are noted before anything is loaded, by the tokenizers' count."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from diffsweep.core.types import AGAINST
from diffsweep.model.checkpoint import Checkpoint, TextKeys
from tests.checkpoints import FAMILIES

READERS = [name for name in FAMILIES if name not in ("ddpm", "dit")]
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


@pytest.mark.parametrize("name", [name for name in READERS if name != "qwen_image"])
@pytest.mark.parametrize("length", [None, 40])
def test_what_is_cut_is_what_the_pipeline_cuts(
    name: str, length: int | None, folders: Callable[..., Path], truncated: list[int]
) -> None:
    family = Checkpoint(str(folders(name))).family
    if length and not family.lengths:
        pytest.skip("of fixed length")
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
