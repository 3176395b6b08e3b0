"""Steps to leave a saddle against recurrences in NumPy float64, and against the theory."""

import math

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import integrate

from lstm_optax.optimizers import OPTIMIZERS, adam, momentum_sgd, nesterov_sgd, rmsprop, sgd
from lstm_optax.saddles import (
    EscapeLaw,
    descent_path,
    escape_law,
    escape_steps,
    saddle_markdown,
    saddle_table,
)
from lstm_optax.studies import StudyError, sweep
from lstm_optax.tasks import surface

FINE = tuple(np.geomspace(1e-2, 1e-6, 41))
LINEAR = {"sgd": sgd, "momentum_sgd": momentum_sgd, "nesterov_sgd": nesterov_sgd}


def recurrence(rule, rate, start, steps):
    """Return the points [steps + 1, 2, …] of a rule on x² − y², with its default numbers."""
    point = np.stack(np.broadcast_arrays(*start)).astype(np.float64)
    velocity, square = np.zeros_like(point), np.zeros_like(point)
    points = [point]
    for t in range(1, steps + 1):
        g = np.stack([2 * point[0], -2 * point[1]])
        if rule == "sgd":
            move = rate * g
        elif rule == "momentum_sgd":
            velocity = 0.9 * velocity - rate * g
            move = -velocity
        elif rule == "nesterov_sgd":
            velocity = 0.9 * velocity + g
            move = rate * (g + 0.9 * velocity)
        elif rule == "rmsprop":
            square = 0.9 * square + 0.1 * g**2
            move = rate * g / np.sqrt(square + 1e-8)
        elif rule == "adam":
            velocity, square = 0.9 * velocity + 0.1 * g, 0.999 * square + 0.001 * g**2
            root = np.sqrt(square / (1 - 0.999**t)) + 1e-8
            move = rate * velocity / (1 - 0.9**t) / root
        else:  # Lion, with the weight decay of Optax
            move = rate * (np.sign(0.9 * velocity + 0.1 * g) + 1e-3 * point)
            velocity = 0.99 * velocity + 0.01 * g
        point = point - move
        points.append(point)
    return np.array(points)


def steps_of_recurrence(rule, rate, deltas, distance=0.5):
    points = recurrence(rule, rate, (distance, np.array(deltas)), 1000)  # [steps + 1, 2, δ]
    return np.argmax(points[:, 0] ** 2 - points[:, 1] ** 2 <= -1, axis=0)


@pytest.mark.parametrize("rule", LINEAR)
def test_steps_differ_from_theory(rule):
    steps = escape_steps(LINEAR[rule], learning_rate=0.01, deltas=FINE)
    law = escape_law(rule, learning_rate=0.01)
    exact = steps_of_recurrence(rule, 0.01, FINE)
    np.testing.assert_allclose(steps, exact, atol=1)
    np.testing.assert_allclose(steps, [law.steps(delta) for delta in FINE], atol=1.1)
    slope = np.polyfit(np.log(FINE), steps, 1)[0]
    np.testing.assert_allclose(slope, -1 / math.log(law.growth), rtol=5e-3)


@pytest.mark.parametrize("rule, make", [("rmsprop", rmsprop), ("adam", adam), ("lion", optax.lion)])
def test_adaptive_steps_depend_on_delta(rule, make):
    deltas = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
    steps = escape_steps(make, learning_rate=0.01, deltas=deltas)
    exact = steps_of_recurrence(rule, 0.01, deltas)
    np.testing.assert_allclose(steps, exact, atol=1)
    assert max(steps) - min(steps) <= 2
    assert 0.5 / 0.01 <= min(steps) and max(steps) <= 1.1 / 0.01


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("rule", LINEAR)
def test_law_differs_from_recurrence(rule, momentum):
    """The law against a simulation of the rule on −½ λ y², without the roots."""
    rate, curvature, steps = 0.03, 1.7, 2000
    law = escape_law(rule, learning_rate=rate, momentum=momentum, curvature=curvature)
    y, velocity, logs = 1.0, 0.0, []
    for _ in range(steps):
        g = -curvature * y
        velocity = 0.0 if rule == "sgd" else momentum * velocity - rate * g
        move = -rate * g if rule == "sgd" else velocity
        if rule == "nesterov_sgd":
            move = momentum * velocity - rate * g
        y, logs = y + move, [*logs, math.log(y + move)]
    np.testing.assert_allclose(logs[-1] - logs[-2], math.log(law.growth), rtol=1e-9)
    amplitude = math.exp(logs[199] - 200 * math.log(law.growth))
    np.testing.assert_allclose(law.amplitude, amplitude, rtol=1e-9)


