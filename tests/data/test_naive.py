"""Naive forecasts and their scores, compared with a direct loop over earlier rows."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lstm_optax.data import SeriesWindows, naive_forecasts, naive_score


def last_in_phase(values, t, h, season):
    """Return the newest value before row t that is whole seasons before row t + h."""
    for row in range(t + h - season, -1, -season):
        if row < t and not math.isnan(values[row]):
            return values[row]
    return math.nan


@given(
    values=st.lists(st.sampled_from([1.0, 2.0, 3.5, -4.0, math.nan]), min_size=1, max_size=30),
    horizon=st.integers(1, 6),
    season=st.integers(1, 40),
)
def test_forecasts_match_direct_loop(values, horizon, season):
    starts = np.arange(len(values))
    result = naive_forecasts(np.array(values), starts, horizon, season=season)
    expected = [[last_in_phase(values, t, h, season) for h in range(horizon)] for t in starts]
    np.testing.assert_array_equal(result, expected)


def test_season_repeats_its_last_period():
    values = np.tile([1.0, 2, 3], 4)
    forecasts = naive_forecasts(values, np.array([6]), 6, season=3)
    np.testing.assert_array_equal(forecasts, [[1, 2, 3, 1, 2, 3]])
    np.testing.assert_array_equal(naive_forecasts(values, np.array([6]), 3), [[3, 3, 3]])


@pytest.mark.parametrize("season", [1, 7])
def test_score_matches_direct_loop(season):
    rng = np.random.default_rng(0)
    values = rng.normal(10, 2, 90) + np.arange(90) % 7
    values[rng.choice(90, 20, replace=False)] = np.nan
    windows = SeriesWindows.of({"y": values}, "y", window=4, horizon=9, validation=0.2, test=0.2)
    train = values[:54][~np.isnan(values[:54])]
    scaled = (values - train.mean()) / train.std()
    errors = [
        (last_in_phase(scaled, t, h, season) - scaled[t + h]) ** 2
        for t in windows.test
        for h in range(9)
        if not math.isnan(scaled[t + h])
    ]
    score = naive_score(windows, windows.test, season=season)
    assert score == pytest.approx(np.mean(errors), rel=1e-5)


def test_score_without_past_uses_mean():
    values = np.r_[np.full(8, np.nan), np.arange(30.0)]
    windows = SeriesWindows.of({"y": values}, "y", window=4, validation=0.2, test=0.2)
    first = windows.training[:1]
    assert first == [8]
    assert naive_score(windows, first) == pytest.approx(windows.targets[8] ** 2)


@pytest.mark.parametrize("name", ["horizon", "season"])
def test_forecasts_reject_zero(name):
    with pytest.raises(ValueError, match=f"{name} is 0, but must be a whole number of at least 1"):
        naive_forecasts(np.arange(3.0), np.array([2]), **{name: 0})
