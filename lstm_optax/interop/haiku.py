"""Parameters of Haiku's LSTM to this library's, and back; Haiku is not imported."""

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

        w = [kernel_ih; kernel_hh], stacked by rows,  bias = b + 1 at the forget gate

    Haiku has the gate order i, g, f, o, and adds 1 to the forget gate at run time. A pure function;
    it works under `jit` and `grad`.

    Args:
      linear: `w` [features + hidden, 4·hidden] and `b` [4·hidden], such as `params["lstm/linear"]`.

    Raises:
      ValueError: a missing or unknown name, or a wrong shape.

    Reference: `haiku.LSTM`, Haiku 0.0.17.
    """
    found = named_arrays(dict(linear))
    params = from_stacked(found, ("w", "b"), 1)
    check_names(found, ("w", "b"), "an LSTM of Haiku")
    return params


def lstm_params_to_haiku(params: LSTMParams) -> dict[str, Array]:
    """Return the parameters `w` and `b` of the `linear` module of a `haiku.LSTM`.

    The inverse of `lstm_params_from_haiku`, exact except for the bias of the forget gate: 1 is
    added there and subtracted here.

    Args:
      params: parameters of one layer in one direction.

    Raises:
      ValueError: `params` is not an LSTMParams, or its shapes do not match.
    """
    w, b = to_stacked(params, 1)
    return {"w": w, "b": b}


def from_stacked(found: Mapping[str, Any], names: tuple[str, str], added: Any) -> LSTMParams:
    """Return parameters from a kernel [features + hidden, 4·hidden] and a bias.

    The gate order is i, g, f, o. The library adds `added` to the forget gate at run time.
    """
    kernel, bias = names
    columns, rows = size(found, kernel, 1), size(found, kernel, 0)
    hidden = columns // 4
    if columns % 4 or rows <= hidden:
        raise ValueError(
            f"{kernel} has shape {(rows, columns)}; expected (features + hidden, 4 hidden)"
        )
    check_shapes(found, {bias: (columns,)})
    w, b = (_swap_middle_gates(jnp.asarray(get(found, name))) for name in names)
    b = b.at[gate_slice("forget", hidden)].add(added)
    return LSTMParams(w[: rows - hidden], w[rows - hidden :], b)


def to_stacked(params: LSTMParams, added: Any) -> tuple[Array, Array]:
    """Return kernel and bias, the inverse of `from_stacked`."""
    _, hidden = sizes_of(params)
    bias = jnp.asarray(params.bias).at[gate_slice("forget", hidden)].add(-added)
    return _swap_middle_gates(jnp.concatenate(params[:2])), _swap_middle_gates(bias)


def _swap_middle_gates(x: Array) -> Array:
    """Swap the second and the third gate along the last axis."""
    i, second, third, o = jnp.split(x, 4, axis=-1)
    return jnp.concatenate([i, third, second, o], axis=-1)
