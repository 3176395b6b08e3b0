"""What stands in for cuDNN on a machine without a GPU: JAX's own reference of it, made spiteful.

cuDNN promises nothing for the padding, and fails for a length of 0. The stand-in gives NaN in the
padding of outputs and of gradients, and NaN everywhere for a length of 0, or where the gradient
by an output in the padding is not 0.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.experimental import rnn

from lstm_optax.lstm.backends import cudnn

ANYWHERE = ("fused", "reference")  # the backends that need no GPU


def install(monkeypatch) -> list[dict]:
    """Put the stand-in in cuDNN's place; returns the list of the calls it will get."""
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
        return _spiteful(options[:-1], seq_lengths, x, h_0, c_0, weights)

    monkeypatch.setattr(rnn, "lstm", lstm)
    monkeypatch.setattr(cudnn, "missing", lambda: None)
    return calls


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _spiteful(options, lengths, x, h, c, weights):
    return _poisoned(lengths, *_plain(options, lengths, x, h, c, weights))


def _forward(options, lengths, *arguments):
    return _spiteful(options, lengths, *arguments), (lengths, arguments)


def _backward(options, residuals, cotangents):
    lengths, arguments = residuals
    pull = jax.vjp(partial(_plain, options, lengths), *arguments)[1]
    dx, dh, dc, dw = pull(cotangents)
    dx, dh, dc = _poisoned(lengths, dx, dh, dc)
    wrong = jnp.any(_padding(lengths, dx) & (cotangents[0] != 0).any(2)) | jnp.any(lengths < 1)
    return None, dx, dh, dc, jnp.where(wrong, jnp.nan, dw)


_spiteful.defvjp(_forward, _backward)


def _plain(options, lengths, x, h, c, weights):
    input_size, hidden_size, num_layers, _, bidirectional = options
    parts = rnn.unpack_lstm_weights(weights, input_size, hidden_size, num_layers, bidirectional)
    return rnn.lstm_ref(x, h, c, *parts, lengths, *options)


def _poisoned(lengths, by_step, h, c):
    fails = jnp.any(lengths < 1) | jnp.any(lengths > by_step.shape[1])
    bad = (_padding(lengths, by_step) | fails)[:, :, None]
    return jnp.where(bad, jnp.nan, by_step), *(jnp.where(fails, jnp.nan, s) for s in (h, c))


def _padding(lengths, by_step):
    return jnp.arange(by_step.shape[1])[None, :] >= lengths[:, None]
