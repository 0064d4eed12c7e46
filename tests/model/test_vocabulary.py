"""Which words a tokenizer does not know."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from diffsweep.model.deepfloyd import DeepFloyd
from diffsweep.model.vocabulary import unknown
from diffsweep.world import SUBJECTS
from diffsweep.world.captions import STYLE_WORDS, subject_words


def test_the_embedded_model_knows_every_caption_of_its_world() -> None:
    for subject in SUBJECTS:
        for words in subject_words(subject):
            for style in STYLE_WORDS.values():
                assert DeepFloyd().unknown(style[0].format(words)) == ()


@pytest.mark.parametrize(
    "prompt, words",
    [
        ("a photo of an astronaut riding a Horse!", ("astronaut", "riding", "horse")),
        ("a photo of two dogs, 7 hats", ("two",)),
        ("熊猫", ("熊猫",)),
        ("a car and a car", ("car",)),
        ("", ()),
        ("1234 !!!", ()),
    ],
)
def test_the_embedded_model_spells_what_it_does_not_know(prompt: str, words: tuple[str, ...]) -> None:
    assert DeepFloyd().unknown(prompt) == words


def test_a_large_vocabulary_knows_words_in_pieces(tmp_path: Path) -> None:
    pieces = ["<pad>", "<unk>", "▁", "▁sky", "scraper", "▁x", *"abcdefghijklmnopqrstuvwxyz"]
    tokenizer = Tokenizer(models.Unigram([(piece, -float(i)) for i, piece in enumerate(pieces)], 1, False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert unknown(tmp_path / "tokenizer.json", "a skyscraper of glass ☃snow") == ("glass", "☃snow")
    assert unknown(tmp_path / "none.json", "glass") == ()
