"""A text cut into windows; no JAX here, so that its errors are quick."""

import hashlib
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lstm_optax.data import (
    VaryingWindows,
    Vocabulary,
    Windows,
    ngram_losses,
    read_text,
    split,
    topics_text,
)
from lstm_optax.runs.memory import free_memory
from lstm_optax.runs.options import MOST_STEPS, MOST_VALIDATION, OptionError, TrainConfig

MOST_COUNTED = 5_000_000  # characters on which the n-gram models are counted, at most
BYTES_PER_CHARACTER = 32  # of memory, about, that a text of single-byte characters takes at most


@dataclass(frozen=True)
class Corpus:
    """A text cut into windows."""

    name: str
    sha256: str
    characters: int
    vocabulary: Vocabulary
    train: Windows | VaryingWindows
    validation: Windows
    stream: bool  # read from a pipe, which cannot be read again
    codes: tuple[NDArray[np.int32], NDArray[np.int32]]  # to train on, to validate with

    @property
    def counted(self) -> int:
        """The characters on which the n-gram models are counted, the last ones to train on."""
        return min(len(self.codes[0]), MOST_COUNTED)

    def count_ngrams(self) -> dict[str, float]:
        """Return the losses of the n-gram models on the validation text, in nats per character."""
        train, validation = self.codes
        return ngram_losses(train[-self.counted :], validation, len(self.vocabulary))

    def passes(self, steps: int) -> float:
        """Return how often so many steps read the text to train on."""
        return steps * self.train.mean_length / len(self.train.inputs)


def load_corpus(
    path: Path | None,
    batch: int,
    window: int,
    *,
    encoding: str = "utf-8",
    validation: int | None = None,
    vary_seed: int | None = None,
) -> Corpus:
    """Read a text, or the help topics of Python, and cut it for `batch` rows and `window` steps.

    Args:
      path: a file or a pipe, which is read once; None for the help topics.
      batch, window: see `Windows`.
      encoding: of the file.
      validation: how many characters at the end validate; None for a tenth, at most 100,000.
      vary_seed: if not None, the windows to train on vary in length.

    Raises:
      TextError: the text cannot be read or is too short.
    """
    limit = min(2**30, max(free_memory() // BYTES_PER_CHARACTER, 1))
    text = topics_text() if path is None else read_text(path, encoding=encoding, limit=limit)
    vocabulary = Vocabulary.of(text)
    if validation is None:
        validation = min(round(len(text) * 0.1), MOST_VALIDATION)
    codes = split(vocabulary.encode(text), validation)
    if vary_seed is None:
        windows = Windows.of(codes[0], batch, window)
    else:
        windows = VaryingWindows.of(codes[0], batch, window, seed=vary_seed)
    return Corpus(
        name="pydoc_data.topics" if path is None else str(path),
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        characters=len(text),
        vocabulary=vocabulary,
        train=windows,
        validation=Windows.of(codes[1], batch, window, pad=True),
        stream=path is not None and not path.is_file(),
        codes=codes,
    )


def corpus_of(config: TrainConfig) -> Corpus:
    """Return the corpus of a configuration; raises as `load_corpus`."""
    return load_corpus(
        config.text,
        config.batch,
        config.window,
        encoding=config.encoding,
        validation=config.validation,
        vary_seed=config.seed if config.vary_window else None,
    )


def resolve_epochs(config: TrainConfig, corpus: Corpus) -> TrainConfig:
    """Return the configuration with steps in place of epochs; OptionError if they are too many."""
    if config.epochs is None:
        return config
    steps = max(1, math.ceil(config.epochs / corpus.passes(1) - 1e-9))
    if steps > MOST_STEPS:
        raise OptionError(
            f"--epochs {config.epochs:g} of this text are {steps:,} steps, but at most "
            f"{MOST_STEPS:,} can be taken"
        )
    config = replace(config, steps=steps, epochs=None)
    config.check()
    return config
