"""Text as numbers: corpora, vocabularies, contiguous windows, and n-gram models to compare with."""

from lstm_optax.data.ngram import ngram_losses
from lstm_optax.data.text import (
    Batch,
    TextError,
    Vocabulary,
    Windows,
    read_text,
    split,
    topics_text,
)

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
