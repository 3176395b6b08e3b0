"""Muon's direction of a matrix, from Optax, with the dtypes of this library."""

from typing import Any, cast

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from lstm_optax.checks import DECAY, SIZE
from lstm_optax.transforms.dtypes import cast_like, keep_dtype, moments_like
from lstm_optax.transforms.scalars import Scalar


def muon_direction(momentum: Scalar, rms: Scalar) -> optax.GradientTransformation:
    """Orthogonalise the momentum of a matrix by Optax's `scale_by_muon`, for a given size.

        gives rms · √max(rows, columns) · orthogonalised(momentum of g)

    An orthogonal matrix scaled so has entries of root mean square `rms`, whatever its shape, and
    whether it is transposed.

    Args:
      momentum: in [0, 1), with Nesterov's look-ahead.
      rms: ≥ 0.

    Raises:
      ValueError: a number out of range.

    Reference: Jordan et al., 2024, "Muon"; the scale of Liu et al., 2025, arXiv:2502.16982.
    """
    DECAY.check(momentum=momentum)
    SIZE.check(rms=rms)
    inner = optax.contrib.scale_by_muon(beta=momentum)

    def init(params):
        return inner.init(moments_like(params))

    def update(updates, state: Any, params=None):
        del params
        wide = cast_like(updates, moments_like(updates))
        still = jax.tree.map(_is_zero, wide, state.mu)
        # a norm of 0 has no derivative: what does not move is replaced, before and after
        u, after = inner.update(_where(still, 1, wide), state)
        u, mu = _where(still, 0, u), _where(still, 0, cast(Any, after).mu)
        new_state = state._replace(count=cast(Any, after).count, mu=mu)
        scaled = jax.tree.map(lambda u: rms * max(u.shape) ** 0.5 * u, u)
        return scaled, cast_like(new_state, state)  # a traced momentum may be wider

    return keep_dtype(optax.GradientTransformation(init, update))


def _is_zero(g: jax.Array, mu: jax.Array) -> jax.Array:
    return ~jnp.any(g) & ~jnp.any(mu)


def _where(conditions: Any, value: float, tree: Any) -> Any:
    return jax.tree.map(lambda c, x: jnp.where(c, jnp.asarray(value, x.dtype), x), conditions, tree)
