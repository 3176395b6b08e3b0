"""`lstm_sequence` equals the NumPy oracle in values and gradients, with each option."""

from functools import partial
from itertools import product

import chex
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from cases import (
    B,
    T,
    draw,
    draw_output_weights,
    make_options,
    weighted_gradients,
)
from cudnn_stand_in import CPU_BACKENDS
from hypothesis import given, settings
from hypothesis import strategies as st
from plain import plain_for

from lstm_optax import LSTMParams, LSTMState, lstm_cell, lstm_sequence

OPTIONS = list(product((0, 1), repeat=3))  # lengths, resets, reverse


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@pytest.mark.parametrize("switches", plain_for(OPTIONS, [(0, 0, 0), (1, 1, 1)]), ids=str)
def test_equals_oracle(backend, switches, x64):
    params, x, carry = draw()
    options = make_options(*switches)
    outputs, last = lstm_sequence(params, x, carry, backend=backend, **options)
    expected, h, c = oracle.forward(*params, x, *carry, **options)
    chex.assert_trees_all_close((outputs, last), (expected, LSTMState(h, c)), rtol=1e-12)
    weights = draw_output_weights(outputs, last)
    grads = weighted_gradients(backend, params, x, carry, weights, options)
    by_hand = oracle.gradients(*params, x, *carry, weights[0], *weights[1], **options)
    expected = (
        LSTMParams(by_hand["kernel_ih"], by_hand["kernel_hh"], by_hand["bias"]),
        by_hand["x"],
        LSTMState(by_hand["h0"], by_hand["c0"]),
    )
    chex.assert_trees_all_close(grads, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.slow
@settings(max_examples=8)
@given(
    shape_of=st.tuples(*[st.integers(1, 4)] * 4),
    flags=st.tuples(*[st.booleans()] * 3),
    seed=st.integers(0, 99),
)
def test_equals_oracle_random_shapes(shape_of, flags, seed):
    params, x, carry = draw(shape_of, seed)
    options = make_options(*flags, *shape_of[:2], seed)
    outputs, last = lstm_sequence(params, x, carry, **options)
    expected, h, c = oracle.forward(*params, x, *carry, **options)
    chex.assert_trees_all_close((outputs, last), (expected, LSTMState(h, c)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_no_gradient_to_future_inputs(backend):
    """Output t does not depend on inputs after t, before a reset or in the padding."""
    params, x, carry = draw()

    def outputs(x, **options):
        return lstm_sequence(params, x, carry, backend=backend, **options)[0].sum((1, 2))

    causes = np.abs(jax.jit(jax.jacobian(outputs))(x)).sum((2, 3))
    assert np.all(causes[np.triu_indices(T, 1)] == 0)
    assert np.all(causes[np.tril_indices(T)] > 0)
    resets = np.zeros((T, B), bool)
    resets[3] = True
    cut = np.abs(jax.jit(jax.jacobian(lambda x: outputs(x, resets=resets)))(x)).sum((2, 3))
    assert np.all(cut[3:, :3] == 0) and np.all(cut[4, 3:] > 0)
    lengths = np.full(B, 2)
    padded = np.abs(jax.jit(jax.jacobian(lambda x: outputs(x, seq_lengths=lengths)))(x)).sum((2, 3))
    assert np.all(padded[:, 2:] == 0) and np.all(padded[2:] == 0)


def test_resets_may_be_numbers():
    """Reinforcement learning often stores `done` as numbers."""
    params, x, carry = draw()
    options = make_options(1, 1, 1)
    as_numbers = options | {"resets": options["resets"].astype(np.float32)}
    chex.assert_trees_all_equal(
        lstm_sequence(params, x, carry, **options), lstm_sequence(params, x, carry, **as_numbers)
    )


@pytest.mark.parametrize("reverse", [False, True])
def test_nan_in_padding_stays_there(reverse):
    params, x, carry = draw()
    lengths = np.array([2, 5, 0])
    x = np.where(np.arange(T)[:, None, None] < lengths[None, :, None], x, np.nan)

    def loss(params, x):
        outputs, last = lstm_sequence(params, x, carry, seq_lengths=lengths, reverse=reverse)
        return outputs.sum() + last.c.sum()

    assert np.isfinite(loss(params, x))
    for leaf in jax.tree.leaves(jax.grad(loss, argnums=(0, 1))(params, x)):
        assert np.all(np.isfinite(leaf))


def test_parts_of_sequence_equal_whole():
    params, x, carry = draw()
    whole, last = lstm_sequence(params, x, carry)
    first, between = lstm_sequence(params, x[:2], carry)
    second, end = lstm_sequence(params, x[2:], between)
    chex.assert_trees_all_close((whole, last), (np.concatenate([first, second]), end), rtol=1e-5)


def test_cell_equals_one_step():
    params, x, carry = jax.tree.map(jnp.asarray, draw())
    one = lstm_cell(params, x[0], carry)
    chex.assert_trees_all_close(one, lstm_sequence(params, x[:1], carry)[1], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_bfloat16_products_have_float32_state(backend):
    params, x, carry = jax.tree.map(jnp.float32, draw())
    outputs, last = lstm_sequence(params, x, carry, dtype=jnp.bfloat16, backend=backend)
    assert outputs.dtype == jnp.bfloat16
    assert last.h.dtype == last.c.dtype == jnp.float32
    exact, exact_last = lstm_sequence(params, x, carry, backend=backend)
    chex.assert_trees_all_close(last, exact_last, rtol=0.05, atol=0.05)
    assert not np.allclose(last.h, exact_last.h, rtol=1e-5, atol=1e-6)
    jaxpr = str(
        jax.make_jaxpr(partial(lstm_sequence, params, dtype=jnp.bfloat16, backend=backend))(x)
    )
    products = jaxpr.count("dot_general")
    assert jaxpr.count("preferred_element_type=float32") == products >= 2


@pytest.mark.parametrize(
    "way",
    [*[dict(backend=name) for name in CPU_BACKENDS], dict(backend="fused", gradient="autodiff")],
    ids=str,
)
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_gradients_sum_in_float32(way, dtype):
    """Over many steps; a sum in bfloat16 ends where the next term is below half its last digit."""
    params = jax.tree.map(jnp.float32, draw()[0])
    x = jnp.float32(np.random.default_rng(0).normal(size=(512, 2, params.kernel_ih.shape[0])))

    def loss(params, dtype, **way):
        outputs, _ = lstm_sequence(params, x.astype(dtype), dtype=dtype, **way)
        return jnp.mean(outputs.astype(jnp.float32))

    gradient = jax.jit(jax.grad(loss), static_argnames=("dtype", "backend", "gradient"))
    exact = gradient(params, jnp.float32, backend="fused")
    for found, expected in zip(gradient(params, dtype, **way), exact, strict=True):
        error = jnp.linalg.norm(found - expected) / jnp.linalg.norm(expected)
        assert error < 2 * jnp.finfo(dtype).eps


def test_input_product_is_outside_loop():
    """The loop has one matrix product; another, for all time steps, is before it.

    The fused backend has two loops, one for a CPU and one for other devices.
    """
    params, x, _ = jax.tree.map(jnp.float32, draw())
    for backend, inside in (("fused", [1, 1]), ("reference", [2])):

        def outputs(x, backend=backend):
            return lstm_sequence(params, x, backend=backend)[0]

        jaxpr = jax.make_jaxpr(lambda x, f=outputs: jax.vjp(f, x)[0])(x)
        loops = [e for e in _equations(jaxpr) if e.primitive.name == "scan"]
        assert [str(loop.params["jaxpr"]).count("dot_general") for loop in loops] == inside


def _equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(list(equation.params.values())):
            if hasattr(value, "jaxpr") and equation.primitive.name != "scan":
                yield from _equations(value.jaxpr if hasattr(value.jaxpr, "eqns") else value)
