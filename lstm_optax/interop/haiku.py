"""The parameters of Haiku's LSTM as this library's, and back; Haiku is not imported."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from lstm_optax.gates import gate_slice
from lstm_optax.interop.arrays import (
    check_names,
    check_shapes,
    get,
    named_arrays,
    size,
    sizes_of,
)
from lstm_optax.lstm.cell import LSTMParams


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
    params = from_stacked(found, ("w", "b"), 1)
    check_names(found, ("w", "b"), "an LSTM of Haiku")
    return params


def lstm_params_to_haiku(params: LSTMParams) -> dict[str, Array]:
    """Return parameters as a `haiku.LSTM` has them: `w` and `b`, what its `linear` holds.

    The inverse of `lstm_params_from_haiku`, to the bit but for the bias of the forget gate, to
    which 1 is added there and from which it is taken here.

    Args:
      params: of one layer in one direction.

    Raises:
      ValueError: it is no LSTMParams, or shapes do not fit.
    """
    w, b = to_stacked(params, 1)
    return {"w": w, "b": b}


def from_stacked(found: Mapping[str, Any], names: tuple[str, str], added: Any) -> LSTMParams:
    """Return parameters from a kernel with the inputs' rows over the hidden state's, and a bias.

    Gates have the order i, g, f, o, and `added` is what the library adds to the forget gate.
    """
    kernel, bias = names
    columns, rows = size(found, kernel, 1), size(found, kernel, 0)
    hidden = columns // 4
    if columns % 4 or rows <= hidden:
        raise ValueError(
            f"{kernel} has shape {(rows, columns)}; expected (features + hidden, 4 hidden)"
        )
    check_shapes(found, {bias: (columns,)})
    w, b = (_swap(jnp.asarray(get(found, name))) for name in names)
    b = b.at[gate_slice("forget", hidden)].add(added)
    return LSTMParams(w[: rows - hidden], w[rows - hidden :], b)


def to_stacked(params: LSTMParams, added: Any) -> tuple[Array, Array]:
    """Return the kernel and the bias that `from_stacked` takes."""
    _, hidden = sizes_of(params)
    bias = jnp.asarray(params.bias).at[gate_slice("forget", hidden)].add(-added)
    return _swap(jnp.concatenate(params[:2])), _swap(bias)


def _swap(x: Array) -> Array:
    """Swap the second and the third of the gates along the last axis."""
    i, second, third, o = jnp.split(x, 4, axis=-1)
    return jnp.concatenate([i, third, second, o], axis=-1)
