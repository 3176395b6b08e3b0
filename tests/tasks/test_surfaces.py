"""Surfaces as tasks: values, gradients, starts, noise, and what a wrong argument says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from lstm_optax.tasks import surface
from lstm_optax.tasks.surfaces import SURFACES, find_surface

NAMES = tuple(SURFACES)
SADDLES = ("saddle", "monkey_saddle")
POINTS = np.array([(0.3, -0.7), (1.5, 0.2), (-1.2, 1.0)])
FORMULAS = {
    "saddle": lambda x, y: x**2 - y**2,
    "monkey_saddle": lambda x, y: ((x + 1j * y) ** 3).real,
    "rosenbrock": lambda x, y: optimize.rosen([x, y]),
    "beale": lambda x, y: sum(
        (c - x * (1 - y**k)) ** 2 for c, k in ((1.5, 1), (2.25, 2), (2.625, 3))
    ),
    "quadratic": lambda x, y: (
        abs(((x + 1j * y) * np.exp(-1j * np.pi / 6)).real) ** 2 / 2
        + 50 * ((x + 1j * y) * np.exp(-1j * np.pi / 6)).imag ** 2
    ),
}


@pytest.mark.parametrize("name", NAMES)
def test_value_differs_from_formula(name):
    for x, y in POINTS:
        value = find_surface(name).value(jnp.array([x, y]))
        np.testing.assert_allclose(value, FORMULAS[name](x, y), rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_center_is_not_stationary(name):
    shape = find_surface(name)
    center = jnp.array(shape.center, float)
    np.testing.assert_allclose(jax.grad(shape.value)(center), 0, atol=1e-6)
    assert shape.value(center) == 0
    curvatures = np.linalg.eigvalsh(jax.hessian(shape.value)(center))
    assert name in SADDLES or curvatures[0] > 0


@pytest.mark.parametrize("condition", [1.0, 400.0])
def test_condition_number_is_wrong(condition, x64):
    shape = find_surface("quadratic", condition=condition)
    curvature = np.array(jax.hessian(shape.value)(jnp.zeros(2)))
    low, high = np.linalg.eigvalsh(curvature)
    np.testing.assert_allclose(high / low, condition, rtol=1e-6)
    assert condition == 1 or abs(curvature[0, 1]) > 0.1


@pytest.mark.parametrize("name", NAMES)
def test_task_is_complete(name, key):
    task = surface(name=name)
    task.check()
    start = task.init(key)
    metrics = task.evaluate(start)
    assert list(metrics) == ["validation", "test", "x", "y", "distance"]
    assert metrics["validation"] == metrics["test"] == find_surface(name).value(start)
    np.testing.assert_array_equal([metrics["x"], metrics["y"]], start)
    away = np.linalg.norm(np.array(start) - find_surface(name).center)
    np.testing.assert_allclose(metrics["distance"], away, rtol=1e-6)
    assert metrics["validation"] > task.target


def test_start_of_saddle_is_wrong(key):
    start = surface(distance=0.25, delta=-1e-4).init(key)
    np.testing.assert_allclose(start, [0.25, -1e-4], rtol=1e-6)


def test_given_start_is_not_used(key):
    np.testing.assert_array_equal(surface(name="beale", start=(2, -1)).init(key), [2, -1])


@pytest.mark.parametrize("name", SADDLES)
def test_target_is_inside_neighbourhood(name):
    """Where the value is at most the target, the distance from the saddle is at least 1."""
    points = np.random.default_rng(0).uniform(-3, 3, (2000, 2)).astype(np.float32)
    left = np.asarray(jax.vmap(find_surface(name).value)(points)) <= surface(name=name).target
    assert left.any() and np.linalg.norm(points[left], axis=1).min() >= 1


@pytest.mark.parametrize("name", SADDLES)
def test_far_point_has_gradient(name):
    shape = find_surface(name)
    for point in ([2.5, 3.0], [-1e9, 1e9]):
        value, slope = jax.value_and_grad(shape.value)(jnp.array(point))
        assert jnp.isfinite(value) and not slope.any()


def test_noise_differs_from_its_size(key):
    task = surface(name="beale", noise=0.1)
    point = jnp.array([1.0, 2.0])
    grad = jax.grad(lambda p, batch: task.loss(p, (), batch, key)[0])
    drawn = np.array([task.batches(position, 3) for position in range(4000)])
    np.testing.assert_allclose(
        grad(point, drawn[5]), jax.grad(find_surface("beale").value)(point) + drawn[5], rtol=1e-5
    )
    np.testing.assert_allclose(drawn.std(axis=0), 0.1, rtol=0.05)
    np.testing.assert_allclose(drawn.mean(axis=0), 0, atol=0.006)
    np.testing.assert_allclose(np.corrcoef(drawn.T)[0, 1], 0, atol=0.05)


def test_noise_ignores_seed_or_position():
    task = surface(noise=1.0)
    np.testing.assert_array_equal(task.batches(7, 1), task.batches(7, 1))
    draws = {tuple(task.batches(*place)) for place in ((0, 0), (1, 0), (0, 1), (1, 1))}
    assert len(draws) == 4


def test_no_noise_changes_gradient():
    assert not surface().batches(3, 1).any()


def test_settings_hide_what_matters():
    made = [surface(), surface(delta=0.1), surface(distance=0.1), surface(noise=0.1)]
    made += [surface(name="quadratic"), surface(name="quadratic", condition=9.0)]
    assert len({str(task.settings) for task in made}) == len(made)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            {"name": "hill"},
            "name is 'hill', but must be 'saddle' or 'monkey_saddle' or 'rosenbrock' or 'beale' "
            "or 'quadratic'",
        ),
        (
            {"start": (1, 2)},
            "start is (1, 2), but 'saddle' starts at (distance, delta): set these",
        ),
        (
            {"name": "beale", "distance": 0.1},
            "distance is 0.1, but 'beale' is not a saddle: set start",
        ),
        ({"name": "beale", "delta": 0.1}, "delta is 0.1, but 'beale' is not a saddle: set start"),
        (
            {"name": "beale", "start": (1,)},
            "start is (1,), but must be two finite numbers, (x, y)",
        ),
        (
            {"name": "beale", "start": (1, float("nan"))},
            "start is (1, nan), but must be two finite numbers, (x, y)",
        ),
        ({"name": "beale", "start": 3}, "start is 3, but must be two finite numbers, (x, y)"),
        ({"condition": 9.0}, "condition is 9.0, but only 'quadratic' has one, not 'saddle'"),
        (
            {"name": "quadratic", "condition": 0.5},
            "condition is 0.5, but must be a number of at least 1",
        ),
        ({"noise": -1.0}, "noise is -1.0, but must be a number of at least 0"),
        ({"distance": 1.5}, "distance is 1.5, but must be a number in [0, 1]"),
        ({"delta": -2.0}, "delta is -2.0, but must be a number in [-1, 1]"),
    ],
)
def test_surface_accepts_bad_input(arguments, message):
    with pytest.raises(ValueError) as error:
        surface(**arguments)
    assert str(error.value) == message
