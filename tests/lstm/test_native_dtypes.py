"""The native backend with weights of 16 bits: what it rounds, and that sums are float32."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import draw
from test_native import float32, pytestmark, use

from lstm_optax import LSTMState, lstm_sequence
from lstm_optax.lstm.native import calls, library

__all__ = ["pytestmark", "use"]
T, B, F, H = 5, 3, 7, 37  # odd: pairs that are not full


@pytest.fixture
def rounding():
    """Skip the test where products of bfloat16 are computed in float32."""
    if not library.multiplies_in_bfloat16():
        pytest.skip("this CPU, or the compiler of the library, has no AVX512_BF16")


def rounded(tree):
    return jax.tree.map(lambda a: jnp.float32(jnp.bfloat16(a)), tree)


def relative_error(found, expected):
    return np.max(np.abs(found - expected)) / np.max(np.abs(expected))


@pytest.mark.parametrize(
    "dtype, instructions", [(jnp.float16, None), (jnp.bfloat16, "avx2"), (jnp.bfloat16, "neon")]
)
def test_weights_alone_are_rounded(dtype, instructions, use):
    """Without instructions for it, products have the float32 factors of inputs and h."""
    if instructions:
        use(instructions)
    params, x, carry = float32(draw((T, B, F, H)))
    outputs, last = lstm_sequence(params, x, carry, backend="native", dtype=dtype)
    assert outputs.dtype == dtype and last.h.dtype == last.c.dtype == jnp.float32
    weights = jax.tree.map(lambda a: a.astype(dtype).astype(jnp.float32), params)
    exact, _ = lstm_sequence(weights._replace(bias=params.bias), x, carry, backend="native")
    np.testing.assert_array_equal(outputs, exact.astype(dtype))


@pytest.mark.parametrize("reverse", [False, True])
def test_inputs_and_h_are_rounded_to_bfloat16(rounding, reverse):
    """Each step equals one of float32 with rounded factors; cells and sums are not rounded."""
    params, x, carry = float32(draw((T, B, F, H)))
    _, last = lstm_sequence(params, x, carry, backend="native", dtype=jnp.bfloat16, reverse=reverse)
    weights = rounded(params)._replace(bias=params.bias)
    state = carry
    for t in reversed(range(T)) if reverse else range(T):
        state = LSTMState(rounded(state.h), state.c)
        _, state = lstm_sequence(weights, rounded(x[t : t + 1]), state, backend="native")
    assert relative_error(last.h, state.h) < 1e-5 and relative_error(last.c, state.c) < 1e-5
    exact, _ = lstm_sequence(weights, x, carry, backend="native", reverse=reverse)
    assert relative_error(last.h, exact[0 if reverse else -1]) > 1e-5  # they do differ


def test_gradients_are_products_of_rounded_factors(rounding):
    """Sums of exact products, each of two bfloat16; the bias is a sum of what is not rounded."""
    keys = iter(jax.random.split(jax.random.key(0), 8))
    normal = lambda *shape: jax.random.normal(next(keys), shape)  # noqa: E731
    units = calls.padded(H)
    x, h, outputs = normal(T, B, F), normal(B, H), normal(T, B, H)
    dz = normal(T, B, 4, units).at[..., H:].set(0)
    kernel_ih, flags = normal(F, 4 * H), jnp.zeros((0, B), jnp.uint8)
    found = calls.weight_gradient(False, F, bfloat16=True)(x, h, outputs, flags, dz)
    found = [*found, calls.input_gradient(True)(dz, rounded(kernel_ih))]

    double = lambda a: np.asarray(a, np.float64).reshape(T * B, -1)  # noqa: E731
    factors = [double(rounded(a)) for a in (x, jnp.concatenate([h[None], outputs[:-1]]))]
    columns = double(rounded(dz[..., :H]))
    expected = [factor.T @ columns for factor in factors]
    expected.append(double(dz[..., :H]).sum(0))
    expected.append((columns @ np.asarray(rounded(kernel_ih), np.float64).T).reshape(T, B, F))
    for got, want in zip(found, expected, strict=True):
        assert relative_error(got, want) < 1e-6


@pytest.mark.parametrize("gradient", ["stored", "remat"])
def test_bfloat16_gradient_is_close_to_fused(gradient):
    """Both round factors alone, but not in the same places; resets, lengths and clips included."""
    params, x, carry = float32(draw((T, B, F, H)))
    options = dict(seq_lengths=jnp.array([5, 0, 3]), dtype=jnp.bfloat16)

    def grads(backend, **more):
        def loss(params, x, carry):
            outputs, last = lstm_sequence(params, x, carry, backend=backend, **options, **more)
            return jnp.sum(jnp.float32(outputs) ** 2) + jnp.sum(last.c)

        return jax.jit(jax.grad(loss, (0, 1, 2)))(params, x, carry)

    found, fused = grads("native", gradient=gradient), grads("fused")
    for got, want in zip(*map(jax.tree.leaves, (found, fused)), strict=True):
        assert got.dtype == want.dtype and relative_error(got, want) < 2e-2


def test_an_id_selects_a_row_that_is_not_rounded(rounding):
    """Its gradient sums what is not rounded, too."""
    params, _, carry = float32(draw((T, B, F, H)))
    ids = jnp.asarray(np.random.default_rng(0).integers(0, F, (T, B)), jnp.int32)
    arrays = (params.kernel_ih, jnp.zeros((H, 4 * H)), params.bias, *carry)
    flags = jnp.zeros((0, B), jnp.uint8)
    found = [
        calls.forward(False, True, ids=True, bfloat16=bfloat16)(ids, *arrays, flags)
        for bfloat16 in (True, False)
    ]
    chex.assert_trees_all_equal(*found)
    outputs, dz = found[0][0], found[0][3]
    sums = [
        calls.weight_gradient(False, F, ids=True, bfloat16=bfloat16)(
            ids, carry.h, outputs, flags, dz
        )
        for bfloat16 in (True, False)
    ]
    np.testing.assert_array_equal(sums[0][0], sums[1][0])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_bfloat16_keeps_nonfinite_inputs_in_their_row(bad):
    params, x, carry = float32(draw((T, B, F, H)))
    x = x.at[2, 1, 0].set(bad)
    outputs, last = lstm_sequence(params, x, carry, backend="native", dtype=jnp.bfloat16)
    finite = np.isfinite(np.asarray(outputs, np.float32)).all(-1)
    assert finite[:, [0, 2]].all() and finite[:2].all()
    assert np.isnan(last.h[1]).any() == np.isnan(bad)
