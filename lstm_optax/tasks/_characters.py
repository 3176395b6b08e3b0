"""The character model of `lstm-optax train` as a task."""

import hashlib
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from lstm_optax.checks import check_integer
from lstm_optax.data import Vocabulary, Windows, ngram_losses, read_text, topics_text
from lstm_optax.lstm import LSTM
from lstm_optax.models import LanguageModel
from lstm_optax.tasks.task import Task
from lstm_optax.tasks.text_task import make_text_task


def characters(
    *,
    text: str | Path | None = None,
    encoding: str = "utf-8",
    embedding: int = 64,
    hidden: int = 128,
    layers: int = 1,
    dropout: float = 0.0,
    batch: int = 32,
    window: int = 64,
    held_out: float = 0.05,
    steps: int = 1000,
    eval_every: int = 100,
) -> Task:
    """Return the task of predicting the next character of a text.

    The last part of the text is for the test, the part before it for the validation. The metrics
    are mean losses in nats per character. Windows follow each other, and their carry as well; a
    seed determines the window at which a trial begins.

    Args:
      text: a file; None for the help topics of Python.
      encoding: of the file.
      embedding: features of the character embedding.
      hidden: units of each LSTM layer.
      layers: LSTM layers.
      dropout: probability for the non-recurrent connections.
      batch: rows of text in a batch.
      window: characters of each row in a step.
      held_out: share of the text for the validation, and for the test.
      steps: training steps.
      eval_every: steps between evaluations.

    Raises:
      ValueError: a size below 1, or a share or probability out of range.
      TextError: the text cannot be read, or is too short.
    """
    check_integer("batch", batch, 1)
    if not 0 < held_out < 0.5:
        raise ValueError(f"held_out is {held_out}, but must be a number above 0 and below 0.5")
    content = topics_text() if text is None else read_text(Path(text), encoding=encoding)
    vocabulary = Vocabulary.of(content)
    codes = vocabulary.encode(content)
    size = max(2, round(held_out * len(codes)))
    train, validation, test = codes[: -2 * size], codes[-2 * size : -size], codes[-size:]
    windows = Windows.of(train, batch, window)
    held = {
        part: Windows.of(found, batch, window, pad=True)
        for part, found in (("validation", validation), ("test", test))
    }

    def make_model(key: jax.Array) -> LanguageModel:
        rngs = nnx.Rngs(params=key)
        between = dropout if layers > 1 else 0.0
        lstm = LSTM(embedding, hidden, num_layers=layers, dropout=between, rngs=rngs)
        return LanguageModel(len(vocabulary), lstm, dropout=dropout, rngs=rngs)

    def batches(position: int, seed: int) -> Any:
        first = int(np.random.default_rng([seed, 0]).integers(len(windows)))
        found = windows(first + position)
        resets = found.resets.copy()
        resets[0] |= position == 0
        return found._replace(resets=resets)

    baselines = ngram_losses(train, test, len(vocabulary))
    sizes = dict(embedding=embedding, hidden=hidden, layers=layers, dropout=dropout)
    settings: dict[str, Any] = sizes | dict(batch=batch, window=window, held_out=held_out)
    settings |= {"text": "pydoc_data.topics" if text is None else Path(text).name}
    settings |= {"sha256": hashlib.sha256(content.encode()).hexdigest()}
    return make_text_task(
        "characters",
        make_model,
        windows,
        held,
        batches=batches,
        steps=steps,
        eval_every=eval_every,
        baselines=baselines,
        settings=settings,
    )
