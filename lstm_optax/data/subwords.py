"""Subwords of the package `tokenizers`: byte-pair encoding of bytes, which encodes any text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from lstm_optax.data.text import TextError

LINE = re.compile("[^\n]*\n|[^\n]+")
LEAST = 257  # the 256 bytes, and a merge of two


class SubwordVocabulary:
    """Byte-pair encoding, learned from a text; each line is encoded by itself.

    Args:
      content: what `tokenizers` stores as tokenizer.json.

    Raises:
      TextError: the package `tokenizers` is not installed.
      ValueError: another content.

    Reference: Sennrich, Haddow & Birch, 2016, arXiv:1508.07909; of bytes: Radford et al., 2019.
    """

    unit: ClassVar[str] = "subword"

    def __init__(self, content: dict[str, Any]):
        try:
            self._tokenizer = _import_tokenizers().Tokenizer.from_str(json.dumps(content))
        except Exception as error:
            if isinstance(error, TextError):
                raise
            raise ValueError(f"not a content of the package tokenizers: {error}") from None
        self.content: dict[str, Any] = content

    @classmethod
    def learn(cls, pieces: Iterable[str], size: int) -> SubwordVocabulary:
        """Return at most `size` subwords, those of a text in pieces."""
        library = _import_tokenizers()
        tokenizer = library.Tokenizer(library.models.BPE())
        tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = library.decoders.ByteLevel()
        trainer = library.trainers.BpeTrainer(
            vocab_size=size,
            initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        lines = chain.from_iterable(map(LINE.findall, pieces))
        tokenizer.train_from_iterator(lines, trainer)
        return cls(json.loads(tokenizer.to_str()))

    def __len__(self) -> int:
        return self._tokenizer.get_vocab_size()

    def encode(self, text: str) -> NDArray[np.int32]:
        """Return the codes [N] of the subwords of a text."""
        found = self._tokenizer.encode_batch_fast(LINE.findall(text))
        return np.fromiter(chain.from_iterable(line.ids for line in found), np.int32)

    def decode(self, codes: NDArray[np.integer]) -> str:
        """Return the text of subwords [N]; what is no UTF-8 becomes U+FFFD."""
        return self._tokenizer.decode(np.asarray(codes).tolist())


def line_pieces(pieces: Iterable[str], longest: int) -> Iterator[str]:
    """Yield a text again in pieces that end with a line, or are longer than `longest`."""
    rest = ""
    for piece in pieces:
        head, end, tail = piece.rpartition("\n")
        if end or len(rest) + len(tail) > longest:
            yield rest + head + end
            rest = ""
        rest += tail
    if rest:
        yield rest


def _import_tokenizers() -> Any:
    try:
        import tokenizers
    except ImportError:
        raise TextError(
            "subwords need the package tokenizers: pip install 'lstm_optax[subwords]'"
        ) from None
    return tokenizers
