"""Naive forecasts, the baselines of a forecasting model."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lstm_optax.checks import check_integer
from lstm_optax.data.series import SeriesWindows


def naive_forecasts(
    values: NDArray[np.floating[Any]],
    starts: NDArray[np.integer[Any]],
    horizon: int = 1,
    *,
    season: int = 1,
) -> NDArray[np.float64]:
    """Return forecasts [N, horizon] that repeat the last season before each start.

        ŷ[t + h] = y[t + h − k·season],  h = 0 … horizon − 1

    with the smallest k for which that row is before t and not missing; NaN if there is none. A
    season of 1 repeats the last value.

    Args:
      values: y [rows], NaN where missing.
      starts: t [N], the first row of each forecast.
      horizon: number of rows to forecast, at least 1.
      season: number of rows of a season, at least 1.

    Raises:
      ValueError: a horizon or season below 1.

    Reference: Hyndman & Athanasopoulos, Forecasting: principles and practice, 3rd edition, 2021,
    section 5.2, https://otexts.com/fpp3/simple-methods.html.
    """
    check_integer("horizon", horizon)
    check_integer("season", season)
    last = _last_in_phase(np.asarray(values, np.float64), season)
    ahead = np.arange(horizon)
    rows = np.asarray(starts)[:, None] + ahead - season * (ahead // season + 1)
    return np.where(rows >= 0, last[np.maximum(rows, 0)], np.nan)


def naive_score(
    windows: SeriesWindows, starts: NDArray[np.integer[Any]], *, season: int = 1
) -> float:
    """Return the mean squared error of naive forecasts of some windows, in scaled units.

    Missing targets are left out. A forecast without an earlier value is 0, the mean of the training
    part.

    Args:
      windows: the series.
      starts: windows of it, such as `windows.test`.
      season: number of rows of a season, at least 1; 1 repeats the last value.

    Raises:
      ValueError: a season below 1.
    """
    forecasts = naive_forecasts(windows.targets, starts, windows.horizon, season=season)
    _, targets, valid = windows.batch(starts)
    return float(np.square(np.nan_to_num(forecasts) - targets)[valid].mean())


def _last_in_phase(values: NDArray[np.float64], season: int) -> NDArray[np.float64]:
    """Replace each missing value by the last one before it that is whole seasons earlier."""
    if season >= len(values):
        return values
    rows = -(-len(values) // season)
    padded = np.full(rows * season, np.nan)
    padded[: len(values)] = values
    table = padded.reshape(rows, season)
    known = np.where(np.isnan(table), 0, np.arange(rows)[:, None])
    filled = np.take_along_axis(table, np.maximum.accumulate(known, axis=0), axis=0)
    return filled.ravel()[: len(values)]
