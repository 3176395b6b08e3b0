"""A text cut into training and validation windows; imports no JAX, so that errors come fast."""

import hashlib
import math
from dataclasses import dataclass, replace
from itertools import count, takewhile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lstm_optax.data import (
    TextError,
    VaryingWindows,
    Vocabulary,
    Windows,
    ngram_losses,
    read_text,
    read_tokens,
    split,
    topics_text,
)
from lstm_optax.data.tokens import AnyVocabulary
from lstm_optax.data.windows import Codes
from lstm_optax.runs.constraints import MAX_COUNT, OptionError, flag_of
from lstm_optax.runs.memory import free_memory
from lstm_optax.runs.options import MAX_VALIDATION, TrainConfig

MAX_COUNTED = 5_000_000  # the n-gram models are counted on at most this many characters
BYTES_PER_CHARACTER = 32  # approximate peak memory while a text of single-byte characters is read


@dataclass(frozen=True)
class Corpus:
    """A text cut into training and validation windows."""

    name: str
    sha256: str
    kind: str  # of the tokens: "characters", "bytes" or "words"
    tokens: int
    vocabulary: AnyVocabulary
    train: Windows | VaryingWindows
    validation: Windows
    stream: bool  # the text came from a pipe, which can be read only once
    codes: tuple[Codes, NDArray[np.int32]]  # training and validation part
    held_out: str  # description of the validation part

    @property
    def unit(self) -> str:
        """The name of a token, such as "character"."""
        return self.vocabulary.unit

    @property
    def counted(self) -> int:
        """Number of tokens at the end of the training part that the n-gram models use."""
        return min(len(self.codes[0]), MAX_COUNTED)

    def count_ngrams(self) -> dict[str, float]:
        """Return the losses of the n-gram models on the validation text, in nats per token."""
        train, validation = self.codes
        start = len(train) - self.counted
        return ngram_losses(train[start:], validation, len(self.vocabulary))

    def passes(self, steps: int) -> float:
        """Return how many passes over the training part a number of steps makes."""
        return steps * self.train.mean_length / self.train.steps


def corpus_of(config: TrainConfig) -> Corpus:
    """Read the text of a configuration, or a folder with a prepared text, and cut it into windows.

    Raises:
      TextError: the text cannot be read or is too short.
      OptionError: an option that does not fit the text.
    """
    path = config.text
    corpus = _prepared(path, config) if path and path.is_dir() else _read(path, config)
    if config.softmax == "adaptive":
        if corpus.kind != "words":
            raise OptionError(
                f"--softmax adaptive is for the words of a prepared text, but {corpus.name} has "
                f"{corpus.kind}: leave the option out"
            )
        cutoffs_of(len(corpus.vocabulary))
    return corpus


def _read(path: Path | None, config: TrainConfig) -> Corpus:
    """Return the corpus of a text file or a pipe, or of the help topics."""
    options: dict[str, Any] = dict(
        encoding=config.encoding,
        limit=min(2**30, max(free_memory() // BYTES_PER_CHARACTER, 1)),
        keep_line_ends=config.keep_line_ends,
    )
    text = topics_text() if path is None else read_text(path, **options)
    vocabulary = Vocabulary.of(text)
    validation = config.validation
    if validation is None:
        validation = min(round(len(text) * 0.1), MAX_VALIDATION)
    codes = split(vocabulary.encode(text), validation)
    return Corpus(
        name="pydoc_data.topics" if path is None else str(path),
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        kind="characters",
        tokens=len(text),
        vocabulary=vocabulary,
        stream=path is not None and not path.is_file(),
        held_out=f"the last {len(codes[1]):,} characters",
        **_windows(codes, config),
    )


def _prepared(path: Path, config: TrainConfig) -> Corpus:
    """Return the corpus of a folder that `prepare_tokens` wrote; its tokens are not loaded."""
    for name in ("encoding", "keep_line_ends"):
        if getattr(config, name) != getattr(TrainConfig, name):
            raise OptionError(
                f"{flag_of(name)} is for a text file, but {path} is a prepared text: leave the "
                "option out, or pass it to lstm-optax prepare"
            )
    prepared = read_tokens(path)
    train, valid = prepared.parts["train"], prepared.parts["valid"]
    size = min(len(valid), MAX_VALIDATION) if config.validation is None else config.validation
    unit = prepared.vocabulary.unit
    if size > len(valid):
        raise TextError(
            f"`validation` is {size:,}, but the validation part of {path} has {len(valid):,} "
            f"{unit}s: use fewer"
        )
    rest = f" of {len(valid):,}" if size < len(valid) else ""
    return Corpus(
        name=str(path),
        sha256=prepared.description["sha256"],
        kind=prepared.description["kind"],
        tokens=prepared.description["tokens"],
        vocabulary=prepared.vocabulary,
        stream=False,
        held_out=f"the first {size:,}{rest} {unit}s of its part",
        **_windows((train, valid[:size]), config),
    )


def _windows(codes: tuple[Codes, NDArray[np.int32]], config: TrainConfig) -> dict[str, Any]:
    """Return the windows of a training and a validation part, and the parts, as fields."""
    batch, window = config.batch, config.window
    if config.vary_window:
        train = VaryingWindows.of(codes[0], batch, window, seed=config.seed)
    else:
        train = Windows.of(codes[0], batch, window)
    validation = Windows.of(codes[1], batch, window, pad=True)
    return {"train": train, "validation": validation, "codes": codes}


def cutoffs_of(vocabulary: int) -> tuple[int, ...]:
    """Return the first words of the clusters of an adaptive softmax: 2,000, 10,000, 50,000, …

    Raises:
      OptionError: the vocabulary is too small for a cluster.
    """
    cutoffs = tuple(takewhile(lambda first: first < vocabulary, (2000 * 5**k for k in count())))
    if not cutoffs:
        raise OptionError(
            f"--softmax adaptive is for more than 2,000 words, but the text has {vocabulary:,}: "
            "leave the option out"
        )
    return cutoffs


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
