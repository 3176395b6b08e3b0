"""The weights of Keras' LSTM layers as parameters, and back; Keras is not imported."""

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
"""The options of Keras' layers that change their outputs, and what this library's LSTM does."""


def lstm_params_from_keras(weights: Sequence[Any]) -> tuple[LSTMParams, ...]:
    """Return the weights of Keras' LSTM layers as parameters, one for each layer and direction.

        kernel_ih = kernel,  kernel_hh = recurrent_kernel,  bias = bias, or 0 without

    Keras' order i, f, c, o of the gates is the same as i, f, g, o. The arrays stay what they are,
    so that this may be compiled and differentiated. A bias of 8·hidden is that of a `CuDNNLSTM` of
    Keras 2: its kernels, which have cuDNN's layout, get that of `LSTM`, and its biases are added.

    Args:
      weights: as `get_weights()` of a `keras.layers.LSTM` gives them, or of a `Bidirectional` of
        one, or of several layers one behind the other: kernel, recurrent_kernel, and bias if the
        layer has one, forward before backward. Or the layers, whose options are then checked.

    Raises:
      ValueError: a shape does not fit, or an array is missing; a layer has an option that changes
        the numbers and is none of this LSTM's, such as another activation.

    Reference: `keras.layers.LSTM`, Keras 3.15.
    """
    weights = [weights] if hasattr(weights, "get_config") else weights
    if any(hasattr(layer, "get_config") for layer in weights):
        weights = [array for layer in weights for array in _checked(layer).get_weights()]
    found = {f"weights[{i}]": value for i, value in enumerate(weights)}
    if not found:
        raise ValueError("no weights came; expected kernel, recurrent_kernel and bias of a layer")
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


def _checked(layer: Any) -> Any:
    """The layer; ValueError if it computes something else, or is no layer as the others are."""
    name = type(layer).__name__
    if name not in ("LSTM", "Bidirectional", "CuDNNLSTM"):
        raise ValueError(f"a {name} came; expected keras.layers.LSTM, or Bidirectional of one")
    config = layer.get_config()
    inner = config.get("layer", {})
    if inner and inner.get("class_name") != "LSTM":
        raise ValueError(f"the Bidirectional is one of {inner.get('class_name')}; expected LSTM")
    for option, expected in _EXPECTED.items():
        for options in (config, inner.get("config", {})):
            if options.get(option, expected) != expected:
                raise ValueError(
                    f"{option} of the {name} {config.get('name')!r} is {options[option]!r}; this "
                    f"LSTM has {expected!r}: set it in the layer, or give its get_weights()"
                )
    return layer


def _from_cudnn(cell: LSTMParams) -> LSTMParams:
    """The parameters of a `CuDNNLSTM`: each gate's block holds the entries of [hidden, inputs]."""
    features, hidden = np.shape(cell.kernel_ih)[0], np.shape(cell.kernel_hh)[0]

    def turned(kernel: Any, rows: int) -> Any:
        blocks = jnp.split(jnp.asarray(kernel), 4, axis=1)
        return jnp.concatenate([block.reshape(hidden, rows).T for block in blocks], axis=1)

    first, second = jnp.split(jnp.asarray(cell.bias), 2)
    return LSTMParams(
        turned(cell.kernel_ih, features), turned(cell.kernel_hh, hidden), first + second
    )


def lstm_params_to_keras(params: Sequence[LSTMParams]) -> list[Any]:
    """Return parameters as `set_weights` of Keras takes them: the inverse, to the bit.

    For each layer and direction kernel, recurrent_kernel and bias; for a layer without biases leave
    out every third. The arrays stay what they are: give `set_weights` copies in NumPy, as Keras'
    JAX backend frees the arrays that it was given when it trains.

    Args:
      params: one LSTMParams for each layer and direction, in the order of the carry.

    Raises:
      ValueError: it is no sequence of LSTMParams, or shapes do not fit.
    """
    check_stack(params)
    return [array for cell in params for array in cell]
