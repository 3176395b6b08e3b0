"""A text cut into training and validation windows; imports no JAX, so that errors come fast."""

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
from lstm_optax.runs.constraints import MAX_COUNT, OptionError
from lstm_optax.runs.memory import free_memory
from lstm_optax.runs.options import MAX_VALIDATION, TrainConfig

MAX_COUNTED = 5_000_000  # the n-gram models are counted on at most this many characters
BYTES_PER_CHARACTER = 32  # approximate peak memory while a text of single-byte characters is read


@dataclass(frozen=True)
class Corpus:
    """A text cut into training and validation windows."""

    name: str
    sha256: str
    characters: int
    vocabulary: Vocabulary
    train: Windows | VaryingWindows
    validation: Windows
    stream: bool  # the text came from a pipe, which can be read only once
    codes: tuple[NDArray[np.int32], NDArray[np.int32]]  # training and validation part

    @property
    def counted(self) -> int:
        """Number of characters at the end of the training part that the n-gram models use."""
        return min(len(self.codes[0]), MAX_COUNTED)

    def count_ngrams(self) -> dict[str, float]:
        """Return the losses of the n-gram models on the validation text, in nats per character."""
        train, validation = self.codes
        return ngram_losses(train[-self.counted :], validation, len(self.vocabulary))

    def passes(self, steps: int) -> float:
        """Return how many passes over the training part a number of steps makes."""
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
    """Read a text and cut it into windows.

    Args:
      path: a file, or a pipe, which is read once; None for the help topics of Python.
      batch: rows of a window, see `Windows`.
      window: time steps of a window.
      encoding: of the file.
      validation: number of validation characters at the end of the text; None for a tenth of the
        text, at most 100,000.
      vary_seed: seed of training windows of random length; None for windows of equal length.

    Raises:
      TextError: the text cannot be read or is too short.
    """
    limit = min(2**30, max(free_memory() // BYTES_PER_CHARACTER, 1))
    text = topics_text() if path is None else read_text(path, encoding=encoding, limit=limit)
    vocabulary = Vocabulary.of(text)
    if validation is None:
        validation = min(round(len(text) * 0.1), MAX_VALIDATION)
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
    """Return the corpus of a configuration; raises the errors of `load_corpus`."""
    return load_corpus(
        config.text,
        config.batch,
        config.window,
        encoding=config.encoding,
        validation=config.validation,
        vary_seed=config.seed if config.vary_window else None,
    )


def resolve_epochs(config: TrainConfig, corpus: Corpus) -> TrainConfig:
    """Return the configuration with steps in place of epochs.

    Raises:
      OptionError: the number of steps is too large, or not larger than the warmup.
    """
    if config.epochs is None:
        return config
    steps = max(1, math.ceil(config.epochs / corpus.passes(1) - 1e-9))
    if steps > MAX_COUNT:
        raise OptionError(
            f"--epochs {config.epochs:g} means {steps:,} steps for this text, but at most "
            f"{MAX_COUNT:,} are possible: use fewer epochs"
        )
    config = replace(config, steps=steps, epochs=None)
    config.check()
    return config
