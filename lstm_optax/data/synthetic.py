"""Synthetic sequence tasks that need a memory over many steps, with their baselines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import log
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lstm_optax.checks import check_integer


class Sequences(NamedTuple):
    """A batch of whole sequences, time-major: T steps of B rows."""

    inputs: NDArray[np.float32]  # [T, B, features]
    targets: NDArray[Any]  # float32 [B, outputs]; classes are int32 [B] or [T, B]


@dataclass(frozen=True)
class SequenceTask:
    """An endless stream of sequences, and the losses to compare a model with.

    `task(position, batch=32)` depends only on its arguments, as `fit` requires of its batches:
    `fit(step, state, functools.partial(task, batch=32), …)`. Use another seed for validation.

    Attributes:
      draw: (random generator, B) → Sequences.
      length: T, the number of steps of a sequence.
      features: the number of features of the inputs.
      outputs: the number of outputs: numbers or classes.
      every_step: whether there is a target at every step, or only after the last one.
      baseline: the lowest loss of a prediction that does not depend on the inputs, a mean over all
        targets: mean squared error for numbers, cross-entropy in nats for classes.
    """

    draw: Callable[[np.random.Generator, int], Sequences]
    length: int
    features: int
    outputs: int
    every_step: bool
    baseline: float

    @property
    def batch_axes(self) -> Sequences:
        """The axis of the rows in inputs and targets, for `BatchSharding`."""
        axes: Any = dict(inputs=1, targets=1 if self.every_step else 0)
        return Sequences(**axes)

    @property
    def solved(self) -> float:
        """The loss below which the task counts as solved: a twentieth of `baseline`.

        Our own definition. For `adding` it is a root mean square error of .091; Hochreiter &
        Schmidhuber require an error below .08 (.04 of their target, half the sum) for each row.
        """
        return self.baseline / 20

    def __call__(self, position: int, *, batch: int, seed: int = 0) -> Sequences:
        """Return batch `position` of a stream.

        Args:
          position: 0, 1, 2, …
          batch: B, at least 1.
          seed: the seed of the stream, at least 0.

        Raises:
          ValueError: an argument is not an integer, or out of its range.
        """
        check_integer("position", position, 0)
        check_integer("batch", batch, 1)
        check_integer("seed", seed, 0)
        return self.draw(np.random.default_rng([seed, position]), batch)


def adding(length: int = 100) -> SequenceTask:
    """Add the two marked numbers of a sequence.

        inputs [T, B, 2]: numbers in [0, 1), marks 0 or 1;  target [B, 1]: the sum of the two

    One mark is in the first half, the other in the second, both at uniform places. A constant
    prediction of 1 has a mean squared error of 1/6, the baseline. A prediction from the mean of all
    numbers, marked or not, lowers it by 1/(3T) for an even T; no linear prediction lowers it more.

    Args:
      length: T, at least 2.

    Raises:
      ValueError: a length below 2.

    Reference: Hochreiter & Schmidhuber, 1997, doi:10.1162/neco.1997.9.8.1735; in this form Le et
    al., 2015, arXiv:1504.00941.
    """
    check_integer("length", length, 2)

    def draw(rng: np.random.Generator, batch: int) -> Sequences:
        numbers = rng.random((length, batch), np.float32)
        marks = np.zeros((length, batch), np.float32)
        rows, half = np.arange(batch), length // 2
        marks[rng.integers(half, size=batch), rows] = 1
        marks[rng.integers(half, length, size=batch), rows] = 1
        inputs = np.stack([numbers, marks], axis=-1)
        return Sequences(inputs, (numbers * marks).sum(0)[:, None])

    return SequenceTask(draw, length, 2, 1, every_step=False, baseline=1 / 6)


def temporal_order(length: int = 100) -> SequenceTask:
    """Classify the order of two symbols, each X or Y, in a sequence.

        inputs [T, B, 8]: one of a, b, c, d, X, Y, begin, end;  target [B]: 0 XX, 1 XY, 2 YX, 3 YY

    A sequence starts with `begin` and ends with `end`. The first X or Y is in the tenth of the
    steps that starts at T/10, the second in the tenth that starts at T/2; all other symbols are a,
    b, c or d. The baseline is ln 4.

    Args:
      length: T, at least 10.

    Raises:
      ValueError: a length below 10.

    Reference: Hochreiter & Schmidhuber, 1997, task 6a, doi:10.1162/neco.1997.9.8.1735, with
    lengths of 100 … 110.
    """
    check_integer("length", length, 10)

    def draw(rng: np.random.Generator, batch: int) -> Sequences:
        symbols = rng.integers(4, size=(length, batch))
        answers, rows, tenth = rng.integers(2, size=(2, batch)), np.arange(batch), length // 10
        for start, answer in zip((tenth, length // 2), answers, strict=True):
            symbols[start + rng.integers(tenth, size=batch), rows] = 4 + answer
        symbols[0], symbols[-1] = 6, 7
        targets = (2 * answers[0] + answers[1]).astype(np.int32)
        return Sequences(_one_hot(symbols, 8), targets)

    return SequenceTask(draw, length, 8, 4, every_step=False, baseline=log(4))


def copy_memory(delay: int = 100) -> SequenceTask:
    """Repeat ten symbols after a delay.

        inputs [D + 20, B, 10]: ten of 8 symbols, blanks, a go, blanks;
        targets [D + 20, B]: D + 10 times blank (8), then the ten symbols

    The go is the last of the D steps after the symbols, followed by ten blanks. A prediction of
    blank, with a uniform guess in the last ten steps, has a mean cross-entropy of
    10 ln 8 / (D + 20), the baseline.

    Args:
      delay: D, at least 1.

    Raises:
      ValueError: a delay below 1.

    Reference: Hochreiter & Schmidhuber, 1997, doi:10.1162/neco.1997.9.8.1735; in this form
    Arjovsky, Shah & Bengio, 2016, arXiv:1511.06464.
    """
    check_integer("delay", delay, 1)
    length, blank, go = delay + 20, 8, 9

    def draw(rng: np.random.Generator, batch: int) -> Sequences:
        symbols = rng.integers(8, size=(10, batch))
        inputs = np.full((length, batch), blank)
        inputs[:10], inputs[-11] = symbols, go
        targets = np.full((length, batch), blank, np.int32)
        targets[-10:] = symbols
        return Sequences(_one_hot(inputs, 10), targets)

    return SequenceTask(draw, length, 10, 9, every_step=True, baseline=10 * log(8) / length)


def delayed_xor(delay: int = 50) -> SequenceTask:
    """Classify whether two marked signs, a delay apart, differ.

        inputs [2 D, B, 2]: signs −1 or 1, marks 0 or 1;  target [B]: 1 if the two differ, else 0

    The first mark is at a uniform place in the first D steps, the second D steps later. One sign
    alone does not predict the target, nor does any linear function: the baseline is ln 2. Our own
    task.

    Args:
      delay: D, at least 1.

    Raises:
      ValueError: a delay below 1.
    """
    check_integer("delay", delay, 1)

    def draw(rng: np.random.Generator, batch: int) -> Sequences:
        bits = rng.integers(2, size=(2 * delay, batch))
        first, rows = rng.integers(delay, size=batch), np.arange(batch)
        marks = np.zeros_like(bits)
        marks[first, rows] = marks[first + delay, rows] = 1
        inputs = np.stack([2 * bits - 1, marks], axis=-1).astype(np.float32)
        differ = bits[first, rows] != bits[first + delay, rows]
        return Sequences(inputs, differ.astype(np.int32))

    return SequenceTask(draw, 2 * delay, 2, 2, every_step=False, baseline=log(2))


def _one_hot(symbols: NDArray[np.integer], count: int) -> NDArray[np.float32]:
    return np.eye(count, dtype=np.float32)[symbols]
