"""Text as numbers: corpora, vocabularies, contiguous windows, and n-gram models to compare with."""

from lstm_optax.data.ngram import ngram_losses
from lstm_optax.data.text import (
    TextError,
    Vocabulary,
    read_text,
    split,
    topics_text,
)
from lstm_optax.data.windows import Batch, Windows

__all__ = [
    "Batch",
    "TextError",
    "Vocabulary",
    "Windows",
    "ngram_losses",
    "read_text",
    "split",
    "topics_text",
]
