"""The factor of the rate that each call of `update` is given."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lstm_optax as lo

GRADIENT = {"w": jnp.array([1.0, -2.0, 4.0])}


@pytest.mark.parametrize("name", ["sgd", "nadam", "optax.adamw"])
def test_rate_factor_scales_the_rate(name):
    """For rules whose rate comes last, decay included, each step with its own factor."""
    factors = jnp.array([1.0, 0.5, 1.2, 0.0])
    scaled = optax.chain(lo.OPTIMIZERS[name](0.1), lo.scale_by_rate_factor())
    by_hand = lo.OPTIMIZERS[name](lambda count: 0.1 * factors[count])
    params = {"w": jnp.ones(3)}
    states = scaled.init(params), by_hand.init(params)
    for factor in factors:
        got, one = scaled.update(GRADIENT, states[0], params, rate_factor=factor)
        expected, other = by_hand.update(GRADIENT, states[1], params)
        np.testing.assert_allclose(got["w"], expected["w"], rtol=1e-5)
        params, states = optax.apply_updates(params, got), (one, other)


def test_missing_rate_factor_changes_nothing():
    link = lo.scale_by_rate_factor()
    updates, _ = link.update(GRADIENT, link.init(GRADIENT), unknown=3)
    np.testing.assert_array_equal(updates["w"], GRADIENT["w"])


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_traced_rate_factor_keeps_dtype(dtype):
    link = lo.scale_by_rate_factor()
    update = jax.jit(lambda f: link.update(jnp.ones(2, dtype), link.init(None), rate_factor=f)[0])
    assert update(jnp.float32(0.5)).dtype == dtype
    np.testing.assert_array_equal(update(jnp.int32(2)), 2)


def test_wrappers_pass_rate_factor():
    inner = optax.chain(lo.sgd(0.1), lo.scale_by_rate_factor())
    for tx in (lo.guard(inner), lo.keep_dtype(inner), optax.chain(optax.identity(), inner)):
        updates, _ = tx.update(GRADIENT, tx.init(GRADIENT), GRADIENT, rate_factor=0.5)
        np.testing.assert_allclose(updates["w"], -0.05 * GRADIENT["w"], rtol=1e-6)
