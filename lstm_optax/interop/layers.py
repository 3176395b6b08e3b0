"""LSTM layers from those of other libraries, and back.

Only parameters are converted, not dropout, gradient clips or the backend.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from flax import nnx
from jaxtyping import Array

from lstm_optax.interop.flax import lstm_params_from_flax, make_flax_cell
from lstm_optax.interop.flax_stack import flax_stack
from lstm_optax.interop.keras import lstm_params_from_keras, lstm_params_to_keras
from lstm_optax.interop.torch import (
    lstm_params_from_torch,
    lstm_params_to_torch,
    torch_is_bidirectional,
)
from lstm_optax.lstm import LSTM


def lstm_from_flax(cells: Any, *, bidirectional: bool = False, **options: Any) -> LSTM:
    """Return a stack with the parameters of Flax's cells; works under `jit` and `grad`.

    By default, `dtype` is taken from the cells and `time_major` from the `RNN` or `Bidirectional`
    around them, so that the layer takes the same inputs.

    Args:
      cells: an LSTM cell as in `lstm_params_from_flax`, an `nnx.RNN` of one, or an
        `nnx.Bidirectional` of two of these; for a stack, a list of them, first layer first.
      bidirectional: whether a list alternates between forward and backward directions; ignored
        for `nnx.Bidirectional`.
      options: `dropout`, `weight_dropout`, `rngs`, `dtype`, `backend`, …, of the layer.

    Raises:
      ValueError: as `lstm_params_from_flax` and `LSTM.from_params`; a forward `RNN` with
        reverse=True, or a backward one without reverse=True and keep_order=True; a `merge_fn`
        other than concatenation; layers that differ in `time_major` or `dtype`; a cell that
        occurs twice.
    """
    cells, theirs = flax_stack(cells, bidirectional)
    return LSTM.from_params([lstm_params_from_flax(cell) for cell in cells], **theirs | options)


def lstm_to_flax(lstm: LSTM) -> tuple[nnx.OptimizedLSTMCell, ...]:
    """Return a Flax cell for each layer and direction, in the order of the carry."""
    return tuple(make_flax_cell(params, lstm.dtype) for params in lstm.params())


def lstm_from_torch(weights: Mapping[str, Any], *, prefix: str = "", **options: Any) -> LSTM:
    """Return a stack with the weights of a `torch.nn.LSTM`; works under `jit` and `grad`.

    Layers, directions and sizes follow from the weights; the two biases are added.

    Args:
      weights, prefix: as in `lstm_params_from_torch`.
      options: `dropout`, `weight_dropout`, `rngs`, `dtype`, `backend`, …, of the layer.

    Raises:
      ValueError: as `lstm_params_from_torch`.
    """
    params = lstm_params_from_torch(weights, prefix=prefix)
    bidirectional = torch_is_bidirectional(weights, prefix=prefix)
    return LSTM.from_params(params, bidirectional=bidirectional, **options)


def lstm_to_torch(lstm: LSTM, *, prefix: str = "") -> dict[str, Array]:
    """Return the weights with the names of a `torch.nn.LSTM`, see `lstm_params_to_torch`."""
    bidirectional = len(lstm.directions) == 2
    return lstm_params_to_torch(lstm.params(), bidirectional=bidirectional, prefix=prefix)


def lstm_from_keras(weights: Sequence[Any], *, bidirectional: bool = False, **options: Any) -> LSTM:
    """Return a stack with the weights of Keras' LSTM layers; works under `jit` and `grad`.

    Args:
      weights: as in `lstm_params_from_keras`, or the layers; the first layer first.
      bidirectional: whether the weights come from `keras.layers.Bidirectional`.
      options: `dropout`, `weight_dropout`, `rngs`, `dtype`, `backend`, …, of the layer.

    Raises:
      ValueError: as `lstm_params_from_keras` and `LSTM.from_params`.
    """
    params = lstm_params_from_keras(weights)
    return LSTM.from_params(params, bidirectional=bidirectional, **options)


def lstm_to_keras(lstm: LSTM) -> list[np.ndarray]:
    """Return NumPy copies of the weights for `set_weights`, see `lstm_params_to_keras`."""
    return [np.array(array) for array in lstm_params_to_keras(lstm.params())]
