"""Windows of a series: split by time, scaling, masks, and the errors of bad data."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lstm_optax.data import SeriesWindows

ROWS = 100


def make_columns(seed=0):
    """Return two columns with gaps; `extra` has gaps after row 90 only."""
    rng = np.random.default_rng(seed)
    columns = {"y": rng.normal(5, 3, ROWS), "x": rng.normal(size=ROWS), "extra": rng.random(ROWS)}
    columns["y"][rng.choice(ROWS, 15, replace=False)] = np.nan
    columns["x"][rng.choice(ROWS, 10, replace=False)] = np.nan
    columns["extra"][95] = np.nan
    return columns


def make_windows(columns=None, **changes):
    settings = dict(window=5, horizon=2, validation=0.1, test=0.2) | changes
    return SeriesWindows.of(columns or make_columns(), "y", **settings)


def test_parts_follow_in_time():
    windows = make_windows()
    spans = {"training": (5, 70), "validation": (70, 80), "test": (80, 100)}
    missing = np.isnan(make_columns()["y"])
    for part, (first, last) in spans.items():
        expected = [t for t in range(first, last - 1) if not missing[t : t + 2].all()]
        np.testing.assert_array_equal(getattr(windows, part), expected)


def test_batch_matches_direct_loop():
    columns, windows = make_columns(), make_windows()
    scaled = {}
    for name, values in columns.items():
        known = [v for v in values[:70] if not np.isnan(v)]
        mean = sum(known) / len(known)
        std = (sum((v - mean) ** 2 for v in known) / len(known)) ** 0.5
        scaled[name] = [(v - mean) / std for v in values]
        if name == "y":
            assert windows.std == pytest.approx(std)
    batch = windows.batch(windows.test)
    for row, t in enumerate(windows.test):
        for step, r in enumerate(range(t - 5, t)):
            values = [scaled[name][r] for name in columns]
            masks = [np.isnan(scaled[name][r]) for name in ("y", "x")]  # no gap of `extra` before
            expected = [*np.nan_to_num(values), *masks]
            np.testing.assert_allclose(batch.inputs[step, row], expected, rtol=1e-5)
        for h in range(2):
            value = scaled["y"][t + h]
            assert batch.valid[row, h] == (not np.isnan(value))
            np.testing.assert_allclose(batch.targets[row, h], np.nan_to_num(value), rtol=1e-5)


def test_training_batch_holds_training_windows():
    windows = make_windows()
    batch = windows(3, batch=500, seed=1)
    known = windows.batch(windows.training)
    rows = {known.inputs[:, i].tobytes() + known.targets[i].tobytes() for i in range(len(known[1]))}
    drawn = {batch.inputs[:, i].tobytes() + batch.targets[i].tobytes() for i in range(500)}
    assert drawn == rows  # each of about 60 is drawn by 500 of them
    assert batch.valid.any(axis=1).all()
    assert [leaf.dtype for leaf in batch] == [np.float32, np.float32, np.bool_]
    assert [leaf.shape for leaf in batch] == [(5, 500, 5), (500, 2), (500, 2)]


def test_batch_depends_on_position_and_seed():
    windows = make_windows()
    one, same = windows(3, batch=8, seed=1), windows(3, batch=8, seed=1)
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    for position, seed in ((4, 1), (3, 2), (1, 3)):
        assert not np.array_equal(one.inputs, windows(position, batch=8, seed=seed).inputs)


@given(st.integers(70, ROWS - 1), st.one_of(st.floats(-1e6, 1e6), st.just(np.nan)))
def test_later_rows_change_nothing_earlier(row, value):
    columns = make_columns()
    before = make_windows(columns)
    for values in columns.values():
        values[row] = value
    after = make_windows(columns)
    np.testing.assert_array_equal(before.inputs[:row], after.inputs[:row])
    np.testing.assert_array_equal(before.targets[:row], after.targets[:row])
    np.testing.assert_array_equal(before.training, after.training)
    assert before.std == after.std
    for a, b in zip(before(0, batch=64), after(0, batch=64), strict=True):
        np.testing.assert_array_equal(a, b)


def test_complete_columns_have_no_masks():
    columns = {name: np.nan_to_num(values) for name, values in make_columns().items()}
    assert make_windows(columns).inputs.shape == (ROWS, 3)


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(horizon=0), "horizon is 0, but must be a whole number of at least 1"),
        (dict(horizon=1.5), "horizon is 1.5, but must be a whole number of at least 1"),
        (dict(window=0), "window is 0, but must be a whole number of at least 1"),
        (dict(validation=0), "validation is 0, but must be a share between 0 and 1"),
        (dict(test=1), "test is 1, but must be a share between 0 and 1"),
        (
            dict(validation=0.5, test=0.5),
            "validation 0.5 and test 0.5 leave nothing for training: their sum must be below 1",
        ),
        (
            dict(window=90),
            "100 rows leave 70 for training, but a window of 90 and a horizon of 2 need 92: use at "
            "least 131 rows, or another window, horizon or share",
        ),
        (
            dict(validation=0.001),
            "100 rows leave 0 for validation, but a horizon of 2 needs 2: use at least 1500 rows, "
            "or another window, horizon or share",
        ),
        (
            dict(horizon=21, validation=0.3),
            "100 rows leave 20 for test, but a horizon of 21 needs 21: use at least 103 rows, or "
            "another window, horizon or share",
        ),
    ],
)
def test_sizes_that_do_not_fit_raise(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make_windows(**changes)


@pytest.mark.parametrize(
    "validation, test, window", [(0.1, 0.1, 7), (0.013, 0.3, 40), (0.2, 0.7, 1)]
)
def test_least_rows_are_enough(validation, test, window):
    settings = dict(window=window, horizon=3, validation=validation, test=test)

    def build(rows):
        return SeriesWindows.of({"y": np.arange(rows) % 7.0}, "y", **settings)

    with pytest.raises(ValueError) as error:
        build(4)
    rows = int(re.search(r"at least (\d+) rows", str(error.value))[1])
    build(rows)
    with pytest.raises(ValueError, match="rows leave"):
        build(rows - 1)


def change(name, rows, value):
    columns = make_columns()
    columns[name][rows] = value
    return columns


@pytest.mark.parametrize(
    "columns, message",
    [
        (
            change("y", slice(None), np.nan),
            "all values of column 'y' are missing in the training part, rows 1 to 70: use another "
            "column, or smaller shares for validation and test",
        ),
        (
            change("y", slice(70, 80), np.nan),
            "all values of the target 'y' are missing in rows 71 to 80, the targets of the "
            "validation part: use other shares for validation and test",
        ),
        (
            change("y", slice(80, 100), np.nan),
            "all values of the target 'y' are missing in rows 81 to 100, the targets of the test "
            "part: use other shares for validation and test",
        ),
        (
            change("y", slice(5, 70), np.nan),
            "all values of the target 'y' are missing in rows 6 to 70, the targets of the training "
            "part: use other shares for validation and test",
        ),
        (
            change("y", slice(None), 0.1),
            "column 'y' is constant, 0.1, in the training part, rows 1 to 70: use another column, "
            "or smaller shares for validation and test",
        ),
        (
            change("x", slice(70), 3),
            "column 'x' is constant, 3, in the training part, rows 1 to 70",
        ),
        (
            change("x", 9, -np.inf),
            "column 'x' has -inf at row 10, but must hold finite numbers below 1e+100: leave "
            "missing values empty",
        ),
        (
            change("x", 89, 1e30),
            "column 'x' has 1e+30 at row 90, 1e+30 standard deviations of the training part from "
            "its mean: check the value",
        ),
        ({"x": np.arange(ROWS)}, "target is 'y', but must be one of x"),
    ],
)
def test_unusable_column_is_named(columns, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make_windows(columns)


@pytest.mark.parametrize("name, value", [("position", -1), ("batch", 0), ("seed", 0.5)])
def test_batch_rejects_invalid_numbers(name, value):
    arguments = dict(position=0, batch=2, seed=0) | {name: value}
    with pytest.raises(ValueError, match=f"{name} is {value}, but must be a whole number"):
        make_windows()(**arguments)
