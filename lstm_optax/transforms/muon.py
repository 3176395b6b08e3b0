"""Optax's Muon direction for a matrix, with a given update size and the dtype rules here."""

from typing import Any, cast

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from lstm_optax.checks import DECAY, SIZE
from lstm_optax.transforms.dtypes import cast_like, keep_dtype, moments_like
from lstm_optax.transforms.scalars import Scalar


def muon_direction(momentum: Scalar, rms: Scalar) -> optax.GradientTransformation:
    """Orthogonalise the momentum of a matrix with Optax's `scale_by_muon`, and scale it.

        returns rms · √max(rows, columns) · orthogonalised(momentum of g)

    With this scale, an orthogonal matrix has entries with root mean square `rms`, for any shape and
    its transpose. Optax orthogonalises only approximately, so the result is close to `rms`.

    Args:
      momentum: in [0, 1), with Nesterov's look-ahead.
      rms: ≥ 0, the approximate root mean square of the entries.

    Raises:
      ValueError: a number is out of range.

    Reference: Jordan et al., 2024, "Muon"; scale from Liu et al., 2025, arXiv:2502.16982.
    """
    DECAY.check(momentum=momentum)
    SIZE.check(rms=rms)
    inner = optax.contrib.scale_by_muon(beta=momentum)

    def init(params):
        return inner.init(moments_like(params))

    def update(updates, state: Any, params=None):
        del params
        wide = cast_like(updates, moments_like(updates))
        # A norm of 0 has no derivative: replace a zero matrix by ones, and its result by zeros.
        is_zero = jax.tree.map(_is_zero, wide, state.mu)
        u, new_state = inner.update(_where(is_zero, 1, wide), state)
        u, mu = _where(is_zero, 0, u), _where(is_zero, 0, cast(Any, new_state).mu)
        new_state = state._replace(count=cast(Any, new_state).count, mu=mu)
        scaled = jax.tree.map(lambda u: rms * max(u.shape) ** 0.5 * u, u)
        return scaled, cast_like(new_state, state)  # a traced momentum may widen the dtype

    return keep_dtype(optax.GradientTransformation(init, update))


def _is_zero(g: jax.Array, mu: jax.Array) -> jax.Array:
    """Return whether both the gradient and the momentum are zero; bool []."""
    return ~jnp.any(g) & ~jnp.any(mu)


def _where(conditions: Any, value: float, tree: Any) -> Any:
    return jax.tree.map(lambda c, x: jnp.where(c, jnp.asarray(value, x.dtype), x), conditions, tree)
