"""Bytes and dtypes of an optimizer's state, from shapes alone."""

from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lstm_optax.response.measured_params import MeasuredParams
from lstm_optax.response.responses import DtypeResponse

SIZE = 1024  # large enough that the counters of a state do not matter


def state_bytes(tx: optax.GradientTransformation, measured: MeasuredParams) -> float:
    """Return the bytes of state per parameter, for float32 parameters."""
    params = measured.struct(SIZE, jnp.float32)
    state = jax.eval_shape(tx.init, params)
    total = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    return total / sum(leaf.size for leaf in jax.tree.leaves(params))


def dtype_responses(
    tx: optax.GradientTransformation, measured: MeasuredParams
) -> tuple[DtypeResponse, ...]:
    """Return the dtypes of update and state for each mix of parameter and gradient dtypes."""
    names = ("float32", "bfloat16")
    return tuple(_dtype_response(tx, measured, *mix) for mix in product(names, names))


def _dtype_response(
    tx: optax.GradientTransformation, measured: MeasuredParams, parameter: str, gradient: str
) -> DtypeResponse:
    params, grads = (measured.struct(SIZE, dtype) for dtype in (parameter, gradient))
    try:
        before = jax.eval_shape(tx.init, params)
        update, after = jax.eval_shape(tx.update, grads, before, params)
    except Exception as error:  # a rule may reject a mix; the table shows its error
        return DtypeResponse(parameter, gradient, type(error).__name__, (), (), False)
    changes = _shapes_and_dtypes(before) != _shapes_and_dtypes(after)
    return DtypeResponse(
        parameter,
        gradient,
        str(measured.leaf(update).dtype),
        _float_dtypes(before),
        _float_dtypes(after),
        changes,
    )


def _float_dtypes(state: Any) -> tuple[str, ...]:
    """Return the dtypes of the float arrays in the state, scalars excluded."""
    leaves = [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating) and x.ndim]
    return tuple(sorted({str(leaf.dtype) for leaf in leaves}))


def _shapes_and_dtypes(state: Any) -> list[tuple[Any, Any]]:
    return [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(state)]
