"""The parameters of Haiku's LSTM as this library's, and back; Haiku is not imported."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from lstm_optax.gates import gate_slice
from lstm_optax.lstm.cell import LSTMParams
from lstm_optax.lstm.convert.arrays import (
    check_names,
    check_shapes,
    get,
    named_arrays,
    size,
    sizes_of,
)


def lstm_params_from_haiku(linear: Mapping[str, Any]) -> LSTMParams:
    """Return the parameters of a `haiku.LSTM`.

        w = [kernel_ih; kernel_hh], one over the other,  bias = b + 1 at the forget gate

    Haiku's gates lie in the order i, g, f, o, and it adds 1 to the forget gate as it computes. A
    pure function that may be compiled and differentiated.

    Args:
      linear: `w` [features + hidden, 4·hidden] and `b` [4·hidden], such as `params["lstm/linear"]`.

    Raises:
      ValueError: a name is missing or none of an LSTM's, or a shape does not fit.

    Reference: `haiku.LSTM`, Haiku 0.0.17.
    """
    found = named_arrays(dict(linear))
    columns, rows = size(found, "w", 1), size(found, "w", 0)
    hidden = columns // 4
    if columns % 4 or rows <= hidden:
        raise ValueError(f"w has shape {(rows, columns)}; expected (features + hidden, 4 hidden)")
    check_shapes(found, {"b": (columns,)})
    check_names(found, ("w", "b"), "an LSTM of Haiku")
    w, bias = _swap(jnp.asarray(get(found, "w"))), _swap(jnp.asarray(get(found, "b")))
    bias = bias.at[gate_slice("forget", hidden)].add(1)
    return LSTMParams(w[: rows - hidden], w[rows - hidden :], bias)


def lstm_params_to_haiku(params: LSTMParams) -> dict[str, Array]:
    """Return parameters as a `haiku.LSTM` has them: `w` and `b`, what its `linear` holds.

    The inverse of `lstm_params_from_haiku`, to the bit but for the bias of the forget gate, to
    which 1 is added there and from which it is taken here.

    Args:
      params: of one layer in one direction.

    Raises:
      ValueError: it is no LSTMParams, or shapes do not fit.
    """
    _, hidden = sizes_of(params)
    bias = jnp.asarray(params.bias).at[gate_slice("forget", hidden)].add(-1)
    return {"w": _swap(jnp.concatenate(params[:2])), "b": _swap(bias)}


def _swap(x: Array) -> Array:
    """Swap the second and the third of the gates along the last axis."""
    i, second, third, o = jnp.split(x, 4, axis=-1)
    return jnp.concatenate([i, third, second, o], axis=-1)
