"""The range test against theory and a NumPy loop, its proposals, its errors and its picture."""

import dataclasses
import math
import re

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from quadratic_task import quadratic

from lstm_optax.runs import OptionError
from lstm_optax.studies import RangeTest, StudyError, range_test, range_test_figure, sweep
from lstm_optax.studies._range_test import _half_decades_below, _propose
from lstm_optax.tasks import sequences

QUADRATIC = dict(low=1e-2, high=1e2, steps=200, clip=0)


def oracle(curvatures, steps, low, high):
    """The losses of gradient descent on a quadratic, in float64, with the ramp of the rate."""
    theta, losses = np.ones(len(curvatures)), []
    for step in range(steps):
        losses.append(0.5 * np.sum(curvatures * theta**2))
        theta -= low * (high / low) ** (step / (steps - 1)) * curvatures * theta
    return np.asarray(losses)


def test_losses_match_numpy_loop():
    curvatures = np.array([1.0, 0.1])
    result = range_test(quadratic(curvatures), "sgd", low=1e-3, high=1.0, steps=100, clip=0)
    expected = oracle(curvatures, 100, 1e-3, 1.0).reshape(50, 2).mean(axis=1)
    np.testing.assert_allclose(result.losses, expected, rtol=1e-3)
    ratio = 1000 ** (1 / 99)
    np.testing.assert_allclose(result.rates[0], 1e-3 * ratio**0.5, rtol=1e-6)
    np.testing.assert_allclose(np.diff(np.log(result.rates)), 2 * np.log(ratio), rtol=1e-6)


@pytest.mark.parametrize("curvature", [0.2, 1.0, 20.0])
def test_instability_is_near_theory(curvature):
    """Gradient descent on ½ λ θ² is stable for rates below 2/λ."""
    limit = 2 / curvature
    result = range_test(quadratic([curvature, curvature / 9], noise=0.1), "sgd", **QUADRATIC)
    assert 0.7 * limit < result.unstable < 1.5 * limit
    assert limit / 20 < result.grid[-1] < limit
    assert len(result.losses) < 50 and len(result.grid) == 5 and result.reason == ""
    assert 99 < result.grid[-1] / result.grid[0] < 101
    assert all(f"{rate:e}"[:8] in ("1.000000", "3.000000") for rate in result.grid)


@pytest.mark.parametrize(
    ("rate", "largest"),
    [(0.1, 0.1), (0.2999, 0.1), (0.3, 0.3), (0.99, 0.3), (1.0, 1.0), (3e-5, 3e-5), (31.0, 30.0)],
)
def test_largest_rate_is_rounded_down(rate, largest):
    assert _half_decades_below(rate)[-1] == largest


def test_rates_near_lowest_loss_remain():
    """The right end of a plateau counts, not its random minimum."""
    rates = [1e-3, 1e-2, 1e-1, 1.0, 10.0]
    grid, reason = _propose(rates, [2.0, 1.0, 1.04, 1.06, 9.0], None)
    assert grid == (1e-3, 3e-3, 1e-2, 3e-2, 1e-1) and not reason


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"high": 0.3, "low": 1e-4}, "the loss was still at its lowest at the end of the ramp"),
        ({"high": 1e-6, "low": 1e-8}, "the loss did not fall at any rate: train for more steps"),
        (
            {"high": 1e6, "low": 1e3},
            "the loss was far too high from the first rates on, .*: pass a",
        ),
    ],
)
def test_reason_says_why_no_grid(options, reason):
    result = range_test(quadratic([1.0]), "sgd", steps=40, clip=0, **options)
    assert result.grid == ()
    assert re.match(reason, result.reason)


def test_no_finite_loss_is_a_result():
    task = quadratic([1.0])
    broken = dataclasses.replace(task, loss=lambda p, c, b, k: (jnp.sum(p) * jnp.nan, c))
    result = range_test(broken, "sgd", steps=20)
    assert result.losses == () and result.grid == () and result.unstable == 1e-6
    assert (
        result.reason
        == "the loss was far too high from the first rates on, 1e-06: pass a smaller low"
    )


