"""LSTM cells of Equinox to parameters, and back; Equinox is not imported."""

from typing import Any, TypeVar

import jax.numpy as jnp

from lstm_optax.interop.arrays import (
    check_names,
    check_shapes,
    named_arrays,
    size,
    sizes_of,
    with_arrays,
)
from lstm_optax.lstm.cell import LSTMParams

Cell = TypeVar("Cell")


def lstm_params_from_equinox(cell: Any) -> LSTMParams:
    """Return the parameters of an `equinox.nn.LSTMCell`.

        kernel_ih = weight_ihᵀ,  kernel_hh = weight_hhᵀ,  bias = bias, or 0 if absent

    A pure function; it works under `jit` and `grad`.

    Args:
      cell: the cell, or a tree with the same names.

    Raises:
      ValueError: not such a cell: a missing or unknown name, or a wrong shape.

    Reference: `equinox.nn.LSTMCell`, Equinox 0.13.
    """
    found = named_arrays(cell)
    hidden, features = size(found, "weight_hh", 1), size(found, "weight_ih", 1)
    _check_equinox_cell(found, features, hidden, has_bias="bias" in found)
    ih, hh = jnp.asarray(found["weight_ih"]), jnp.asarray(found["weight_hh"])
    return LSTMParams(ih.T, hh.T, jnp.asarray(found.get("bias", jnp.zeros(4 * hidden, ih.dtype))))


def lstm_params_to_equinox(params: LSTMParams, cell: Cell) -> Cell:
    """Return a copy of the cell with these parameters.

    The exact inverse of `lstm_params_from_equinox`.

    Args:
      params: parameters of one layer in one direction.
      cell: an `equinox.nn.LSTMCell` with a bias; only its names and shapes are read.

    Raises:
      ValueError: as `lstm_params_from_equinox`, a cell without a bias, or a cell of other sizes.
    """
    _check_equinox_cell(named_arrays(cell), *sizes_of(params), has_bias=True)
    values = {"weight_ih": params.kernel_ih.T, "weight_hh": params.kernel_hh.T}
    return with_arrays(cell, values | {"bias": params.bias})


def _check_equinox_cell(found: dict[str, Any], features: int, hidden: int, has_bias: bool) -> None:
    shapes = {"weight_ih": (4 * hidden, features), "weight_hh": (4 * hidden, hidden)}
    shapes |= {"bias": (4 * hidden,)} if has_bias else {}
    check_shapes(found, shapes)
    check_names(found, shapes, "an LSTMCell of Equinox")
