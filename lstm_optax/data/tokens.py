"""Kinds of tokens; vocabularies of bytes and words, with the methods of `Vocabulary`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import repeat
from typing import Any, ClassVar, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from lstm_optax.checks import format_value
from lstm_optax.data.subwords import SubwordVocabulary
from lstm_optax.data.text import TextError, Vocabulary

Kind = Literal["characters", "bytes", "words", "subwords"]
KINDS: tuple[Kind, ...] = get_args(Kind)
UNKNOWN, LINE_END = "<unk>", "<eos>"
LONGEST = 2**20  # characters of a word, or of a line that is encoded at once


class ByteVocabulary:
    """The 256 bytes; a text is encoded as UTF-8."""

    unit: ClassVar[str] = "byte"
    content: ClassVar[str] = ""

    def __len__(self) -> int:
        return 256

    def encode(self, text: str) -> NDArray[np.int32]:
        """Return the bytes [N] of a text in UTF-8."""
        return np.frombuffer(text.encode(), np.uint8).astype(np.int32)

    def decode(self, codes: NDArray[np.integer]) -> str:
        """Return the text of bytes [N]; what is no UTF-8 becomes U+FFFD."""
        return np.asarray(codes, np.uint8).tobytes().decode(errors="replace")


class WordVocabulary:
    """Words, which white space separates; the code of a word is its index.

    A line end is the word `<eos>`, and every word outside the vocabulary is `<unk>`, as in the
    language models of the Penn Treebank and WikiText.

    Args:
      words: distinct words; the first is `<unk>`.

    Raises:
      ValueError: words that are repeated, are not texts without white space, or do not begin with
        `<unk>`.
      TextError: fewer than two words, so there is nothing to predict.

    Reference: Mikolov et al., 2010, doi:10.21437/Interspeech.2010-343.
    """

    unit: ClassVar[str] = "word"

    def __init__(self, words: Iterable[str]):
        self.content: list[str] = list(words)
        if not all(isinstance(word, str) and word.split() == [word] for word in self.content):
            raise ValueError("words holds something that is not a word: pass texts without spaces")
        self._codes = {word: code for code, word in enumerate(self.content)}
        if len(self._codes) < len(self.content) or self.content[:1] != [UNKNOWN]:
            raise ValueError(f"words must be distinct, and the first must be {UNKNOWN}")
        if len(self) < 2:
            raise TextError("the text has no words, but a model needs 1 or more: use another text")

    def __len__(self) -> int:
        return len(self.content)

    def encode(self, text: str) -> NDArray[np.int32]:
        """Return the codes [N] of the words of `text`; 0 for a word outside the vocabulary."""
        return self.encode_words(words_in(text))

    def encode_words(self, words: list[str]) -> NDArray[np.int32]:
        """Return the codes [N] of words; 0 for a word outside the vocabulary."""
        return np.fromiter(map(self._codes.get, words, repeat(0)), np.int32, len(words))

    def decode(self, codes: NDArray[np.integer]) -> str:
        """Return the words of `codes` [N], separated by spaces, and a line end for `<eos>`."""
        lines: list[list[str]] = [[]]
        for code in np.asarray(codes):
            word = self.content[code]
            if word == LINE_END:
                lines.append([])
            else:
                lines[-1].append(word)
        return "\n".join(map(" ".join, lines))


AnyVocabulary: TypeAlias = Vocabulary | ByteVocabulary | WordVocabulary | SubwordVocabulary


def vocabulary_of(kind: str, content: Any) -> AnyVocabulary:
    """Return the vocabulary of a kind from its `content`.

    Raises:
      ValueError: an unknown kind, or content of another kind.
    """
    if kind == "characters" and isinstance(content, str):
        return Vocabulary.of(content)
    if kind == "bytes":
        return ByteVocabulary()
    if kind == "words" and isinstance(content, list):
        return WordVocabulary(content)
    if kind == "subwords" and isinstance(content, dict):
        return SubwordVocabulary(content)
    raise ValueError(f"{format_value(content)} is no vocabulary of {kind}")


def words_in(text: str) -> list[str]:
    """Return the words of a text, with `<eos>` for each line end."""
    return text.replace("\n", f" {LINE_END} ").split()


def word_pieces(pieces: Iterable[str]) -> Iterator[list[str]]:
    """Yield the words of a text that comes in pieces.

    Raises:
      TextError: a word of more than a million characters.
    """
    rest = ""
    for piece in pieces:
        text = rest + piece
        rest = "" if not text or text[-1].isspace() else text.rsplit(maxsplit=1)[-1]
        if len(rest) > LONGEST:
            raise TextError(
                f"the text has {len(rest):,} characters without white space, too many for a word: "
                "use the kind characters or bytes"
            )
        yield words_in(text[: len(text) - len(rest)])
    yield words_in(rest)
