"""Small networks as pure functions of their parameters: LSTM stacks and perceptrons."""

from typing import Any

import jax
import jax.numpy as jnp

from lstm_optax.lstm import LSTMParams, lstm_sequence

Params = dict[str, Any]


def init_lstm(key: jax.Array, features: int, hidden: int, outputs: int, layers: int = 1) -> Params:
    """Return the parameters of LSTM layers and a linear output layer, initialised as in `LSTM`."""
    keys = jax.random.split(key, layers + 1)
    sizes = [features] + [hidden] * (layers - 1)
    stack = [_init_layer(k, size, hidden) for k, size in zip(keys[1:], sizes, strict=True)]
    kernel = jax.random.normal(keys[0], (hidden, outputs)) / jnp.sqrt(hidden)
    return {"lstm": stack, "kernel": kernel, "bias": jnp.zeros(outputs)}


def apply_lstm(params: Params, inputs: Any, *, every_step: bool = False) -> jax.Array:
    """Return outputs [batch, outputs], or [time, batch, outputs], from [time, batch, features]."""
    h = jnp.asarray(inputs)
    for layer in params["lstm"]:
        h, _ = lstm_sequence(layer, h, backend="fused")
    return linear(params["kernel"], params["bias"], h if every_step else h[-1])


def linear(kernel: jax.Array, bias: jax.Array, x: jax.Array) -> jax.Array:
    """Return x · kernel + bias."""
    y = x @ kernel
    return y + jnp.reshape(bias, (1,) * (y.ndim - 1) + bias.shape)


def init_perceptron(key: jax.Array, sizes: tuple[int, ...]) -> Params:
    """Return kernels and biases of a perceptron."""
    keys = jax.random.split(key, len(sizes) - 1)
    pairs = zip(keys, sizes[:-1], sizes[1:], strict=True)
    kernels = [jax.random.normal(k, (n, m)) / jnp.sqrt(n) for k, n, m in pairs]
    return {"kernels": kernels, "biases": [jnp.zeros(m) for m in sizes[1:]]}


def apply_perceptron(params: Params, x: jax.Array, bent: jax.Array) -> jax.Array:
    """Return the outputs; the units are (1 − bent) · tanh + bent · relu."""
    *hidden, last = zip(params["kernels"], params["biases"], strict=True)
    for kernel, bias in hidden:
        z = linear(kernel, bias, x)
        x = (1 - bent) * jnp.tanh(z) + bent * jax.nn.relu(z)
    return linear(*last, x)


def cross_entropy(logits: jax.Array, classes: Any) -> jax.Array:
    """Return the mean cross-entropy in nats."""
    logs = jax.nn.log_softmax(logits)
    return -jnp.mean(jnp.sum(logs * jax.nn.one_hot(classes, logits.shape[-1]), axis=-1))


def squared_error(outputs: jax.Array, targets: Any) -> jax.Array:
    """Return the mean squared error."""
    return jnp.mean(jnp.square(outputs - targets))


def _init_layer(key: jax.Array, features: int, hidden: int) -> LSTMParams:
    first, second = jax.random.split(key)
    kernel_ih = jax.random.normal(first, (features, 4 * hidden)) / jnp.sqrt(features)
    blocks = jax.random.orthogonal(second, hidden, (4,))
    kernel_hh = jnp.concatenate(list(blocks), axis=1)
    bias = jnp.zeros(4 * hidden).at[hidden : 2 * hidden].set(1)
    return LSTMParams(kernel_ih, kernel_hh, bias)
