"""LSTM cells of TensorFlow 1 to parameters, and back; TensorFlow is not imported."""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Array

from lstm_optax.interop.arrays import check_names
from lstm_optax.interop.haiku import from_stacked, to_stacked
from lstm_optax.lstm.cell import LSTMParams

_OLD_NAMES = {"weights": "kernel", "biases": "bias"}  # before TensorFlow 1.2


def lstm_params_from_tensorflow(
    variables: Mapping[str, Any], *, prefix: str = "", forget_bias: Any = 1.0
) -> LSTMParams:
    """Return the parameters of a `BasicLSTMCell`, `LSTMCell` or `LSTMBlockCell` of TensorFlow 1.

        kernel = [kernel_ih; kernel_hh], stacked by rows,  bias = bias + forget_bias at gate f

    TensorFlow has the gate order i, j, f, o, with j the cell gate, and adds `forget_bias` at run
    time. A pure function; it works under `jit` and `grad`.

    Args:
      variables: `kernel` [features + hidden, 4·hidden] and `bias` [4·hidden] by name, such as
        "rnn/basic_lstm_cell/kernel". Optimizer slots, "…/kernel/Adam", are ignored.
      prefix: prefix of the cell's names, such as "rnn/basic_lstm_cell/"; other names are ignored.
      forget_bias: the argument of the cell, 1 by default; `CudnnCompatibleLSTMCell` has 0.

    Raises:
      ValueError: a missing or unknown name, a wrong shape, or a cell with peepholes (`w_f_diag`,
        …) or a projection, which this LSTM does not have.

    Reference: `tf.nn.rnn_cell.BasicLSTMCell`, TensorFlow 1.15.
    """
    found = {}
    for name, value in variables.items():
        own = name.removeprefix(prefix).removesuffix(":0")
        if name.startswith(prefix) and not own.startswith(("kernel/", "bias/")):
            found[_OLD_NAMES.get(own, own)] = value
    for name in found:
        for sign, option in (("_diag", "peepholes"), ("projection/", "a projection")):
            if sign in name:
                raise ValueError(f"{prefix}{name}: the cell has {option}; this LSTM does not")
    params = from_stacked(found, ("kernel", "bias"), forget_bias)
    check_names(found, ("kernel", "bias"), "an LSTM cell of TensorFlow 1")
    return params


def lstm_params_to_tensorflow(
    params: LSTMParams, *, prefix: str = "", forget_bias: Any = 1.0
) -> dict[str, Array]:
    """Return `kernel` and `bias` of a TensorFlow 1 cell.

    The inverse of `lstm_params_from_tensorflow`, exact except for the bias of the forget gate:
    `forget_bias` is added there and subtracted here.

    Args:
      params: parameters of one layer in one direction.
      prefix: prefix for the names.
      forget_bias: the argument of the cell.

    Raises:
      ValueError: `params` is not an LSTMParams, or its shapes do not match.
    """
    kernel, bias = to_stacked(params, forget_bias)
    return {f"{prefix}kernel": kernel, f"{prefix}bias": bias}
