"""Whether trees of arrays are finite."""

from typing import Any

import jax
import jax.numpy as jnp

from lstm_optax.checks import concrete, format_value


def all_finite(tree: Any) -> jax.Array:
    """Return whether all entries of a tree are finite."""
    finite = [jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]
    return jnp.all(jnp.stack(finite)) if finite else jnp.bool_(True)


def remains_finite(new: Any, old: Any) -> jax.Array:
    """Return whether all entries that were finite still are; a state may start with an infinity."""

    def leaf(n: Any, o: Any) -> jax.Array | None:
        if not jnp.issubdtype(jnp.result_type(n), jnp.inexact):
            return None
        return jnp.all(jnp.isfinite(n) | ~jnp.isfinite(o))

    finite = jax.tree.leaves(jax.tree.map(leaf, new, old))
    return jnp.all(jnp.stack(finite)) if finite else jnp.bool_(True)


def zero_unless(finite: jax.Array, tree: Any) -> Any:
    """Return the tree if `finite`, else zeros in its shapes and dtypes."""
    return jax.tree.map(lambda x: jnp.where(finite, x, jnp.zeros_like(x)), tree)


def new_if(finite: jax.Array, new: Any, old: Any) -> Any:
    """Return the tree `new` if `finite`, else `old`."""
    return jax.tree.map(lambda n, o: jnp.where(finite, n, o), new, old)


def is_finite_loss(extra_args: dict[str, Any]) -> jax.Array:
    """Return whether the loss that `update` received as `value` is finite; True without one.

    Raises:
      ValueError: it is not a number.
    """
    value = extra_args.get("value")
    if value is None:
        return jnp.bool_(True)
    if concrete(value) is None:
        raise ValueError(f"value is {format_value(value)}, but must be the loss, a number")
    return jnp.isfinite(value)
