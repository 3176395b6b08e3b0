"""Derivatives through several steps: finite, and equal to central finite differences in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from rules_table import RULES, Row
from test_by_gate import gradients_of as lstm_gradients
from test_by_gate import params_of as lstm_params
from test_by_gate_contract import ROWS as GATE_RULES

import lstm_optax as lo
from lstm_optax.transforms.muon import muon_direction

ENTRIES = 6
NEVER, LATE, AT_ZERO = 2, 3, 4  # no gradient at any step; none at first; a parameter that is 0
QUICK = ["adam", "guard"]


def problem(steps: int, scale: float = 1.0):
    """Parameters and gradients with an entry that never has a gradient, and one that has it late.

    All numbers are in general position: no clip is exactly at its bound, no two sizes are equal.
    """
    rng = np.random.default_rng(0)
    params, gradients = rng.normal(size=ENTRIES), scale * rng.normal(size=(steps, ENTRIES))
    params[AT_ZERO] = 0
    gradients[:, NEVER] = 0
    gradients[: max(1, steps // 2), LATE] = 0
    return jnp.asarray(params), jnp.asarray(gradients)


def loss_of(make):
    """The function of numbers, parameters and gradients that weighs all entries at all steps."""

    def total(tree):
        leaves = jax.tree.leaves(tree)
        return sum(jnp.sum(jnp.cos(jnp.arange(x.size)) * jnp.ravel(x)) for x in leaves)

    def loss(numbers, params, gradients):
        tx = optax.with_extra_args_support(make(**numbers))

        def body(loop, g):
            params, state = loop
            updates, state = tx.update(g, state, params)
            params = optax.apply_updates(params, updates)
            return (params, state), total(params) + total(lo.eval_params(state, params)) / 2

        return jnp.sum(jax.lax.scan(body, (params, tx.init(params)), gradients)[1])

    return loss


def check(make, numbers, params, gradients, *, one_sided=()):
    """All derivatives are finite, and those with respect to the numbers are the differences'."""
    loss = loss_of(make)
    numbers = {name: jnp.asarray(value, float) for name, value in numbers.items()}
    found = jax.jit(jax.grad(loss, (0, 1, 2)))(numbers, params, gradients)
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(found))
    center = np.array(list(numbers.values()))
    steps = np.diag(1e-6 * np.maximum(np.abs(center), 1e-3))
    down = steps * np.array([[name not in one_sided] for name in numbers])
    points = np.array([*(center + steps), *(center - down)])
    at = {name: jnp.asarray(points[:, i]) for i, name in enumerate(numbers)}
    values = jax.jit(jax.vmap(loss, (0, None, None)))(at, params, gradients)
    up, low = np.split(np.asarray(values), 2)
    width = np.diag(points[: len(steps)] - points[len(steps) :])
    rtol = 1e-4 if not one_sided else 1e-2
    exact = [found[0][name] for name in numbers]
    np.testing.assert_allclose(exact, (up - low) / width, rtol=rtol, atol=1e-6)


def numbers_of(row: Row) -> dict[str, float]:
    """The row's numbers, moved off the places where a rule has a kink."""
    return {name: 0.97 * value + 1e-3 for name, value in row.numbers.items()}


def check_row(row: Row, steps: int):
    params, gradients = problem(steps)
    tree, times = {"a": params[:4], "b": params[4:]}, {"a": gradients[:, :4], "b": gradients[:, 4:]}
    check(row.build, numbers_of(row), tree, times)


@pytest.mark.parametrize("name", QUICK)
def test_derivatives_of_a_few_rules(name, x64):
    check_row(RULES[name], 20)


@pytest.mark.slow
@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("steps", [2, 20])
def test_derivatives_of_every_rule(name, steps, x64):
    check_row(RULES[name], steps)


@pytest.mark.slow
@pytest.mark.parametrize("name", GATE_RULES)
def test_derivatives_of_gate_rules(name, x64):
    row = GATE_RULES[name]
    gradients = jax.tree.map(lambda g: jnp.asarray(g, float), lstm_gradients(4))
    gradients = jax.tree_util.tree_map_with_path(
        lambda path, g: 0 * g if "ih" in str(path) else g, gradients
    )
    params = jax.tree.map(lambda p: jnp.asarray(p, float), lstm_params())
    check(row.build, numbers_of(row), params, gradients)


EDGES = {  # numbers at the end of their range, where the derivative is the one inside
    "debias at 0": (lambda decay: lo.debias(lo.ema(decay), decay), {"decay": 0.0}),
    "adam at 0": (lo.adam, {"learning_rate": 0.1, "b1": 0.0, "b2": 0.0, "eps": 1e-3}),
    "nadam without ε": (lo.nadam, {"learning_rate": 0.1, "b1": 0.9, "b2": 0.99, "eps": 0.0}),
    "no schedule": (lo.dozat_momentum, {"decay": 0.9, "psi": 300.0}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", EDGES)
def test_derivatives_at_the_end_of_a_range(name, x64):
    make, numbers = EDGES[name]
    at_end = [number for number, value in numbers.items() if value == 0]
    params, gradients = problem(5)
    check(make, numbers, params, gradients, one_sided=at_end)


def test_derivative_without_a_schedule_is_finite(x64):
    numbers = {"decay": jnp.float64(0.9), "psi": jnp.float64(np.inf)}
    found = jax.grad(loss_of(lo.dozat_momentum))(numbers, *problem(3))
    assert np.isfinite(found["decay"]) and found["psi"] == 0


CLIPS = {
    "global": lambda bound: lo.clip_by_global_norm(bound),
    "quantile": lambda bound: lo.clip_by_norm_quantile(0.3 + 0 * bound, window=3),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CLIPS)
@pytest.mark.parametrize("scale", [0.0, 1e-200, 1e-160, 1.0, 1e200])
def test_derivatives_of_clips_at_every_scale(name, scale, x64):
    """The first gradient is zero, the others of a scale whose squares may not be numbers."""
    params, gradients = problem(4, scale)
    gradients = gradients.at[0].set(0)
    check(lambda bound: CLIPS[name](bound * (scale or 1)), {"bound": 0.4}, 0 * params, gradients)


@pytest.mark.slow
def test_refused_step_leaves_derivatives_finite(x64):
    params, gradients = problem(5)
    gradients = gradients.at[2, 0].set(jnp.nan).at[3, 1].set(jnp.inf)
    numbers = {"learning_rate": 0.1, "b1": 0.9, "b2": 0.99, "eps": 1e-3}
    check(lambda **numbers: lo.guard(lo.nadam(**numbers)), numbers, params, gradients)


@pytest.mark.slow
@pytest.mark.parametrize("eps", [0.0, 1e-25])
def test_unseen_entries_in_single_precision(eps):
    """1/ε² is beyond float32, and so is the slope of the root at 0."""
    params, gradients = (x.astype(jnp.float32) for x in problem(3))
    loss = loss_of(lambda **numbers: lo.nadam(**numbers, eps=eps))
    numbers = {"learning_rate": jnp.float32(0.1), "b1": jnp.float32(0.9), "b2": jnp.float32(0.99)}
    found = jax.grad(loss, (0, 1, 2))(numbers, params, gradients)
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(found))


@pytest.mark.slow
@pytest.mark.parametrize("still", [0, 1])
def test_muon_of_a_block_without_gradient(still, x64):
    gradients = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3, 2))).at[: 3 * still].set(0)
    gradients = gradients.at[0].set(0)
    check(muon_direction, {"momentum": 0.9, "rms": 0.2}, jnp.zeros((3, 2)), gradients)
