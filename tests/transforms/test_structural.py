"""Numbers that fix shapes: Python integers, refused with the remedy under `inject_hyperparams`."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from presets_table import PRESETS
from rules_table import RULES, gradients_of, params_of, trajectory
from test_by_gate import params_of as lstm_params_of
from test_by_gate_contract import ROWS
from test_contract import STATIC

import lstm_optax as lo

EVERY_RULE = RULES | PRESETS | ROWS


def triggered(nonmonotone):
    return lo.triggered_average(lo.sgd(0.1), nonmonotone=nonmonotone)


STRUCTURAL = {
    "nonmonotone": [lo.awd_sgd, triggered],
    "window": [lo.clip_by_norm_quantile],
}
MAKERS = [(name, make) for name, makers in STRUCTURAL.items() for make in makers]


@pytest.mark.parametrize("name", EVERY_RULE)
def test_injected_rules_may_be_traced(name):
    """Every rule inits and updates under `jit` with injected numbers, or names its static ones."""
    row = EVERY_RULE[name]
    params = lstm_params_of() if name in ROWS else params_of()
    tx = optax.inject_hyperparams(row.make)(**row.numbers, **row.options)
    static = STATIC.get(name.split(",")[0])
    if static in STRUCTURAL:
        for init in (tx.init, jax.jit(tx.init)):
            with pytest.raises(ValueError, match=rf"{static} is an .* static_args=\('{static}',\)"):
                init(params)
        tx = optax.inject_hyperparams(row.make, static_args=static)(**row.numbers, **row.options)
    state = jax.eval_shape(tx.init, params)
    again = jax.eval_shape(tx.update, params, state, params)[1]
    chex.assert_trees_all_equal_shapes_and_dtypes(again, state)


@pytest.mark.slow
@pytest.mark.parametrize("name, make", MAKERS)
def test_static_numbers_are_kept(name, make):
    params, gradients = params_of(), gradients_of(6)
    tx = optax.inject_hyperparams(make, static_args=name)(**{name: 2})
    init, update = jax.jit(tx.init), jax.jit(tx.update)
    state, at = init(params), params
    for step in range(6):
        updates, state = update(jax.tree.map(lambda g, i=step: g[i], gradients), state, at)
        at = optax.apply_updates(at, updates)
    expected, kept = trajectory(make(**{name: 2}), params, gradients)
    last = jax.tree.map(lambda u: u[-1], expected)
    chex.assert_trees_all_close((updates, state.inner_state), (last, kept), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name, make", MAKERS)
@pytest.mark.parametrize("value", [0, -1, 2.0, 2.5, "2", None, True, jnp.int32(2), jnp.ones(2), 1j])
def test_what_is_no_python_integer_is_refused(name, make, value):
    with pytest.raises(ValueError, match=f"{name} is .* must be "):
        make(**{name: value})


@pytest.mark.parametrize("name, make", MAKERS)
@pytest.mark.parametrize("value", [np.int64(2), np.array(2)])
def test_integers_of_numpy_are_taken(name, make, value):
    params = params_of()
    ours, expected = make(**{name: value}).init(params), make(**{name: 2}).init(params)
    chex.assert_trees_all_equal(ours, expected)
