"""Momentum correction: the velocity follows the learning rate."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
from rows import gradients_of, params_of, trajectory

import lstm_optax as lo


def moving(count):
    return 0.1 * (1.5 + jnp.cos(jnp.asarray(count, float)))


def test_corrected_momentum_equals_rate_outside(x64):
    params, gradients = params_of(jnp.float64), gradients_of(50, jnp.float64)
    corrected = optax.chain(lo.scale_by_learning_rate(moving), lo.corrected_momentum(0.9, moving))
    outside = optax.chain(lo.momentum(0.9), lo.scale_by_learning_rate(moving))
    inside = lo.momentum_sgd(moving, momentum=0.9)
    path = trajectory(corrected, params, gradients)[0]
    chex.assert_trees_all_close(
        path, trajectory(outside, params, gradients)[0], rtol=1e-12, atol=1e-13
    )
    plain = trajectory(inside, params, gradients)[0]
    assert max(jax.tree.leaves(jax.tree.map(lambda a, b: jnp.abs(a - b).max(), path, plain))) > 0.1


def test_constant_rate_needs_no_correction():
    params, gradients = params_of(), gradients_of(50)
    path = trajectory(lo.corrected_momentum(0.9, 0.1), params, gradients)[0]
    chex.assert_trees_all_close(path, trajectory(lo.momentum(0.9), params, gradients)[0], rtol=1e-5)


def test_rate_of_zero_forgets():
    tx = lo.corrected_momentum(0.9, lambda count: jnp.array([0.1, 0.0, 0.1])[count])
    given = [1.0, 0.0, 1.0]
    state, gives = tx.init(jnp.float32(0)), []
    for u in given:
        v, state = tx.update(jnp.float32(u), state)
        gives.append(float(v))
    np.testing.assert_allclose(gives, [1, 0, 1])


def test_injected_rate_may_change():
    tx = optax.inject_hyperparams(lo.corrected_momentum)(decay=0.9, learning_rate=0.1)
    state = tx.init(jnp.float32(0))
    _, state = tx.update(jnp.float32(1), state, jnp.float32(0))
    state.hyperparams["learning_rate"] = jnp.float32(0.2)
    v, _ = tx.update(jnp.float32(0), state, jnp.float32(0))
    np.testing.assert_allclose(v, 1.8, rtol=1e-6)
