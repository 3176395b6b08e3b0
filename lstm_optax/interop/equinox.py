"""The cells of Equinox as parameters, and back; Equinox is not imported."""

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

        kernel_ih = weight_ihᵀ,  kernel_hh = weight_hhᵀ,  bias = bias, or 0 without

    A pure function that may be compiled and differentiated.

    Args:
      cell: the cell, or a tree with its names.

    Raises:
      ValueError: another cell: a name is missing or none of an LSTM's, or a shape does not fit.

    Reference: `equinox.nn.LSTMCell`, Equinox 0.13.
    """
    found = named_arrays(cell)
    hidden, features = size(found, "weight_hh", 1), size(found, "weight_ih", 1)
    _check(found, features, hidden, has_bias="bias" in found)
    ih, hh = jnp.asarray(found["weight_ih"]), jnp.asarray(found["weight_hh"])
    return LSTMParams(ih.T, hh.T, jnp.asarray(found.get("bias", jnp.zeros(4 * hidden, ih.dtype))))


def lstm_params_to_equinox(params: LSTMParams, cell: Cell) -> Cell:
    """Return a cell like the given one with these parameters; the inverse, to the bit.

    Args:
      params: of one layer in one direction.
      cell: an `equinox.nn.LSTMCell` with a bias, of which only names and shapes are read.

    Raises:
      ValueError: as `lstm_params_from_equinox`, a cell without a bias, or one of other sizes.
    """
    _check(named_arrays(cell), *sizes_of(params), has_bias=True)
    values = {"weight_ih": params.kernel_ih.T, "weight_hh": params.kernel_hh.T}
    return with_arrays(cell, values | {"bias": params.bias})


def _check(found: dict[str, Any], features: int, hidden: int, has_bias: bool) -> None:
    shapes = {"weight_ih": (4 * hidden, features), "weight_hh": (4 * hidden, hidden)}
    shapes |= {"bias": (4 * hidden,)} if has_bias else {}
    check_shapes(found, shapes)
    check_names(found, shapes, "an LSTMCell of Equinox")