def test_step_is_compiled_once():
    traces = []

    def count_traces(steps):
        task = quadratic([1.0], noise=0.1)

        def loss(*arguments):
            traces.append(1)
            return task.loss(*arguments)

        traces.clear()
        range_test(dataclasses.replace(task, loss=loss), "nadam", steps=steps)
        return len(traces)

    assert count_traces(20) == count_traces(100)


def test_function_and_settings_are_used():
    def heavy_ball(learning_rate, momentum=0.0):
        return optax.sgd(learning_rate, momentum)

    task = quadratic([1.0], noise=0.1)
    plain = range_test(task, heavy_ball, steps=20, high=1e-1)
    heavy = range_test(task, heavy_ball, steps=20, high=1e-1, settings={"momentum": 0.9})
    named = range_test(task, "sgd", steps=20, high=1e-1, clip=0)
    assert plain.name == "heavy_ball"
    np.testing.assert_allclose(plain.losses, named.losses, rtol=1e-5)
    assert heavy.losses[-1] < plain.losses[-1]


def test_clip_bounds_the_step():
    task = quadratic([100.0])
    free, clipped = (range_test(task, "sgd", steps=40, high=0.1, clip=c) for c in (0, 1e-3))
    assert min(free.losses) < 1 < 10 < min(clipped.losses)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"low": 0.0}, "low is 0.0, but must be a number above 0"),
        ({"high": -1.0}, "high is -1.0, but must be a number above 0"),
        ({"low": 1.0, "high": 1e-3}, "high is 0.001, but must be above low, 1"),
        ({"steps": 19}, "steps is 19, but the ramp needs at least 20"),
        ({"steps": 2.5}, "steps is 2.5, but must be a whole number of at least 1"),
    ],
)
def test_bad_ramp_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        range_test(quadratic([1.0]), "sgd", **options)


def test_bad_optimizer_is_refused():
    with pytest.raises(OptionError, match="nadamm"):
        range_test(quadratic([1.0]), "nadamm")
    with pytest.raises(StudyError, match="pass name="):
        range_test(quadratic([1.0]), lambda learning_rate: optax.sgd(learning_rate))
    with pytest.raises(StudyError, match="sgd cannot train quadratic: .*decay"):
        range_test(quadratic([1.0]), "sgd", settings={"decay": 0.9})


RESULT = RangeTest(
    name="sgd",
    rates=(1e-3, 1e-2, 1e-1, 1.0, 2.0),
    losses=(2.0, 1.0, 0.5, 9e3, math.inf),
    smoothed=(1.0, 1.5, 2.0, 9e3, 9e3),
    unstable=2.0,
    grid=(1e-3, 3e-3, 1e-2, 3e-2, 1e-1),
    reason="",
)


def test_figure_shows_grid_and_end():
    figure = range_test_figure(RESULT)
    figure.canvas.draw()
    axes = figure.axes[0]
    labels = [line.get_label() for line in axes.lines]
    assert "proposed grid" in labels and "unstable at 2" in labels
    assert [text.get_text() for text in axes.texts] == ["0.001", "0.003", "0.01", "0.03", "0.1"]
    low, high = axes.get_ylim()
    assert low < 1 and 2 < high < 10


def test_figure_shows_why_no_grid():
    result = dataclasses.replace(RESULT, grid=(), reason="the loss did not fall")
    texts = [text.get_text() for text in range_test_figure(result).axes[0].texts]
    assert texts == ["no grid: the loss did not fall"]
    empty = dataclasses.replace(result, rates=(), losses=(), smoothed=())
    range_test_figure(empty).canvas.draw()


@pytest.mark.slow
def test_grid_holds_the_best_rate():
    """A sweep over five decades finds its best rate inside, or half a decade from, the grid."""
    task = sequences(name="adding", length=8, hidden=16, batch=16, held_out=64)
    grid = range_test(task, "nadam").grid
    rates = [float(f"{m}e{e}") for e in range(-5, 1) for m in (1, 3)]
    found = sweep(task, "nadam", grid={"learning_rate": rates}, steps=400, seeds=2)
    best = math.log10(found.best["learning_rate"])
    assert math.log10(grid[0]) - 0.55 < best < math.log10(grid[-1]) + 0.55
