"""Whether trees of arrays are finite, and what to do if they are not."""

from collections.abc import Callable
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


def choose(
    condition: jax.Array, if_true: Callable[..., Any], if_false: Callable[..., Any], *operands: Any
) -> Any:
    """Return `if_true(*operands)` if the condition holds, else `if_false(*operands)`.

    A CPU computes only one of the two, and can write its result over the operands. On a GPU a
    condition stops the launch of all later kernels until the host has read its value. There both
    are computed, and the choice is fused with what computes them.
    """
    if jax.default_backend() == "cpu":
        return jax.lax.cond(condition, if_true, if_false, *operands)
    return new_if(condition, if_true(*operands), if_false(*operands))


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