def test_law_has_wrong_limits():
    plain = escape_law("sgd", learning_rate=0.1, curvature=3)
    np.testing.assert_allclose(plain, (1.3, 1))
    for rule in LINEAR:
        np.testing.assert_allclose(
            escape_law(rule, learning_rate=0.1, momentum=0, curvature=3), plain
        )
    assert EscapeLaw(math.e, 1.0).steps(math.exp(-5)) == pytest.approx(5)


def test_line_is_left_without_noise():
    assert escape_steps(sgd, learning_rate=0.05, deltas=(0.0, 1e-3)) == [None, 73]


@pytest.mark.slow
def test_noise_differs_from_theory():
    """From the line, noise σ acts as a displacement η σ |N(0, 1)| / √(ρ² − 1)."""
    rate, noise, growth = 0.05, 0.01, 1.1
    (quiet, noisy) = saddle_table(
        {"sgd": sgd},
        learning_rate=rate,
        deltas=(0.0,),
        noise=noise,
        seeds=range(400),
        max_steps=300,
    )
    assert quiet["noise"] == 0 and quiet["steps"] == [None]
    median_normal = 0.6744897501960817
    displaced = rate * noise * median_normal / math.sqrt(growth**2 - 1)
    expected = EscapeLaw(growth, 1.0).steps(displaced)
    assert abs(np.median(noisy["steps"]) - expected) < 3
    assert len(set(noisy["steps"])) > 20


def test_seed_is_not_used():
    def run(seed):
        return escape_steps(sgd, learning_rate=0.05, deltas=(0.0,), noise=0.01, seed=seed)

    assert run(1) == run(1) != run(2)


@pytest.mark.slow
def test_distance_changes_steps_of_saddle():
    """A rule for each coordinate leaves as soon from any distance on the stable line."""
    steps = [
        escape_steps(momentum_sgd, learning_rate=0.01, deltas=(0.0,), noise=0.01, distance=d)[0]
        for d in (0.0, 1e-6, 1e-1)
    ]
    assert max(steps) - min(steps) <= 1


def test_limit_is_off_by_one():
    def run(limit):
        return escape_steps(sgd, learning_rate=0.05, deltas=(0.5,), distance=0, max_steps=limit)

    steps = math.ceil(math.log(2) / math.log(1.1))
    assert run(steps) == [steps] and run(steps - 1) == [None]


def test_point_outside_takes_steps():
    assert escape_steps(sgd, learning_rate=0.1, deltas=(1.0, -1.0), distance=0) == [0, 0]


def test_nonfinite_point_counts_as_left():
    broken = lambda rate: optax.scale(jnp.nan)  # noqa: E731
    assert escape_steps(broken, learning_rate=0.1, deltas=(0.1,), max_steps=50) == [None]


def test_too_large_rate_counts_as_left():
    """At η = 1.2 the point diverges along the stable line; the value rises."""
    assert escape_steps(sgd, learning_rate=1.2, deltas=(0.0,), max_steps=200) == [None]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["saddle", "rosenbrock"])
def test_records_of_sweep_lack_path(name):
    start = (0.5, 0.1) if name == "saddle" else (-1.2, 1.0)
    task = surface(name=name, delta=0.1 if name == "saddle" else None, steps=20)
    found = sweep(
        task,
        adam,
        grid={"learning_rate": (0.01, 0.02, 0.05)},
        seeds=1,
        extensions=0,
    )
    for trial in found.records.trials.values():
        rate = trial.hyper["learning_rate"]
        path = descent_path(adam, learning_rate=rate, start=start, steps=20, surface=name)
        points = [(row["x"], row["y"]) for row in trial.evaluations]
        np.testing.assert_allclose(points, path[-len(points) :], rtol=1e-4, atol=1e-6)
        assert len(points) >= 20


def test_monkey_saddle_differs_from_flow():
    """Gradient flow on Re z³ keeps Im z³, so its time is an integral over the value."""
    rate, distance, delta = 2e-3, 0.5, 1e-2
    shared = {"learning_rate": rate, "surface": "monkey_saddle"}
    (steps,) = escape_steps(sgd, deltas=(delta,), distance=distance, **shared)
    z = (distance + 1j * delta) ** 3
    time = integrate.quad(lambda f: (f**2 + z.imag**2) ** (-2 / 3) / 9, -1, z.real, points=[0])[0]
    np.testing.assert_allclose(steps * rate, time, rtol=0.01)
    x, y = descent_path(sgd, start=(distance, delta), steps=steps, **shared).T
    np.testing.assert_allclose(((x + 1j * y) ** 3).imag, z.imag, rtol=0.03)


