"""The trigger of NT-ASGD: when it fires, for any losses, and in every kind of state."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracles
import pytest
from flax import nnx
from rows import params_of

import lstm_optax as lo

PARAMS = params_of()
TRIGGERED = lo.triggered_average(lo.sgd(0.5), nonmonotone=1)


def losses_of(draw: int) -> np.ndarray:
    """Losses that fall with noise, many of them equal, and some infinite or not a number."""
    rng = np.random.default_rng(draw)
    losses = np.round(10 * np.exp(-np.arange(40) / 8) + rng.normal(size=40) * (draw % 4), 1)
    if draw % 3 == 0:
        losses[rng.integers(1, 40, 4)] = np.nan  # Python's `min` cannot continue from a first NaN
        losses[rng.integers(0, 40, 2)] = np.inf
    return losses.astype(np.float32)


@pytest.mark.parametrize("n", [1, 2, 5, 39, 60])
def test_trigger_equals_the_authors_code(n):
    losses = np.stack([losses_of(draw) for draw in range(60)])
    state = lo.triggered_average(lo.sgd(0.1), nonmonotone=n).init(jnp.zeros(2))

    def seen(losses):
        def body(state, loss):
            state = lo.report_validation_loss(state, loss)
            return state, state.triggered

        return jax.lax.scan(body, state, losses)[1]

    actual = jax.jit(jax.vmap(seen))(losses)
    expected = [oracles.nonmonotone_trigger(row.tolist(), n) for row in losses]
    np.testing.assert_array_equal(actual, expected)
    fired = [row[-1] for row in expected]
    assert any(fired) == (n < 39) and not all(fired)


@pytest.mark.parametrize(
    "losses, fires",
    [
        ([1, 1, 1.5], True),
        ([1, 1, 1], False),  # as good as the best is no worse
        ([1, 2, np.nan], False),
        ([1, np.nan, 2], True),
        ([np.nan, 1, 2], False),  # compared with NaN alone
        ([np.nan, 1, 1, 2], True),
        ([np.nan] * 6, False),
        ([1, 2, np.inf], True),
        ([np.inf, np.inf, np.inf], False),
        ([-2, -1, -1.5], True),
    ],
)
def test_trigger_takes_nonfinite_losses(losses, fires):
    state = lo.triggered_average(lo.sgd(0.1), nonmonotone=1).init(jnp.zeros(2))
    for loss in losses:
        assert not state.triggered
        state = lo.report_validation_loss(state, loss)
    assert bool(state.triggered) == fires and int(state.results) == len(losses)


@pytest.mark.slow
def test_vmapped_trigger_averages_each_member():
    """Three seeds, one of them triggered, and a parameter of length three."""
    tx = TRIGGERED
    params = jnp.arange(9.0).reshape(3, 3) + 1
    state = jax.vmap(tx.init)(params)
    by_hand = jax.tree.map(jnp.copy, state)
    for losses in 2 * [[1.0, 1.0, 1.0]] + 4 * [[0.0, 3.0, 0.0]]:
        updates, by_hand = jax.vmap(tx.update)(params, by_hand, params)
        state = jax.vmap(tx.update)(params, state, params)[1]
        params = optax.apply_updates(params, updates)
        by_hand = jax.vmap(lo.report_validation_loss)(by_hand, jnp.array(losses))
        state = lo.report_validation_loss(state, jnp.array(losses))
        chex.assert_trees_all_equal(state, by_hand)
    assert (state.average.weight < 1).tolist() == [False, True, False]
    expected = jax.vmap(lo.eval_params)(state, params)
    chex.assert_trees_all_equal(lo.eval_params(state, params), expected)
    one_for_all = lo.report_validation_loss(state, 2.0)
    chex.assert_trees_all_equal(
        one_for_all, jax.vmap(lo.report_validation_loss, (0, None))(state, 2.0)
    )


def test_trigger_rejects_invalid_losses():
    state = TRIGGERED.init(PARAMS)
    with pytest.raises(ValueError, match=r"has shape \(2,\); expected \(\)"):
        lo.report_validation_loss(state, jnp.ones(2))
    with pytest.raises(ValueError, match=r"has shape \(1,\); expected \(3,\)"):
        lo.report_validation_loss(jax.vmap(TRIGGERED.init)(jnp.ones((3, 2))), jnp.ones(1))
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, TRIGGERED, wrt=nnx.Param)
    with pytest.raises(ValueError, match="holds a OptArray; expected arrays"):
        lo.report_validation_loss(optimizer.opt_state, 1.0)


def test_trigger_in_a_flax_optimizer():
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, lo.guard(TRIGGERED), wrt=nnx.Param)
    for loss in (1.0, 1.0, 2.0):
        seen = lo.report_validation_loss(nnx.as_pure(optimizer.opt_state), loss)
        nnx.update(optimizer.opt_state, nnx.state(seen))
    assert optimizer.opt_state.inner.triggered[...]
