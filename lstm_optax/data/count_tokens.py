"""Make the vocabulary of a text that is read in pieces."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import TypeVar

from lstm_optax.data.subwords import SubwordVocabulary
from lstm_optax.data.text import Vocabulary
from lstm_optax.data.text_sources import Source, SourceReader
from lstm_optax.data.tokens import UNKNOWN, AnyVocabulary, ByteVocabulary, WordVocabulary

MOST_WORDS = 50_000  # of a vocabulary, by default
MOST_SUBWORDS = 8192
MOST_COUNTED = 2**21  # different words that are counted at a time
MOST_LEARNED = 2**26  # characters that subwords are learned from

Piece = TypeVar("Piece", str, list[str])


def make_vocabulary(
    reader: SourceReader, sources: Sequence[Source], share: float | None, size: int | None
) -> AnyVocabulary:
    """Return the vocabulary of a text.

    Args:
      reader: of the sources; its kind decides.
      sources: all files. Characters come from all of them, so that none is unknown.
      share: words are counted in this share of the words, and subwords learned from this share of
        the characters; None for the files of the part "train".
      size: the largest number of words or subwords.

    Raises:
      TextError: a file cannot be read, or there is nothing to predict.
    """
    if reader.kind == "bytes":
        return ByteVocabulary()
    if reader.kind == "characters":
        found: set[str] = set()
        for _, pieces in reader.read(sources, "finding characters"):
            for piece in pieces:
                found.update(piece)
        return Vocabulary(tuple(sorted(found)))
    counted = [source for source in sources if source.part == "train"]
    limit = MOST_LEARNED if reader.kind == "subwords" else None
    if share is not None:
        label = "counting characters" if reader.kind == "subwords" else "counting all words"
        total = sum(sum(map(len, pieces)) for _, pieces in reader.read(counted, label))
        limit = min(round(share * total), limit or total)
    label = "learning subwords" if reader.kind == "subwords" else "counting each word"
    readings = chain.from_iterable(pieces for _, pieces in reader.read(counted, label))
    pieces = readings if limit is None else _first(readings, limit)
    if reader.kind == "subwords":
        return SubwordVocabulary.learn(pieces, size or MOST_SUBWORDS)
    counts = count_words(pieces)
    counts.pop(UNKNOWN, None)
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    return WordVocabulary([UNKNOWN, *ranked[: (size or MOST_WORDS) - 1]])


def count_words(pieces: Iterable[list[str]], most: int = MOST_COUNTED) -> Counter[str]:
    """Return how often each word occurs, in constant memory.

    The counts are exact if there are at most `most` different words. Whenever there are more, the
    words counted least often are dropped, with a bound that rises by 1 each time.

    Args:
      pieces: lists of words.
      most: the largest number of different words between two pieces.

    Reference: Mikolov et al., 2013, the function ReduceVocab of word2vec.
    """
    counts: Counter[str] = Counter()
    bound = 0
    for words in pieces:
        counts.update(words)
        while len(counts) > most:
            bound += 1
            counts = Counter({word: n for word, n in counts.items() if n > bound})
    return counts


def _first(pieces: Iterable[Piece], limit: int) -> Iterator[Piece]:
    """Yield the first `limit` words or characters."""
    for piece in pieces:
        yield piece[:limit]
        limit -= len(piece)
        if limit <= 0:
            return
