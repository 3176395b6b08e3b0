"""Bad input of `lstm_sequence` and `LSTM` raises a clear error or has a defined result."""

import chex
import cudnn_stand_in
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import B, F, H, T, draw
from flax import nnx

from lstm_optax import LSTM, LSTMState, lstm_sequence


@pytest.fixture(params=["fused", "reference", "cudnn"])
def backend(request, monkeypatch):
    if request.param == "cudnn":
        cudnn_stand_in.install(monkeypatch)
    return request.param


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(x=np.ones((T, B))), r"x has shape \(5, 3\); expected three axes: time, batch, feat"),
        (
            dict(x=np.ones((T, B, F + 1))),
            r"x has 3 features, but kernel_ih, of shape \(2, 16\), takes 2: x, of shape "
            r"\(5, 3, 3\), is read as \[time, batch, features\]",
        ),
        (dict(carry=(np.ones((B, H)),) * 2), "carry is a tuple of 2; expected an LSTMState"),
        (dict(carry=(LSTMState(np.ones((B, H)), np.ones((B, H))),)), "carry is a tuple of 1; exp"),
        (dict(params=(draw()[0],)), "params is a tuple of 1; expected an LSTMParams"),
        (dict(params=draw()[0]._replace(bias=np.ones(4))), r"bias has shape \(4,\); expected \(16"),
        (
            dict(params=draw()[0]._replace(kernel_ih=np.ones((F, 3)))),
            r"kernel_ih has shape \(2, 3\); expected \(2, 16\): features by 4 hidden",
        ),
        (
            dict(params=draw()[0]._replace(kernel_hh=np.ones(()))),
            r"kernel_hh has shape \(\); expec",
        ),
        (dict(x=np.ones((T, B, F), complex)), "x is complex64; expected floats"),
        (dict(carry=LSTMState(np.ones((B, 1)), np.ones((B, H)))), r"carry.h has shape \(3, 1\)"),
        (dict(seq_lengths=np.ones(B + 1, int)), r"seq_lengths has shape \(4,\); expected \(3,\)"),
        (dict(seq_lengths=5), r"seq_lengths has shape \(\); expected \(3,\)"),
        (dict(seq_lengths=[1, 6, 0]), "between 0 and 6; expected 0 to 5, the steps of x"),
        (dict(seq_lengths=jnp.array([1, -2, 5])), "between -2 and 5; expected 0 to 5"),
        (dict(seq_lengths=np.ones(B)), "seq_lengths is float32; expected integers"),
        (dict(seq_lengths=np.ones(B, bool)), "seq_lengths is bool; expected integers"),
        (dict(resets=np.ones((B, T), bool)), r"resets has shape \(3, 5\); expected \(5, 3\)"),
        (dict(resets=[True] * T), r"resets has shape \(5,\); expected \(5, 3\)"),
        (dict(dtype=jnp.int32), "dtype is int32; expected floats, such as float32"),
        (dict(gradient="fast"), "unknown gradient 'fast' of an LSTM; expected 'stored'"),
    ],
)
def test_rejects_invalid_argument(change, message, backend):
    params, x, carry = draw()
    with pytest.raises(ValueError, match=message):
        lstm_sequence(**(dict(params=params, x=x, carry=carry, backend=backend) | change))


def test_reference_rejects_remat():
    with pytest.raises(ValueError, match="backend='reference' .* takes no gradient='remat'"):
        lstm_sequence(*draw(), backend="reference", gradient="remat")


@pytest.mark.parametrize("name", ["kernel_ih", "kernel_hh", "bias"])
def test_rejects_integer_parameters(name, backend):
    params, x, carry = draw()
    params = params._replace(**{name: np.ones_like(getattr(params, name), int)})
    with pytest.raises(ValueError, match=f"{name} is int32; expected floats"):
        lstm_sequence(params, x, carry, backend=backend, dtype=jnp.float32)


def test_rejects_unknown_backend():
    message = (
        "unknown LSTM backend 'cuda'; expected 'auto', 'native', 'fused', 'reference', 'cudnn'"
    )
    with pytest.raises(ValueError, match=message):
        lstm_sequence(*draw(), backend="cuda")
    with pytest.raises(ValueError, match=message):
        LSTM(F, H, backend="cuda", rngs=nnx.Rngs(0))


@pytest.mark.parametrize("time_major", [True, False])
def test_layer_rejects_resets_of_wrong_shape(time_major, backend):
    lstm = LSTM(F, H, time_major=time_major, backend=backend, rngs=nnx.Rngs(0))
    for shape in ((B + 1, T), (T,)):
        with pytest.raises(ValueError, match=r"resets has shape .*; expected \(5, 3\): laid out"):
            lstm(np.ones((T, B, F), np.float32), resets=np.ones(shape, bool))


