"""A text as contiguous windows whose length varies at random, each step still read once a pass."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lstm_optax.data.windows import Batch, Windows, check_length

SPREAD = 5  # standard deviation of the length
SHORTEST, ABOVE = 5, 10  # the least length; the most above `window`, two standard deviations
FULL = 0.95  # probability of a window about `window` long, and not half of it
BLOCK = 1024  # lengths drawn at once


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
    _starts: list[int] = field(default_factory=lambda: [0], repr=False)

    @classmethod
    def of(
        cls, codes: NDArray[np.int32], batch: int, window: int, *, seed: int = 0
    ) -> VaryingWindows:
        """Cut `codes` [N] into `batch` rows of ⌊(N−1) / batch⌋ steps.

        Raises:
          ValueError: `batch` or `window` below 1.
          TextError: too short a text; it gives the lengths.
        """
        check_length(codes, batch, window)
        steps = Windows.of(codes, batch, 1)
        return cls(steps.inputs, steps.targets, window, seed)

    @property
    def longest(self) -> int:
        """The steps of a batch, padding included."""
        return self.window + ABOVE

    def start(self, p: int) -> int:
        """The steps that the windows before window p read."""
        while len(self._starts) <= p:
            block = len(self._starts) // BLOCK
            lengths = _draw_lengths(self.window, np.random.default_rng([self.seed, block]))
            self._starts.extend((self._starts[-1] + np.cumsum(lengths)).tolist())
        return self._starts[p]

    def __call__(self, p: int) -> Batch:
        """Window p, for any p ≥ 0; `lengths` has its length for each row."""
        if p < 0:
            raise ValueError(f"windows are counted from 0, there is no window {p}")
        steps = np.arange(self.start(p), self.start(p + 1)) % len(self.inputs)
        length, shape = len(steps), (self.longest, self.inputs.shape[1])
        inputs, targets = np.zeros(shape, np.int32), np.full(shape, -1, np.int32)
        resets = np.zeros(shape, np.bool_)
        inputs[:length], targets[:length] = self.inputs[steps], self.targets[steps]
        resets[:length] = (steps == 0)[:, None]
        return Batch(inputs, targets, resets, np.full(shape[1], length, np.int32))


def _draw_lengths(window: int, rng: np.random.Generator) -> NDArray[np.int64]:
    about = np.where(rng.random(BLOCK) < FULL, window, window / 2)
    drawn = rng.normal(about, SPREAD).astype(np.int64)
    return np.clip(drawn, min(SHORTEST, window), window + ABOVE)
