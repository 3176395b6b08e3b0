"""A text as contiguous windows of random length; each step is read once in a pass."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lstm_optax.checks import check_integer
from lstm_optax.data.windows import (
    ROW_AXES,
    Batch,
    Codes,
    Rows,
    check_length,
)

SPREAD = 5  # standard deviation of the length
SHORTEST, MOST_ABOVE = 5, 10  # bounds of the length: 5 and `window` + 10, two standard deviations
FULL = 0.95  # probability of a mean length of `window`, else it is half of that
BLOCK = 1024  # number of lengths drawn at once
LAST_POSITION = 2**31 - 1  # a limit, since all lengths before a position are drawn to find it


@dataclass(frozen=True, eq=False)
class VaryingWindows:
    """A text as B contiguous rows, read in windows of random length.

    A window's length is drawn from a normal distribution with a mean of `window`, or one time in
    twenty of half of it, and a standard deviation of 5; it is in [min(5, window), window + 10].
    So the ends of the windows, which no gradient crosses, are at different steps in each pass. All
    batches have `window` + 10 steps; padding has input 0 and target −1.

    Row r of window p + 1 continues row r of window p. If a pass ends inside a window, the window
    continues at the beginning of the text, with a reset there. `windows(p)` depends only on p and
    the seed.

    Attributes:
      rows: the text.
      window: the mean length of 19 windows in 20.
      seed: the seed of the lengths.

    Reference: Merity, Keskar & Socher, 2018, section 4.1, arXiv:1708.02182. The bounds are those of
    the authors' code, in which the upper one is commented out.
    """

    rows: Rows
    window: int
    seed: int
    _cached: dict[str, Any] = field(default_factory=dict, repr=False)
    _block_starts: list[int] = field(default_factory=lambda: [0], repr=False)

    @classmethod
    def of(cls, codes: Codes, batch: int, window: int, *, seed: int = 0) -> VaryingWindows:
        """Cut `codes` [N] into `batch` rows of ⌊(N−1) / batch⌋ steps.

        Raises:
          ValueError: `batch`, `window` or `seed` is not an integer, `batch` or `window` is below
            1, or `seed` is below 0.
          TextError: the text is too short; the message gives the lengths.
        """
        check_length(codes, batch, window)
        check_integer("seed", seed, 0)
        return cls(Rows(codes, batch, (len(codes) - 1) // batch), window, seed)

    @property
    def steps(self) -> int:
        """The number of steps in one pass."""
        return self.rows.length

    @property
    def longest(self) -> int:
        """The number of steps of a batch, padding included."""
        return self.window + MOST_ABOVE

    @property
    def mean_length(self) -> float:
        """The mean length of the first 1,024 windows."""
        return self.start(BLOCK) / BLOCK

    @property
    def batch_axes(self) -> Batch:
        """The axis of the rows in each array of a batch, for `BatchSharding`."""
        return ROW_AXES

    def start(self, p: int) -> int:
        """Return the number of steps before window p; raises like a call."""
        if check_integer("position", p, 0) > LAST_POSITION:
            raise ValueError(f"position is {p}, but must be at most {LAST_POSITION}")
        block, place = divmod(operator.index(p), BLOCK)
        starts = self._block_starts
        while len(starts) <= block:
            starts.append(starts[-1] + int(self._lengths(len(starts) - 1).sum()))
        return starts[block] + int(self._lengths(block)[:place].sum())

    def __call__(self, p: int) -> Batch:
        """Return window p = 0, 1, …, 2³¹ − 1; its `lengths` holds the length once for each row.

        Raises:
          ValueError: the position is not an integer, or out of range.
        """
        start = self.start(p)
        length = int(self._lengths(p // BLOCK)[p % BLOCK])
        steps = np.arange(start, start + length) % self.steps
        shape = (self.longest, self.rows.batch)
        inputs, targets = np.zeros(shape, np.int32), np.full(shape, -1, np.int32)
        resets = np.zeros(shape, np.bool_)
        inputs[:length], targets[:length] = self.rows.read(steps)
        resets[:length] = (steps == 0)[:, None]
        return Batch(inputs, targets, resets, np.full(shape[1], length, np.int32))

    def _lengths(self, block: int) -> NDArray[np.int64]:
        """Return the lengths of a block of windows, cached for the last block."""
        if self._cached.get("block") != block:
            lengths = _draw_lengths(self.window, np.random.default_rng([self.seed, block]))
            self._cached.update(block=block, lengths=lengths)
        return self._cached["lengths"]


def _draw_lengths(window: int, rng: np.random.Generator) -> NDArray[np.int64]:
    means = np.where(rng.random(BLOCK) < FULL, window, window / 2)
    drawn = rng.normal(means, SPREAD).astype(np.int64)
    return np.clip(drawn, min(SHORTEST, window), window + MOST_ABOVE)
