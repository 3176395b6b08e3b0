"""The dtypes of a rule: moments at least float32, updates as they came."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lstm_optax.checks import check_transformations
from lstm_optax.transforms.scalars import Scalar


def moments_like(params: optax.Params, initial: Scalar = 0.0) -> optax.Params:
    """Return moments of the parameters' shapes, in promote_types(parameter, float32)."""

    def moment(p: Any) -> jax.Array:
        dtype = p.dtype if hasattr(p, "dtype") else jnp.result_type(p)
        return jnp.full_like(p, initial, dtype=jnp.promote_types(dtype, jnp.float32))

    return jax.tree.map(moment, params)


def accumulate(
    fn: Callable[..., jax.Array], updates: optax.Updates, moments: Any, *others: Any
) -> Any:
    """Return fn(g, m, *others) leaf by leaf, computed and kept in the dtype of the moment m."""

    def leaf(g: Any, m: jax.Array, *rest: jax.Array) -> jax.Array:
        return fn(jnp.asarray(g, m.dtype), m, *rest).astype(m.dtype)

    return jax.tree.map(leaf, updates, moments, *others)


def cast_like(tree: Any, like: Any) -> Any:
    """Return `tree` with each leaf in the dtype of the leaf of `like` at its place."""
    return jax.tree.map(lambda x, y: jnp.asarray(x, jnp.result_type(y)), tree, like)


def keep_dtype(inner: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Give what `inner` gives, in the dtype of the incoming updates.

    Optax's links promote: a traced float32 learning rate makes a bfloat16 update float32, and so
    does decay of float32 weights. Wrapped, they leave the dtypes of a chain as they were.

    Raises:
      ValueError: `inner` is no transformation.
    """
    check_transformations(inner=inner)
    inner = optax.with_extra_args_support(inner)

    def update(updates, state, params=None, **extra_args):
        new_updates, state = inner.update(updates, state, params, **extra_args)
        return cast_like(new_updates, updates), state

    return optax.GradientTransformationExtraArgs(inner.init, update)
