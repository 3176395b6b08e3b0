"""Rows of the carry that are not finite, found and set to zero."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

AXES_REMEDY = "give make_step(carry_axes=), like in_axes of jax.vmap"


def zero_bad_rows(carry: Any, axes: Any = 0) -> tuple[Any, jax.Array]:
    """Return the carry with zeros in all rows that have a non-finite entry, and their number.

    A row is what one sequence of the batch carries: all leaves at one index of their axes. A leaf
    without rows, such as a scalar, is set to zero alone, and counts as one row.

    Args:
      carry: any tree of arrays; leaves without numbers, such as random keys, do not change.
      axes: the axis of the rows, as `carry_axes` of `BatchSharding`.

    Raises:
      ValueError: a leaf has no such axis, or the leaves have different numbers of rows.
    """
    axes = jax.tree.broadcast(axes, carry, is_leaf=lambda axis: axis is None)
    # bool [rows], or [] for a leaf without rows
    bad = jax.tree_util.tree_map_with_path(_bad_rows, carry, axes)
    by_row = [flags for flags in jax.tree.leaves(bad) if flags.ndim]
    if len(counts := {flags.size for flags in by_row}) > 1:
        raise ValueError(
            f"the leaves of the carry have {' and '.join(map(str, sorted(counts)))} rows, but must "
            f"have the same number: {AXES_REMEDY}"
        )
    rows = jnp.any(jnp.stack(by_row), 0) if by_row else jnp.zeros(0, jnp.bool_)  # bool [rows]

    def zero(leaf: Any, flags: jax.Array, axis: int | None) -> Any:
        if not jnp.issubdtype(leaf.dtype, jnp.number):
            return leaf
        if flags.ndim:
            flags = jnp.expand_dims(rows, [i for i in range(leaf.ndim) if i != axis])
        return jnp.where(flags, jnp.zeros_like(leaf), leaf)

    alone = [jnp.int32(flags) for flags in jax.tree.leaves(bad) if not flags.ndim]
    count = sum(alone, start=jnp.sum(rows, dtype=jnp.int32))
    return jax.tree.map(zero, carry, bad, axes), count


def _bad_rows(path: Any, leaf: Any, axis: int | None) -> jax.Array:
    """Return which rows of a leaf have a non-finite entry; bool [] if it has no rows."""
    if jnp.ndim(leaf) == 0:
        axis = None
    if axis is not None and not 0 <= axis < jnp.ndim(leaf):
        raise ValueError(
            f"the carry{jax.tree_util.keystr(path)} has shape {np.shape(leaf)}, and no axis {axis} "
            f"for its rows: {AXES_REMEDY}"
        )
    others = tuple(i for i in range(jnp.ndim(leaf)) if i != axis)
    if not jnp.issubdtype(leaf.dtype, jnp.inexact):
        return jnp.zeros(() if axis is None else leaf.shape[axis], jnp.bool_)
    return ~jnp.all(jnp.isfinite(leaf), axis=others)
