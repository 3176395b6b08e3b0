"""A text as contiguous windows, for truncated back-propagation with a carried state."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from lstm_optax.checks import check_integer
from lstm_optax.data.text import TextError


class Batch(NamedTuple):
    """One window of every row, time-major: T steps of B rows."""

    inputs: NDArray[np.int32]  # [T, B], codes
    targets: NDArray[np.int32]  # [T, B], the code after each input; −1 for padding
    resets: NDArray[np.bool_]  # [T, B], true: the carry is zeroed before the step
    lengths: NDArray[np.int32] | None = None  # [B], number of valid steps; None: all


ROW_AXES: Any = Batch(inputs=1, targets=1, resets=1, lengths=0)  # pyright: ignore


class Codes(Protocol):
    """Codes that are read on demand: an array [N], or a part of a file."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any, /) -> NDArray[np.integer]: ...


@dataclass(frozen=True, eq=False)
class Rows:
    """The N − 1 pairs (code, next code) as `batch` contiguous rows of `length` pairs.

    Attributes:
      codes: [N]; only the codes that `read` needs are loaded.
      batch: number of rows.
      length: number of pairs in a row.
    """

    codes: Codes
    batch: int
    length: int

    def read(self, steps: NDArray[np.integer]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Return inputs and targets of all rows at `steps` [T], as [T, batch], read-only.

        After the end of a row or of the codes, inputs are 0 and targets −1.
        """
        steps = np.asarray(steps, np.int64)[:, None]
        places = np.arange(self.batch) * self.length + steps
        valid = (steps < self.length) & (places < len(self.codes) - 1)
        places = np.where(valid, places, 0)
        inputs = np.where(valid, self.codes[places], 0).astype(np.int32)
        targets = np.where(valid, self.codes[places + 1], -1).astype(np.int32)
        inputs.flags.writeable = targets.flags.writeable = False
        return inputs, targets


@dataclass(frozen=True, eq=False)
class Windows:
    """A text as B contiguous rows, read window by window, for truncated BPTT with a carried state.

    Row r of window p + 1 continues row r of window p, so the carry after one window is the carry
    before the next. `windows(p)` depends only on p, so a run is resumed from p alone. A window is
    read when it is asked for, so the text may be a file that is larger than the memory.

    Attributes:
      rows: the text.
      window: T, the number of steps of a window.
      steps: number of steps in one pass, a multiple of `window`.
    """

    rows: Rows
    window: int
    steps: int

    @classmethod
    def of(cls, codes: Codes, batch: int, window: int, *, pad: bool = False) -> Windows:
        """Cut `codes` [N] into `batch` rows of windows of `window` steps.

        The N − 1 pairs (character, next character) fill the rows one after another, L to a row.
        By default, for training, L = ⌊(N−1) / batch⌋, and a remainder that does not fill a window
        is dropped. With `pad`, for validation, L = ⌈(N−1) / batch⌉, every character except the
        first is a target exactly once, and padding has input 0 and target −1.

        Raises:
          ValueError: `batch` or `window` is not an integer, or is below 1.
          TextError: the text is too short; the message gives the lengths.
        """
        check_length(codes, batch, window, pad=pad)
        pairs = len(codes) - 1
        length = -(-pairs // batch) if pad else pairs // batch
        steps = window * (-(-length // window) if pad else length // window)
        return cls(Rows(codes, batch, length), window, steps)

    @property
    def mean_length(self) -> float:
        """The number of steps of a window."""
        return self.window

    @property
    def batch_axes(self) -> Batch:
        """The axis of the rows in each array of a batch, for `BatchSharding`."""
        return ROW_AXES

    def __len__(self) -> int:
        """Return the number of windows in one pass over the text."""
        return self.steps // self.window

    def __iter__(self) -> Iterator[Batch]:
        """Iterate over the windows of one pass."""
        return map(self, range(len(self)))

    def __call__(self, p: int) -> Batch:
        """Return window p = 0, 1, …; after the last one the text starts again.

        `resets` is true at the first step of a pass, for every row, and false elsewhere.

        Raises:
          ValueError: p is not an integer, or is below 0.
        """
        index = check_integer("position", p, 0) % len(self)
        inputs, targets = self.rows.read(np.arange(self.window) + index * self.window)
        resets = np.zeros_like(inputs, np.bool_)
        resets[0] = index == 0
        return Batch(inputs, targets, resets)


def check_length(codes: Codes, batch: int, window: int, *, pad: bool = False) -> None:
    """Raise TextError if `codes` do not fill one window of each row; with `pad`, one pair."""
    check_integer("batch", batch, 1)
    check_integer("window", window, 1)
    needed = 2 if pad else batch * window + 1
    if len(codes) < needed:
        raise TextError(
            f"the text has {len(codes)} tokens, batch {batch} × window {window} needs "
            f"{needed}: use a smaller `batch` or `window`, or a longer text"
        )
