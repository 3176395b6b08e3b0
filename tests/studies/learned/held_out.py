"""Eight tasks that neither the meta-training nor the selection of the weights has seen."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import numpy as np

from learned.small_models import apply_lstm, cross_entropy, init_lstm, squared_error
from lstm_optax.data import Sequences, Vocabulary, copy_memory, delayed_xor, topics_text
from lstm_optax.tasks._digits import _as_sequences, _load_digits

HIDDEN, WIDE = 16, 64
BATCH = 16


class HeldOut(NamedTuple):
    """A task on an LSTM of any width.

    Attributes:
      init: (key, hidden units) → parameters.
      loss: (parameters, batch) → mean loss.
      batches: (position, seed) → batch, NumPy arrays.
    """

    init: Callable[[jax.Array, int], Any]
    loss: Callable[[Any, Any], jax.Array]
    batches: Callable[[int, int], Any]


def characters(layers: int = 1, window: int = 16) -> HeldOut:
    """The next character of the text that ships with CPython, read in random windows."""
    codes, size = _text()

    def batches(position, seed):
        starts = _rng(seed, position).integers(len(codes) - window - 1, size=BATCH)
        rows = codes[starts[None] + np.arange(window + 1)[:, None]]
        return Sequences(rows[:-1], rows[1:])

    def loss(params, batch):
        inputs = jax.nn.one_hot(batch.inputs, size)
        return cross_entropy(apply_lstm(params, inputs, every_step=True), batch.targets)

    return HeldOut(lambda key, hidden: init_lstm(key, size, hidden, size, layers), loss, batches)


def digits(features: int, wrong: float = 0.0) -> HeldOut:
    """The class of an image of 8 × 8 pixels, with `features` pixels at each step.

    Args:
      features: 8 for rows, 2 for pairs of pixels.
      wrong: share of the labels that is replaced by a random class, the same in all runs.
    """
    images, labels = _load_digits()
    rng = np.random.default_rng(0)
    noise = rng.integers(10, size=len(labels)).astype(np.int32)
    labels = np.where(rng.random(len(labels)) < wrong, noise, labels)

    def batches(position, seed):
        rows = _rng(seed, position).integers(len(images), size=BATCH)
        return Sequences(_as_sequences(images[rows], features), labels[rows])

    def loss(params, batch):
        return cross_entropy(apply_lstm(params, batch.inputs), batch.targets)

    return HeldOut(lambda key, hidden: init_lstm(key, features, hidden, 10), loss, batches)


def synthetic(data: Any) -> HeldOut:
    """A classification task of `lstm_optax.data`."""

    def batches(position, seed):
        return data(position, batch=BATCH, seed=seed)

    def loss(params, batch):
        answers = apply_lstm(params, batch.inputs, every_step=data.every_step)
        return cross_entropy(answers, batch.targets)

    def init(key, hidden):
        return init_lstm(key, data.features, hidden, data.outputs)

    return HeldOut(init, loss, batches)


def mackey_glass(window: int = 16, ahead: int = 6) -> HeldOut:
    """The value of a chaotic series some steps ahead, at every step.

    Reference: Mackey & Glass, 1977, doi:10.1126/science.267326, with a delay of 17.
    """
    series = _mackey_glass_series()

    def batches(position, seed):
        starts = _rng(seed, position).integers(len(series) - window - ahead, size=BATCH)
        rows = starts[None] + np.arange(window)[:, None]
        return Sequences(series[rows][..., None], series[rows + ahead][..., None])

    def loss(params, batch):
        return squared_error(apply_lstm(params, batch.inputs, every_step=True), batch.targets)

    return HeldOut(lambda key, hidden: init_lstm(key, 1, hidden, 1), loss, batches)


TASKS: dict[str, Callable[[], HeldOut]] = {
    "characters": characters,
    "characters, two layers": lambda: characters(layers=2),
    "digits by rows": lambda: digits(8),
    "digits by pairs": lambda: digits(2),
    "digits, 30 % wrong labels": lambda: digits(8, wrong=0.3),
    "copy": lambda: synthetic(copy_memory(5)),
    "delayed xor": lambda: synthetic(delayed_xor(5)),
    "Mackey-Glass": mackey_glass,
}

WIDER = ("characters", "digits by rows", "Mackey-Glass")
"""The tasks that are also trained with WIDE units."""


def _rng(seed: int, position: int) -> np.random.Generator:
    return np.random.default_rng([seed, position])


@lru_cache
def _text() -> tuple[np.ndarray, int]:
    """Return the codes of the text, and the size of its vocabulary."""
    content = topics_text()
    vocabulary = Vocabulary.of(content)
    return vocabulary.encode(content), len(vocabulary)


@lru_cache
def _mackey_glass_series(steps: int = 4000, delay: int = 17, part: int = 10) -> np.ndarray:
    """Return dx/dt = 0.2 x(t − 17)/(1 + x(t − 17)¹⁰) − 0.1 x at t = 0, 1, …, standardised."""
    x = np.full(delay * part + 1, 1.2)
    path = list(x)
    for t in range(steps * part):
        old = path[t]
        path.append(path[-1] + (0.2 * old / (1 + old**10) - 0.1 * path[-1]) / part)
    series = np.asarray(path[delay * part :: part][500:])
    return ((series - series.mean()) / series.std()).astype(np.float32)
