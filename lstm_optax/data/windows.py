"""A text as contiguous windows, for truncated back-propagation with a carried state."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lstm_optax.checks import whole
from lstm_optax.data.text import TextError


class Batch(NamedTuple):
    """One window of every row, time-major: T steps of B rows."""

    inputs: NDArray[np.int32]  # [T, B], codes
    targets: NDArray[np.int32]  # [T, B], the code after each input; −1: nothing to predict
    resets: NDArray[np.bool_]  # [T, B], true where the carry is zeroed before the step
    lengths: NDArray[np.int32] | None = None  # [B], the steps that count; all if None


ROW_AXES: Any = Batch(inputs=1, targets=1, resets=1, lengths=0)  # pyright: ignore


@dataclass(frozen=True, eq=False)
class Windows:
    """A text as B contiguous rows, read window by window: truncated BPTT with a carried state.

    Row r of window p + 1 goes on where row r of window p ends, so the carry after one window
    is the carry before the next. `windows(p)` depends on nothing but p: to resume a run, p is
    all there is to remember.

    Attributes:
      inputs, targets: [windows · window, B], read-only; see `Batch`.
      window: T, the steps of a window.
    """

    inputs: NDArray[np.int32]
    targets: NDArray[np.int32]
    window: int

    @classmethod
    def of(cls, codes: NDArray[np.int32], batch: int, window: int, *, pad: bool = False) -> Windows:
        """Cut `codes` [N] into `batch` rows of windows of `window` steps.

        The N − 1 pairs (character, next character) lie row after row, L to a row. To train:
        L = ⌊(N−1) / batch⌋, and what fills no window is dropped. With `pad`, to validate:
        L = ⌈(N−1) / batch⌉, and every character but the first is a target exactly once;
        what is left of the last rows and the last window has input 0 and target −1.

        Raises:
          ValueError: `batch` or `window` is no integer, or below 1.
          TextError: too short a text; it gives the lengths.
        """
        check_length(codes, batch, window, pad=pad)
        pairs = len(codes) - 1
        length = -(-pairs // batch) if pad else pairs // batch
        steps = window * (-(-length // window) if pad else length // window)
        inputs = _time_major_rows(codes[:-1], (batch, length), steps, fill=0)
        targets = _time_major_rows(codes[1:], (batch, length), steps, fill=-1)
        return cls(inputs, targets, window)

    @property
    def mean_length(self) -> float:
        """The steps of a window."""
        return self.window

    @property
    def batch_axes(self) -> Batch:
        """The axis of the rows in each array of a batch, as `BatchSharding` takes it."""
        return ROW_AXES

    def __len__(self) -> int:
        """The windows of one pass over the text."""
        return len(self.inputs) // self.window

    def __iter__(self) -> Iterator[Batch]:
        """The windows of one pass."""
        return map(self, range(len(self)))

    def __call__(self, p: int) -> Batch:
        """Return window p = 0, 1, …: after the last one the text begins again.

        `resets` is true at the first step of a pass, for every row, and false elsewhere.

        Raises:
          ValueError: p is no integer, or below 0.
        """
        index = whole("position", p, 0) % len(self)
        part = slice(index * self.window, (index + 1) * self.window)
        resets = np.zeros_like(self.inputs[part], np.bool_)
        resets[0] = index == 0
        return Batch(self.inputs[part], self.targets[part], resets)


def check_length(codes: NDArray[np.int32], batch: int, window: int, *, pad: bool = False) -> None:
    """Raise TextError if `codes` fill no window of every row; with `pad`, if they make no pair."""
    whole("batch", batch, 1)
    whole("window", window, 1)
    needed = 2 if pad else batch * window + 1
    if len(codes) < needed:
        raise TextError(
            f"the text has {len(codes)} characters, batch {batch} × window {window} needs "
            f"{needed}: take a smaller `batch` or `window`, or a longer text"
        )


def _time_major_rows(
    values: NDArray[np.int32], shape: tuple[int, int], steps: int, fill: int
) -> NDArray[np.int32]:
    """`values` row by row in `shape` (batch, length), turned to [steps, batch], filled up."""
    rows = np.full(shape, fill, np.int32)
    kept = values[: rows.size]
    rows.flat[: len(kept)] = kept
    result = np.full((steps, len(rows)), fill, np.int32)
    result[: rows.shape[1]] = rows.T[:steps]
    result.flags.writeable = False
    return result
