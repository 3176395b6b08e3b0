"""Stand-in for cuDNN on a machine without a GPU: JAX's reference of it, with NaN in the padding.

cuDNN guarantees nothing for the padding, and fails for a length of 0. The stand-in returns NaN in
the padding of outputs and gradients, and NaN everywhere for a length of 0 or for a nonzero
cotangent of an output in the padding.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.experimental import rnn

from lstm_optax.lstm.backends import cudnn

CPU_BACKENDS = ("fused", "reference")  # these need no GPU


def install(monkeypatch) -> list[dict]:
    """Replace cuDNN by the stand-in; return a list that records its calls."""
    calls = []

    def lstm(x, h_0, c_0, weights, seq_lengths, *options):
        names = ("input_size", "hidden_size", "num_layers", "dropout", "bidirectional", "precision")
        static = dict(zip(names, options, strict=True))
        calls.append(static | dict(shapes=[x.shape, h_0.shape, c_0.shape, weights.shape]))
        sizes = options[:3] + options[4:5]
        assert {a.dtype for a in (x, h_0, c_0, weights)} == {jnp.dtype("float32")}
        assert seq_lengths.shape == x.shape[:1]
        assert weights.shape == (rnn.get_num_params_in_lstm(*sizes),)
        assert h_0.shape == c_0.shape == (1, x.shape[0], static["hidden_size"])
        assert x.shape[2] == static["input_size"]
        return _lstm_with_nan(options[:-1], seq_lengths, x, h_0, c_0, weights)

    monkeypatch.setattr(rnn, "lstm", lstm)
    monkeypatch.setattr(cudnn, "missing", lambda: None)
    return calls


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _lstm_with_nan(options, lengths, x, h, c, weights):
    return _with_nan(lengths, *_reference(options, lengths, x, h, c, weights))


def _lstm_with_nan_forward(options, lengths, *arguments):
    return _lstm_with_nan(options, lengths, *arguments), (lengths, arguments)


def _lstm_with_nan_backward(options, residuals, cotangents):
    lengths, arguments = residuals
    pullback = jax.vjp(partial(_reference, options, lengths), *arguments)[1]
    dx, dh, dc, dw = pullback(cotangents)
    dx, dh, dc = _with_nan(lengths, dx, dh, dc)
    wrong = jnp.any(_is_padding(lengths, dx) & (cotangents[0] != 0).any(2)) | jnp.any(lengths < 1)
    return None, dx, dh, dc, jnp.where(wrong, jnp.nan, dw)


_lstm_with_nan.defvjp(_lstm_with_nan_forward, _lstm_with_nan_backward)


def _reference(options, lengths, x, h, c, weights):
    input_size, hidden_size, num_layers, _, bidirectional = options
    parts = rnn.unpack_lstm_weights(weights, input_size, hidden_size, num_layers, bidirectional)
    return rnn.lstm_ref(x, h, c, *parts, lengths, *options)


def _with_nan(lengths, by_step, h, c):
    fails = jnp.any(lengths < 1) | jnp.any(lengths > by_step.shape[1])
    bad = (_is_padding(lengths, by_step) | fails)[:, :, None]
    return jnp.where(bad, jnp.nan, by_step), *(jnp.where(fails, jnp.nan, s) for s in (h, c))


def _is_padding(lengths, by_step):
    return jnp.arange(by_step.shape[1])[None, :] >= lengths[:, None]
