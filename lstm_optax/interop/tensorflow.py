"""The LSTM cells of TensorFlow 1 as parameters, and back; TensorFlow is not imported."""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Array

from lstm_optax.interop.arrays import check_names
from lstm_optax.interop.haiku import from_stacked, to_stacked
from lstm_optax.lstm.cell import LSTMParams

_OLD = {"weights": "kernel", "biases": "bias"}  # names before TensorFlow 1.2


def lstm_params_from_tensorflow(
    variables: Mapping[str, Any], *, prefix: str = "", forget_bias: Any = 1.0
) -> LSTMParams:
    """Return the parameters of a `BasicLSTMCell`, `LSTMCell` or `LSTMBlockCell` of TensorFlow 1.

        kernel = [kernel_ih; kernel_hh], one over the other,  bias = bias + forget_bias at gate f

    TensorFlow's gates have the order i, j, f, o, where j is the cell gate, and the forget gate's
    bias is added as the cell computes. A pure function that may be compiled and differentiated.

    Args:
      variables: `kernel` [features + hidden, 4·hidden] and `bias` [4·hidden] by their names, such
        as "rnn/basic_lstm_cell/kernel". Slots of optimizers, "…/kernel/Adam", are left alone.
      prefix: of the cell's names, such as "rnn/basic_lstm_cell/"; other names are left alone.
      forget_bias: the argument of the cell, 1 by default; `CudnnCompatibleLSTMCell` has 0.

    Raises:
      ValueError: a name is missing or none of such a cell's, a shape does not fit, or the cell has
        peepholes (`w_f_diag`, …) or a projection, which this LSTM does not have.

    Reference: `tf.nn.rnn_cell.BasicLSTMCell`, TensorFlow 1.15.
    """
    found = {}
    for name, value in variables.items():
        own = name.removeprefix(prefix).removesuffix(":0")
        if name.startswith(prefix) and not own.startswith(("kernel/", "bias/")):
            found[_OLD.get(own, own)] = value
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
    """Return parameters as a cell of TensorFlow 1 has them: `kernel` and `bias`.

    The inverse of `lstm_params_from_tensorflow`, to the bit except for the forget gate's bias, to
    which `forget_bias` is added there and from which it is subtracted here.

    Args:
      params: of one layer in one direction.
      prefix: what to put before the names.
      forget_bias: the argument of the cell.

    Raises:
      ValueError: it is no LSTMParams, or shapes do not fit.
    """
    kernel, bias = to_stacked(params, forget_bias)
    return {f"{prefix}kernel": kernel, f"{prefix}bias": bias}
