"""Weights of Keras' LSTM layers to parameters, and back; Keras is not imported."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from lstm_optax.interop.arrays import check_shapes, check_stack, size
from lstm_optax.lstm.cell import LSTMParams

_EXPECTED = {
    "activation": "tanh",
    "recurrent_activation": "sigmoid",
    "dropout": 0.0,
    "recurrent_dropout": 0.0,
    "go_backwards": False,
    "merge_mode": "concat",
}
"""Options of Keras' layers that change the outputs, with the values of this library's LSTM."""


def lstm_params_from_keras(weights: Sequence[Any]) -> tuple[LSTMParams, ...]:
    """Return one LSTMParams for each layer and direction of Keras' LSTM layers.

        kernel_ih = kernel,  kernel_hh = recurrent_kernel,  bias = bias, or 0 if absent

    Keras' gate order i, f, c, o is the same as i, f, g, o. Arrays are returned unchanged, so the
    function works under `jit` and `grad`. A bias of 8·hidden belongs to a `CuDNNLSTM` of Keras 2:
    its kernels are converted from cuDNN's layout, and its two biases are added.

    Args:
      weights: `get_weights()` of a `keras.layers.LSTM` or of a `Bidirectional` of one, or the
        concatenation for several layers: kernel, recurrent_kernel, and bias if the layer has one,
        forward before backward. Or the layers themselves, whose options are then checked.

    Raises:
      ValueError: a wrong shape or a missing array; or a layer has an option that changes the
        outputs and that this LSTM does not have, such as another activation.

    Reference: `keras.layers.LSTM`, Keras 3.15.
    """
    weights = [weights] if hasattr(weights, "get_config") else weights
    if any(hasattr(layer, "get_config") for layer in weights):
        weights = [array for layer in weights for array in _check_keras_layer(layer).get_weights()]
    found = {f"weights[{i}]": value for i, value in enumerate(weights)}
    if not found:
        raise ValueError("weights is empty; expected kernel, recurrent_kernel and bias of a layer")
    names, params = list(found), []
    while names:
        kernel, recurrent, bias = (*names, "recurrent_kernel", "bias")[:3]
        hidden, features = size(found, recurrent, 0), size(found, kernel, 0)
        shapes = {kernel: (features, 4 * hidden), recurrent: (hidden, 4 * hidden)}
        check_shapes(found, shapes)
        names = names[2:]
        array: Any = np.zeros(4 * hidden, found[kernel].dtype)
        if bias in found and np.ndim(found[bias]) != 2:
            if np.shape(found[bias]) != (8 * hidden,):
                check_shapes(found, {bias: (4 * hidden,)})
            array, names = found[bias], names[1:]
        cell = LSTMParams(found[kernel], found[recurrent], array)
        params.append(_from_cudnn(cell) if np.shape(array) == (8 * hidden,) else cell)
    return tuple(params)


def _check_keras_layer(layer: Any) -> Any:
    """Return the layer; ValueError unless it computes the same as this library's LSTM."""
    name = type(layer).__name__
    if name not in ("LSTM", "Bidirectional", "CuDNNLSTM"):
        raise ValueError(f"got a {name}; expected keras.layers.LSTM, or Bidirectional of one")
    config = layer.get_config()
    inner = config.get("layer", {})
    if inner and inner.get("class_name") != "LSTM":
        raise ValueError(f"the Bidirectional wraps {inner.get('class_name')}; expected LSTM")
    for option, expected in _EXPECTED.items():
        for options in (config, inner.get("config", {})):
            if options.get(option, expected) != expected:
                raise ValueError(
                    f"{option} of the {name} {config.get('name')!r} is {options[option]!r}; this "
                    f"LSTM has {expected!r}: set it in the layer, or pass its get_weights()"
                )
    return layer


def _from_cudnn(cell: LSTMParams) -> LSTMParams:
    """Return the parameters of a `CuDNNLSTM`, whose gate blocks hold [hidden, inputs] flattened."""
    features, hidden = np.shape(cell.kernel_ih)[0], np.shape(cell.kernel_hh)[0]

    def convert_kernel(kernel: Any, rows: int) -> Any:
        blocks = jnp.split(jnp.asarray(kernel), 4, axis=1)
        return jnp.concatenate([block.reshape(hidden, rows).T for block in blocks], axis=1)

    first, second = jnp.split(jnp.asarray(cell.bias), 2)
    return LSTMParams(
        convert_kernel(cell.kernel_ih, features),
        convert_kernel(cell.kernel_hh, hidden),
        first + second,
    )


def lstm_params_to_keras(params: Sequence[LSTMParams]) -> list[Any]:
    """Return a list of arrays for `set_weights` of Keras.

    The exact inverse of `lstm_params_from_keras`: kernel, recurrent_kernel and bias for each layer
    and direction; for a layer without a bias, leave out every third array. Arrays are returned
    unchanged. Pass NumPy copies to `set_weights`, since Keras' JAX backend frees the arrays that it
    was given when it trains.

    Args:
      params: one LSTMParams for each layer and direction, in the order of the carry.

    Raises:
      ValueError: `params` is not a sequence of LSTMParams, or its shapes do not match.
    """
    check_stack(params)
    return [array for cell in params for array in cell]