def test_traced_lengths_are_clipped(backend):
    """Lengths below 0 count as 0, lengths above time as time."""
    params, x, carry = draw()
    run = jax.jit(lambda n: lstm_sequence(params, x, carry, seq_lengths=n, backend=backend))
    chex.assert_trees_all_equal(run(np.array([-3, 2, T + 4])), run(np.array([0, 2, T])))


def test_zero_lengths_return_carry(backend):
    params, x, carry = draw()
    outputs, last = lstm_sequence(params, x, carry, seq_lengths=np.zeros(B, int), backend=backend)
    assert outputs.shape == (T, B, H) and not outputs.any()
    chex.assert_trees_all_close(last, jax.tree.map(jnp.float32, carry), rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [np.int8, np.int32, bool])
def test_integer_inputs_equal_floats(kind, backend):
    params, _, carry = draw()
    x = np.random.default_rng(0).integers(0, 2, (T, B, F))

    def results(x):
        def loss(params):
            outputs, last = lstm_sequence(params, x, carry, backend=backend)
            return outputs.sum() + last.c.sum(), outputs

        return jax.grad(loss, has_aux=True)(jax.tree.map(jnp.float32, params))

    chex.assert_trees_all_equal(results(x.astype(kind)), results(x.astype(np.float32)))


@pytest.mark.parametrize("shape_of", [(0, B, F, H), (T, 0, F, H)])
def test_empty_sequence_passes_gradient_to_carry(shape_of, backend):
    params, x, carry = jax.tree.map(jnp.float32, draw(shape_of))

    def loss(params, x, carry):
        outputs, last = lstm_sequence(params, x, carry, backend=backend)
        return outputs.sum() + 2 * last.h.sum() + 3 * last.c.sum(), (outputs, last)

    gradient = jax.grad(loss, argnums=(0, 1, 2), has_aux=True)
    if backend == "cudnn":
        with pytest.raises(ValueError, match="empty sequence or batch.*Use backend='fused'"):
            gradient(params, x, carry)
        return
    (by_params, by_x, by_carry), (outputs, last) = gradient(params, x, carry)
    assert outputs.shape == (*shape_of[:2], H) and by_x.shape == x.shape
    chex.assert_trees_all_equal(last, carry)
    assert not any(leaf.any() for leaf in by_params)
    assert (by_carry.h == 2).all() and (by_carry.c == 3).all()


def test_float16_has_float32_state(backend):
    params, x, carry = draw()
    run = lambda: lstm_sequence(params, x, carry, dtype=jnp.float16, backend=backend)  # noqa: E731
    if backend == "cudnn":
        with pytest.raises(ValueError, match="dtype is float16.*Use backend='fused'"):
            run()
        return
    outputs, last = run()
    assert outputs.dtype == jnp.float16 and last.c.dtype == jnp.float32
    exact = lstm_sequence(params, x, carry, backend=backend)
    chex.assert_trees_all_close((outputs.astype(jnp.float32), last), exact, rtol=0.02, atol=0.01)


def test_rejects_non_numeric_resets_and_carry():
    x, layer = np.ones((T, B, F), np.float32), LSTM(F, H, rngs=nnx.Rngs(0))
    params, zero = layer.params()[0], np.zeros((B, H), np.float32)
    for kind in (complex, object, "U1"):
        resets, carry = np.zeros((T, B), kind), LSTMState(zero, np.zeros((B, H), kind))
        for call in (layer, lambda x, **rows: lstm_sequence(params, x, **rows)):
            with pytest.raises(ValueError, match="^resets is .*; expected floats, integers or bo"):
                call(x, resets=resets)
            with pytest.raises(ValueError, match="^detach is .*; expected floats, integers or bo"):
                call(x, detach=resets)
        with pytest.raises(ValueError, match="^resets is "):
            layer.step(x[0], resets=resets[0])
        with pytest.raises(ValueError, match=r"^carry\[0\].c is "):
            layer.step(x[0], (carry,))
    with pytest.raises(ValueError, match=r"^carry.c is complex64"):
        lstm_sequence(params, x, LSTMState(zero, zero * np.complex64(1)))


@pytest.mark.parametrize("name", ["dtype", "param_dtype"])
def test_layer_rejects_invalid_dtype(name):
    for dtype in ("abc", int, jnp.int8, complex, jnp.float8_e4m3fn, jnp.float4_e2m1fn):
        with pytest.raises(ValueError, match=f"^{name} is .*; expected floats, such as float32"):
            LSTM(F, H, **{name: dtype}, rngs=nnx.Rngs(0))
