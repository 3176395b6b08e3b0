"""Bytes and dtypes of a state, from shapes alone."""

from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lstm_optax.response.responses import DtypeResponse
from lstm_optax.response.specimens import Specimen

SIZE = 1024  # large enough that the counters of a state weigh nothing


def state_bytes(tx: optax.GradientTransformation, specimen: Specimen) -> float:
    """Bytes of state per parameter, for float32."""
    params = specimen.struct(SIZE, jnp.float32)
    state = jax.eval_shape(tx.init, params)
    total = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    return total / sum(leaf.size for leaf in jax.tree.leaves(params))


def dtype_responses(
    tx: optax.GradientTransformation, specimen: Specimen
) -> tuple[DtypeResponse, ...]:
    """The dtypes of update and state for each mix of parameter's and gradient's dtype."""
    names = ("float32", "bfloat16")
    return tuple(_dtypes(tx, specimen, *mix) for mix in product(names, names))


def _dtypes(
    tx: optax.GradientTransformation, specimen: Specimen, parameter: str, gradient: str
) -> DtypeResponse:
    params, grads = (specimen.struct(SIZE, dtype) for dtype in (parameter, gradient))
    try:
        before = jax.eval_shape(tx.init, params)
        update, after = jax.eval_shape(tx.update, grads, before, params)
    except Exception as error:  # a rule may refuse a mix in any way, which is worth a line
        return DtypeResponse(parameter, gradient, type(error).__name__, (), (), False)
    changes = _kinds(before) != _kinds(after)
    return DtypeResponse(
        parameter,
        gradient,
        str(specimen.leaf(update).dtype),
        _floats(before),
        _floats(after),
        changes,
    )


def _floats(state: Any) -> tuple[str, ...]:
    """The dtypes of the arrays of floats, leaving out scalars."""
    leaves = [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating) and x.ndim]
    return tuple(sorted({str(leaf.dtype) for leaf in leaves}))


def _kinds(state: Any) -> list[tuple[Any, Any]]:
    return [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(state)]
