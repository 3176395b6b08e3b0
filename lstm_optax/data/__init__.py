"""Text as integer codes: corpora, vocabularies, windows, n-gram models; and synthetic sequences."""

from lstm_optax.data.ngram import ngram_losses
from lstm_optax.data.synthetic import (
    Sequences,
    SequenceTask,
    adding,
    copy_memory,
    delayed_xor,
    temporal_order,
)
from lstm_optax.data.text import (
    TextError,
    Vocabulary,
    split,
    topics_text,
)
from lstm_optax.data.text_file import read_text
from lstm_optax.data.varying_windows import VaryingWindows
from lstm_optax.data.windows import Batch, Windows

__all__ = [
    "Batch",
    "SequenceTask",
    "Sequences",
    "TextError",
    "VaryingWindows",
    "Vocabulary",
    "Windows",
    "adding",
    "copy_memory",
    "delayed_xor",
    "ngram_losses",
    "read_text",
    "split",
    "temporal_order",
    "topics_text",
]
