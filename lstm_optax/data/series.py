"""Time series as windows to forecast from: split by time, scaled, with masks for missing values."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from lstm_optax.checks import check_integer
from lstm_optax.data.shares import check_shares

LARGEST = 1e100  # its square fits in float64
FARTHEST = 1e15  # standard deviations; the square fits in float32


class ForecastBatch(NamedTuple):
    """B windows of T steps, and the H values that follow each."""

    inputs: NDArray[np.float32]  # [T, B, features]
    targets: NDArray[np.float32]  # [B, H], 0 where missing
    valid: NDArray[np.bool_]  # [B, H], false where missing


@dataclass(frozen=True, eq=False)
class SeriesWindows:
    """Windows of a series for training, validation and test, in this order of time.

    Window t has the inputs of rows t − window … t − 1 and the targets of rows t … t + horizon − 1.
    All its targets are in one part; its inputs may reach back into the part before. Windows whose
    targets are all missing are left out. Mean and standard deviation of each column are those of
    its training part, so nothing in the training depends on later rows.

    Attributes:
      inputs: [rows, features]; the scaled columns, 0 where missing, followed by a mask, 1 where
        missing, for each column that has missing values in the training part.
      targets: [rows], the scaled target column, NaN where missing.
      window, horizon: numbers of rows.
      std: the standard deviation of the target, in the unit of its column.
      training, validation, test: [windows], the rows t of the windows of each part.
    """

    inputs: NDArray[np.float32]
    targets: NDArray[np.float64]
    window: int
    horizon: int
    std: float
    training: NDArray[np.intp]
    validation: NDArray[np.intp]
    test: NDArray[np.intp]

    @classmethod
    def of(
        cls,
        columns: Mapping[str, Any],
        target: str,
        *,
        window: int,
        horizon: int = 1,
        validation: float = 0.1,
        test: float = 0.1,
    ) -> SeriesWindows:
        """Split and scale columns.

        Args:
          columns: the input columns by name, each [rows] with NaN for missing values; the target
            is one of them.
          target: the column to forecast.
          window: number of rows that a forecast is made from, at least 1.
          horizon: number of rows to forecast, at least 1.
          validation, test: shares of the rows, the last ones for the test.

        Raises:
          ValueError: a number out of its range; too few rows; in the training part a column that is
            constant or missing; in another part a missing target; a number that is too large.
        """
        if target not in columns:
            raise ValueError(f"target is {target!r}, but must be one of {', '.join(columns)}")
        rows = len(columns[target])
        first, last = _split_rows(rows, window, horizon, validation, test)
        scales = {name: _scale(name, values, first) for name, values in columns.items()}
        scaled = np.stack([values for values, _ in scales.values()], axis=-1)
        missing = np.isnan(scaled)
        masks = missing[:, missing[:first].any(axis=0)]
        inputs = np.concatenate([np.where(missing, 0, scaled), masks], axis=-1, dtype=np.float32)
        targets, std = scales[target]
        spans = {"training": (window, first), "validation": (first, last), "test": (last, rows)}
        starts: dict[str, Any] = {
            part: _window_starts(target, targets, part, *span, horizon)
            for part, span in spans.items()
        }
        return cls(inputs, targets, window, horizon, std, **starts)

    def __call__(self, position: int, *, batch: int, seed: int = 0) -> ForecastBatch:
        """Return batch `position` of a stream of random training windows.

        Args:
          position: 0, 1, 2, …
          batch: B, at least 1.
          seed: the seed of the stream, at least 0.

        Raises:
          ValueError: an argument is not an integer, or out of its range.
        """
        check_integer("position", position, 0)
        check_integer("batch", batch, 1)
        rng = np.random.default_rng([check_integer("seed", seed, 0), position])
        return self.batch(rng.choice(self.training, batch))

    def batch(self, starts: NDArray[np.integer]) -> ForecastBatch:
        """Return the windows of rows `starts` [B], such as those of `test`."""
        inputs = self.inputs[starts + np.arange(-self.window, 0)[:, None]]
        targets = self.targets[starts[:, None] + np.arange(self.horizon)]
        valid = ~np.isnan(targets)
        return ForecastBatch(inputs, np.where(valid, targets, 0).astype(np.float32), valid)


def _split_rows(
    rows: int, window: int, horizon: int, validation: float, test: float
) -> tuple[int, int]:
    """Return the first row of the validation part and of the test part."""
    check_integer("window", window)
    check_integer("horizon", horizon)
    check_shares(validation, test)
    needed = {"training": window + horizon, "validation": horizon, "test": horizon}

    def sizes(rows: int) -> dict[str, int]:
        parts = {"validation": round(validation * rows), "test": round(test * rows)}
        return {"training": rows - sum(parts.values())} | parts

    def fits(rows: int) -> bool:
        return all(size >= needed[part] for part, size in sizes(rows).items())

    for part, size in sizes(rows).items():
        if size < needed[part]:
            enough = bisect_left(range(10**15), True, key=fits)
            words = f"a window of {window} and a horizon" if part == "training" else "a horizon"
            verb = "need" if part == "training" else "needs"
            raise ValueError(
                f"{rows} rows leave {size} for {part}, but {words} of {horizon} {verb} "
                f"{needed[part]}: use at least {enough} rows, or another window, horizon or share"
            )
    return sizes(rows)["training"], rows - sizes(rows)["test"]


def _scale(name: str, values: Any, first: int) -> tuple[NDArray[np.float64], float]:
    """Return a column scaled by its rows before `first`, and their standard deviation."""
    values = np.asarray(values, np.float64)
    known = values[:first][~np.isnan(values[:first])]
    if not known.size:
        raise ValueError(
            f"all values of column {name!r} are missing in the training part, rows 1 to {first}: "
            "use another column, or smaller shares for validation and test"
        )
    if (large := np.flatnonzero(np.abs(values) >= LARGEST)).size:
        raise ValueError(
            f"column {name!r} has {values[large[0]]:g} at row {large[0] + 1}, but must hold finite "
            f"numbers below {LARGEST:g}: leave missing values empty"
        )
    if known.min() == known.max():
        raise ValueError(
            f"column {name!r} is constant, {known[0]:g}, in the training part, rows 1 to {first}: "
            "use another column, or smaller shares for validation and test"
        )
    mean, std = known.mean(), known.std()
    scaled = (values - mean) / std
    if (far := np.flatnonzero(np.abs(scaled) >= FARTHEST)).size:
        raise ValueError(
            f"column {name!r} has {values[far[0]]:g} at row {far[0] + 1}, {scaled[far[0]]:.0e} "
            "standard deviations of the training part from its mean: check the value"
        )
    return scaled, float(std)


def _window_starts(
    name: str, targets: NDArray[np.float64], part: str, first: int, last: int, horizon: int
) -> NDArray[np.intp]:
    """Return the rows t with a target in t … t + horizon − 1, all within first … last − 1."""
    present = sliding_window_view(~np.isnan(targets[first:last]), horizon).any(axis=-1)
    if not present.any():
        raise ValueError(
            f"all values of the target {name!r} are missing in rows {first + 1} to {last}, the "
            f"targets of the {part} part: use other shares for validation and test"
        )
    return first + np.flatnonzero(present)
