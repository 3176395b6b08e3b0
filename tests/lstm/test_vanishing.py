"""The penalty on vanishing gradients: a NumPy oracle, and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

from lstm_optax import LSTMParams, LSTMState, lstm_sequence, vanishing_penalty

pytestmark = pytest.mark.slow  # compile many programs

T, B, F, H = 5, 3, 2, 3


def draw(seed=0):
    rng = np.random.default_rng(seed)
    params = LSTMParams(
        rng.normal(size=(F, 4 * H)), rng.normal(size=(H, 4 * H)), rng.normal(size=4 * H)
    )
    carry = LSTMState(rng.normal(size=(B, H)), rng.normal(size=(B, H)))
    return params, rng.normal(size=(T, B, F)), carry, rng.normal(size=(T, B, H))


def jacobian(params, x, h, c, d_h, d_c):
    """Return (d_h, d_c) · ∂(h′, c′)/∂(h, c), from the oracle for one step."""
    nothing = np.zeros((1, *d_h.shape))
    found = oracle.gradients(*params, x[None], h, c, nothing, d_h, d_c)
    return found["h0"], found["c0"]


def constants(params, x, carry, d_outputs, resets):
    """Return the states that the steps read, and the gradients of the states after them."""
    *_, tape = oracle._run(*params, x, *carry, None, resets, False)
    states = [(step.h_start, step.c_start) for step in tape]
    d_h, d_c = np.zeros((2, B, H))
    d_states = [None] * T
    for t in reversed(range(T)):
        d_states[t] = (d_h + d_outputs[t], d_c)
        d_h, d_c = jacobian(params, x[t], *states[t], *d_states[t])
        keep = ~resets[t][:, None]
        d_h, d_c = d_h * keep, d_c * keep
    return states, d_states


def oracle_penalty(params, x, states, d_states, resets):
    total = 0.0
    for t in range(T):
        after = np.concatenate(jacobian(params, x[t], *states[t], *d_states[t]), 1)
        size = np.linalg.norm(np.concatenate(d_states[t], 1), axis=1)
        ratio = np.linalg.norm(after, axis=1) / size
        total += np.where(resets[t], 0, (ratio - 1) ** 2).mean()
    return total


def no_resets():
    return np.zeros((T, B), bool)


def some_resets():
    resets = no_resets()
    resets[2, 1] = resets[0, 0] = True
    return resets


@pytest.mark.parametrize("make", [no_resets, some_resets])
def test_value_and_gradient_equal_oracle(make, x64):
    """Only the Jacobians are differentiated: the oracle keeps states and d_states fixed."""
    params, x, carry, d_outputs = draw()
    resets = make()
    states, d_states = constants(params, x, carry, d_outputs, resets)

    def ours(params):
        return vanishing_penalty(
            params, x, carry, lambda out: jnp.sum(d_outputs * out), resets=resets
        )

    value, grads = jax.jit(jax.value_and_grad(ours))(params)
    assert value == pytest.approx(oracle_penalty(params, x, states, d_states, resets), rel=1e-10)
    for name, place in [
        ("kernel_ih", (1, 4)),
        ("kernel_hh", (0, 7)),
        ("kernel_hh", (2, 1)),
        ("bias", (5,)),
    ]:
        ends = []
        for step in (1e-6, -1e-6):
            leaf = getattr(params, name).copy()
            leaf[place] += step
            ends.append(
                oracle_penalty(params._replace(**{name: leaf}), x, states, d_states, resets)
            )
        slope = (ends[0] - ends[1]) / 2e-6
        assert getattr(grads, name)[place] == pytest.approx(slope, rel=1e-5, abs=1e-9)


def test_gradient_reaches_params_only():
    params, x, carry, d_outputs = jax.tree.map(jnp.float32, draw())
    penalty = lambda x, carry, w: vanishing_penalty(params, x, carry, lambda o: jnp.sum(w * o))  # noqa: E731
    for leaf in jax.tree.leaves(jax.grad(penalty, argnums=(0, 1, 2))(x, carry, d_outputs)):
        np.testing.assert_array_equal(leaf, 0)


def test_constant_gradient_has_no_penalty():
    """With an open forget gate and the others closed, λ flows back through c unchanged."""
    bias = jnp.concatenate([jnp.full(H, v) for v in (-50.0, 50.0, 0.0, -50.0)])
    params = LSTMParams(jnp.zeros((F, 4 * H)), jnp.zeros((H, 4 * H)), bias)
    x, carry = jnp.zeros((T, B, F)), LSTMState(jnp.zeros((B, H)), jnp.zeros((B, H)))
    last = lambda out: jnp.sum(out[-1])  # noqa: E731
    shut = vanishing_penalty(params, x, carry, last)
    assert shut == pytest.approx(1.0)  # only the last step, from h
    value, grads = jax.value_and_grad(vanishing_penalty)(
        params, x, None, lambda out: 0.0 * jnp.sum(out)
    )
    assert value == 0 and all(np.all(leaf == 0) for leaf in grads)


def test_descent_prevents_vanishing():
    """A small LSTM whose gradient vanishes, trained only on the penalty."""
    params, x, _, _ = jax.tree.map(jnp.float32, draw())
    params = jax.tree.map(lambda p: 0.3 * p, params)
    last = lambda out: jnp.sum(out[-1])  # noqa: E731

    def reach(params):
        outputs = lambda x: jnp.sum(lstm_sequence(params, x)[0][-1])  # noqa: E731
        return float(jnp.linalg.norm(jax.grad(outputs)(x)[0]))

    step = jax.jit(jax.value_and_grad(lambda p: vanishing_penalty(p, x, None, last)))
    first, before = float(step(params)[0]), reach(params)
    for _ in range(100):
        params = jax.tree.map(lambda p, g: p - 0.1 * g, params, step(params)[1])
    assert step(params)[0] < 0.7 * first and reach(params) > 3 * before
