"""A text as contiguous windows whose length varies at random, each step still read once a pass."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lstm_optax.checks import whole
from lstm_optax.data.windows import (
    ROW_AXES,
    Batch,
    Windows,
    check_length,
)

SPREAD = 5  # standard deviation of the length
SHORTEST, ABOVE = 5, 10  # the least length; the most above `window`, two standard deviations
FULL = 0.95  # probability of a window about `window` long, and not half of it
BLOCK = 1024  # lengths drawn at once
LAST = 2**31 - 1  # position: all lengths before one are drawn to find it


@dataclass(frozen=True, eq=False)
class VaryingWindows:
    """A text as B contiguous rows, read in windows of random length.

    A window's length is drawn from a normal distribution about `window`, one time in twenty about
    half of it, with a standard deviation of 5; it is 5 or more and at most `window` + 10. So the
    ends of the windows, over which no gradient flows, lie elsewhere in each pass. Batches have one
    shape, `window` + 10 steps: what is behind the end has input 0 and target −1.

    Row r of window p + 1 goes on where row r of window p ends. A pass ends within a window, which
    goes on at the beginning, with a reset there. `windows(p)` depends on nothing but p and the
    seed.

    Attributes:
      inputs, targets: [L, B], read-only; see `Batch`.
      window: the length that most are about.
      seed: of the lengths.

    Reference: Merity, Keskar & Socher, 2018, section 4.1, arXiv:1708.02182; the bounds are of the
    authors' code, in which the upper one is a comment.
    """

    inputs: NDArray[np.int32]
    targets: NDArray[np.int32]
    window: int
    seed: int
    _last: dict[str, Any] = field(default_factory=dict, repr=False)
    _block_starts: list[int] = field(default_factory=lambda: [0], repr=False)

    @classmethod
    def of(
        cls, codes: NDArray[np.int32], batch: int, window: int, *, seed: int = 0
    ) -> VaryingWindows:
        """Cut `codes` [N] into `batch` rows of ⌊(N−1) / batch⌋ steps.

        Raises:
          ValueError: `batch`, `window` or `seed` is no integer; `batch` or `window` is below 1,
            `seed` below 0.
          TextError: too short a text; it gives the lengths.
        """
        check_length(codes, batch, window)
        whole("seed", seed, 0)
        steps = Windows.of(codes, batch, 1)
        return cls(steps.inputs, steps.targets, window, seed)

    @property
    def longest(self) -> int:
        """The steps of a batch, padding included."""
        return self.window + ABOVE

    @property
    def mean_length(self) -> float:
        """The mean length of the first 1,024 windows."""
        return self.start(BLOCK) / BLOCK

    @property
    def batch_axes(self) -> Batch:
        """The axis of the rows in each array of a batch, as `BatchSharding` takes it."""
        return ROW_AXES

    def start(self, p: int) -> int:
        """Return how many steps the windows before window p read; raises as a call does."""
        if whole("position", p, 0) > LAST:
            raise ValueError(f"position is {p}, but must be at most {LAST}")
        block, place = divmod(operator.index(p), BLOCK)
        starts = self._block_starts
        while len(starts) <= block:
            starts.append(starts[-1] + int(self._lengths(len(starts) - 1).sum()))
        return starts[block] + int(self._lengths(block)[:place].sum())

    def __call__(self, p: int) -> Batch:
        """Return window p = 0, 1, …, 2³¹ − 1; `lengths` has its length for each row.

        Raises:
          ValueError: another position.
        """
        start = self.start(p)
        length = int(self._lengths(p // BLOCK)[p % BLOCK])
        steps = np.arange(start, start + length) % len(self.inputs)
        shape = (self.longest, self.inputs.shape[1])
        inputs, targets = np.zeros(shape, np.int32), np.full(shape, -1, np.int32)
        resets = np.zeros(shape, np.bool_)
        inputs[:length], targets[:length] = self.inputs[steps], self.targets[steps]
        resets[:length] = (steps == 0)[:, None]
        return Batch(inputs, targets, resets, np.full(shape[1], length, np.int32))

    def _lengths(self, block: int) -> NDArray[np.int64]:
        """Return the lengths of a block of windows; the last block asked for is kept."""
        if self._last.get("block") != block:
            lengths = _draw_lengths(self.window, np.random.default_rng([self.seed, block]))
            self._last.update(block=block, lengths=lengths)
        return self._last["lengths"]


def _draw_lengths(window: int, rng: np.random.Generator) -> NDArray[np.int64]:
    about = np.where(rng.random(BLOCK) < FULL, window, window / 2)
    drawn = rng.normal(about, SPREAD).astype(np.int64)
    return np.clip(drawn, min(SHORTEST, window), window + ABOVE)
