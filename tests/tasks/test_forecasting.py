"""The forecasting task: its protocol, masks, baselines, units, training and errors."""

import json

import jax
import numpy as np
import pytest

import lstm_optax as lo
from lstm_optax.data import SeriesWindows, naive_score
from lstm_optax.tasks import forecast

ROWS = 120


def make_frame():
    """Return a sine with noise, and a second column; both have gaps."""
    rng = np.random.default_rng(0)
    time = np.arange(ROWS)
    frame = {"y": 20 + 3 * np.sin(2 * np.pi * time / 8) + rng.normal(0, 0.3, ROWS)}
    frame["x"] = np.cos(2 * np.pi * time / 8)
    frame["y"][[3, 50, 51, 110]] = np.nan
    frame["x"][[7, 60, 100]] = np.nan
    return frame


SMALL = dict(target="y", columns=["x"], window=6, horizon=2, season=8, hidden=3, batch=4)


def make_task(**changes):
    return forecast(**(dict(frame=make_frame(), validation=0.2, test=0.2) | SMALL | changes))


def constant_params(task, value):
    """Return parameters that all have this value."""
    shapes = jax.eval_shape(task.init, jax.random.key(0))
    return jax.tree.map(lambda leaf: np.full(leaf.shape, value, leaf.dtype), shapes)


def test_task_follows_the_protocol(key):
    task = make_task()
    task.check()
    assert json.loads(json.dumps(task.settings)) == dict(task.settings)
    metrics = jax.eval_shape(task.evaluate, jax.eval_shape(task.init, key))
    names = {"validation", "validation_rmse", "test", "test_rmse"}
    assert set(metrics) == names and task.metric == "validation" and task.test_metric == "test"


def test_key_determines_initial_parameters(key):
    init, other_key = jax.jit(make_task().init), jax.random.split(key)[0]
    kernels = [jax.tree.leaves(init(k))[-1] for k in (key, key, other_key)]
    assert np.array_equal(*kernels[:2]) and not np.array_equal(*kernels[1:])


def test_csv_and_frame_make_the_same_task(tmp_path):
    frame = make_frame()
    path = tmp_path / "series.csv"
    rows = [",".join(map(str, row)) for row in zip(*frame.values(), strict=True)]
    path.write_text("\n".join(["y,x", *rows]))
    one, other = make_task(), make_task(frame=None, csv=path, columns="x,")
    assert one.settings == other.settings and one.baselines == other.baselines
    for a, b in zip(one.batches(5, 2), other.batches(5, 2), strict=True):
        np.testing.assert_array_equal(a, b)


def test_settings_change_with_the_data():
    frame = make_frame()
    frame["x"][ROWS - 1] += 1
    assert make_task(frame=frame).settings != make_task().settings
    assert make_task(columns=()).settings["columns"] == ["y"]


def test_batches_depend_on_position_and_seed():
    task = make_task()
    one = task.batches(3, 1).inputs
    np.testing.assert_array_equal(one, make_task().batches(3, 1).inputs)
    for position, seed in ((4, 1), (3, 2)):
        assert not np.array_equal(one, task.batches(position, seed).inputs)


def test_metrics_match_numpy():
    """A model that predicts 0 has the mean square of the scaled targets as its error."""
    task, frame = make_task(), make_frame()
    params = constant_params(task, 0)
    metrics = jax.jit(task.evaluate)(params)
    known = frame["y"][:72][~np.isnan(frame["y"][:72])]
    for part, first, last in (("validation", 72, 96), ("test", 96, 120)):
        values = [frame["y"][t + h] for t in range(first, last - 1) for h in range(2)]
        errors = np.square(np.array(values) - known.mean())
        error = errors[~np.isnan(errors)].mean()
        np.testing.assert_allclose(metrics[part], error / known.var(), rtol=1e-5)
        np.testing.assert_allclose(metrics[f"{part}_rmse"], np.sqrt(error), rtol=1e-5)


def test_baselines_are_naive_scores():
    task = make_task()
    windows = SeriesWindows.of(make_frame(), "y", window=6, horizon=2, validation=0.2, test=0.2)
    scores = {"naive": 1, "seasonal naive": 8}
    for name, season in scores.items():
        assert task.baselines[name] == naive_score(windows, windows.test, season=season)
    at_validation = [naive_score(windows, windows.validation, season=s) for s in scores.values()]
    assert task.target == min(at_validation)
    assert set(make_task(season=None).baselines) == {"naive"}


def test_masked_target_has_no_influence(key):
    task = make_task()
    params, batch = constant_params(task, 0.1), task.batches(0, 0)
    batch.valid[0, 1] = False
    value_and_grad = jax.jit(jax.value_and_grad(lambda p, b: task.loss(p, (), b, key)[0]))
    before = value_and_grad(params, batch)
    batch.targets[0, 1] = 1e6
    assert jax.tree.all(jax.tree.map(np.array_equal, before, value_and_grad(params, batch)))
    batch.targets[1, 1] += 1
    assert value_and_grad(params, batch)[0] != before[0]


def test_loss_matches_numpy(key):
    task = make_task()
    params = constant_params(task, 0)
    batch = task.batches(0, 0)
    batch.valid[2, 0] = False
    loss, carry = task.loss(params, (), batch, key)
    np.testing.assert_allclose(loss, np.square(batch.targets)[batch.valid].mean(), rtol=1e-6)
    assert carry == ()


def test_few_windows_are_a_fixed_choice():
    tasks = [make_task(eval_windows=count) for count in (5, 5, 23, 1000)]
    scores = [task.baselines["naive"] for task in tasks]
    assert scores[0] == scores[1] != scores[2] == scores[3]


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(csv="a.csv"), "csv and frame are both given: pass one of them"),
        (dict(frame=None), "neither csv nor frame is given: pass a CSV file or a data frame"),
        (dict(target="Y"), "frame has no column 'Y'; there are 'y', 'x'"),
        (dict(columns="xx"), "frame has no column 'xx'; the nearest is 'x'; there are 'y', 'x'"),
        (dict(horizon=0), "horizon is 0, but must be a whole number of at least 1"),
        (dict(batch=0), "batch is 0, but must be a whole number of at least 1"),
        (dict(season=0), "season is 0, but must be a whole number of at least 1"),
        (
            dict(season=71),
            "season is 71, but must be at most 70, the number of rows before the last training "
            "window",
        ),
        (dict(eval_windows=0), "eval_windows is 0, but must be a whole number of at least 1"),
        (dict(hidden=0), "hidden_features is 0, but must be a whole number of at least 1"),
        (
            dict(window=80),
            "120 rows leave 72 for training, but a window of 80 and a horizon of 2 need 82: use at "
            "least 136 rows, or another window, horizon or share",
        ),
    ],
)
def test_bad_argument_is_named(changes, message):
    with pytest.raises(ValueError) as error:
        make_task(**changes)
    assert str(error.value) == message


@pytest.mark.slow
def test_model_beats_naive_on_sine(key):
    time = np.arange(400)
    frame = {"y": 20 + 3 * np.sin(2 * np.pi * time / 16)}
    task = forecast(frame=frame, target="y", window=8, horizon=2, hidden=8, batch=16)
    optimizer = lo.nadam(0.02)
    result = lo.fit(
        lo.make_step(task.loss, optimizer),
        lo.init_state(task.init(key), optimizer, task.initial_carry(), key),
        lambda position: task.batches(position, 0),
        steps=200,
    )
    score = float(task.evaluate(result.state.params)["test"])
    assert score < task.baselines["naive"] / 10
