"""Forecasting the next values of a time series from a CSV file or a data frame."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lstm_optax.checks import check_integer
from lstm_optax.data import ForecastBatch, SeriesWindows, naive_score, read_columns
from lstm_optax.tasks.lstm_model import make_model, mean_loss
from lstm_optax.tasks.task import Task

PARTS = ("validation", "test")


def forecast(
    *,
    target: str,
    csv: str | PathLike[str] | None = None,
    frame: Any = None,
    columns: str | Sequence[str] = (),
    horizon: int = 1,
    window: int = 48,
    season: int | None = None,
    hidden: int = 32,
    batch: int = 32,
    validation: float = 0.1,
    test: float = 0.1,
    eval_windows: int = 512,
    encoding: str = "utf-8",
    steps: int = 2000,
    eval_every: int = 100,
) -> Task:
    """Forecast the next values of a column from the rows before them.

    An LSTM reads `window` rows and predicts the next `horizon` values of the target at once. The
    rows are in the order of time; the last ones are for validation and test, see `SeriesWindows`.
    The loss and the metrics "validation" and "test" are mean squared errors in scaled units, the
    standard deviation of the training part being 1; "validation_rmse" and "test_rmse" are root mean
    square errors in the unit of the column. The baselines are mean squared errors in scaled units
    of naive forecasts of the same test windows. The target of the task is the lowest error of
    these forecasts on the validation windows.

    Args:
      target: the column to forecast; its past values are always inputs.
      csv: a CSV file. Either this or `frame`.
      frame: a pandas or polars data frame, or a dictionary of columns.
      columns: names of further input columns; a single text has commas between them.
      horizon: number of rows to forecast, at least 1.
      window: number of rows that a forecast is made from, at least 1.
      season: number of rows of a season, such as 24 for hourly data with a daily rhythm; adds the
        seasonal naive forecast to the baselines.
      hidden: number of hidden units.
      batch: number of windows in a batch, drawn at random from the training part.
      validation, test: shares of the rows.
      eval_windows: the largest number of windows for validation, and for the test; if there are
        more, a fixed random choice.
      encoding: the text encoding of the file.
      steps, eval_every: defaults of the task.

    Raises:
      TextError: the file cannot be read, see `read_text`.
      ValueError: a column or its values cannot be used, see `read_columns` and `SeriesWindows.of`;
        or a number is out of its range.
    """
    if isinstance(columns, str):
        columns = [name.strip() for name in columns.split(",") if name.strip()]
    data = read_columns([target, *columns], csv=csv, frame=frame, encoding=encoding)
    windows = SeriesWindows.of(
        data, target, window=window, horizon=horizon, validation=validation, test=test
    )
    check_integer("batch", batch)
    _check_season(season, windows)
    chosen = {part: _choose(getattr(windows, part), eval_windows) for part in PARTS}
    model = make_model(windows.inputs.shape[1], hidden, horizon)

    def error(params: Any, batch: ForecastBatch) -> jax.Array:
        return mean_loss(model.apply(params, batch.inputs), batch.targets, batch.valid)

    return Task(
        name="forecast",
        init=model.init,
        loss=lambda params, carry, batch, key: (error(params, batch), carry),
        batches=lambda position, seed: windows(position, batch=batch, seed=seed),
        evaluate=_make_evaluate(error, windows, chosen),
        steps=steps,
        eval_every=eval_every,
        target=min(_naive_scores(windows, chosen["validation"], season).values()),
        baselines=_naive_scores(windows, chosen["test"], season),
        settings=dict(
            target=target,
            columns=list(data),
            data=_digest(data),
            horizon=horizon,
            window=window,
            season=season,
            hidden=hidden,
            batch=batch,
            validation=validation,
            test=test,
            eval_windows=eval_windows,
        ),
    )


def _check_season(season: int | None, windows: SeriesWindows) -> None:
    if season is not None and check_integer("season", season) > windows.training[-1]:
        raise ValueError(
            f"season is {season}, but must be at most {windows.training[-1]}, the number of rows "
            "before the last training window"
        )


def _choose(starts: np.ndarray, most: int) -> np.ndarray:
    """Return at most `most` of the windows, in order; the choice is random but fixed."""
    if len(starts) <= check_integer("eval_windows", most):
        return starts
    return np.sort(np.random.default_rng(0).choice(starts, most, replace=False))


def _make_evaluate(
    error: Callable[[Any, ForecastBatch], jax.Array],
    windows: SeriesWindows,
    chosen: Mapping[str, np.ndarray],
) -> Callable[[Any], dict[str, jax.Array]]:
    """Return the function of the parameters that measures the error on the chosen windows."""
    held_out = {part: windows.batch(starts) for part, starts in chosen.items()}

    def evaluate(params: Any) -> dict[str, jax.Array]:
        errors = {part: error(params, batch) for part, batch in held_out.items()}
        roots = {f"{part}_rmse": windows.std * jnp.sqrt(errors[part]) for part in held_out}
        return errors | roots

    return evaluate


def _naive_scores(
    windows: SeriesWindows, starts: np.ndarray, season: int | None
) -> dict[str, float]:
    scores = {"naive": naive_score(windows, starts)}
    if season is not None:
        scores["seasonal naive"] = naive_score(windows, starts, season=season)
    return scores


def _digest(data: dict[str, Any]) -> str:
    """Return a digest of the values, so that a study resumes only with the same data."""
    return hashlib.sha256(np.stack(list(data.values())).tobytes()).hexdigest()
