"""Which words of a prompt a tokenizer has no piece for. Needs no torch.

A small vocabulary spells such a word letter by letter, or has a mark for what it cannot spell: the text encoder then
reads what it never met in training.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from string import punctuation
from typing import TYPE_CHECKING

from diffsweep.core.problems import BadInput

if TYPE_CHECKING:
    from tokenizers import Tokenizer

UNKNOWN = "<unk>"
SPACE = "▁"  # begins a word's first piece
LETTERS = 3  # so many single letters after the first piece are a word that is spelled


def unknown(file: Path, prompt: str) -> tuple[str, ...]:
    """The words of a prompt that a tokenizer.json does not know; none where there is no such file."""
    words = words_of(prompt)
    if not words or not file.is_file():
        return ()
    tokenizer = _tokenizer(file)
    mark = tokenizer.token_to_id(UNKNOWN)
    read = {word: tokenizer.encode(word, add_special_tokens=False) for word in words}
    return tuple(word for word, encoding in read.items() if mark in encoding.ids or _spelled(encoding.tokens))


def words_of(prompt: str) -> tuple[str, ...]:
    """The distinct words of a prompt, in small letters."""
    words = (word.strip(punctuation) for word in prompt.lower().split() if any(map(str.isalpha, word)))
    return tuple(dict.fromkeys(words))


def _spelled(pieces: list[str]) -> bool:
    first, *rest = [piece.removeprefix(SPACE) for piece in pieces if piece != SPACE] or [""]
    return len(rest) >= LETTERS - (len(first) == 1) and all(len(piece) == 1 for piece in rest)


@lru_cache
def _tokenizer(file: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing narrower
        raise BadInput(f"{file}: not a tokenizer that can be read ({error})") from None