@pytest.mark.parametrize("name", ["saddle", "monkey_saddle"])
def test_long_descent_is_not_finite(name):
    """A saddle is unbounded below, but a path is still finite long after it has left."""
    path = descent_path(momentum_sgd, learning_rate=0.1, start=(0.5, 0.1), steps=2000, surface=name)
    assert np.isfinite(path).all() and np.abs(path).max() < 100
    np.testing.assert_allclose(path[-1], path[-2], atol=1e-6)


def test_path_differs_from_recurrence():
    path = descent_path(momentum_sgd, learning_rate=0.05, start=(0.5, 0.01), steps=20)
    exact = recurrence("momentum_sgd", 0.05, (0.5, 0.01), 20)
    np.testing.assert_allclose(path, exact, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name != "gate_muon"])
def test_optimizer_stays_at_saddle(name):
    steps = escape_steps(OPTIMIZERS[name], learning_rate=0.01, deltas=(1e-1, 1e-6))
    assert None not in steps


def test_table_text_differs():
    records = [
        {"optimizer": "sgd", "delta": 0.1, "noise": 0.0, "steps": [1200]},
        {"optimizer": "sgd", "delta": 0.0, "noise": 0.0, "steps": [None]},
        {"optimizer": "sgd", "delta": 0.1, "noise": 0.2, "steps": [4, 9, None]},
        {"optimizer": "sgd", "delta": 0.0, "noise": 0.2, "steps": [4, None, None]},
    ]
    assert saddle_markdown(records) == (
        "No noise:\n\n"
        "| optimizer | δ = 0.1 |\n"
        "| --- | ---: |\n"
        "| sgd | 1,200 |\n\n"
        "With noise of size 0.2, median of 3 seeds:\n\n"
        "| optimizer | δ = 0.1 | δ = 0 |\n"
        "| --- | ---: | ---: |\n"
        "| sgd | 9 | – |"
    )


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"deltas": ()}, StudyError, "deltas is empty: name at least one displacement"),
        (
            {"surface": "beale"},
            StudyError,
            "'beale' has no saddle: name 'saddle' or 'monkey_saddle'",
        ),
        (
            {"deltas": (0.1, 2)},
            ValueError,
            "delta is 2, but must be a number in [-1, 1]",
        ),
        ({"distance": -1}, ValueError, "distance is -1, but must be a number in [0, 1]"),
        ({"seed": -1}, ValueError, "seed is -1, but must be a whole number of at least 0"),
        ({"noise": -1}, ValueError, "noise is -1, but must be a number of at least 0"),
        (
            {"max_steps": 0},
            ValueError,
            "max_steps is 0, but must be a whole number of at least 1",
        ),
        (
            {"learning_rate": "fast"},
            ValueError,
            "learning_rate is 'fast', but must be a number of at least 0",
        ),
    ],
)
def test_escape_accepts_bad_input(arguments, error, message):
    with pytest.raises(error) as caught:
        escape_steps(sgd, **{"learning_rate": 0.1, **arguments})
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "call, name",
    [
        (lambda made: escape_steps(made, learning_rate=0.1), "optimizer"),
        (
            lambda made: descent_path(made, learning_rate=0.1, start=(0, 1), steps=1),
            "optimizer",
        ),
        (lambda made: saddle_table({"a": made}, learning_rate=0.1), "optimizers['a']"),
    ],
)
def test_optimizer_without_rate_is_accepted(call, name):
    with pytest.raises(ValueError) as error:
        call(sgd(0.1))
    kind = type(sgd(0.1)).__name__
    assert str(error.value) == (
        f"{name} is of type {kind}; expected a function of the learning rate, such as nadam"
    )


def test_path_accepts_bad_start():
    with pytest.raises(ValueError) as error:
        descent_path(sgd, learning_rate=0.1, start=(1, 2, 3), steps=1)
    assert str(error.value) == "start is (1, 2, 3), but must be two finite numbers, (x, y)"


def test_table_accepts_no_seed():
    with pytest.raises(StudyError, match="^seeds is empty: name at least one seed$"):
        saddle_table({"sgd": sgd}, learning_rate=0.1, seeds=())


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: escape_law("adam", learning_rate=0.1),
            "rule is 'adam', but must be 'sgd' or 'momentum_sgd' or 'nesterov_sgd'",
        ),
        (
            lambda: escape_law("sgd", learning_rate=0),
            "learning_rate is 0, but must be a number above 0",
        ),
        (lambda: EscapeLaw(2.0, 1.0).steps(0), "delta is 0, but must be a number above 0"),
    ],
)
def test_law_accepts_bad_input(call, message):
    with pytest.raises(ValueError) as error:
        call()
    assert str(error.value) == message
