"""Numbers that fix shapes: under `inject_hyperparams`, and as integers of NumPy."""

import chex
import jax
import numpy as np
import optax
import pytest
from rows import gradients_of, params_of, trajectory

import lstm_optax as lo


def triggered(nonmonotone):
    return lo.triggered_average(lo.sgd(0.1), nonmonotone=nonmonotone)


STRUCTURAL = {
    "nonmonotone": [lo.awd_sgd, triggered],
    "window": [lo.clip_by_norm_quantile],
}
MAKERS = [(name, make) for name, makers in STRUCTURAL.items() for make in makers]


@pytest.mark.slow
@pytest.mark.parametrize("name, make", MAKERS)
def test_injected_static_numbers_are_kept(name, make):
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
@pytest.mark.parametrize("value", [np.int64(2), np.array(2)])
def test_numpy_integers_are_accepted(name, make, value):
    params = params_of()
    ours, expected = make(**{name: value}).init(params), make(**{name: 2}).init(params)
    chex.assert_trees_all_equal(ours, expected)
