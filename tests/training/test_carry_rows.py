"""Rows of the carry that are not finite are set to zero, and counted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

import lstm_optax as lo
from lstm_optax.training.carry_rows import zero_bad_rows

BAD = [np.nan, np.inf, -np.inf]


def two_layers(batch=4, hidden=3):
    """Return a carry of two layers, in which all numbers differ."""
    values = np.arange(1, 4 * batch * hidden + 1, dtype=np.float32)
    leaves = values.reshape(2, 2, batch, hidden)
    return tuple(lo.LSTMState(*map(jnp.array, layer)) for layer in leaves)


@pytest.mark.parametrize("value", BAD)
def test_bad_row_is_zeroed_in_all_leaves(value):
    carry = two_layers()
    bad = (carry[0], carry[1]._replace(c=carry[1].c.at[2, 1].set(value)))
    found, count = jax.jit(zero_bad_rows)(bad)
    assert count == 1
    for leaf, before in zip(jax.tree.leaves(found), jax.tree.leaves(carry), strict=True):
        expected = np.array(before)
        expected[2] = 0
        np.testing.assert_array_equal(leaf, expected)


def test_finite_carry_is_unchanged():
    carry = two_layers()
    found, count = zero_bad_rows(carry)
    assert count == 0 and jax.tree.all(jax.tree.map(np.array_equal, found, carry))
    assert zero_bad_rows(()) == ((), 0)


def test_rows_are_on_their_axis():
    """One axis for each leaf; integers are reset too, leaves without rows only alone."""
    carry = {
        "h": jnp.ones((2, 3)).at[0, 1].set(np.nan),  # [layers, batch]
        "age": jnp.arange(3),  # [batch]
        "mean": jnp.float32(np.inf),
        "key": jax.random.key(0),
        "scale": jnp.ones(2),
    }
    axes = {"h": 1, "age": 0, "mean": 0, "key": None, "scale": None}
    found, count = zero_bad_rows(carry, axes)
    assert count == 2
    np.testing.assert_array_equal(found["h"], [[1, 0, 1]] * 2)
    np.testing.assert_array_equal(found["age"], [0, 0, 2])
    np.testing.assert_array_equal(found["scale"], 1)
    assert found["mean"] == 0 and found["key"] == carry["key"]


@pytest.mark.parametrize(
    "axes, message",
    [
        (0, "the leaves of the carry have 2 and 3 rows, but must have the same number: give"),
        (2, r"the carry\['a'\] has shape \(2, 3\), and no axis 2 for its rows: give make_step"),
        ({"a": 1, "b": -1}, r"the carry\['b'\] has shape \(3,\), and no axis -1"),
    ],
)
def test_wrong_axes_are_refused(axes, message):
    with pytest.raises(ValueError, match=message):
        zero_bad_rows({"a": jnp.ones((2, 3)), "b": jnp.ones(3)}, axes)


@pytest.mark.parametrize("value", BAD)
def test_guard_recovers_from_bad_carry(value):
    """No step is lost: the run equals one with zeros in that row."""
    step, state = toy.start(lo.guard(toy.OPTIMIZER))
    poisoned = state._replace(carry=jnp.array([value, 0.5]))
    result = lo.fit(step, poisoned, toy.batches, steps=8, eval_every=4)
    assert [(r["carry_resets"], r["skipped"]) for r in result.history] == [(1, 0), (0, 0)]
    _, state = toy.start(lo.guard(toy.OPTIMIZER))
    expected = lo.fit(step, state._replace(carry=jnp.array([0, 0.5])), toy.batches, steps=8)
    assert jax.tree.all(jax.tree.map(np.array_equal, result.state.params, expected.state.params))


def test_bad_carry_without_guard_stops():
    state = toy.start()[1]._replace(carry=jnp.array([np.nan, 0.5]))
    with pytest.raises(lo.NonFiniteError, match="step 1 is not finite: loss nan"):
        lo.fit(toy.STEP, state, toy.batches, steps=8)


def test_skipped_steps_count_their_resets():
    step, state = toy.start(lo.guard(toy.OPTIMIZER))
    x, y = toy.batches(0)
    poisoned = state._replace(carry=jnp.array([np.nan, np.inf]))
    state, metrics = lo.run_steps(step, poisoned, (x[None], y[None] * np.nan), 1)
    assert metrics.skipped and metrics.carry_resets == 2 == state.sums.carry_resets
    np.testing.assert_array_equal(state.carry, 0)
